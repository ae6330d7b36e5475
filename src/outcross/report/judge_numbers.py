"""Estimates about judges, each with how many items it rests on and a 95 % interval that treats the answers to one task as one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from outcross.report.intervals import LEVEL, Estimate

REPLICATES = 400
_STEPS = 50


def share(values: Sequence[float], tasks: Sequence[str]) -> Estimate | None:
    """The mean of values between 0 and 1, with the spread of whole tasks; Wilson's interval over tasks where they do not differ."""
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    sums: defaultdict[str, float] = defaultdict(float)
    for value, task in zip(values, tasks, strict=True):
        sums[task] += value - mean
    clusters = len(sums)
    spread = math.sqrt(math.fsum(item * item for item in sums.values()) * clusters / max(1, clusters - 1)) / len(values)
    if clusters < 2 or spread < 1e-12:
        return Estimate(mean, *_wilson(mean, clusters), len(values))
    half = _t(clusters - 1) * spread
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), len(values))


def _t(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _wilson(mean: float, size: int) -> tuple[float, float]:
    z = 1.959963984540054
    middle = (mean + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(mean * (1 - mean) / size + z * z / (4 * size * size))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Logistic:
    """`slope` is the change of the log-odds for one unit of x, `at_zero` the probability at x = 0."""

    slope: Estimate
    at_zero: Estimate


def logistic(x: Sequence[float], p: Sequence[float], tasks: Sequence[str]) -> Logistic | None:
    """A logistic regression of probabilities on one number, by Newton's method, with sandwich errors over tasks. None where nothing can be
    estimated: fewer than three tasks, an x that does not vary, or labels that it separates."""
    import numpy as np

    names = {name: place for place, name in enumerate(dict.fromkeys(tasks))}
    if len(names) < 3 or max(x) - min(x) < 1e-12:
        return None
    design = np.column_stack([np.ones(len(x)), np.asarray(x, dtype=float)])
    label = np.asarray(p, dtype=float)
    at = np.zeros(2)
    for _ in range(_STEPS):
        fitted = 1 / (1 + np.exp(-np.clip(design @ at, -500, 500)))
        bread = design.T @ (design * (fitted * (1 - fitted))[:, None])
        if np.linalg.cond(bread) > 1e12:
            return None
        step = np.linalg.solve(bread, design.T @ (label - fitted))
        at = at + step
        if np.abs(step).max() < 1e-10:
            break
    else:
        return None
    scores = np.zeros((len(names), 2))
    np.add.at(scores, [names[task] for task in tasks], design * (label - fitted)[:, None])
    inverse = np.linalg.inv(bread)
    spread = np.sqrt(np.diag(inverse @ (scores.T @ scores) @ inverse) * len(names) / (len(names) - 1))
    half = _t(len(names) - 1) * spread
    slope = Estimate(float(at[1]), float(at[1] - half[1]), float(at[1] + half[1]), len(x))
    zero = [1 / (1 + math.exp(-value)) for value in (at[0], at[0] - half[0], at[0] + half[0])]
    return Logistic(slope, Estimate(zero[0], zero[1], zero[2], len(x)))


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
