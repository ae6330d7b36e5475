"""Estimates with intervals that treat the answers to one task as one, for reports, probes and commands."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

LEVEL = 0.95
_STEPS = 50
_PRIOR = 0.1  # variance⁻¹ of the slope of `at_equal_length`


@dataclass(frozen=True)
class Estimate:
    """A number in a probe's unit, its 95 % interval (None: not known) and how many items it rests on."""

    mean: float
    low: float | None
    high: float | None
    items: int


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


def at_equal_length(x: Floats, p: Floats, weight: Floats) -> float:
    """The probability at x = 0 by a logistic regression of probabilities `p` on `x`, each row with its `weight`; ½ without rows.

    The slope has a normal prior of variance 10, in which a few rows can drown and hundreds cannot: an x that does not vary, and
    probabilities that it separates, have an answer as well.
    """
    import numpy as np

    if not len(x):
        return 0.5
    design = np.column_stack([np.ones(len(x)), x])
    at = np.zeros(2)
    prior = np.array([1e-6, _PRIOR])
    for _ in range(_STEPS):
        fitted = 1 / (1 + np.exp(-np.clip(design @ at, -500, 500)))
        slope = design.T @ (weight * (p - fitted)) - prior * at
        bread = design.T @ (design * (weight * np.maximum(fitted * (1 - fitted), 1e-9))[:, None]) + np.diag(prior)
        step = np.linalg.solve(bread, slope)
        at = at + step * min(1.0, 5.0 / float(np.abs(step).max() + 1e-300))
        if np.abs(step).max() < 1e-10:
            break
    return float(1 / (1 + np.exp(-np.clip(at[0], -500, 500))))
