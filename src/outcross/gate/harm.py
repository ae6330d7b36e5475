"""Whether a candidate is shown to be worse than another model on the same items: the gate's bounds, asked from the other side.

A gate asks for proof that nothing got worse; an alarm for proof that something did. Between the two lies what nobody knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from outcross.errors import GuardError
from outcross.gate.evidence import OVER_REAL, SHARE, SHARED
from outcross.gate.paired import lower_bound, replicate_bound
from outcross.types import Measurement


@dataclass(frozen=True)
class Harm:
    """Candidate minus other, signed so that higher is better, with one-sided bounds at the alpha asked for: it is shown to be worse when
    `high` is below 0. `items` are those that moved most for the worse, the worst first; none for a statistic over all items."""

    change: float
    low: float
    high: float
    items: tuple[str, ...] = ()

    @property
    def shown(self) -> bool:
        return self.high < 0


def harm(candidate: Measurement, other: Measurement, alpha: float, examples: int = 3) -> Harm:
    """What two measurements of one probe show about a loss. Items that one of the two has no finite value for are left out.

    Against real data (a unit that ends in "over real") a fall counts as far as it goes below the lower of the other model and real data, and
    must be shown against both. Raises `GuardError` when the two cannot be paired.
    """
    ways = [(found.unit, found.higher_is_better, found.replicates is None) for found in (candidate, other)]
    if ways[0] != ways[1]:
        raise GuardError(
            f"probe {candidate.probe!r} measured one model as {ways[0]} and the other as {ways[1]} (unit, higher is better, per item); "
            "measure both with the same probe"
        )
    if candidate.replicates is None or other.replicates is None:
        return _per_item(candidate, other, alpha, examples)
    if candidate.items != other.items or len(candidate.replicates) != len(other.replicates) or len(candidate.replicates) < 2:
        raise GuardError(
            f"probe {candidate.probe!r} has {len(candidate.replicates)} and {len(other.replicates)} replicates of {len(candidate.items):,} and "
            f"{len(other.items):,} items, which cannot be paired; measure both on the same items with the same settings"
        )
    return _replicated(candidate, other, alpha)


def _per_item(candidate: Measurement, other: Measurement, alpha: float, examples: int) -> Harm:
    sign = 1.0 if candidate.higher_is_better else -1.0
    theirs = _finite(other)
    change = {item: sign * (value - theirs[item]) for item, value in _finite(candidate).items() if item in theirs}
    every = len({*candidate.items, *other.items})
    if len(change) < max(2, SHARED * every):
        raise GuardError(
            f"probe {candidate.probe!r} measured both models on {len(change):,} of {every:,} items; a paired test needs the same items for both"
        )
    differences = list(change.values())
    share = candidate.unit == SHARE
    furthest = -1.0 if share else -max(map(abs, differences))
    low, high = lower_bound(differences, alpha, furthest), -lower_bound([-value for value in differences], alpha, furthest)
    worst = sorted((item for item in change if change[item] < 0), key=lambda item: (change[item], item))
    return Harm(math.fsum(differences) / len(differences), low, high, tuple(worst[:examples]))


def _replicated(candidate: Measurement, other: Measurement, alpha: float) -> Harm:
    sign = 1.0 if candidate.higher_is_better else -1.0
    mine, theirs = ([sign * value for value in (*found.values, *(found.replicates or ()))] for found in (candidate, other))
    if not all(map(math.isfinite, (*mine, *theirs))):
        raise GuardError(f"probe {candidate.probe!r} holds a value that is not a finite number")
    ways = [[a - b for a, b in zip(mine, theirs, strict=True)]]
    if candidate.unit.endswith(OVER_REAL):
        ways.append(mine)
    found = [
        Harm(way[0], replicate_bound(way[0], way[1:], alpha), -replicate_bound(-way[0], [-value for value in way[1:]], alpha))
        for way in ways
    ]
    return max(found, key=lambda item: item.high)  # the harder of the two to show


def _finite(found: Measurement) -> dict[str, float]:
    if len(found.values) != len(found.items):
        raise GuardError(f"probe {found.probe!r} holds {len(found.values):,} values for {len(found.items):,} items; give one per item")
    if len(set(found.items)) < len(found.items):
        raise GuardError(f"probe {found.probe!r} names {len(found.items) - len(set(found.items)):,} items twice; give each its own id")
    return {item: value for item, value in zip(found.items, found.values, strict=True) if math.isfinite(value)}
