"""Selectors: which tasks a round works on, and how many of a bench's tasks that is at most, for forecasts and progress."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from outcross.stages import Context
from outcross.types import Task


@dataclass(frozen=True)
class All:
    """Every task, every round."""

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Task]:
        return iter(tasks)

    def at_most(self, tasks: int, /) -> int:
        return tasks


@dataclass(frozen=True)
class Parts:
    """Round i works on the i-th of `n` disjoint parts of equal size; tasks keep their order (SPPO splits its prompts so,
    arXiv:2405.00675 §5.1). The round after the last part begins again with the first."""

    n: int

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Task]:
        return islice(tasks, ctx.index % self.n, None, self.n)

    def at_most(self, tasks: int, /) -> int:
        return -(-tasks // self.n)


@dataclass(frozen=True)
class Sample:
    """`n` tasks drawn without replacement, anew each round; all of them when there are fewer. Memory: `n` tasks."""

    n: int

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Task]:
        rng = ctx.rng("select")
        kept: list[tuple[int, Task]] = []
        for index, task in enumerate(tasks):
            if len(kept) < self.n:
                kept.append((index, task))
            else:
                slot = rng.randrange(index + 1)
                if slot < self.n:
                    kept[slot] = (index, task)
        return (task for _, task in sorted(kept, key=lambda pair: pair[0]))

    def at_most(self, tasks: int, /) -> int:
        return min(self.n, tasks)
