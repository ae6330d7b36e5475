"""Programs against tests: HumanEval as it is and spoilt, tests and cases, what a task may get wrong, levels, streaming."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from helpers import context, sample

from outcross.errors import ConfigError
from outcross.types import Group, Score, Task
from outcross.verify.code import Code, program_in, request
from outcross.verify.sandbox.choice import best
from outcross.verify.sandbox.pool import Limits, Pool, Sandbox, SandboxError

LEVEL, WHY = best()
HUMANEVAL = Path(__file__).parents[3] / "shared" / "data" / "humaneval" / "HumanEval.jsonl.gz"
sandboxed = pytest.mark.skipif(LEVEL != "namespaces", reason=f"needs a sandbox: {WHY}; apt-get install bubblewrap, and user namespaces")


def judged(*answers: str, verifier: Code | None = None, **columns: str) -> list[Score]:
    task = Task("t", "", columns=tuple(columns.items()))
    made = tuple(sample(text, index) for index, text in enumerate(answers))
    (found,) = (verifier or Code(seconds=2))(context(Path()), [Group(task, made)])
    return [item.scores[0] for item in found.samples]


def said(*answers: str, **columns: str) -> list[tuple[str, str]]:
    return [(score.verdict, score.reason) for score in judged(*answers, **columns)]


# ── HumanEval ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def spoilt(solution: str) -> list[str]:
    """Simple mutations of a solution that no test suite should let through."""
    return ["    return None\n", "    raise NotImplementedError\n", "    return object()\n" + solution]


@sandboxed
@pytest.mark.skipif(not HUMANEVAL.exists(), reason="needs HumanEval at ../shared/data/humaneval")
def test_every_canonical_solution_of_humaneval_passes_and_every_spoilt_one_fails() -> None:
    def groups() -> Iterator[Group]:
        with gzip.open(HUMANEVAL, "rt") as lines:
            for row in map(json.loads, lines):
                columns = (("test", row["test"]), ("entry_point", row["entry_point"]), ("setup", row["prompt"]))
                texts = (row["canonical_solution"], *spoilt(row["canonical_solution"]))
                yield Group(Task(row["task_id"], row["prompt"], columns=columns), tuple(map(sample, texts, range(4))))

    found = list(Code()(context(Path()), groups()))
    assert len(found) == 164
    wrong = {g.task.id: [s.scores[0] for s in g.samples] for g in found if [s.verdict for s in g.samples] != ["pass", *["fail"] * 3]}
    assert not wrong
    assert all(item.scores[0].evidence.startswith("namespaces") for group in found for item in group.samples)


# ── tests and cases ────────────────────────────────────────────────────────────────────────────────────────────────────
@sandboxed
def test_plain_assertions_call_functions_by_name_and_see_arguments_change() -> None:
    test = "items = [3, 1]\nassert order(items) is None and items == [1, 3]\nassert pairs({1: 'a'}) == {('a', 1)}"
    program = "def order(x): x.sort()\ndef pairs(x): return {(v, k) for k, v in x.items()}\n"
    assert said(program, program.replace("x.sort()", "sorted(x)"), test=test) == [("pass", ""), ("fail", "a test failed")]


@sandboxed
def test_values_of_every_plain_type_cross_and_exceptions_keep_their_class() -> None:
    test = """
from collections import deque
from decimal import Decimal
from fractions import Fraction
for value in (None, True, -1, 2**80, -(2**53), 0.1, float("inf"), 1j, "ü\\x00", b"\\xff", [1, [2]], (1, (2,)), {1: {2}}, frozenset({1}),
              deque([1]), range(1, 9, 2), Decimal("0.10"), Fraction(1, 3), {"d": [], "o": 1}, [{"i": "x"}]):
    back = same(value)
    assert back == value and type(back) is type(value), value
