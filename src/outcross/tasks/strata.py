"""Where in its range each drawn value lies, planned so that shares come out exactly and nothing has to be remembered.

Every value is drawn by inverting its distribution at a point between 0 and 1. Independent points come from a hash. Planned points are
a Latin hypercube (McKay, Beckman and Conover 1979): the range is cut into as many strata as there are tasks, and a pseudo-random
permutation of its own gives each attribute each stratum once. The tasks that share a value of one attribute are a stratum again, so
that an attribute that depends on it is planned within each of its values.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from outcross.tasks.arithmetic import shuffled
from outcross.text import digest


class Stratum(NamedTuple):
    """The `rank`-th (from 0) of `size` tasks that are planned together; `key` names them."""

    rank: int
    size: int
    key: str


class Point(NamedTuple):
    """A place in one attribute's range. `start` is shared by all points of a plan, `jitter` is this point's own; both in [0, 1)."""

    rank: int
    size: int
    start: float
    jitter: float
    key: str

    @property
    def spaced(self) -> float:
        """In [0, 1): points a stratum apart, so that a share of `w` gets `w * size` of them, rounded up or down (systematic sampling)."""
        return (self.rank + self.start) / self.size

    @property
    def scattered(self) -> float:
        """In [0, 1): anywhere within the point's stratum."""
        return (self.rank + self.jitter) / self.size

    def within(self, low: float, high: float, label: str) -> Stratum:
        """This point among those of its plan whose `spaced` is at least `low` and below `high`."""
        first, end = (math.ceil(self.size * edge - self.start) for edge in (low, high))
        size = max(end - first, 1)
        return Stratum(min(max(self.rank - first, 0), size - 1), size, f"{self.key}={label}")


def planned(stratum: Stratum, name: str, together: int = 1) -> Point:
    """The point of an attribute in a plan: a permutation of its strata of the attribute's own.

    `together`: so many ranks in succession, the first a multiple of it, are spread over that many equal parts of the range.
    """
    key = f"{stratum.key}\x1f{name}"
    seed, start = _of_plan(key)
    if stratum.size % together:
        together = 1
    row, place = divmod(stratum.rank, together)
    rows = stratum.size // together
    part = shuffled(place, together, digest(f"{key}\x1f{row}")) if together > 1 else 0
    rank = part * rows + (shuffled(row, rows, seed) if rows > 1 else 0)
    return Point(rank, stratum.size, start, unit(f"{key}\x1f{stratum.rank}"), key)


def nested(stratum: Stratum, name: str) -> Point:
    """The point of an attribute that divides a stratum further, in the order in which the stratum was made."""
    key = f"{stratum.key}\x1f{name}"
    return Point(stratum.rank, stratum.size, _of_plan(key)[1], unit(f"{key}\x1f{stratum.rank}"), key)


def independent(key: str, name: str) -> Point:
    """A point that depends on nothing but its name."""
    place = unit(f"{key}\x1f{name}")
    return Point(0, 1, place, place, f"{key}\x1f{name}")


def unit(text: str) -> float:
    """A number in [0, 1) with 53 random bits, the same for the same text everywhere."""
    return (digest(text) >> 11) * 2.0**-53


@lru_cache(maxsize=4096)
def _of_plan(key: str) -> tuple[int, float]:
    return digest(f"order\x1f{key}"), unit(f"start\x1f{key}")
