"""A run as it goes: live lines on a terminal, plain log lines elsewhere. Both show the same facts."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from outcross.engine.watch import Watch
from outcross.types import Decision, Group, Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

COUNTS = 48  # characters of counts on a live line
LOG_EVERY = 10.0  # seconds between two log lines of one stage
MARKS: Mapping[Verdict | None, str] = {"pass": "✓", "fail": "✗", "error": "!", "abstain": "–", None: "·"}
OUTCOMES = {
    "promoted": "green",
    "released": "green",
    "no rows": "yellow",
    "refused": "yellow",
    "nothing learnt": "yellow",
    "data only": "cyan",
}


@contextmanager
def watching(screen: Console, *, samples: int = 3, quiet: bool = False) -> Iterator[Watch]:
    """Whoever fits the terminal: `Live` lines, or `Log` lines where output is no terminal or NO_COLOR is set."""
    if screen.is_terminal and not os.environ.get("NO_COLOR") and not quiet:
        live = Live(screen, samples)
        with live.progress:
            yield live
    else:
        yield Log(0 if quiet else samples, quiet=quiet)


class Log:
    """One line per event, with the time, on standard error; a stage speaks every ten seconds and when it is done."""

    def __init__(self, samples: int = 3, *, quiet: bool = False) -> None:
        self._samples, self._quiet = samples, quiet
        self._spoke: dict[tuple[str, str], float] = {}
        self._began: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def stage(self, round: str, stage: str, done: int, total: int | None, counts: Mapping[str, float], /) -> None:
        key, now = (round, stage), time.monotonic()
        with self._lock:
            began = self._began.setdefault(key, now)
            over = done == total
            if self._quiet or (now - self._spoke.get(key, began) < LOG_EVERY and not over):
                return
            self._spoke[key] = now
        of = f"/{total:,}" if total else ""
        self._line(f"{round}  {stage}  {done:,}{of}{_pace(done, total, now - began)}  {_listed(counts)}".rstrip())

    def learnt(self, round: str, role: str, step: int, facts: Mapping[str, float], /) -> None: ...

    def note(self, text: str, /) -> None:
        self._line(text)

    def samples(self, round: str, groups: Sequence[Group], /) -> None:
        for line in sample_lines(groups, self._samples):
            self._line(f"{round}  {line}")

    def decided(self, round: str, outcome: str, decision: Decision | None, /) -> None:
        self._line(f"{round}  {outcome.upper()}{_reason(outcome, decision)}")

    def _line(self, text: str) -> None:
        typer.echo(f"{datetime.now():%H:%M:%S}  {text}", err=True)


class Live:
    """One live line per stage: done, rate, time left and counts; rounds, notes, samples and decisions scroll by above."""

    def __init__(self, screen: Console, samples: int = 3) -> None:
        self._samples = samples
        self._round = ""
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self.progress = _progress(screen)

    def stage(self, round: str, stage: str, done: int, total: int | None, counts: Mapping[str, float], /) -> None:
        with self._lock:
            if round != self._round:
                self._begin(round)
            key = "probe" if stage.startswith("probe ") else stage  # probes follow one another on one line
            if key not in self._tasks:
                self._tasks[key] = self.progress.add_task(stage, total=total, counts="", speed="")
            elapsed = self.progress.tasks[self.progress.task_ids.index(self._tasks[key])].elapsed or 0.0
            speed = f"{done / elapsed:,.0f}/s" if elapsed > 0.5 and done else ""
            shown = _short(_listed(counts), COUNTS)
            self.progress.update(self._tasks[key], description=stage, completed=done, total=total, counts=shown, speed=speed)

    def _begin(self, round: str) -> None:
        self._clear()
        self._round = round
        self._print(round, "bold")

    def _clear(self) -> None:
        for task in self._tasks.values():
            self.progress.remove_task(task)
        self._tasks.clear()

    def learnt(self, round: str, role: str, step: int, facts: Mapping[str, float], /) -> None: ...

    def note(self, text: str, /) -> None:
        self._print(text, "dim")

    def samples(self, round: str, groups: Sequence[Group], /) -> None:
        for line in sample_lines(groups, self._samples):
            self._print(f"  {line}", "dim")

    def decided(self, round: str, outcome: str, decision: Decision | None, /) -> None:
        with self._lock:
            self._clear()
        self._print(f"{round}  {outcome}{_reason(outcome, decision)}", OUTCOMES.get(outcome, ""))

    def _print(self, text: str, style: str) -> None:
        self.progress.console.print(text, style=style, markup=False, highlight=False)


def _progress(screen: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    def column(name: str) -> Any:
        return TextColumn(f"{{task.{name}}}", markup=False)

    return Progress(
        column("description"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        column("fields[speed]"),
        TimeRemainingColumn(compact=True),
        column("fields[counts]"),
        console=screen,
        transient=True,
    )


def sample_lines(groups: Sequence[Group], most: int) -> Iterator[str]:
    """A few tasks with their first answer each, one line per task: ✓ prompt → answer."""
    for group in groups[:most]:
        if group.samples:
            said = group.samples[0]
            answer = said.text if not said.error else f"no answer: {said.error}"
            yield f"{MARKS[said.verdict]} {_short(prompt_of(group), 70)} → {_short(answer, 70)}"


def prompt_of(group: Group) -> str:
    """A task's prompt as text."""
    from outcross.text import prompt_text

    return prompt_text(group.task.prompt)


def _reason(outcome: str, decision: Decision | None) -> str:
    return f": {decision.reason.removeprefix(f'{outcome}: ')}" if decision else ""


def _short(text: str, width: int) -> str:
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(text.split()))
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _listed(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {f'{amount:,}' if isinstance(amount, int) else f'{amount:.3g}'}" for name, amount in counts.items())


def _pace(done: int, total: int | None, seconds: float) -> str:
    if seconds < 1 or not done:
        return ""
    rate = done / seconds
    left = f", {(total - done) / rate:,.0f} s left" if total and total > done else ""
    return f"  ({rate:,.0f}/s{left})"
