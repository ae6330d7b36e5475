"""How well several judges agree: Krippendorff's alpha.

Klaus Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): α = 1 − D_observed / D_expected over coincidences of values
within units; any number of judges, any of whom may be silent about a unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

Level = Literal["nominal", "ordinal", "interval"]


def alpha(units: Sequence[Sequence[float]], level: Level = "nominal") -> float | None:
    """Krippendorff's alpha. `units`: for each unit the values that judges gave it, in any order; silent judges are left out.

    nominal: values are equal or not; ordinal: ranks apart; interval: distance squared. None where fewer than two values can be
    paired, or all of them are equal, so that there is nothing to agree about.
    """
    pairable = [unit for unit in units if len(unit) > 1]
    coincidences: Counter[tuple[float, float]] = Counter()
    for unit in pairable:
        counts = Counter(unit)
        for one, ones in counts.items():
            for other, others in counts.items():
                coincidences[one, other] += ones * (others - (one == other)) / (len(unit) - 1)  # type: ignore[assignment]
    totals: Counter[float] = Counter()
    for (one, _), count in coincidences.items():
        totals[one] += count
    size = totals.total()
    values = sorted(totals)
    distances = {(a, b): _distance(a, b, level, values, totals) for a in values for b in values}
    expected = sum(totals[a] * totals[b] * distances[a, b] for a in values for b in values)
    if not expected:
        return None
    observed = sum(count * distances[pair] for pair, count in coincidences.items())
    return 1.0 - (size - 1) * observed / expected


def _distance(a: float, b: float, level: Level, values: Sequence[float], totals: Counter[float]) -> float:
    """Squared difference between two values."""
    if level == "interval":
        return (a - b) ** 2
    if level == "nominal" or a == b:
        return float(a != b)
    low, high = min(a, b), max(a, b)
    between = sum(totals[value] for value in values if low <= value <= high)
    return (between - (totals[a] + totals[b]) / 2) ** 2
