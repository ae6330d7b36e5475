"""Rows of data as a person reads them: the prompt, each answer, what every verifier said, and where a row was set aside."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from outcross.cli.progress import MARKS
from outcross.cli.shell import say
from outcross.types import Array, Content, Prompt, Sample, Score, Task

if TYPE_CHECKING:
    from outcross.engine.preview import Row

MARGIN = 10  # columns of labels at the left
WIDEST = 160


def print_rows(rows: Sequence[tuple[Task, Sequence[Row]]], *, full: bool = False) -> None:
    """Every task with its rows, cut to the width of the terminal or in `full`."""
    width = min(WIDEST, shutil.get_terminal_size((120, 24)).columns) if sys.stdout.isatty() else 120
    for number, (task, found) in enumerate(rows, 1):
        title = f"── {number} of {len(rows)} · {_one_line(task.id)} "
        say(f"{title}{'─' * max(2, width - len(title))}"[:width])
        for line in _task_lines(task, found, width - MARGIN, full):
            say(line)
        say()


def _task_lines(task: Task, rows: Sequence[Row], width: int, full: bool) -> Iterator[str]:
    yield from _prompt_lines(task.prompt, width, full)
    if task.answer is not None:
        yield from _labelled("reference", task.answer, width, full)
    for row in rows:
        yield from _row_lines(task, row, width, full)


def _row_lines(task: Task, row: Row, width: int, full: bool) -> Iterator[str]:
    sample = row.sample
    if sample.error:
        yield from _labelled("! failed", sample.error, width, full)
        return
    if len(sample.turns) == 1 and sample.turns[0].prompt != task.prompt:
        yield from _prompt_lines(sample.turns[0].prompt, width, full)
    for number, turn in enumerate(sample.turns[:-1], 1):
        if number > 1 or turn.prompt != task.prompt:
            yield from _prompt_lines(turn.prompt, width, full)
        yield from _labelled(f"  turn {number}", _text(turn.completion.content), width, full)
    if len(sample.turns) > 1:
        yield from _prompt_lines(sample.turns[-1].prompt, width, full)
    mark = MARKS[sample.verdict]
    value = "" if sample.value is None else f" {sample.value:.3g}"
    yield from _labelled(f"{mark}{value}", _text(sample.content), width, full)
    for line in _judgements(sample, row):
        yield from _labelled("", line, width, full)


def _judgements(sample: Sample, row: Row) -> Iterator[str]:
    if sample.scores:
        yield " · ".join(map(_said, sample.scores))
    if not sample.turns[-1].completion.finished:
        yield "cut off at the token limit"
    if row.curator:
        yield f"dropped by {row.curator}: {row.reason}"


def _said(score: Score) -> str:
    value = "" if score.value is None else f" {score.value:.3g}"
    return f"{score.verifier} {score.verdict}{value}{f': {score.reason}' if score.reason else ''}"


def _prompt_lines(prompt: Prompt, width: int, full: bool) -> Iterator[str]:
    """A prompt; of a conversation each message under its speaker."""
    if isinstance(prompt, tuple):
        for message in prompt:
            yield from _labelled(message.role, message.content, width, full)
    else:
        yield from _labelled("prompt", _text(prompt), width, full)


def _text(content: Content) -> str:
    return f"<{content.dtype} array of shape {content.shape}>" if isinstance(content, Array) else content


def _labelled(label: str, text: str, width: int, full: bool) -> Iterator[str]:
    """A text beside its label: one line that fits, or all of its lines."""
    lines = [_printable(line) for line in text.splitlines()] if full else [_cut(_one_line(text), width)]
    for number, line in enumerate(lines or [""]):
        yield f"{_cut(label, MARGIN - 1) if number == 0 else '':<{MARGIN}}{line}".rstrip()


def _one_line(text: str) -> str:
    return _printable(" ".join(text.split()))


def _printable(line: str) -> str:
    """Without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\t" else "�" for letter in line)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"
