"""How far one set of rows may be behind another: bounds for the difference of two independent samples.

Each set has its own lower and upper bound at `alpha`; the two are joined by the method of variance estimates recovery (MOVER: Zou & Donner,
Statistics in Medicine 27, 2008; for shares it is Newcombe's hybrid score interval, Statistics in Medicine 17, 1998, 873–890). Sets that share
tasks vary together, which makes these bounds wider than they need be, never narrower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from outcross.errors import GuardError
from outcross.gate.evidence import SHARE
from outcross.gate.paired import lower_bound, replicate_bound
from outcross.types import Measurement


@dataclass(frozen=True)
class Estimate:
    """A value with its one-sided lower and upper bound at `alpha`, signed so that higher is better."""

    value: float
    low: float
    high: float
    items: int


@dataclass(frozen=True)
class Gap:
    """Candidate minus other. `low` and `high` are one-sided bounds, `error` is the standard error behind `low`, and `items` the size of the
    smaller set."""

    estimate: float
    low: float
    high: float
    error: float
    items: int


def estimate(found: Measurement, alpha: float) -> Estimate:
    """The value of a set and how far it may be off. Raises `GuardError` for a measurement that has no spread to judge by."""
    numbers = (*found.values, *(found.replicates or ()))
    if not all(map(math.isfinite, numbers)):
        raise GuardError(f"probe {found.probe!r} holds a value that is not a finite number; leave out items without one")
    sign = 1.0 if found.higher_is_better else -1.0
    values = [sign * value for value in found.values]
    if found.replicates is not None:
        spread = [sign * value for value in found.replicates]
        if len(values) != 1 or len(spread) < 2:
            raise GuardError(
                f"probe {found.probe!r} holds {len(values):,} values and {len(spread):,} replicates; give one value and two or more"
            )
        low = replicate_bound(values[0], spread, alpha)
        high = -replicate_bound(-values[0], [-value for value in spread], alpha)
        return Estimate(values[0], low, high, len(found.items))
    if len(values) != len(found.items) or len(values) < 2:
        raise GuardError(
            f"probe {found.probe!r} holds {len(values):,} values for {len(found.items):,} items; give one per item, two or more"
        )
    if found.unit == SHARE:
        ends = (0.0, 1.0) if found.higher_is_better else (-1.0, 0.0)
        if not all(ends[0] <= value <= ends[1] for value in values):
            raise GuardError(f"probe {found.probe!r} has the unit {SHARE!r} and values outside 0 to 1; give it another unit")
    else:
        ends = (min(values), max(values))
    mean = math.fsum(values) / len(values)
    low = ends[1] + lower_bound([value - ends[1] for value in values], alpha, ends[0] - ends[1])
    high = ends[0] - lower_bound([ends[0] - value for value in values], alpha, ends[0] - ends[1])
    return Estimate(mean, low, high, len(values))


def gap(candidate: Measurement, other: Measurement, alpha: float) -> Gap:
    """Hold one set of rows against another, by the same probe. Raises `GuardError` when it was not the same."""
    ways = [(found.probe, found.unit, found.higher_is_better, found.replicates is None) for found in (candidate, other)]
    if ways[0] != ways[1]:
        raise GuardError(
            f"probe {candidate.probe!r} measured the round as {ways[0]} and the rows it is compared with as {ways[1]} "
            "(name, unit, higher is better, per item); measure both with the same probe"
        )
    mine, theirs = estimate(candidate, alpha), estimate(other, alpha)
    difference = mine.value - theirs.value
    below = math.hypot(mine.value - mine.low, theirs.high - theirs.value)
    above = math.hypot(mine.high - mine.value, theirs.value - theirs.low)
    return Gap(difference, difference - below, difference + above, below / _quantile(alpha), min(mine.items, theirs.items))


def power(margin: float, error: float, alpha: float) -> float:
    """The chance that rows exactly as good as the others are shown to be less than `margin` behind. Normal approximation."""
    from scipy.special import ndtr

    if error <= 0:
        return 1.0
    return float(ndtr(margin / error - _quantile(alpha)))


def visible(error: float, alpha: float, power: float = 0.8) -> float:
    """The smallest margin that rows as good as the others are shown to keep with the chance `power`."""
    return (_quantile(alpha) + _quantile(1 - power)) * error


def _quantile(alpha: float) -> float:
    """The standard normal's upper `alpha` quantile."""
    from scipy.special import ndtri

    return -float(ndtri(alpha))
