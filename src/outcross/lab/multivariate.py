"""Gaussians of several dimensions refitted to their own draws (Kazdan et al., arXiv:2410.16713: d from 1 to 100)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from outcross.lab.lineages import Floats, subsample_rows


class VectorLaw(NamedTuple):
    """Means (replicates, d) and covariances (replicates, d, d)."""

    mean: Floats
    covariance: Floats


class Scatter(NamedTuple):
    """Rows, their mean (replicates, d) and their scatter around it (replicates, d, d)."""

    rows: int
    mean: Floats
    squares: Floats


@dataclass(frozen=True)
class VectorNormal:
    """`dimensions` coordinates, independent and standard in the real law; data of shape (rows, replicates, d).

    `unbiased` and `bias` as in `gaussian.Normal`.
    """

    dimensions: int
    unbiased: bool = True
    bias: float = 1.0

    def floats(self, size: int, /) -> int:
        return size * self.dimensions

    def real(self, replicates: int, /) -> VectorLaw:
        identity = np.eye(self.dimensions) / self.bias
        return VectorLaw(np.zeros((replicates, self.dimensions)), np.repeat(identity[None], replicates, axis=0))

    def draw(self, law: VectorLaw, size: int, rng: np.random.Generator, /) -> Floats:
        # Eigenvalues, not a Cholesky factor: after many rounds a covariance is singular to working precision.
        values, vectors = np.linalg.eigh(law.covariance)
        root = vectors * np.sqrt(self.bias * np.maximum(values, 0))[:, None, :]
        rows = rng.standard_normal((size, *law.mean.shape))
        made: Floats = np.matmul(rows.swapaxes(0, 1), root.swapaxes(1, 2)).swapaxes(0, 1) + law.mean
        return made

    def subsample(self, parts: Sequence[Floats], size: int, rng: np.random.Generator, /) -> Floats:
        rows = np.concatenate(parts)
        which = np.broadcast_to(np.arange(len(rows), dtype=float)[:, None], rows.shape[:2])
        chosen = subsample_rows(which, size, rng).astype(np.intp)
        return np.take_along_axis(rows, chosen[:, :, None], axis=0)

    def summarise(self, data: Floats, /) -> Scatter:
        mean = data.mean(axis=0)
        data -= mean
        by_replicate = data.swapaxes(0, 1)
        return Scatter(len(data), mean, np.matmul(by_replicate.swapaxes(1, 2), by_replicate))

    def add(self, left: Scatter, right: Scatter, /) -> Scatter:
        rows = left.rows + right.rows
        gap = right.mean - left.mean
        between = gap[:, :, None] * gap[:, None, :] * (left.rows * right.rows / rows)
        return Scatter(rows, left.mean + gap * (right.rows / rows), left.squares + right.squares + between)

    def fit(self, summary: Scatter, last: VectorLaw, /) -> VectorLaw:
        return VectorLaw(summary.mean, summary.squares / (summary.rows - self.unbiased))


def total_variance(law: VectorLaw) -> Floats:
    """The trace of the covariance over d: shape (replicates,)."""
    return np.asarray(np.trace(law.covariance, axis1=1, axis2=2) / law.covariance.shape[-1])


def wasserstein(law: VectorLaw) -> Floats:
    """W₂² to the standard normal law: ‖μ‖² + Σ (1 − √λ_i)² over the eigenvalues λ_i of the covariance."""
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(law.covariance), 0))
    return np.asarray((law.mean**2).sum(axis=1) + ((1 - roots) ** 2).sum(axis=1))


def wasserstein_first_order(size: int, fits: int, dimensions: int) -> float:
    """E W₂² ≈ k d/M + k d(d + 1)/(4M) after k fits of M rows, unbiased: the first term is the mean's, the second ‖Σ − I‖²/4.

    Derived; 3/2 · k/M at d = 1, as in Shumailov et al.
    """
    return fits * dimensions / size * (1 + (dimensions + 1) / 4)
