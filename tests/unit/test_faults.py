"""The fault matrix: whatever a server does, every prompt ends as an answer or as a failure with its reason, and the count proves it.

Real sockets, the real executor, journal and `Draw`, inside the engine's own count of what goes in and comes out. Afterwards the server is
mended and the same journal is used again: what was answered is not asked again, and what failed is.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from stub_server import Behaviour, Stub

from outcross.engine.budget import Budget, Meter
from outcross.engine.conserve import Counter, generated
from outcross.engine.executor import Executor
from outcross.engine.journal import Journal
from outcross.generate.draw import Draw
from outcross.models.http import Endpoint, Http, Limits
from outcross.stages import Context
from outcross.types import Group, Task

COUNT, N = 40, 2


@dataclass(frozen=True)
class Fault:
    """`prompt`: what every fourth prompt begins with, so that the stub does it. `reason`: of its failures; empty: all are answered.
    `every`: all prompts fail. `texts`: what such a prompt is answered, if not by itself."""

    does: Behaviour = field(default_factory=Behaviour)
    prompt: str = ""
    reason: str = ""
    every: bool = False
    texts: tuple[str, ...] = ()


MATRIX: dict[str, Callable[[], Fault]] = {
    "20 % errors": lambda: Fault(Behaviour(errors=0.2, retry_after="0.01")),
    "hangs": lambda: Fault(prompt="[hang]", reason=r"did not answer within 0.4 s \(after 2 attempts\)"),
    "hangs once": lambda: Fault(Behaviour(once=True), prompt="[hang]"),
    "half a body": lambda: Fault(prompt="[half]", reason="payload"),
    "half a body once": lambda: Fault(Behaviour(once=True), prompt="[half]"),
    "no JSON": lambda: Fault(prompt="[garbage]", reason="not what the protocol says.*not json"),
    "no JSON once": lambda: Fault(Behaviour(once=True), prompt="[garbage]"),
    "no choices": lambda: Fault(prompt="[no_choices]", reason="holds no choices"),
    "a connection cut": lambda: Fault(prompt="[drop]", reason="Disconnected|reset"),
    "a refusal": lambda: Fault(prompt="[refuse]", reason="400: this prompt is not allowed"),
    "no money left": lambda: Fault(prompt="[quota]", reason="no money left"),
    "n ignored": lambda: Fault(Behaviour(n=False)),
    "n ignored and seeds too": lambda: Fault(Behaviour(n=False, seed=False, errors=0.1)),
    "n refused": lambda: Fault(Behaviour(refuses="n", n=False)),
    "more than n": lambda: Fault(prompt="[more]", texts=("more 0", "more 1")),
    "one id and index for all": lambda: Fault(prompt="[twice]", texts=("twice 0", "twice 1")),
    "10 MB": lambda: Fault(prompt="[huge]", reason=r"longer than the [\d,]+ bytes"),
    "one of n refused": lambda: Fault(Behaviour(n=False, refused_texts=("[lame]",)), prompt="[lame]", reason="400: not this one"),
    "down for good": lambda: Fault(Behaviour(down=True), reason="500: down", every=True),
}


def tasks(fault: Fault) -> list[Task]:
    starts = [f"{fault.prompt} " if fault.prompt and index % 4 == 0 else "" for index in range(COUNT)]
    return [Task(f"t{index}", f"{start}what is {index}") for index, start in enumerate(starts)]


def made(url: str, given: list[Task], folder: Path, **limits: float) -> tuple[list[Group], Counter]:
    """One go through the engine; the counter closes only if what went in came out."""
    counter = Counter("generate", "draw")
    model = Http(
        [Endpoint(url, key_env=None)],
        "stub",
        limits=Limits(**({"in_flight": 12, "deadline_s": 0.4, "retries": 1, "patience_s": 0.8} | limits)),  # type: ignore[arg-type]
    )
    with closing(model), closing(Journal(folder / "j.db")) as journal:
        ctx = Context({"policy": model}, None, "r/0", 0, 0, Executor(journal, Meter(Budget(), journal)))  # type: ignore[arg-type]
        groups = list(generated(Draw(n=N), ctx, given, counter))
    counter.close()
    return groups, counter


def check(groups: list[Group], given: list[Task], counter: Counter) -> None:
    assert [group.task for group in groups] == given
    for group in groups:
        answered = [sample for sample in group.samples if not sample.error]
        failed = [sample for sample in group.samples if sample.error]
        assert all(sample.turns and sample.text for sample in answered) and not any(sample.turns for sample in failed)
        assert (len(answered), len(failed)) == (N, 0) or (len(answered) < N and len(failed) == 1), "an answer, or one failure that says why"
    assert counter.into == sum(len(group.samples) for group in groups) == counter.kept + counter.failed


@pytest.mark.parametrize("name", MATRIX)
def test_every_prompt_ends_as_an_answer_or_a_failure_with_its_reason(name: str, tmp_path: Path) -> None:
    fault = MATRIX[name]()
    given = tasks(fault)
    retries = 20 if fault.does.errors else 1
    with Stub(fault.does) as stub:
        groups, counter = made(stub.url, given, tmp_path, retries=retries, patience_s=0.5 if fault.every else 20.0)
        check(groups, given, counter)
        hit = [group for group in groups if fault.every or (fault.prompt and str(group.task.prompt).startswith(fault.prompt))]
        reasons = [sample.error for group in hit for sample in group.samples if sample.error]
        assert len(reasons) == counter.failed == (len(hit) if fault.reason else 0)
        assert all(re.search(fault.reason, reason, re.DOTALL) for reason in reasons), reasons[:1]
        if fault.texts:
            assert all(tuple(sample.text for sample in group.samples) == fault.texts for group in hit)
        stub.reset()
        stub.does = Behaviour(mended=True)
        again, counter = made(stub.url, given, tmp_path)
        check(again, given, counter)
        assert counter.failed == 0
        assert set(stub.answered) == {str(group.task.prompt) for group in groups if any(sample.error for sample in group.samples)}
        assert all(new == old for new, old in zip(again, groups, strict=True) if not any(sample.error for sample in old.samples))


def test_a_certificate_nobody_trusts_fails_every_prompt_and_asks_nothing(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    given = tasks(Fault())
    with Stub(tls=context) as stub:
        groups, counter = made(stub.url, given, tmp_path)
        check(groups, given, counter)
        assert counter.failed == COUNT and not stub.asked
    assert all("certificate" in group.samples[0].error and "ca_file" in group.samples[0].error for group in groups)


@pytest.mark.parametrize("step", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_changes_nothing(step: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]

    def jumping() -> float:
        now[0] += step
        return now[0]

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumping() * 1e9))
    given = tasks(Fault(prompt="[limit_date]"))
    with Stub(Behaviour(once=True, errors=0.2, median_ms=2)) as stub:
        before = time.monotonic()
        groups, counter = made(stub.url, given, tmp_path, retries=20, patience_s=20.0)
        check(groups, given, counter)
        assert counter.failed == 0 and stub.statuses[429] >= COUNT // 4
        assert time.monotonic() - before < 30
