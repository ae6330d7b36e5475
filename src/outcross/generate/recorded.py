"""Completions that exist already, adopted as samples."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import msgspec

from outcross.stages import Context, Stage
from outcross.types import Completion, Example, Group, Origin, Sample, Task, Turn, content_hash, sample_id

log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(Example)
_encode = msgspec.json.Encoder()


@dataclass(frozen=True)
class Recorded(Stage):
    """Give each task the completions that `completions` holds for it: those that name its identifier among their parents, else
    those with its prompt, in their order. No model is asked and nothing is spent.

    A sample keeps the origin on record: kind, proof, source, depth and note. A task without a completion gets a failed sample
    that says so, and is counted; completions without a task are counted in the log. Every completion finds its task when the tasks are
    `prompts_of` the same completions.

    n: at most this many a task, the first ones; None: all.

    Memory: one task's completions; the rest waits in a temporary file.
    """

    completions: Iterable[Example]
    n: int | None = None

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        with closing(_Shelf(self.completions)) as shelf:
            for task in tasks:
                found = shelf.of(task)[: self.n]
                samples = tuple(_adopted(ctx, task, index, example) for index, example in enumerate(found))
                yield Group(task, samples or (_missing(ctx, task),))
            left = shelf.left()
            if left:
                log.warning("recorded: %d completions answer none of this round's tasks; `prompts_of` makes tasks of all", left)


def _adopted(ctx: Context, task: Task, index: int, example: Example) -> Sample:
    made = example.origin
    parents = tuple(dict.fromkeys((task.id, *made.parents)))
    origin = Origin(made.kind, made.proof, made.source, made.depth, ctx.round, parents, made.verifiers, made.note)
    turns = (Turn(task.prompt, Completion(example.completion)),)
    return Sample(sample_id(task.id, index, turns, origin), turns, origin)


def _missing(ctx: Context, task: Task) -> Sample:
    origin = Origin("synthetic", "none", "recorded", 1, ctx.round, (task.id,))
    reason = "no completion is on record for this task, by its identifier or its prompt"
    return Sample(sample_id(task.id, 0, (), origin), (), origin, error=reason)


class _Shelf:
    """Completions by what they answer, in a temporary file that SQLite makes and removes."""

    def __init__(self, completions: Iterable[Example]) -> None:
        self._db = sqlite3.connect("", check_same_thread=False)  # a stage may be closed by another thread than pulled it
        self._db.execute("CREATE TABLE completions (answered TEXT, number INTEGER, example BLOB)")
        rows = ((key, number, _encode.encode(example)) for number, example in enumerate(completions) for key in _answered(example))
        self._db.executemany("INSERT INTO completions VALUES (?, ?, ?)", rows)
        self._db.execute("CREATE INDEX by_answered ON completions (answered, number)")
        self._db.execute("CREATE TABLE taken (answered TEXT PRIMARY KEY) WITHOUT ROWID")

    def of(self, task: Task) -> list[Example]:
        """The completions of a task. One that names tasks is of these alone, even where another task has its prompt."""
        for key in (_of_id(task.id), content_hash("prompt", task.prompt)):
            rows = self._db.execute("SELECT example FROM completions WHERE answered = ? ORDER BY number", (key,)).fetchall()
            if rows:
                self._db.execute("INSERT OR IGNORE INTO taken VALUES (?)", (key,))
                return [_decode.decode(blob) for (blob,) in rows]
        return []

    def left(self) -> int:
        """How many completions no task has taken."""
        taken = "SELECT number FROM completions WHERE answered IN (SELECT answered FROM taken)"
        (count,) = self._db.execute(f"SELECT count(DISTINCT number) FROM completions WHERE number NOT IN ({taken})").fetchone()
        return int(count)

    def close(self) -> None:
        self._db.close()


def _answered(example: Example) -> tuple[str, ...]:
    return tuple(map(_of_id, example.origin.parents)) or (content_hash("prompt", example.prompt),)


def _of_id(task_id: str) -> str:
    return content_hash("task", task_id)
