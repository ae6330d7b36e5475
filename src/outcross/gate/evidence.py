"""What two measurements of one probe show about the difference between two models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from outcross.errors import GuardError
from outcross.gate.paired import lower_bound, replicate_bound
from outcross.types import Measurement

SHARE = "share"  # the unit of items that lie between 0 and 1
OVER_REAL = " over real"  # how a unit ends when 0 is as good as real data and more is no merit
SHARED = 0.95  # how much of all items both models must be measured on


@dataclass(frozen=True)
class Evidence:
    """A difference between candidate and other, signed so that higher is better.

    `low` is its one-sided lower bound at the alpha asked for, made of a part tested at `alpha`; `variance` is that of the
    difference on one item; `lost` counts items on which the candidate alone has no verdict.
    """

    estimate: float
    low: float
    alpha: float
    variance: float
    items: int
    share: bool
    lost: int = 0


def weigh(candidate: Measurement, other: Measurement, alpha: float) -> Evidence:
    """Hold a candidate's measurement against another model's.

    Raises `GuardError` when they are not measurements of one probe on one set of items.
    """
    _refuse_unlike(candidate, other)
    if candidate.replicates is None or other.replicates is None:
        return _per_item(candidate, other, alpha)
    if candidate.items != other.items or len(candidate.replicates) != len(other.replicates):
        raise GuardError(
            f"probe {candidate.probe!r}: replicates of {len(candidate.items):,} and {len(other.items):,} items, "
            f"{len(candidate.replicates):,} and {len(other.replicates):,} of them, are not paired; measure both models on the "
            "same items with the same settings"
        )
    return _replicated(candidate, other, alpha)


def _per_item(candidate: Measurement, other: Measurement, alpha: float) -> Evidence:
    """A paired test over items. An item that only the candidate has no verdict on may be one it lost, so it counts as
    lost; one that only the other has no verdict on is left out."""
    mine, theirs = _by_item(candidate), _by_item(other)
    sign = 1.0 if candidate.higher_is_better else -1.0
    share = candidate.unit == SHARE
    missing = [item for item in theirs if item not in mine]
    shared = [item for item in theirs if item in mine]
    everything = len(theirs) + len(mine) - len(shared)
    if len(shared) < max(2, SHARED * everything) or (missing and not share):
        raise GuardError(
            f"probe {candidate.probe!r} measured both models on {len(shared):,} of {everything:,} items; a paired test needs "
            "the same items for both. Measure both on the same held-out items"
        )
    if share and not all(0 <= value <= 1 for value in (*candidate.values, *other.values)):
        raise GuardError(f"probe {candidate.probe!r} has the unit {SHARE!r} and values outside 0 to 1; give it another unit")
    worst = 0.0 if candidate.higher_is_better else 1.0
    differences = [sign * (mine.get(item, worst) - theirs[item]) for item in theirs]
    lowest = -1.0 if share else -max(map(abs, differences))
    estimate = math.fsum(differences) / len(differences)
    variance = math.fsum((value - estimate) ** 2 for value in differences) / (len(differences) - 1)
    low = lower_bound(differences, alpha, lowest)
    return Evidence(estimate, low, alpha, variance, len(differences), share, len(missing))


def _replicated(candidate: Measurement, other: Measurement, alpha: float) -> Evidence:
    """A statistic over all items. Measured against real data, the candidate is held against the lower of the other model
    and 0: not worse than either is enough. Two ways to pass, so each is tested at half of alpha."""
    sign = 1.0 if candidate.higher_is_better else -1.0
    mine = [sign * value for value in (*candidate.values, *(candidate.replicates or ()))]
    theirs = [sign * value for value in (*other.values, *(other.replicates or ()))]
    difference = [a - b for a, b in zip(mine, theirs, strict=True)]
    ways = [difference, mine] if candidate.unit.endswith(OVER_REAL) else [difference]
    part = alpha / len(ways)
    lows = [replicate_bound(way[0], way[1:], part) for way in ways]
    best = max(range(len(ways)), key=lows.__getitem__)
    spread = ways[best][1:]
    centre = math.fsum(spread) / len(spread)
    variance = math.fsum((value - centre) ** 2 for value in spread) / (len(spread) - 1) * len(candidate.items)
    return Evidence(max(way[0] for way in ways), lows[best], part, variance, len(candidate.items), share=False)


def _refuse_unlike(candidate: Measurement, other: Measurement) -> None:
    ways = [(found.probe, found.unit, found.higher_is_better, found.replicates is None) for found in (candidate, other)]
    if ways[0] != ways[1]:
        raise GuardError(
            f"probe {candidate.probe!r} measured the candidate as {ways[0]} and the other model as {ways[1]} "
            "(name, unit, higher is better, per item); measure both with the same probe"
        )
    for found in (candidate, other):
        numbers: Sequence[float] = (*found.values, *(found.replicates or ()))
        if not all(map(math.isfinite, numbers)):
            raise GuardError(f"probe {found.probe!r} holds a value that is not a finite number; leave out items without one")
        expected = len(found.items) if found.replicates is None else 1
        if len(found.values) != expected or (found.replicates is not None and len(found.replicates) < 2):
            raise GuardError(
                f"probe {found.probe!r} holds {len(found.values):,} values for {len(found.items):,} items; give one per item, or "
                "one in all and at least two replicates"
            )


def _by_item(found: Measurement) -> dict[str, float]:
    values = dict(zip(found.items, found.values, strict=True))
    if len(values) < len(found.items):
        raise GuardError(f"probe {found.probe!r} names {len(found.items) - len(values):,} items twice; give each its own id")
    return values
