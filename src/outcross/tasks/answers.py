"""Tasks read as data: their reference answers as examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from outcross.errors import DataError
from outcross.types import NLL, Example, Task, example_id


@dataclass(frozen=True)
class Answers:
    """Each task's reference answer as an example under the loss "nll", with the task's own origin.

    Made of held-out tasks, it is what a probe measures a fit to real data on; made of tasks that are set aside for it, real data
    to learn from. Iterating raises `DataError` for a task without a reference answer.
    """

    tasks: Iterable[Task]

    def __iter__(self) -> Iterator[Example]:
        for task in self.tasks:
            if task.answer is None:
                raise DataError(f"answers: task {task.id!r} has no reference answer; leave it out, or give other tasks")
            identifier = example_id(task.prompt, task.answer, NLL, task.origin)
            yield Example(identifier, task.prompt, task.answer, origin=task.origin, subgroup=task.subgroup)
