"""Frequencies refitted to their own draws: the Wright–Fisher chain of population genetics.

Shumailov et al. (Nature 631:755): the only absorbing states are point masses, and state i is reached with probability p₀(i).
Seddik et al. (arXiv:2404.05090): the expected sum of squares S_m. With `temperature` τ, draws follow p^(1/τ).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from outcross.lab.lineages import Floats, blocks

Counts = npt.NDArray[np.int64]


class Frequencies(NamedTuple):
    """Shares of each state: shape (replicates, states)."""

    shares: Floats


@dataclass(frozen=True)
class Categorical:
    """States with real `probabilities`, refitted by their observed shares; data are counts of shape (replicates, states)."""

    probabilities: tuple[float, ...]
    temperature: float = 1.0

    def floats(self, size: int, /) -> int:
        return len(self.probabilities)

    def real(self, replicates: int, /) -> Frequencies:
        # Cooling is undone once, so that the first draws are real data.
        shares = np.asarray(self.probabilities) ** self.temperature
        return Frequencies(np.repeat((shares / shares.sum())[None], replicates, axis=0))

    def draw(self, law: Frequencies, size: int, rng: np.random.Generator, /) -> Counts:
        return np.asarray(rng.multinomial(size, tempered(law.shares, self.temperature)))

    def subsample(self, parts: Sequence[Counts], size: int, rng: np.random.Generator, /) -> Counts:
        pool: Counts = np.sum(parts, axis=0)
        chosen = np.zeros_like(pool)
        rest, wanted = pool.sum(axis=1), np.full(len(pool), size)
        for state in range(pool.shape[1]):
            rest = rest - pool[:, state]
            chosen[:, state] = rng.hypergeometric(pool[:, state], rest, wanted)
            wanted = wanted - chosen[:, state]
        return chosen

    def summarise(self, data: Counts, /) -> Counts:
        return data

    def add(self, left: Counts, right: Counts, /) -> Counts:
        return left + right

    def fit(self, summary: Counts, last: Frequencies, /) -> Frequencies:
        return Frequencies(summary / summary.sum(axis=1, keepdims=True))


def tempered(shares: Floats, temperature: float) -> Floats:
    """p^(1/τ), normalised over the last axis."""
    if temperature == 1:
        return shares
    powers = shares ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def sum_of_squares(law: Frequencies) -> Floats:
    """S = Σ p_i²: shape (replicates,)."""
    return np.asarray((law.shares**2).sum(axis=1))


def heterozygosity(law: Frequencies) -> Floats:
    """1 − S: how often two draws differ."""
    return 1 - sum_of_squares(law)


def absorbed_at(family: Categorical, size: int, replicates: int, rng: np.random.Generator) -> Counts:
    """The state in which each lineage under replace ends: shape (replicates,). Runs each until it has ended."""
    ends = []
    for block in blocks(replicates, family.floats(size)):
        law, end = family.real(block), np.full(block, -1)
        running = np.arange(block)
        while len(running):
            law = family.fit(family.draw(law, size, rng), law)
            done = law.shares.max(axis=1) == 1
            end[running[done]] = law.shares[done].argmax(axis=1)
            running, law = running[~done], Frequencies(law.shares[~done])
        ends.append(end)
    return np.concatenate(ends)


# ── closed forms ───────────────────────────────────────────────────────────────────────────────────────────────────────
def absorption(probabilities: Sequence[float], state: int) -> float:
    """The probability that a lineage ends in `state`: p₀(state) (Shumailov et al., §Discrete distributions)."""
    return probabilities[state]


def vanishing(share: float, size: int) -> float:
    """(1 − q)^M: a state of share q is in none of M draws (Shumailov et al.)."""
    return float((1 - share) ** size)


def expected_heterozygosity(start: float, size: int, rounds: int) -> float:
    """H_g = H_0 (1 − 1/M)^g under replace."""
    return float(start * (1 - 1 / size) ** rounds)


def seddik(start: float, size: int, rounds: int) -> float:
    """E S_m = 1 − (1 − 1/n)^m (1 − S_0) (Seddik et al., arXiv:2404.05090)."""
    return 1 - expected_heterozygosity(1 - start, size, rounds)


def power_law(states: int) -> tuple[float, ...]:
    """Probabilities proportional to 1/k, k = 1 … states."""
    weights = [1 / k for k in range(1, states + 1)]
    return tuple(weight / sum(weights) for weight in weights)
