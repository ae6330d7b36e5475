"""Gaussians refitted to their own draws (Shumailov et al., Nature 631:755, Supplement §3.1; Alemohammad et al., arXiv:2307.01850;
Kazdan et al., arXiv:2410.16713).

The real law is standard normal: results scale with σ². Closed forms stand below the two families.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from outcross.lab.lineages import Floats, subsample_rows


class NormalLaw(NamedTuple):
    """Mean and variance: each of shape (replicates,)."""

    mean: Floats
    variance: Floats


class Spread(NamedTuple):
    """Rows, their mean and their sum of squares around it: each of shape (replicates,)."""

    rows: int
    mean: Floats
    squares: Floats


@dataclass(frozen=True)
class Normal:
    """One dimension; data of shape (rows, replicates). `unbiased` divides the squares by n − 1, else by n (maximum likelihood, as
    Kazdan et al.'s code does). Draws have `bias` times the fitted variance: MAD's λ, 1 for honest sampling."""

    unbiased: bool = True
    bias: float = 1.0

    def floats(self, size: int, /) -> int:
        return size

    def real(self, replicates: int, /) -> NormalLaw:
        # Divided by λ, so that the first draws, which are real data, are standard normal.
        return NormalLaw(np.zeros(replicates), np.full(replicates, 1 / self.bias))

    def draw(self, law: NormalLaw, size: int, rng: np.random.Generator, /) -> Floats:
        rows = rng.standard_normal((size, len(law.mean)))
        rows *= np.sqrt(self.bias * law.variance)
        rows += law.mean
        return rows

    def subsample(self, parts: Sequence[Floats], size: int, rng: np.random.Generator, /) -> Floats:
        return subsample_rows(np.concatenate(parts), size, rng)

    def summarise(self, data: Floats, /) -> Spread:
        mean = data.mean(axis=0)
        data -= mean
        data *= data
        return Spread(len(data), mean, data.sum(axis=0))

    def add(self, left: Spread, right: Spread, /) -> Spread:
        rows = left.rows + right.rows
        gap = right.mean - left.mean
        squares = left.squares + right.squares + gap**2 * (left.rows * right.rows / rows)
        return Spread(rows, left.mean + gap * (right.rows / rows), squares)

    def fit(self, summary: Spread, last: NormalLaw, /) -> NormalLaw:
        return NormalLaw(summary.mean, summary.squares / (summary.rows - self.unbiased))


def second_moment(law: NormalLaw) -> Floats:
    """E X² of a draw around the true mean: over replicates, its mean is Var(Xⁿ)."""
    return law.mean**2 + law.variance


def variance(law: NormalLaw) -> Floats:
    return law.variance


def wasserstein(law: NormalLaw) -> Floats:
    """W₂² to the standard normal law."""
    return np.asarray(law.mean**2 + (1 - np.sqrt(law.variance)) ** 2)


# ── closed forms, σ² = 1 ───────────────────────────────────────────────────────────────────────────────────────────────
def variance_of_draws(size: int, rounds: int) -> float:
    """Var(Xⁿ) = 1 + n/M under replace with the unbiased variance (Supplement §3.1.1); exact, not only to first order."""
    return 1 + rounds / size


def wasserstein_first_order(sizes: Sequence[int]) -> float:
    """E W₂² ≈ 3/2 Σ 1/M_i over the sizes of all fits so far (Supplement §3.1.1): bounded only if sizes grow super-linearly."""
    return 1.5 * math.fsum(1 / size for size in sizes)


def wasserstein_exact(sizes: Sequence[int]) -> float:
    """E W₂² = E μ² + 2(1 − E σ), with E σ the product of the means of √(χ²/(M_i − 1)): derived from the same representation."""
    spread = math.prod(math.sqrt(2 / (size - 1)) * math.exp(math.lgamma(size / 2) - math.lgamma((size - 1) / 2)) for size in sizes)
    return math.fsum(1 / size for size in sizes) + 2 * (1 - spread)


def geometric_mean_variance(size: int, rounds: int) -> float:
    """exp E log σ²_n → 0 although E σ²_n = 1 for all n (Theorem 3.1: collapse is almost sure).

    Uses E log(χ²_k/k) = −1/k − 1/(3k²) + O(k⁻⁴), k = M − 1.
    """
    k = size - 1
    return math.exp(-rounds * (1 / k + 1 / (3 * k**2)))


def variance_maximum_likelihood(size: int, rounds: int, bias: float = 1.0) -> float:
    """E σ²_n = λⁿ⁻¹ (1 − 1/M)ⁿ under replace with the maximum likelihood variance and sampling bias λ; the first data are real."""
    return float(bias ** (rounds - 1) * (1 - 1 / size) ** rounds)


def variance_biased(bias: float, rounds: int) -> float:
    """E Σ_t = λᵗ⁻¹ Σ with the unbiased variance (Alemohammad et al.: E Σ_t | Σ_{t−1} = λ Σ_{t−1}); the first data are real."""
    return float(bias ** (rounds - 1))


def variance_accumulated(size: int, rounds: int) -> float:
    """E σ²_T = Π_{k≤T} (1 − 1/(n k²)) under accumulate with the maximum likelihood variance; E μ²_T is 1 minus this."""
    return math.prod(1 - 1 / (size * k**2) for k in range(1, rounds + 1))


def variance_accumulated_limit(size: int) -> float:
    """The limit of `variance_accumulated`: sin(π/√n)/(π/√n) by Euler's product."""
    angle = math.pi / math.sqrt(size)
    return math.sin(angle) / angle
