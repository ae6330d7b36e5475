"""The mixture of a round: one pure function from sizes to how often the optimiser sees each row.

The floor of real data holds by records and by tokens, weights and repeats counted. Where real rows are too few to hold it
even when repeated `real_epochs` times, synthetic rows wait: they stay in the store and in later rounds' pools.

    weights ─▶ who may enter (history, caps) ─▶ how many the real rows can outweigh (floor, budget) ─▶ how often each is seen ─▶ order
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from outcross.errors import GuardError
from outcross.recipe import Cap, Curriculum, Decay, Factors, Mixture, Threshold, Tilt, Waived, Weight

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
NONE = -1


@dataclass(frozen=True)
class Labels:
    """A label a row: its number in `names`, -1 where the row has none. 4 bytes a row."""

    codes: npt.NDArray[np.int32]
    names: tuple[str, ...] = ()

    @staticmethod
    def of(values: Iterable[str | None]) -> Labels:
        """The labels as they come."""
        numbers: dict[str, int] = {}
        codes = [NONE if value is None else numbers.setdefault(value, len(numbers)) for value in values]
        return Labels(np.array(codes, np.int32), tuple(numbers))

    @staticmethod
    def none(rows: int) -> Labels:
        return Labels(np.full(rows, NONE, np.int32))

    @staticmethod
    def joined(parts: Sequence[Labels]) -> Labels:
        """The rows of all parts; equal names have one number."""
        numbers: dict[str, int] = {}
        codes = []
        for part in parts:
            own = np.array([numbers.setdefault(name, len(numbers)) for name in part.names] + [NONE], np.int32)
            codes.append(own[part.codes])  # -1 is the last
        return Labels(np.concatenate([*codes, np.zeros(0, np.int32)]), tuple(numbers))


@dataclass(frozen=True)
class Traits:
    """What rows are, one entry each: `origin` is real, synthetic or unknown; `score` and `difficulty` are NaN where nothing is known."""

    source: Labels
    origin: Labels
    subgroup: Labels
    task: Labels
    depth: Ints
    score: Floats
    difficulty: Floats

    @staticmethod
    def unknown(rows: int) -> Traits:
        """Rows of which nothing is known but that there are so many."""
        labels, numbers = Labels.none(rows), np.full(rows, np.nan)
        return Traits(labels, labels, labels, labels, np.zeros(rows, np.int64), numbers, numbers)

    @staticmethod
    def joined(parts: Sequence[Traits]) -> Traits:
        labels = [Labels.joined([getattr(part, name) for part in parts]) for name in ("source", "origin", "subgroup", "task")]
        depth, score, difficulty = (np.concatenate([getattr(part, name) for part in parts]) for name in ("depth", "score", "difficulty"))
        return Traits(labels[0], labels[1], labels[2], labels[3], depth, score, difficulty)

    def taken(self, chosen: npt.NDArray[np.bool_]) -> Traits:
        """The traits of some of the rows."""
        labels = [Labels(old.codes[chosen], old.names) for old in (self.source, self.origin, self.subgroup, self.task)]
        return Traits(labels[0], labels[1], labels[2], labels[3], self.depth[chosen], self.score[chosen], self.difficulty[chosen])

    def labels(self, by: str) -> Labels:
        """The labels of this name; of depths, the numbers as text."""
        if by != "depth":
            found: Labels = getattr(self, by)
            return found
        depths, codes = np.unique(self.depth, return_inverse=True)
        return Labels(codes.astype(np.int32), tuple(map(str, depths.tolist())))


@dataclass(frozen=True)
class Pool:
    """Sizes of candidate rows, one entry each: `tokens` and `weight` (an example's weight in the loss, as a size). `traits` where the
    mixture has weights, caps or an order."""

    tokens: Floats
    weight: Floats
    traits: Traits | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def known(self) -> Traits:
        return Traits.unknown(len(self)) if self.traits is None else self.traits


@dataclass(frozen=True)
class Plan:
    """How often each row is seen: `new`, `history` and `real` hold one count per row of their pool. `real_weight`
    multiplies the weight of real rows (anchors); `factors` those of the rows of each pool, where the mixture has weights.

    Each synthetic row that was offered is used, or is `waiting` for more real rows or a larger budget, or was `left_out` by what the
    mixture asks for: history, weights or caps."""

    new: Ints
    history: Ints
    real: Ints
    real_weight: float
    waiting: int
    left_out: int = 0
    factors: tuple[Floats, Floats, Floats] | None = None

    @property
    def used(self) -> int:
        """How many synthetic rows are seen at all."""
        return int(np.count_nonzero(self.new) + np.count_nonzero(self.history))


EMPTY = Pool(np.zeros(0), np.zeros(0))


def problems(mixture: Mixture) -> Iterator[str]:
    """What no mixture can be, setting by setting."""
    if not 0 <= mixture.real_floor <= 1:
        yield f"real_floor is {mixture.real_floor}; it is a share between 0 and 1"
    for name in ("anchor", "real_epochs", "synthetic_epochs"):
        if not 0 <= getattr(mixture, name) < np.inf:
            yield f"{name} is {getattr(mixture, name)}; it is a number of 0 or more"
    if mixture.budget is not None and mixture.budget < 1:
        yield f"budget is {mixture.budget}; it is a number of records, 1 or more, or none"


def plan(new: Pool, history: Pool, real: Pool, mixture: Mixture, rng: np.random.Generator) -> Plan:
    """The round's mixture. Which rows wait or repeat is drawn from `rng`; everything else is arithmetic.

    Raises `GuardError` when the floor asks for real rows and there are none, or when a cap leaves nothing.
    """
    offered = len(new) + len(history)
    pools = (new, EMPTY if mixture.history == "replace" else history, real)
    factors = factors_of(pools, mixture.weights) if mixture.weights else None
    if factors is not None:
        pools = tuple(replace(pool, weight=pool.weight * factor) for pool, factor in zip(pools, factors, strict=True))  # type: ignore[assignment]
    draw = _unfloored if isinstance(mixture.floor, Waived) else _anchored if mixture.floor == "anchor" else _floored
    chosen = draw(*pools, mixture, rng)
    shares, used = [cap for cap in mixture.caps if cap.share is not None], NONE
    while shares and used != chosen.used:  # what one cap takes out makes the shares of the others larger
        used = chosen.used
        for cap in shares:
            chosen = _trimmed(chosen, pools, cap, rng)
    chosen = replace(chosen, left_out=offered - chosen.used - chosen.waiting, factors=factors)
    if mixture.history == "replace":
        forgotten = np.zeros(len(history))
        held = None if factors is None else (factors[0], forgotten, factors[2])
        chosen = replace(chosen, history=forgotten.astype(np.int64), factors=held)
    return chosen


# ── weights ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def factors_of(pools: tuple[Pool, Pool, Pool], weights: Sequence[Weight]) -> tuple[Floats, Floats, Floats]:
    """By what the weights multiply the loss weight of each row of new, history and real."""
    scores = np.concatenate([pool.known.score for pool in pools[:2]])
    best = float(np.nanmax(scores)) if np.isfinite(scores).any() else 0.0
    each = [reduce(np.multiply, [_factor(pool.known, weight, best) for weight in weights], np.ones(len(pool))) for pool in pools]
    return each[0], each[1], each[2]


def _factor(traits: Traits, weight: Weight, best: float) -> Floats:
    match weight:
        case Decay(decay):
            return decay ** traits.depth.astype(np.float64)
        case Threshold(at_least):
            return np.where(traits.score < at_least, 0.0, 1.0)
        case Tilt(temperature):
            return np.exp(np.where(np.isnan(traits.score), 0.0, traits.score - best) / temperature)
        case Factors(by, factors, other):
            labels = traits.labels(by)
            each = [next((f for pattern, f in factors.items() if fnmatch.fnmatchcase(name, str(pattern))), other) for name in labels.names]
            return np.array([*each, other])[labels.codes]


# ── who may enter ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _split(counts: Ints, new: Pool, history: Pool) -> tuple[Ints, Ints]:
    return counts[: len(new)], counts[len(new) : len(new) + len(history)]


def _joined(new: Pool, history: Pool) -> Pool:
    traits = None if new.traits is None and history.traits is None else Traits.joined([new.known, history.known])
    return Pool(np.concatenate([new.tokens, history.tokens]), np.concatenate([new.weight, history.weight]), traits)


def _cycles(size: int, total: int, rng: np.random.Generator) -> Ints:
    """`total` row numbers out of `size`: whole passes in fresh random orders, then a part of one."""
    if size == 0 or total == 0:
        return np.zeros(0, np.int64)
    passes = [rng.permutation(size) for _ in range(-(-total // size))]
    return np.concatenate(passes)[:total].astype(np.int64)


def _admissible(order: Ints, synthetic: Pool, mixture: Mixture) -> Ints:
    """Those of `order` that weights and caps let in, in the same order."""
    if mixture.weights:
        order = order[synthetic.weight[order] > 0]
    for cap in mixture.caps:
        if cap.rows is not None:
            order = order[_rank(synthetic.known.labels(cap.by).codes[order]) < cap.rows]
    return order


def _rank(codes: npt.NDArray[np.int32]) -> Ints:
    """How many earlier entries have the same code; 0 for entries without one."""
    sort = np.argsort(codes, kind="stable")
    ordered = codes[sort]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(codes)]
    places = np.arange(len(codes))
    found = np.empty(len(codes), np.int64)
    found[sort] = places - np.maximum.accumulate(np.where(first, places, 0)) if len(codes) else places
    return np.where(codes == NONE, 0, found)


def _real_rows(real: Pool, mixture: Mixture) -> Ints:
    """The real rows that have a weight."""
    return np.flatnonzero(real.weight > 0) if mixture.weights else np.arange(len(real))


def _history_order(new: Pool, history: Pool, mixture: Mixture, rng: np.random.Generator) -> Ints:
    """Synthetic rows in the order in which they are admitted: random over the pool that `history` allows."""
    size = len(new) + len(history)
    if mixture.history == "subsample" and len(new):
        return rng.permutation(size)[: len(new)].astype(np.int64)
    return rng.permutation(size).astype(np.int64)


# ── the three floors ───────────────────────────────────────────────────────────────────────────────────────────────────
def _unfloored(new: Pool, history: Pool, real: Pool, mixture: Mixture, rng: np.random.Generator) -> Plan:
    """Replace learns from this round alone; accumulate pools real and all synthetic rows (Gerstgrasser et al.,
    arXiv:2404.01413); subsample draws as many rows as this round made from that pool (Kazdan et al., arXiv:2410.16713)."""
    unseen = len(real) if mixture.history == "replace" else 0
    real = EMPTY if unseen else real
    synthetic, made = _joined(new, history), len(new) + len(history)
    size = made + len(real)
    pool = rng.permutation(size)[: len(new) or size] if mixture.history == "subsample" else np.arange(size)
    if mixture.weights or mixture.caps:
        order = pool if mixture.history == "subsample" else rng.permutation(size)
        own = _admissible(order[order < made], synthetic, mixture)
        pool = np.concatenate([own, np.intersect1d(order[order >= made], made + _real_rows(real, mixture))])
    seen = pool[_cycles(len(pool), len(pool) if mixture.budget is None else mixture.budget, rng)]
    counts = np.bincount(seen, minlength=size).astype(np.int64)
    offered = pool[pool < made]
    return Plan(*_split(counts, new, history), np.pad(counts[made:], (0, unseen)), 1.0, int((counts[offered] == 0).sum()))


def _anchored(new: Pool, history: Pool, real: Pool, mixture: Mixture, rng: np.random.Generator) -> Plan:
    """Each synthetic row once, and as many real rows whose weights add up to `anchor` times the synthetic ones'."""
    synthetic, people = _joined(new, history), _real_rows(real, mixture)
    if len(synthetic) and not len(people) and mixture.anchor > 0:
        raise GuardError(
            "the mixture anchors on real data and the bench has no real rows; give `bench.real`, or waive the floor with a reason"
        )
    order = _admissible(_history_order(new, history, mixture, rng), synthetic, mixture)
    count = min(len(order), len(people))
    picked = people[_cycles(len(people), count, rng)]
    weight = float(real.weight[picked].sum()) if count else 0.0
    factor = mixture.anchor * float(np.abs(synthetic.weight[order]).sum()) / weight if weight > 0 else 1.0
    counts = np.bincount(order, minlength=len(synthetic)).astype(np.int64)
    return Plan(*_split(counts, new, history), np.bincount(picked, minlength=len(real)).astype(np.int64), factor, 0)


def _floored(new: Pool, history: Pool, real: Pool, mixture: Mixture, rng: np.random.Generator) -> Plan:
    """The most synthetic rows, in a random order of admission, that the real rows can outweigh by the floor."""
    synthetic, people = _joined(new, history), _real_rows(real, mixture)
    admitted = order = _admissible(_history_order(new, history, mixture, rng), synthetic, mixture)
    cap = int(mixture.real_epochs * len(people))
    if mixture.real_floor > 0 and cap == 0 and len(order):
        raise GuardError(
            f"the mixture's floor is {mixture.real_floor:g} real data and the bench has {len(people)} real rows; "
            "give `bench.real`, lower `mix.real_floor`, or waive the floor with a reason"
        )
    if mixture.budget is not None:
        cap = min(cap, mixture.budget)
        order = order[_cycles(len(order), min(int(mixture.synthetic_epochs * len(order)), mixture.budget), rng)]
    cycle = people[_cycles(len(people), cap, rng)]
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


# ── caps by share ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _trimmed(chosen: Plan, pools: tuple[Pool, Pool, Pool], cap: Cap, rng: np.random.Generator) -> Plan:
    """The plan without the synthetic rows, drawn at random, that are more than their share. To take synthetic rows out keeps any floor.

    Raises `GuardError` when nothing synthetic is left.
    """
    assert cap.share is not None
    new, history, real = pools
    synthetic = _joined(new, history)
    codes, counts = synthetic.known.labels(cap.by).codes, np.concatenate([chosen.new, chosen.history])
    size = counts * np.abs(synthetic.weight)
    others = float((chosen.real * np.abs(real.weight)).sum()) * chosen.real_weight + float(size[codes == NONE].sum())
    order = rng.permutation(len(counts))
    order = order[(codes[order] != NONE) & (counts[order] > 0)]
    order = order[np.argsort(codes[order], kind="stable")]
    before = len(order)
    while len(order):
        running = np.cumsum(size[order])
        label = codes[order]
        start = np.concatenate([[True], label[1:] != label[:-1]])
        within = running - np.maximum.accumulate(np.where(start, running - size[order], 0.0))
        limit = cap.share * (others + _watered(np.bincount(label, size[order]).astype(np.float64), cap.share, others))
        keep = within <= limit * (1 + 1e-12)
        if keep.all():
            break
        order = order[keep]
    if before and not len(order) and not others:
        raise GuardError(
            f"a cap of {cap.share:.0%} by {cap.by} leaves no row: there are too few values for each to be so little of the whole, and no real "
            "rows beside them; raise the share, or cap by rows"
        )
    kept = np.zeros(len(counts), bool)
    kept[order] = True
    left = _split(np.where(kept | (codes == NONE), counts, 0), new, history)
    return replace(chosen, new=left[0], history=left[1])


def _watered(sums: Floats, share: float, others: float) -> float:
    """What is left of sums, each lowered to `share` of what is left of all of them and `others`."""
    over = np.zeros(len(sums), bool)
    while True:
        rest = others + float(sums[~over].sum())
        whole = rest / (1 - share * over.sum()) if share * over.sum() < 1 else (np.inf if rest else 0.0)
        more = ~over & (sums > share * whole * (1 + 1e-12))
        if not more.any():
            return min(float(sums.sum()), whole - others)
        over |= more


# ── order ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def arranged(chosen: Plan, pools: tuple[Pool, Pool, Pool], order: Curriculum, rng: np.random.Generator) -> Ints:
    """The rows in the order in which the optimiser is to meet them, repeats included. Rows are numbered through new, history and real.

    Synthetic rows go by the key. Real rows, in the order of their own keys, and rows without a key, in a random one, are spread evenly.
    """
    counts = np.concatenate([chosen.new, chosen.history, chosen.real])
    rows = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    key = np.concatenate([pool.tokens if order.by == "length" else getattr(pool.known, order.by) for pool in pools]).astype(np.float64)[
        rows
    ]
    if order.first == "high":
        key = -key
    is_real = rows >= len(chosen.new) + len(chosen.history)
    place = np.empty(len(rows))
    for group in (~is_real & ~np.isnan(key), is_real & ~np.isnan(key), np.isnan(key)):
        members = np.flatnonzero(group)
        place[members[np.argsort(key[members], kind="stable")]] = (np.arange(len(members)) + 0.5) / max(1, len(members))
    return rows[np.argsort(place, kind="stable")]
