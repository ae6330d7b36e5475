"""Estimates about judges, each with how many items it rests on and a 95 % interval that treats the answers to one task as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outcross.estimates import LEVEL, Estimate

REPLICATES = 400


# ── calibration ────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Bin:
    """Judgements of similar confidence: how sure the judge was on average, and how often it was right."""

    low: float
    high: float
    items: int
    said: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """A reliability table and its summary: the mean distance between confidence and truth, weighed by items."""

    bins: tuple[Bin, ...]
    error: Estimate


def calibration(said: Sequence[float], right: Sequence[float], tasks: Sequence[str], edges: Sequence[float]) -> Calibration | None:
    """Confidence held against truth in the bins between `edges`. The interval is a bootstrap over tasks; the error is never below 0, so
    that few items make even a calibrated judge look off by about its upper end."""
    import numpy as np

    if not said:
        return None
    place = np.digitize(said, edges[1:-1])
    names = {name: index for index, name in enumerate(dict.fromkeys(tasks))}
    sums = np.zeros((len(names), len(edges) - 1, 3))
    np.add.at(sums, (np.array([names[task] for task in tasks]), place), np.column_stack([np.ones(len(said)), said, right]))
    whole = sums.sum(axis=0)
    bins = [
        Bin(edges[i], edges[i + 1], int(whole[i, 0]), float(whole[i, 1] / whole[i, 0]), float(whole[i, 2] / whole[i, 0]))
        for i in range(len(edges) - 1)
        if whole[i, 0]
    ]
    error = _expected_error(whole)
    low, high = _bootstrap(sums.reshape(len(names), -1), lambda total: _expected_error(total.reshape(-1, 3)))
    return Calibration(tuple(bins), Estimate(error, low, high, len(said)))


def _expected_error(sums: Any) -> float:
    return float(abs(sums[:, 1] - sums[:, 2]).sum() / sums[:, 0].sum())


def _bootstrap(sums: Any, statistic: Any) -> tuple[float | None, float | None]:
    """Percentiles of a statistic of sums over tasks, whole tasks drawn anew; the same draws for the same number of tasks."""
    import numpy as np

    size = len(sums)
    if size < 3:
        return None, None
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(size, np.full(size, 1 / size), size=REPLICATES) @ sums
    found = np.array([statistic(row) for row in drawn])
    found = found[np.isfinite(found)]
    if not len(found):
        return None, None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


# ── agreement ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def agreement(units: Sequence[Sequence[float]], tasks: Sequence[str]) -> Estimate | None:
    """Krippendorff's alpha with squared differences (of verdicts as 0 and 1: the nominal one; see `agreement.alpha`), and a bootstrap
    over tasks. None where nothing can be paired, or all values are equal."""
    import numpy as np

    pairable = [(unit, task) for unit, task in zip(units, tasks, strict=True) if len(unit) > 1]
    names = {name: index for index, name in enumerate(dict.fromkeys(task for _, task in pairable))}
    sums = np.zeros((len(names), 4))
    for unit, task in pairable:
        size, total, squares = len(unit), math.fsum(unit), math.fsum(value * value for value in unit)
        sums[names[task]] += (size, total, squares, 2 * (size * squares - total * total) / (size - 1))
    whole = _alpha(sums.sum(axis=0)) if names else math.nan
    if not math.isfinite(whole):
        return None
    low, high = _bootstrap(sums, _alpha)
    return Estimate(whole, low, high, len(pairable))


def _alpha(sums: Any) -> float:
    size, total, squares, observed = (float(item) for item in sums)
    expected = 2 * (size * squares - total * total)
    return 1 - (size - 1) * observed / expected if expected > 1e-12 else math.nan
