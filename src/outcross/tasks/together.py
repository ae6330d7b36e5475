"""Several task sets, or several sets of real rows, as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from outcross.types import Task


@dataclass(frozen=True)
class Together:
    """The sets of `parts` one after the other. Identifiers must differ between them, as they must within each."""

    parts: tuple[Iterable[Task], ...]

    def __iter__(self) -> Iterator[Task]:
        return chain.from_iterable(self.parts)
