"""Kernel densities refitted to their own draws (Kazdan et al., arXiv:2410.16713).

Gaussian kernels in one dimension; "scott" and "silverman" are scikit-learn's, which the paper used: they depend on the number of
rows alone, not on their spread. The real law is standard normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from outcross.lab.lineages import Floats, subsample_rows
from outcross.lab.regimes import Accumulate, Replace

Rows = npt.NDArray[np.float32]
Bandwidth = float | Literal["scott", "silverman"]


class Kernels(NamedTuple):
    """One kernel of standard deviation `width` at each of `centres` (rows, replicates)."""

    centres: Rows
    width: float


@dataclass(frozen=True)
class KernelDensity:
    """Data of shape (rows, replicates), in single precision: its rounding is a millionth of the kernels' width."""

    bandwidth: Bandwidth

    def floats(self, size: int, /) -> int:
        return 2 * size  # which rows are drawn takes as much again; larger blocks leave the cache and take 1.4 times as long

    def real(self, replicates: int, /) -> Kernels:
        return Kernels(np.zeros((1, replicates), np.float32), 1.0)  # one kernel of width 1 at 0 is the standard normal law

    def draw(self, law: Kernels, size: int, rng: np.random.Generator, /) -> Rows:
        rows = rng.standard_normal((size, law.centres.shape[1]), dtype=np.float32)
        rows *= np.float32(law.width)
        centres, replicates = law.centres.shape
        drawn = rng.integers(centres, size=rows.shape, dtype=np.uint16 if centres < 1 << 16 else np.int64)  # narrow ones cost a quarter
        chosen = drawn.astype(np.intp)
        chosen *= replicates
        chosen += np.arange(replicates)
        rows += law.centres.ravel().take(chosen)
        return rows

    def subsample(self, parts: Sequence[Rows], size: int, rng: np.random.Generator, /) -> Rows:
        return subsample_rows(np.concatenate(parts), size, rng)

    def summarise(self, data: Rows, /) -> Rows:
        return data

    def add(self, left: Rows, right: Rows, /) -> Rows:
        return np.concatenate([left, right])

    def fit(self, summary: Rows, last: Kernels, /) -> Kernels:
        return Kernels(summary, width(self.bandwidth, len(summary)))


def width(bandwidth: Bandwidth, rows: int) -> float:
    """The kernels' standard deviation: fixed, Scott's n^(−1/5) or Silverman's (3n/4)^(−1/5)."""
    match bandwidth:
        case "scott":
            return float(rows**-0.2)
        case "silverman":
            return float((rows * 3 / 4) ** -0.2)
        case _:
            return bandwidth


def second_moment(law: Kernels) -> Floats:
    """E X² of a draw: shape (replicates,)."""
    return np.asarray((law.centres**2).mean(axis=0, dtype=np.float64) + law.width**2)


def expected_second_moment(bandwidth: Bandwidth, regime: Replace | Accumulate, *, size: int, rounds: int) -> float:
    """E X² after `rounds` fits, exactly (derived).

    Replace convolves once per round: 1 + rounds · h². Accumulate averages over the ages of the rows: with fixed h it is
    1 + h² (1 + 1/2 + … + 1/t), which grows as h² ln t.
    """
    rows_at: Callable[[int], int] = (lambda t: size) if isinstance(regime, Replace) else (lambda t: size * t)
    pooled = drawn = 1.0  # E x² of the rows trained on, and of the model's draws
    for number in range(1, rounds + 1):
        pooled = drawn if isinstance(regime, Replace) else pooled + (drawn - pooled) / number
        drawn = pooled + width(bandwidth, rows_at(number)) ** 2
    return drawn
