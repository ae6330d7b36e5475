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
