"""Gaussian mixtures refitted to their own draws by expectation–maximisation (Shumailov et al., Nature 631:755, Supplement Fig. 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from outcross.lab.lineages import Floats, subsample_rows

NARROWEST = 1e-12  # a component of one point has variance 0; this keeps its density finite


class Components(NamedTuple):
    """Weights, means and variances: each of shape (components, replicates)."""

    weights: Floats
    means: Floats
    variances: Floats


@dataclass(frozen=True)
class Mixture:
    """Two or more Gaussians in one dimension; data of shape (rows, replicates).

    Each fit starts from the last law and takes `steps` steps of expectation–maximisation (the paper does not say how it fits).
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]
    steps: int = 5

    def floats(self, size: int, /) -> int:
        return size * len(self.weights)

    def real(self, replicates: int, /) -> Components:
        return Components(
            *(np.repeat(np.array(values)[:, None], replicates, axis=1) for values in (self.weights, self.means, self.variances))
        )

    def draw(self, law: Components, size: int, rng: np.random.Generator, /) -> Floats:
        rows = rng.standard_normal((size, law.weights.shape[1]))
        at = rng.random(rows.shape)
        which = np.zeros(rows.shape, dtype=np.intp)
        for edge in np.cumsum(law.weights, axis=0)[:-1]:
            which += at > edge
        rows *= np.take_along_axis(np.sqrt(law.variances), which, axis=0)
        rows += np.take_along_axis(law.means, which, axis=0)
        return rows

    def subsample(self, parts: Sequence[Floats], size: int, rng: np.random.Generator, /) -> Floats:
        return subsample_rows(np.concatenate(parts), size, rng)

    def summarise(self, data: Floats, /) -> Floats:
        return data

    def add(self, left: Floats, right: Floats, /) -> Floats:
        return np.concatenate([left, right])

    def fit(self, summary: Floats, last: Components, /) -> Components:
        law = last
        for _ in range(self.steps):
            law = _step(summary, law)
        return law


def _step(rows: Floats, law: Components) -> Components:
    """One step of expectation–maximisation, for all replicates at once."""
    variances = np.maximum(law.variances, NARROWEST)
    with np.errstate(divide="ignore"):  # a component that has died stays dead: log 0 is −∞
        log_density = np.log(law.weights / np.sqrt(variances))
    logs = log_density[:, None] - (rows - law.means[:, None]) ** 2 / (2 * variances[:, None])
    logs -= logs.max(axis=0)
    shares = np.exp(logs, out=logs)
    shares /= shares.sum(axis=0)
    mass = shares.sum(axis=1)
    held = np.maximum(mass, np.finfo(float).tiny)
    means = np.einsum("knr,nr->kr", shares, rows) / held
    around = rows - means[:, None]
    around *= around
    return Components(mass / len(rows), means, np.einsum("knr,knr->kr", shares, around) / held)


def total_variance(law: Components) -> Floats:
    """The variance of a draw: shape (replicates,)."""
    mean = (law.weights * law.means).sum(axis=0)
    return np.asarray((law.weights * (law.variances + (law.means - mean) ** 2)).sum(axis=0))


def expected_total_variance(start: float, size: int, rounds: int) -> float:
    """E of the total variance under replace: start · (1 − 1/M)^t, however the components overlap.

    Derived: every step of expectation–maximisation gives the mixture the mean and the variance of its data.
    """
    return float(start * (1 - 1 / size) ** rounds)
