"""What a person sees while a run goes: live lines on a terminal, dated log lines elsewhere, the same facts in both."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console

from outcross.cli import progress
from outcross.cli.progress import Live, Log, sample_lines, watching
from outcross.types import Completion, Decision, Group, Message, Origin, Sample, Score, Task, Turn


def group(prompt: str, answer: str, verdict: str = "pass") -> Group:
    turn = Turn(prompt, Completion(answer))
    score = Score("exact", "1", verdict)  # type: ignore[arg-type]
    return Group(Task("t", prompt), (Sample("s", (turn,), Origin(), scores=(score,)),))


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=140, color_system=None)


def test_a_log_line_has_time_round_stage_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    Log().stage("train/0000", "verify exact", 200, 200, {"pass": 150, "fail": 50})
    line = capsys.readouterr().err.strip()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  train/0000  verify exact  200/200  pass 150, fail 50", line)


def test_a_stage_logs_now_and_then_and_when_it_is_done(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 11.0, 12.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    log = Log()
    for done in (64, 128, 192, 256, 300):
        log.stage("train/0000", "generate draw", done, 300, {})
    lines = capsys.readouterr().err.splitlines()
    assert [re.search(r"draw  (\d+)/300", line)[1] for line in lines] == ["192", "300"]  # type: ignore[index]
    assert "(17/s, 6 s left)" in lines[0]


def test_nothing_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.note("headed so")
    log.samples("train/0000", [group("1+1=", "2")])
    log.decided("train/0000", "promoted", Decision(True, "nothing got worse", "non_inferior"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "✓ 1+1= → 2" in captured.err
    assert "PROMOTED: nothing got worse" in captured.err


def test_quiet_keeps_decisions_only(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(Console(file=io.StringIO()), quiet=True) as watch:
        watch.stage("train/0000", "draw", 1, 1, {})
        watch.samples("train/0000", [group("a", "b")])
        watch.decided("train/0000", "refused", None)
    assert capsys.readouterr().err.splitlines()[0].endswith("train/0000  REFUSED")


@pytest.mark.parametrize(("is_terminal", "no_color", "kind"), [(True, None, Live), (True, "1", Log), (False, None, Log)])
def test_the_watch_fits_where_output_goes(is_terminal: bool, no_color: str | None, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    with watching(Console(file=io.StringIO(), force_terminal=is_terminal)) as watch:
        assert type(watch) is kind


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_terminal_has_one_live_line_per_stage_until_the_round_is_decided() -> None:
    screen = terminal()
    live = Live(screen)
    live.stage("train/0000", "generate draw", 64, 200, {"none": 1})
    live.stage("train/0000", "generate draw", 128, 200, {"none": 2})
    live.stage("train/0000", "verify exact", 64, 200, {"pass": 60, "fail": 4})
    lines = [(task.description, task.completed, task.total, task.fields["counts"]) for task in live.progress.tasks]
    assert lines == [("generate draw", 128, 200, "none 2"), ("verify exact", 64, 200, "pass 60, fail 4")]
    live.samples("train/0000", [group("1+1=", "3", "fail")])
    live.decided("train/0000", "refused", Decision(False, "refused: pass rate fell", "non_inferior"))
    assert live.progress.tasks == []
    assert shown(screen).startswith("train/0000\n")
    assert "✗ 1+1= → 3" in shown(screen) and "train/0000  refused: pass rate fell" in shown(screen)


def test_probes_share_a_line_and_a_new_round_begins_with_none() -> None:
    screen = terminal()
    live = Live(screen)
    for number, name in enumerate(("pass_rate", "real_loss")):
        live.stage("start", f"probe {name}", number, 2, {})
    assert [(task.description, task.completed) for task in live.progress.tasks] == [("probe real_loss", 1)]
    live.stage("train/0000", "generate draw", 1, None, {"a reason that is very long indeed, told in full elsewhere": 7})
    assert [task.description for task in live.progress.tasks] == ["generate draw"]
    assert len(live.progress.tasks[0].fields["counts"]) <= progress.COUNTS
    assert shown(screen).split() == ["start", "train/0000"]


@pytest.mark.parametrize("make", [Log, lambda: Live(terminal())])
def test_a_watch_may_be_told_by_several_threads(make: type, capsys: pytest.CaptureFixture[str]) -> None:
    watch = make()
    errors: list[BaseException] = []

    def tell(number: int) -> None:
        try:
            for done in range(50):
                watch.stage("train/0000", f"stage {number % 3}", done, 50, {"pass": done})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_samples_are_one_line_each_and_safe_to_print() -> None:
    long = group("a\nb\x1b[31m" + "c" * 200, "x" * 200)
    failed = Group(Task("t", (Message("user", "hello"),)), (Sample("s", (), Origin(), error="timeout"),))
    lines = list(sample_lines([long, failed, group("q", "a"), group("r", "b")], 3))
    assert len(lines) == 3
    assert all(len(line) < 150 and "\n" not in line and "\x1b" not in line for line in lines)
    assert lines[1] == "· hello → no answer: timeout"
