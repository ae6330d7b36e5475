"""Rows that prompts are made from: of a data file, of another task set, or whatever a task set offers as `seeds()`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from outcross.tasks.attribute import shown
from outcross.tasks.rows import content_digest, read
from outcross.text import prompt_text
from outcross.types import Origin, Task, content_hash

Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Seed:
    """One row: `values` for templates, `columns` for the record, and where it comes from. `place` names it in messages."""

    id: str
    place: str
    values: Mapping[str, Any]
    columns: Columns
    origin: Origin


@runtime_checkable
class OffersSeeds(Protocol):
    """A task set whose tasks have more named values than a task can hold."""

    def seeds(self) -> Iterator[Seed]: ...


def read_seeds(rows: Iterable[Task] | Path) -> Iterator[Seed]:
    """The rows one by one. Of a task, templates see prompt, answer, subgroup, id and its columns. Raises `DataError`."""
    if isinstance(rows, str | Path):
        return _of_file(Path(rows))
    return rows.seeds() if isinstance(rows, OffersSeeds) else map(_of_task, rows)


def _of_file(path: Path) -> Iterator[Seed]:
    origin = Origin("unknown", "none", f"{path.name}@blake2b:{content_digest(path)[:32]}")
    for number, row in read(path):
        yield Seed(content_hash("row", origin.source, number), f"row {number} of {path}", row, flat(row), origin)


def _of_task(task: Task) -> Seed:
    own = {"id": task.id, "prompt": prompt_text(task.prompt), "answer": task.answer, "subgroup": task.subgroup}
    return Seed(task.id, f"the row {task.id}", {**own, **dict(task.columns)}, task.columns, task.origin)


def flat(values: Mapping[str, Any]) -> Columns:
    """Named values as text; those of a row within as `name.column`, and those that are null not at all."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += ((f"{name}.{inner}", text) for inner, text in flat(value))
        elif value is not None:
            found.append((str(name), shown(value)))
    return tuple(found)
