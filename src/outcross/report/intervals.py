"""Means and paired differences of measurements, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from outcross.estimates import LEVEL, Estimate
from outcross.types import Measurement


def mean_interval(measurement: Measurement) -> Estimate:
    """What a probe found: percentiles of its replicates where it has any, else Student's t over its items."""
    if measurement.replicates:
        return Estimate(measurement.mean, *_percentiles(measurement.replicates), len(measurement.items))
    return _student(measurement.values)


def paired(subject: Measurement, control: Measurement) -> Estimate | None:
    """Subject minus control, item by item over the items both measured (Student's t over the differences), or replicate by
    replicate when both have as many. None when nothing can be paired."""
    if subject.replicates and control.replicates:
        if len(subject.replicates) != len(control.replicates):
            return None
        replicates = [a - b for a, b in zip(subject.replicates, control.replicates, strict=True)]
        return Estimate(subject.mean - control.mean, *_percentiles(replicates), len(subject.items))
    if len(subject.values) != len(subject.items) or len(control.values) != len(control.items):
        return None
    other = dict(zip(control.items, control.values, strict=True))
    pairs = zip(subject.items, subject.values, strict=True)
    differences = [value - other[item] for item, value in pairs if item in other]
    known = [value for value in differences if math.isfinite(value)]
    return _student(known) if known else None


def _student(values: Sequence[float]) -> Estimate:
    size = len(values)
    if not size:
        return Estimate(float("nan"), None, None, 0)
    mean = math.fsum(values) / size
    if size < 2:
        return Estimate(mean, None, None, size)
    from scipy.special import stdtrit

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (size - 1) / size)
    half = float(stdtrit(size - 1, (1 + LEVEL) / 2)) * spread
    return Estimate(mean, mean - half, mean + half, size)


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    import numpy as np

    low, high = np.quantile(np.asarray(values, dtype=float), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