assert list(lazy()) == [0, 1] and same(float("nan")) != 0
try: fails(3)
except KeyError as error: assert "3" in str(error)
else: assert False
"""
    program = "def same(x): return x\ndef lazy(): yield from range(2)\ndef fails(x): return {}[x]\n"
    assert said(program, test=test) == [("pass", "")]


@sandboxed
def test_objects_of_a_program_are_called_and_asked_but_never_trusted() -> None:
    program = "class Account:\n    def __init__(self): self.sum = 0\n    def add(self, n): self.sum += n; return self\n"
    test = "account = Account()\naccount.add(2).add(3)\nassert account.sum == 5"
    lies = "class Account:\n    sum = property(lambda self: Liar())\n    def add(self, n): return self\nclass Liar:\n    def __eq__(self, o): return 1\n"
    assert said(program, lies, test=test) == [("pass", ""), ("fail", "a test failed")]


@sandboxed
def test_names_of_the_language_are_the_tests_own() -> None:
    cheat = "def f(x): return x\ndef sorted(x): return [1, 2]\ndef abs(x): return 1\n"
    assert said(cheat, test="assert sorted(f([3, 1])) == [1, 2]") == [("fail", "a test failed")]


@sandboxed
def test_setup_code_of_the_task_is_not_the_programs() -> None:
    columns = {"setup": "def helper(x): return x == 4\ndef f(x):\n", "entry_point": "f", "test": "def check(c): assert helper(c(2))"}
    columns["setup"] = "def helper(x): return x == 4\ndef f(x):\n    'doubles'\n"
    cheat = "    return 1\ndef helper(x): return True\n"
    whole = "Here:\n```python\ndef f(x):\n    return 2 * x\n```\nDone."
    assert [verdict for verdict, _ in said("    return 2 * x", cheat, whole, **columns)] == ["pass", "fail", "pass"]


@sandboxed
def test_cases_compare_what_a_program_prints() -> None:
    cases = json.dumps([["1 2\n", "3\n"], ["5 5\n", "10"]])
    right, spaced = "a, b = map(int, input().split())\nprint(a + b)", "print(sum(map(int, input().split())), '\\n')"
    assert said(right, spaced, "print(3)", "input(", "raise ValueError", "print(3)\nexit(1)", cases=cases) == [
        ("pass", ""), ("pass", ""), ("fail", "wrong output"), *[("fail", "the program raised")] * 3,
    ]  # fmt: skip


@sandboxed
def test_verdicts_and_their_evidence_are_the_same_every_time() -> None:
    program = "import random\ndef f(x): return [hash('a'), random.random(), {'a', 'b', 'c'}]\n"
    test = "got = f(1)\nraise AssertionError(repr(got))"
    first, second = judged(program, program, test=test)
    assert first == second and first.verdict == "fail" and first.evidence.startswith("namespaces, seccomp; AssertionError: [")


# ── what is not a failure of the program ───────────────────────────────────────────────────────────────────────────────
@sandboxed
@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("assert (", "the tests do not compile"),
        ("assert f(1) == helper", "the tests could not run"),
        ("import no_such_package", "the tests could not run"),
        ("assert f(lambda: 1)", "the tests pass a value that cannot be sent to the program"),
        ("assert True", "the tests call nothing of the program"),
    ],
)
def test_broken_tests_are_errors(test: str, reason: str) -> None:
    assert said("def f(x): return 1", test=test) == [("error", reason)]


@sandboxed
def test_a_program_that_imports_what_is_not_there_is_told_apart() -> None:
    assert said("import numpy\ndef f(x): return 1", test="assert f(1)") == [("fail", "the program imports what the sandbox does not have")]


def test_tasks_that_cannot_be_asked() -> None:
    def asked(**columns: str) -> Any:
        return request(Task("t", "", columns=tuple(columns.items())), "x = 1")

    assert asked()[0] == "abstain"
    assert asked(cases="{")[0] == asked(cases='[["1"]]')[0] == asked(cases="[[1, 2]]")[0] == asked(cases="[]")[0] == "error"
    assert asked(cases='[["1", "2"]]', test="assert f()")[0] == "error"
    assert asked(setup="x = 1", test="assert f()")[:2] == ("error", "the task has setup code and names no entry_point")
    assert request(Task("t", "", columns=(("test", "f()"),)), "x" * 1_000_001)[0] == "fail"  # type: ignore[index]


def test_the_last_fenced_block_is_the_program() -> None:
    assert program_in("```\na\n```\ntext\n```python\nb\n  c\n```\nend") == "b\n  c\n"
    assert program_in("    return 1") == "    return 1\n" and program_in("```py\ncut off") == "cut off\n"


def unread() -> Iterator[Group]:
    pytest.fail("read")
    yield


# ── levels ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_level_that_cannot_be_given_is_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    best.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"gives isolation level 'process'.*'namespaces' is the least.*bwrap\) is not installed"):
            Code()(context(Path()), unread())
    finally:
        best.cache_clear()
    with pytest.raises(ConfigError, match="cannot be checked from here"):
        Code(command=("docker",))(context(Path()), ())
    with pytest.raises(ConfigError, match="there is no `command`"):
        Code(minimum_level="container by command")(context(Path()), ())


@pytest.mark.parametrize(("field", "value"), [("seconds", 0), ("memory_mb", 10), ("processes", 0), ("minimum_level", "vm")])
def test_limits_that_make_no_sense_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{field} is"):
        Code(**{field: value})


def test_a_command_is_a_level_of_its_own_and_evidence_says_so() -> None:
    verifier = Code(seconds=2, command=(sys.executable,), minimum_level="container by command")
    right, wrong = judged("def f(x): return 1", "def f(x): return 2", verifier=verifier, test="assert f(1) == 1")
    assert (right.verdict, wrong.verdict) == ("pass", "fail")
    assert right.evidence.startswith("container by command") and wrong.evidence.startswith("container by command")


# ── the pool ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@sandboxed
def test_groups_are_read_ahead_no_further_than_the_window_and_sandboxes_end_with_the_stream() -> None:
    read: list[int] = []

    def endless() -> Iterator[Group]:
        for index in count():
            read.append(index)
            yield Group(Task(str(index), "", columns=(("test", "assert f(1) == 1"),)), (sample("def f(x): return x"),))

    stream = Code()(context(Path()), endless())
    assert [group.task.id for group in islice(stream, 5)] == list("01234")
    assert len(read) <= 5 + 8 * len(os.sched_getaffinity(0)) + 1
    assert children() > 0
    stream.close()  # type: ignore[attr-defined]
    assert children() == 0


def children() -> int:
    return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()) + sum(
        len((task / "children").read_text().split()) for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())
    )


@sandboxed
def test_a_sandbox_that_dies_gives_an_error_and_is_replaced() -> None:
    pool = Pool("namespaces", Limits(1, 2.0, 2**28, 8))
    asked = {"program": "def f(x): return x", "test": "assert f(1)", "setup": "", "entry_point": "f"}
    try:
        assert pool.submit(asked).result()[0] == "pass"
        for sandbox in tuple(pool._open):
            sandbox.kill()
        found = [pool.submit(asked).result()[:2] for _ in range(2 * pool.size)]
    finally:
        pool.close()
    assert ("error", "the sandbox failed") in found and found[-1] == ("pass", "")


def test_a_sandbox_that_cannot_start_is_an_error_with_the_reason() -> None:
    with pytest.raises(SandboxError, match="ended"):
        Sandbox("container by command", Limits(1, 1.0, 2**28, 4), ("/bin/false",))
    pool = Pool("container by command", Limits(1, 1.0, 2**28, 4), ("/no/such/command",))
    assert pool.submit({}).result()[:2] == ("error", "no sandbox could be started")
    pool.close()


@sandboxed
def test_an_ordinary_user_gets_the_same_level() -> None:
    """Runs the check as another user when the tests run as root, with a Python that this user may read."""
    if os.geteuid() != 0 or not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("the tests run as an ordinary user already, or there is no system Python to run as one")
    code = "from outcross.verify.sandbox.pool import Limits, Sandbox; s = Sandbox('namespaces', Limits(1, 3.0, 2**28, 8)); print(s.granted); s.close()"
    paths = [str(Path(__file__).parents[2] / "src"), *[path for path in sys.path if path.endswith("site-packages")]]
    run = subprocess.run(
        ["/usr/bin/python3", "-c", code], user=65534, group=65534, extra_groups=[], env={"PYTHONPATH": ":".join(paths), "PATH": "/usr/bin"},
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    if "No module" in run.stderr or "Permission" in run.stderr:
        pytest.skip(f"the system Python cannot read the project: {run.stderr[-200:]}")
    assert "'fresh': True" in run.stdout, run.stderr
