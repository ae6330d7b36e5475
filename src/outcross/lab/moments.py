"""Exact second moments of a refitted Gaussian under any regime of constant size, by recursion over batches.

Derived, one step per round: the expected fit depends on the data only through E x² of a row and E x·y of two different rows, and
both are averages over the batches trained on. Mean 0 and variance 1 are the real law's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from outcross.lab.gaussian import Normal
from outcross.lab.lineages import Floats
from outcross.lab.regimes import Accumulate, Fixed, Fresh, Regime, Replace, Subsample


class Expected(NamedTuple):
    """E μ² and E σ² after 0, 1 … rounds fits: each of shape (rounds + 1,)."""

    mean_square: Floats
    variance: Floats


def expected(family: Normal, regime: Replace | Accumulate | Subsample | Fresh | Fixed, *, size: int, rounds: int) -> Expected:
    """E μ² and E σ² of `Normal` under `regime`.

    Batch 0 holds the real rows that `Fresh` and `Fixed` mix in; batch t the rows drawn from the law after t − 1 fits.
    """
    row = np.ones(rounds + 1)  # E x² of a row of each batch
    pair = np.zeros((rounds + 1, rounds + 1))  # E x·y of two different rows of two batches
    found = np.zeros((2, rounds + 1))
    found[1, 0] = 1 / family.bias
    for number in range(1, rounds + 1):
        mean_square, variance = found[:, number - 1]
        row[number] = mean_square + family.bias * variance
        pair[number, number] = mean_square
        used = _rows_used(regime, size, number, rounds)
        trained = size if isinstance(regime, Subsample) else used.sum()
        total = used.sum()
        everything = used @ row
        between = (used @ pair @ used - used @ np.diag(pair)) / (total * (total - 1))
        found[0, number] = everything / total / trained + (1 - 1 / trained) * between
        found[1, number] = (everything / total - between) * (1 if family.unbiased else 1 - 1 / trained)
        if number < rounds:
            with_mean = (pair @ used + (used > 0) * (row - np.diag(pair))) / total
            if isinstance(regime, Fresh):
                with_mean[0] = 0  # the real rows of the next round are new
            pair[number + 1, : number + 1] = pair[: number + 1, number + 1] = with_mean[: number + 1]
    return Expected(*found)


def _rows_used(regime: Regime, size: int, number: int, rounds: int) -> Floats:
    """Rows of each batch that round `number` may train on."""
    used = np.zeros(rounds + 1)
    match regime:
        case Accumulate() | Subsample():
            used[1 : number + 1] = size
        case Fresh() | Fixed():
            used[0], used[number] = regime.real(size), size - regime.real(size)
        case _:
            used[number] = size
    return used
