"""A minority under a temperature below one (the setting of Wyllie et al., arXiv:2403.07857; the arithmetic is ours).

Draws at temperature τ raise the odds of the minority to the power 1/τ in every round; finite samples add drift of their own.
"""

from __future__ import annotations

import numpy as np

from outcross.lab.lineages import Floats, simulate
from outcross.lab.regimes import Regime
from outcross.lab.resampling import Categorical, Frequencies, tempered


def minority_shares(
    share: float, temperature: float, regime: Regime, *, size: int, rounds: int, replicates: int, rng: np.random.Generator
) -> Floats:
    """The minority's share of what the model writes, by round: shape (replicates, rounds + 1); real data in column 0.

    Column g is the share among draws of the g-th fit: after g fits the temperature was applied g times.
    """

    def written(law: Frequencies) -> Floats:
        return tempered(law.shares, temperature)[:, 0]

    return simulate(Categorical((share, 1 - share), temperature), regime, written, size=size, rounds=rounds, replicates=replicates, rng=rng)


def minority_share(share: float, temperature: float, rounds: int) -> float:
    """The share after `rounds` rounds without sampling error: odds · → odds^(1/τ) each round."""
    odds = (share / (1 - share)) ** (temperature**-rounds)
    return float(odds / (1 + odds))


def expected_heterozygosity(share: float, size: int, rounds: int) -> float:
    """2q(1 − q)(1 − 1/M)^g: with τ = 1, how often two draws are of different groups (Wright–Fisher)."""
    return float(2 * share * (1 - share) * (1 - 1 / size) ** rounds)


def floored_minority_share(share: float, temperature: float, real: float, rounds: int) -> float:
    """The share of what the model writes after `rounds` fits without sampling error, when `real` of each round's rows are real: what is
    written is r · q₀ + (1 − r) · the share before, its odds raised to 1/τ."""
    written = share
    for _ in range(rounds):
        held = real * share + (1 - real) * written
        odds = (held / (1 - held)) ** (1 / temperature)
        written = odds / (1 + odds)
    return float(written)


def worst_group_errors(
    share: float, temperature: float, real: float, *, size: int, rounds: int, replicates: int, rng: np.random.Generator
) -> Floats:
    """The squared error of the minority's mean, by round: shape (replicates, rounds + 1); the real law in column 0.

    Every row is of a group and a normal draw about that group's mean, of variance 1; a model is the minority's share and its mean. `real` of a
    round's rows are the same real rows in every round, the others are the last model's at this temperature, which in round 1 is the real law.
    """
    kept = round(real * size)
    known = rng.binomial(kept, share, size=replicates).astype(float)
    about = rng.standard_normal(replicates) / np.sqrt(np.maximum(known, 1))  # the mean of the real rows, read where there are any
    mean, written = np.zeros(replicates), np.full(replicates, share)
    found = [mean**2]
    for _ in range(rounds):
        made = rng.binomial(size - kept, written).astype(float)
        drawn = mean + rng.standard_normal(replicates) / np.sqrt(np.maximum(made, 1))
        rows = made + known
        mean = np.where(rows > 0, (made * drawn + known * about) / np.maximum(rows, 1), mean)
        shares = rows / size
        written = tempered(np.stack([shares, 1 - shares], axis=1), temperature)[:, 0]
        found.append(mean**2)
    return np.stack(found, axis=1)


def expected_worst_group_error(share: float, temperature: float, *, size: int, rounds: int) -> float:
    """Σ 1/(M q_g) over the rounds, where q_g is what was written before: without real rows errors of the mean add up (derived, first order
    in 1/(M q))."""
    return sum(1 / (size * minority_share(share, temperature, number)) for number in range(rounds))
