"""Hostile programs against the real sandbox: contained, judged fail or error, the machine unharmed, the next check unaffected."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks.programs import ESCAPES, FORGERIES, SCRIPTS
from helpers import context, sample

from outcross.types import Group, Score, Task
from outcross.verify.code import Code
from outcross.verify.sandbox.choice import best

LEVEL, WHY = best()
pytestmark = pytest.mark.skipif(LEVEL != "namespaces", reason=f"needs a sandbox: {WHY}; apt-get install bubblewrap, and user namespaces")

MARKER = "987654321"  # seconds of a sleep that nothing else on the machine runs
HONEST = (("entry_point", "g"), ("test", "def check(candidate):\n    assert candidate(20) == 41"))
HIDDEN = "def check(candidate):\n    hidden_answer = 7919\n    passed = candidate(3) == hidden_answer\n    assert passed and abs(hidden_answer) == 7919"
LIMITED = Code(seconds=1, memory_mb=256)


def groups(attacks: dict[str, str], columns: tuple[tuple[str, str], ...]) -> Iterator[Group]:
    """Every attack, and after each an honest program."""
    for name, program in attacks.items():
        yield Group(Task(name, "", columns=columns), (sample(program),))
        yield Group(Task(f"after {name}", "", columns=HONEST), (sample("def g(x): return 2 * x + 1"),))


def verdicts(attacks: dict[str, str], columns: tuple[tuple[str, str], ...], folder: Path) -> dict[str, Score]:
    return {found.task.id: found.samples[0].scores[0] for found in LIMITED(context(folder), groups(attacks, columns))}


def running() -> set[str]:
    """Command lines of the machine's processes."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What attacks are after: a file, a home, a variable, a port and the checker's process, all real."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "file").write_text("precious")
    os.environ["OUTCROSS_TEST_SECRET"] = "precious"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        yield {
            "file": str(folder / "file"),
            "home": str(Path.home()),
            "source": str(Path(__file__)),
            "variable": "OUTCROSS_TEST_SECRET",
            "port": port,
            "pid": os.getpid(),
            "marker": MARKER,
            "listening": (tcp, udp),
        }
    del os.environ["OUTCROSS_TEST_SECRET"]


@pytest.fixture(scope="module")
def escaped(world: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    told = {name: value for name, value in world.items() if name != "listening"}
    test = f"def check(candidate):\n    assert candidate({told!r}) == 'owned'"
    return verdicts(ESCAPES, (("entry_point", "f"), ("test", test)), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    return verdicts(FORGERIES, (("entry_point", "f"), ("test", HIDDEN)), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Score]:
    return verdicts(SCRIPTS, (("cases", '[["1\\n", "42"], ["42\\n", "1"]]'),), tmp_path_factory.mktemp("run"))


def contained(found: dict[str, Score], name: str) -> None:
    score, after = found[name], found[f"after {name}"]
    assert score.verdict in ("fail", "error"), f"{name}: {score}"
    assert score.reason and (not score.evidence or score.evidence.startswith("namespaces"))
    assert after.verdict == "pass", f"the check after {name}: {after}"


@pytest.mark.parametrize("name", ESCAPES)
def test_what_reaches_out_is_contained(name: str, escaped: dict[str, Score]) -> None:
    contained(escaped, name)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_verdict_cannot_be_forged(name: str, forged: dict[str, Score]) -> None:
    contained(forged, name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_output_cannot_be_forged(name: str, scripted: dict[str, Score]) -> None:
    contained(scripted, name)


def test_the_machine_is_unharmed(world: dict[str, Any], escaped: dict[str, Score], forged: dict[str, Score]) -> None:
    assert Path(world["file"]).read_text() == "precious"
    assert sorted(item.name for item in Path(world["file"]).parent.iterdir()) == ["file"]
    for listening in world["listening"]:
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept() if listening.type == socket.SOCK_STREAM else listening.recv(1)
    assert not any(MARKER in line and "sleep" in line for line in running()), "a program was left behind"


def test_a_time_out_is_an_error_and_a_loop_a_failure(escaped: dict[str, Score]) -> None:
    assert (escaped["sleeps for ever"].verdict, escaped["sleeps for ever"].reason) == ("error", "timeout")
    busy = ("error", "timeout")  # on a machine too busy to give a program one second of CPU in six
    assert (escaped["infinite loop"].verdict, escaped["infinite loop"].reason) in (("fail", "out of CPU time"), busy)
    ignoring = escaped["infinite loop that ignores signals"]
    assert (ignoring.verdict, ignoring.reason) in (("fail", "out of CPU time"), busy)


def test_there_are_enough_of_them() -> None:
    assert len(ESCAPES) + len(FORGERIES) + len(SCRIPTS) >= 100
