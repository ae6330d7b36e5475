"""Which rows a probe looks at: a fixed choice of tasks, one row each."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from outcross.stages import Rows
from outcross.text import digest, prompt_text
from outcross.types import Group, Sample


@dataclass(frozen=True)
class Chosen:
    """One row of a task: the one whose identifier has the smallest hash, so that it does not depend on the order."""

    task_id: str
    sample: Sample

    @property
    def answer(self) -> str:
        return self.sample.text

    @property
    def prompt(self) -> str:
        return prompt_text(self.sample.turns[-1].prompt)


def chosen(rows: Rows, most: int) -> list[Chosen]:
    """One row each of at most `most` tasks, those whose identifiers have the smallest hashes, in the order of these hashes. Tasks, not rows,
    are independent of each other: several answers to one question are alike by right. Memory: `most` rows."""
    found: list[tuple[int, str, Group]] = []
    for group in rows:
        entry = (-digest(group.task.id), group.task.id, group)
        if len(found) < most:
            heapq.heappush(found, entry)
        elif entry[:2] > found[0][:2]:
            heapq.heapreplace(found, entry)
    ordered = sorted(found, key=lambda entry: (-entry[0], entry[1]))
    return [Chosen(name, min(group.samples, key=lambda sample: digest(sample.id))) for _, name, group in ordered]


def per_task(rows: Rows, value: Callable[[Sample], float | None]) -> Iterator[tuple[str, float]]:
    """The mean value of each task's rows, without those that have none."""
    for group in rows:
        found = [number for sample in group.samples if (number := value(sample)) is not None]
        if found:
            yield group.task.id, sum(found) / len(found)
