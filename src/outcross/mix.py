"""The mixture of a round: one pure function from sizes to how often the optimiser sees each row.

The floor of real data holds by records and by tokens, weights and repeats counted. Where real rows are too few to hold it
even when repeated `real_epochs` times, synthetic rows wait: they stay in the store and in later rounds' pools.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outcross.errors import GuardError
from outcross.recipe import Mixture, Waived

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Sizes of candidate rows, one entry each: `tokens` and `weight` (an example's weight in the loss, as a size)."""

    tokens: Floats
    weight: Floats

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Plan:
    """How often each row is seen: `new`, `history` and `real` hold one count per row of their pool. `real_weight`
    multiplies the weight of real rows (anchors); `waiting` counts synthetic rows left for later rounds."""

    new: Ints
    history: Ints
    real: Ints
    real_weight: float
    waiting: int


EMPTY = Pool(np.zeros(0), np.zeros(0))


def plan(new: Pool, history: Pool, real: Pool, mixture: Mixture, rng: np.random.Generator) -> Plan:
    """The round's mixture. Which rows wait or repeat is drawn from `rng`; everything else is arithmetic.

    Raises `GuardError` when the floor asks for real rows and there are none.
    """
    if mixture.history == "replace":
        history = EMPTY
    if isinstance(mixture.floor, Waived):
        return _unfloored(new, history, real, mixture, rng)
    if mixture.floor == "anchor":
        return _anchored(new, history, real, mixture, rng)
    return _floored(new, history, real, mixture, rng)


def _split(counts: Ints, new: Pool, history: Pool) -> tuple[Ints, Ints]:
    return counts[: len(new)], counts[len(new) : len(new) + len(history)]


def _joined(new: Pool, history: Pool) -> Pool:
    return Pool(np.concatenate([new.tokens, history.tokens]), np.concatenate([new.weight, history.weight]))


def _cycles(size: int, total: int, rng: np.random.Generator) -> Ints:
    """`total` row numbers out of `size`: whole passes in fresh random orders, then a part of one."""
    if size == 0 or total == 0:
        return np.zeros(0, np.int64)
    passes = [rng.permutation(size) for _ in range(-(-total // size))]
    return np.concatenate(passes)[:total].astype(np.int64)


def _unfloored(new: Pool, history: Pool, real: Pool, mixture: Mixture, rng: np.random.Generator) -> Plan:
    """Replace learns from this round alone; accumulate pools real and all synthetic rows (Gerstgrasser et al.,
    arXiv:2404.01413); subsample draws as many rows as this round made from that pool (Kazdan et al., arXiv:2410.16713)."""
    if mixture.history == "replace":
        real = EMPTY
    size = len(new) + len(history) + len(real)
    total = size if mixture.budget is None else mixture.budget
    if mixture.history == "subsample":
        drawn = rng.permutation(size)[: len(new) or size]
        seen = drawn[_cycles(len(drawn), len(drawn) if mixture.budget is None else total, rng)]
    else:
        seen = _cycles(size, total, rng)
    counts = np.bincount(seen, minlength=size).astype(np.int64)
    first, second = _split(counts, new, history)
    padded = counts[len(new) + len(history) :]
    return Plan(first, second, padded, 1.0, 0)


def _anchored(new: Pool, history: Pool, real: Pool, mixture: Mixture, rng: np.random.Generator) -> Plan:
    """Each synthetic row once, and as many real rows whose weights add up to `anchor` times the synthetic ones'."""
    synthetic = _joined(new, history)
    if len(synthetic) and not len(real) and mixture.anchor > 0:
        raise GuardError(
            "the mixture anchors on real data and the bench has no real rows; give `bench.real`, or waive the floor with a reason"
        )
    order = _history_order(new, history, mixture, rng)
    count = min(len(order), len(real))
    picked = _cycles(len(real), count, rng)
    weight = float(real.weight[picked].sum()) if count else 0.0
    factor = mixture.anchor * float(np.abs(synthetic.weight[order]).sum()) / weight if weight > 0 else 1.0
    counts = np.bincount(order, minlength=len(synthetic)).astype(np.int64)
    return Plan(*_split(counts, new, history), np.bincount(picked, minlength=len(real)).astype(np.int64), factor, 0)


def _history_order(new: Pool, history: Pool, mixture: Mixture, rng: np.random.Generator) -> Ints:
    """Synthetic rows in the order in which they are admitted: random over the pool that `history` allows."""
    size = len(new) + len(history)
    if mixture.history == "subsample" and len(new):
        return rng.permutation(size)[: len(new)].astype(np.int64)
    return rng.permutation(size).astype(np.int64)


def _floored(new: Pool, history: Pool, real: Pool, mixture: Mixture, rng: np.random.Generator) -> Plan:
    """The most synthetic rows, in a random order of admission, that the real rows can outweigh by the floor."""
    synthetic = _joined(new, history)
    admitted = order = _history_order(new, history, mixture, rng)
    cap = int(mixture.real_epochs * len(real))
    if mixture.real_floor > 0 and cap == 0 and len(order):
        raise GuardError(
            f"the mixture's floor is {mixture.real_floor:g} real data and the bench has {len(real)} real rows; "
            "give `bench.real`, lower `mix.real_floor`, or waive the floor with a reason"
        )
    if mixture.budget is not None:
        cap = min(cap, mixture.budget)
        order = order[_cycles(len(order), min(int(mixture.synthetic_epochs * len(order)), mixture.budget), rng)]
    cycle = _cycles(len(real), cap, rng)
    taken, repeats = _balance(synthetic, order, real, cycle, mixture)
    chosen = np.bincount(order[:taken], minlength=len(synthetic)).astype(np.int64)
    seen = np.bincount(cycle[:repeats], minlength=len(real)).astype(np.int64)
    return Plan(*_split(chosen, new, history), seen, 1.0, int((chosen[admitted] == 0).sum()))


def _balance(synthetic: Pool, order: Ints, real: Pool, cycle: Ints, mixture: Mixture) -> tuple[int, int]:
    """How many rows of `order` and of `cycle` to take, so that the real share is at least the floor in both units."""
    ratio = mixture.real_floor / (1 - mixture.real_floor) if mixture.real_floor < 1 else np.inf
    sums = [_running(pool, rows) for pool, rows in ((synthetic, order), (real, cycle))]
    (made, made_tokens), (had, had_tokens) = sums
    takes = np.arange(len(order) + 1)
    with np.errstate(invalid="ignore"):
        needed = np.maximum(_reach(had, made * ratio), _reach(had_tokens, made_tokens * ratio))
    needed[0] = 0
    if mixture.budget is None:
        taken = int(takes[needed <= len(cycle)].max())
        return taken, int(needed[taken])
    rest = np.minimum(mixture.budget - takes, len(cycle))
    fits = (takes <= mixture.budget) & (needed <= rest)
    taken = int(takes[fits].max())
    return taken, int(rest[taken])


def _running(pool: Pool, rows: Ints) -> tuple[Floats, Floats]:
    weight = np.abs(pool.weight[rows])
    return np.concatenate([[0.0], np.cumsum(weight)]), np.concatenate([[0.0], np.cumsum(weight * pool.tokens[rows])])


def _reach(running: Floats, wanted: Floats) -> Ints:
    """The smallest count whose running sum reaches each wanted amount; one past the end where none does."""
    return np.searchsorted(running, np.nan_to_num(wanted, nan=0.0, posinf=np.inf) * (1 - 1e-12)).astype(np.int64)
