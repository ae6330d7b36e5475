"""Linear regression that relabels its own rows (Gerstgrasser et al., arXiv:2404.01413; Dohmatob et al., arXiv:2410.04840).

x ~ N(0, I_d), y = x·w* + ε, ε ~ N(0, σ²), T rows, ordinary least squares. Round t labels **the same X** with the fit of round t − 1 and
new noise. Drawing new X each round would break the closed forms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from outcross.errors import ConfigError
from outcross.lab.lineages import Floats, blocks
from outcross.lab.regimes import Accumulate, Fixed, Fresh, Grow, Regime, Replace, Subsample

TRUTH = 1.0  # every coordinate of w*


def squared_errors(
    regime: Regime, *, rows: int, dimensions: int, noise: float, rounds: int, replicates: int, rng: np.random.Generator
) -> Floats:
    """‖ŵ_t − w*‖² after fits 1 … `rounds`, the first on real labels: shape (replicates, rounds). `noise` is σ²."""
    if rows < dimensions + 2:
        raise ConfigError(
            f"{rows} rows for {dimensions} dimensions; the error has a finite mean from dimensions + 2 = {dimensions + 2} rows on"
        )
    found = []
    for block in blocks(replicates, rows * dimensions):
        fits = _fits(regime, rng.standard_normal((block, rows, dimensions)), math.sqrt(noise), rounds, rng)
        found.append(np.stack([((fit - TRUTH) ** 2).sum(axis=1) for fit in fits], axis=1))
    return np.concatenate(found)


def _fits(regime: Regime, design: Floats, scale: float, rounds: int, rng: np.random.Generator) -> Iterator[Floats]:
    """The coefficients (replicates, d) of each round; `design` has shape (replicates, rows, d)."""
    block, rows, dimensions = design.shape
    inverse = np.linalg.inv(np.matmul(design.swapaxes(1, 2), design))

    def label(weights: Floats) -> Floats:
        labels = rng.standard_normal((block, rows))
        labels *= scale
        labels += np.matmul(design, weights[:, :, None])[:, :, 0]
        return labels

    def least_squares(labels: Floats) -> Floats:
        return np.asarray(np.matmul(inverse, np.matmul(labels[:, None], design).swapaxes(1, 2))[:, :, 0])

    truth = np.full((block, dimensions), TRUTH)
    weights, mean, pool = truth, np.zeros((block, rows)), []
    first = label(truth) if isinstance(regime, Fixed) else None
    for number in range(1, rounds + 1):
        labels = label(weights)
        match regime:
            case Replace():
                weights = least_squares(labels)
            case Accumulate():  # least squares on the same X repeated is least squares on the mean label of each row
                mean += (labels - mean) / number
                weights = least_squares(mean)
            case Grow():
                extra = regime.size(1, number) - 1
                weights = least_squares(sum((label(weights) for _ in range(extra)), labels) / (1 + extra))
            case Subsample():
                pool.append(labels)
                weights = _on_subsample(design, np.concatenate(pool, axis=1), rng)
            case Fresh() | Fixed():
                real = label(truth) if first is None else first
                labels[:, : regime.real(rows)] = real[:, : regime.real(rows)]
                weights = least_squares(labels)
        yield weights


def _on_subsample(design: Floats, labels: Floats, rng: np.random.Generator) -> Floats:
    """Least squares on as many of the pooled rows as one round has, drawn without replacement."""
    rows = design.shape[1]
    chosen = np.argpartition(rng.random(labels.shape, dtype=np.float32), rows - 1, axis=1)[:, :rows]
    x = np.take_along_axis(design, (chosen % rows)[:, :, None], axis=1)
    y = np.take_along_axis(labels, chosen, axis=1)
    moments = np.matmul(x.swapaxes(1, 2), y[:, :, None])
    return np.asarray(np.linalg.solve(np.matmul(x.swapaxes(1, 2), x), moments)[:, :, 0])


def contaminated_errors(
    share: float, mismatch: float, *, rows: int, dimensions: int, noise: float, replicates: int, rng: np.random.Generator
) -> Floats:
    """‖ŵ − w*‖² of one fit in which `share` of the rows are labelled by w* + δ, ‖δ‖² = `mismatch`: shape (replicates,).

    The fixed synthetic share of Dohmatob et al.
    """
    wrong = round(share * rows)
    found = []
    for block in blocks(replicates, rows * dimensions):
        design = rng.standard_normal((block, rows, dimensions))
        truth = np.full(dimensions, TRUTH)
        shift = np.zeros(dimensions)
        shift[0] = math.sqrt(mismatch)  # any direction: x is isotropic
        labels = np.matmul(design, truth) + math.sqrt(noise) * rng.standard_normal((block, rows))
        labels[:, :wrong] += np.matmul(design[:, :wrong], shift)
        gram = np.matmul(design.swapaxes(1, 2), design)
        fit = np.linalg.solve(gram, np.matmul(design.swapaxes(1, 2), labels[:, :, None]))[:, :, 0]
        found.append(((fit - truth) ** 2).sum(axis=1))
    return np.concatenate(found)


# ── closed forms ───────────────────────────────────────────────────────────────────────────────────────────────────────
def one_fit(rows: int, dimensions: int, noise: float) -> float:
    """σ²d/(T − d − 1): the expected error of a fit to real labels."""
    return noise * dimensions / (rows - dimensions - 1)


def replaced(rows: int, dimensions: int, noise: float, rounds: int) -> float:
    """E_n = n · σ²d/(T − d − 1) under replace (Gerstgrasser et al., Theorem 1)."""
    return rounds * one_fit(rows, dimensions, noise)


def accumulated(rows: int, dimensions: int, noise: float, rounds: int) -> float:
    """E_n = σ²d/(T − d − 1) · Σ_{i≤n} 1/i² under accumulate (Gerstgrasser et al., Theorem 2): at most π²/6 times the first error."""
    return one_fit(rows, dimensions, noise) * math.fsum(1 / i**2 for i in range(1, rounds + 1))


def grown(rows: int, dimensions: int, noise: float, rounds: int) -> float:
    """σ²d/(T − d − 1) · Σ_{i≤n} 1/i: only synthetic rows, i · T of them in round i (Gerstgrasser et al., App. E: O(log n))."""
    return one_fit(rows, dimensions, noise) * math.fsum(1 / i for i in range(1, rounds + 1))


def strong_collapse(share: float, mismatch: float, rows: int, dimensions: int, noise: float) -> float:
    """E ≈ σ²d/n + p₂²c²: a floor that no number of rows removes (Dohmatob et al., arXiv:2410.04840)."""
    return noise * dimensions / rows + share**2 * mismatch
