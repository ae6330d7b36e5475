"""What a statistic shows when nothing has changed: its null distribution, and the spread of the difference of two measurements.

A statistic of two samples is seldom 0 for two samples of one population. Comparing real data with real data tells how much it is at a given
size, and so which margin can be told from noise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from outcross.errors import ConfigError
from outcross.types import Measurement

T = TypeVar("T")


@dataclass(frozen=True)
class Null:
    """The distribution of a statistic under no change, as drawn, in rising order."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def sd(self) -> float:
        return _sd(self.values)

    def quantile(self, share: float) -> float:
        """The value below which `share` of the draws lie, interpolated. Raises `ValueError` unless `share` is from 0 to 1."""
        if not 0 <= share <= 1:
            raise ValueError(f"the quantile of {share} was asked for; allowed is a share from 0 to 1")
        place = share * (len(self.values) - 1)
        low = math.floor(place)
        high = min(low + 1, len(self.values) - 1)
        return self.values[low] + (place - low) * (self.values[high] - self.values[low])


def null_distribution(
    statistic: Callable[[Sequence[T], Sequence[T]], float], real: Sequence[T], size: int, *, draws: int = 1000, seed: int = 0
) -> Null:
    """`statistic` of two samples of `size` rows, both drawn from `real` with replacement, `draws` times (the bootstrap: Efron & Tibshirani,
    "An Introduction to the Bootstrap", 1993, chapter 16). For the difference of one statistic f, give f(a) − f(b).

    Drawing with replacement repeats rows, and a measure of repetition takes that for collapse, in both samples alike: a difference of two
    samples may stand, a value of one may not. `real` should be several times `size`.
    Raises `ConfigError` for fewer than two rows, draws or a size below 1.
    """
    if len(real) < 2 or size < 1 or draws < 2:
        raise ConfigError(f"a null distribution needs 2 rows, a size of 1 and 2 draws at least, not {len(real)}, {size} and {draws}")
    rng = random.Random(seed)
    return Null(tuple(sorted(statistic(rng.choices(real, k=size), rng.choices(real, k=size)) for _ in range(draws))))


def null_spread(found: Measurement, other: Measurement | None = None) -> float:
    """The standard error of a measurement, or of its difference from `other`, paired: of two models that are alike the difference is about
    0, give or take this. From replicates, or from the values of the items that both have.

    Raises `ValueError` when there are fewer than two numbers to tell it from, or when replicates are not paired.
    """
    replicated = found.replicates is not None and (other is None or other.replicates is not None)
    if replicated:
        theirs = (0.0,) * len(found.replicates or ()) if other is None else other.replicates or ()
        if len(found.replicates or ()) != len(theirs) or (other is not None and found.items != other.items):
            raise ValueError(
                f"the replicates of probe {found.probe!r} are not paired; measure both on the same items with the same settings"
            )
        differences = [mine - yours for mine, yours in zip(found.replicates or (), theirs, strict=True)]
    elif other is None:
        differences = list(found.values)
    else:
        known = dict(zip(other.items, other.values, strict=False))
        differences = [value - known[item] for item, value in zip(found.items, found.values, strict=False) if item in known]
    if len(differences) < 2:
        raise ValueError(f"probe {found.probe!r} has {len(differences)} numbers to tell its spread from; at least 2 are needed")
    return _sd(differences) if replicated else _sd(differences) / math.sqrt(len(differences))


def _sd(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
