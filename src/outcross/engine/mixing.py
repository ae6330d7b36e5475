"""The mix step of a round: what is offered (new, history, real), which of it the optimiser sees, and in which order.

    examples.parquet of this round and earlier ones ┐
    real rows ─▶ real.parquet: sizes and origins    ┴─▶ Offer ─▶ Dealt (`outcross.mix`) ─▶ Mixed ─▶ mixture.parquet, the trainer

Rows of the bench whose origin is not known to be real count as synthetic: they are offered beside the history, under the same floor.
What an offer is made of is on disk, so that the record alone tells what any other mixture would have been (`engine/what_if.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from outcross.engine.candidates import REAL, Source, encode_real, pool_of_real
from outcross.engine.guards import real_of
from outcross.engine.steps import Json, Part, token_counter
from outcross.engine.store import suffix
from outcross.engine.tables import MIXTURE, Writer, scalar_weight
from outcross.errors import GuardError
from outcross.mix import Floats, Ints, Plan, Pool, Traits, arranged, plan
from outcross.recipe import Mixture, Waived
from outcross.stages import Context, Role
from outcross.types import Example, Origin

CHUNK = 100_000  # rows of a curriculum that are in memory at a time


@dataclass(frozen=True)
class Offer:
    """What a mixture is made of: the sources of synthetic rows, this round's first, their pools, and the rows of the bench."""

    sources: tuple[Source, ...]
    pools: tuple[Pool, ...]
    real: Pool

    @property
    def is_real(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows of the bench are known to be real."""
        origin = self.real.known.origin
        return np.array([*(name == "real" for name in origin.names), False])[origin.codes]

    @property
    def parts(self) -> tuple[Pool, Pool, Pool]:
        """New; history, and after it the rows of the bench that count as synthetic; real."""
        return self.pools[0], _joined([*self.pools[1:], _taken(self.real, ~self.is_real)]), _taken(self.real, self.is_real)

    def deal(self, mixture: Mixture, draws: int, order: int) -> Dealt:
        """The mixture, drawn by the seed `draws`, and in the order that it asks for, where equals are drawn by the seed `order`.

        Raises `GuardError` as `outcross.mix.plan`.
        """
        parts = self.parts
        chosen = plan(*parts, mixture, np.random.default_rng(draws))
        known, edges = self.is_real, np.cumsum([len(pool) for pool in self.pools[1:]]).astype(int)
        *earlier, given = np.split(chosen.history, edges)
        real = np.zeros(len(self.real), np.int64)
        real[~known], real[known] = given, chosen.real
        scales: tuple[Floats | None, ...] = (None,) * len(self.pools)
        real_scale: Floats | None = None
        if chosen.factors is not None or chosen.real_weight != 1.0:
            new, history, people = chosen.factors or tuple(np.ones(len(pool)) for pool in parts)
            *before, other = np.split(history, edges)
            scales = (new, *before)
            real_scale = np.zeros(len(self.real))
            real_scale[~known], real_scale[known] = other, people * chosen.real_weight
        sequence = None
        if mixture.order is not None:
            base = sum(map(len, self.pools))
            place = np.concatenate([np.arange(base), base + np.flatnonzero(~known), base + np.flatnonzero(known)])
            sequence = place[arranged(chosen, parts, mixture.order, np.random.default_rng(order))]
        return Dealt(chosen, (chosen.new, *earlier, real), (*scales, real_scale), sequence)


@dataclass(frozen=True)
class Dealt:
    """A mixture of an offer: how often each row is seen and by what its weight is multiplied (None: by 1), an array for each source and,
    last, one for the bench; and the order, with rows numbered through all of these (None: any)."""

    plan: Plan
    counts: tuple[Ints, ...]
    scales: tuple[Floats | None, ...]
    sequence: Ints | None = None


def _taken(pool: Pool, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Pool:
    return Pool(pool.tokens[chosen], pool.weight[chosen], pool.known.taken(chosen))


def _joined(pools: Sequence[Pool]) -> Pool:
    tokens, weight = (np.concatenate([getattr(pool, name) for pool in pools]) for name in ("tokens", "weight"))
    return Pool(tokens, weight, Traits.joined([pool.known for pool in pools]))


@dataclass(frozen=True)
class Mixed:
    """The examples of a round's mixture, repeats included, read from disk each time they are iterated."""

    sources: tuple[Source, ...]
    real: Iterable[Example]
    dealt: Dealt

    def rows(self) -> Iterator[tuple[str, int, Example, int]]:
        """(source, row number in it, example, repeats) of every row that is seen."""
        for _, name, row, example, repeats in self._numbered():
            yield name, row, example, repeats

    def _numbered(self) -> Iterator[tuple[int, str, int, Example, int]]:
        """The same, with the row's number through all sources before it."""
        base = 0
        tables = (*(source.examples() for source in self.sources), iter(self.real))
        for index, (examples, counts, scale) in enumerate(zip(tables, self.dealt.counts, self.dealt.scales, strict=True)):
            name = "real" if index == len(self.sources) else "new" if index == 0 else "history"
            if counts.any():
                weights = [None] * len(counts) if scale is None else scale.tolist()
                for row, (example, repeats, weight) in enumerate(zip(examples, counts.tolist(), weights, strict=True)):
                    if repeats:
                        yield base + row, name, row, scaled(example, weight), repeats
            base += len(counts)

    def __iter__(self) -> Iterator[Example]:
        if self.dealt.sequence is None:
            for _, _, _, example, repeats in self._numbered():
                for _ in range(repeats):
                    yield example
            return
        for start in range(0, len(self.dealt.sequence), CHUNK):
            wanted = self.dealt.sequence[start : start + CHUNK].tolist()
            known = set(wanted)
            found = {number: example for number, _, _, example, _ in self._numbered() if number in known}
            yield from map(found.__getitem__, wanted)


def scaled(example: Example, factor: float | None) -> Example:
    """The example with its weight, or all its weights, times `factor`."""
    if factor is None or factor == 1.0:
        return example
    weight = example.weight
    return msgspec.structs.replace(example, weight=tuple(w * factor for w in weight) if isinstance(weight, tuple) else weight * factor)


@dataclass(frozen=True)
class Chain:
    """Several roles' mixtures, one after the other: roles that alias one model are taught in one fit."""

    parts: tuple[Mixed, ...]

    def __iter__(self) -> Iterator[Example]:
        return chain.from_iterable(self.parts)

    def without(self, part: Part, tokens_of: Callable[[Example], int], skipped: Set[str], left_out: Mapping[str, int]) -> dict[str, float]:
        """The share of real data among the examples that were not skipped. Raises `GuardError` when it is below the floor."""
        real, every = [0.0, 0.0], [0.0, 0.0]
        for source, _, example, repeats in chain.from_iterable(mixed.rows() for mixed in self.parts):
            if example.id not in skipped:
                seen = repeats * abs(scalar_weight(example))
                for unit, size in enumerate((seen, seen * tokens_of(example))):
                    every[unit] += size
                    real[unit] += size if source == "real" and example.origin.is_real else 0.0
        share = {unit: real[i] / every[i] for i, unit in enumerate(("records", "tokens")) if every[i]}
        _check_learnt(part.phase.mix, share, part.label, left_out)
        return share


def offer(folder: Path, role: Role, mixture: Mixture, before: Iterable[Path], buried: frozenset[str], *, held: bool) -> Offer:
    """What is offered to the mixture of the round in `folder`. `before`: the folders of the rounds that it may learn from; `held`: what
    the round made waits for people."""
    name = f"examples{suffix(role)}.parquet"
    earlier = before if mixture.history != "replace" else ()
    new = Source(folder / name, buried, keeps_own=True, held=held)
    sources = (new, *(Source(path / name, buried, keeps_own=False) for path in earlier))
    answers = bool(mixture.weights or mixture.caps or mixture.order)
    return Offer(sources, tuple(source.pool(answers=answers) for source in sources), pool_of_real(folder / f"real{suffix(role)}.parquet"))


def mix(part: Part, ctx: Context, role: Role, *, fitted: bool = False) -> tuple[Mixed, Json]:
    """The round's mixture and its composition; mixture.parquet says which row was seen how often.

    A mixture that was written and not `fitted` yet is written anew when more records have been tombstoned since.
    """
    own = real_of(part.bench, part.phase.learn[role])
    real = () if own is None else own
    if own is not None:
        _write_real(part, ctx, role, real)
    before = [folder for item in part.history for folder in item.parts()]
    offered = offer(part.folder, role, part.phase.mix, before, part.buried, held=part.held)
    dealt = offered.deal(part.phase.mix, ctx.seed_of("mix", role), ctx.seed_of("order", role))
    mixed = Mixed(offered.sources, real, dealt)
    done = part.marked(f"mix{suffix(role)}")
    if done is None or (done["tombstones"] != len(part.buried) and not fitted):
        done = part.mark(f"mix{suffix(role)}", _write_mixture(part, ctx, role, mixed))
    return mixed, done


def _write_real(part: Part, ctx: Context, role: Role, real: Iterable[Example]) -> None:
    """Sizes and origins of the real rows, in their order: with them a mixture can be made again without the model or the data."""
    path = part.folder / f"real{suffix(role)}.parquet"
    if not path.exists():
        tokens = token_counter(ctx.model(role))
        with Writer(path, REAL, encode_real) as table:
            for example in real:
                table.add((example, tokens(example)))


def _write_mixture(part: Part, ctx: Context, role: Role, mixed: Mixed) -> Json:
    """Write mixture.parquet. What counts as real is a row of the bench whose origin is proved or attested, and nothing else."""
    tokens_of = token_counter(ctx.model(role))
    parts: dict[tuple[str, str, str, int, str], list[float]] = {}
    real = [0.0, 0.0]
    with Writer(part.folder / f"mixture{suffix(role)}.parquet", MIXTURE, _encode_mixture) as table:
        for source, row, example, repeats in mixed.rows():
            weight = scalar_weight(example)
            table.add((example.id, source, row, repeats, weight))
            total = parts.setdefault(_part_key(example.origin), [0.0, 0.0])
            seen = repeats * abs(weight)
            tokens = seen * tokens_of(example)
            total[0] += seen
            total[1] += tokens
            if source == "real" and example.origin.is_real:
                real[0] += seen
                real[1] += tokens
    every = [sum(total[i] for total in parts.values()) for i in range(2)]
    share = {unit: real[i] / every[i] if every[i] else 0.0 for i, unit in enumerate(("records", "tokens"))}
    mixture, chosen, given = part.phase.mix, mixed.dealt.plan, mixed.dealt.counts[-1]
    check_floor(mixture, share if parts else {}, part.label)
    return {
        "mixture": asdict(mixture),  # of this round: an alarm may have lifted the phase's floor
        "records": every[0],
        "tokens": every[1],
        "real_share": share,
        "tombstones": len(part.buried),
        "floor": f"waived: {mixture.floor.reason}" if isinstance(mixture.floor, Waived) else mixture.floor,
        "required": mixture.real_floor if mixture.floor == "rows" else None,
        "waiting": chosen.waiting,
        "left_out": chosen.left_out,
        "new": int(chosen.new.sum()),
        "history": sum(int(counts.sum()) for counts in mixed.dealt.counts[1:-1]),
        "real": int(given.sum()),
        "real_epochs": float(given.sum()) / len(given) if len(given) else 0.0,
        "parts": [
            {"kind": k[0], "proof": k[1], "source": k[2], "depth": k[3], "round": k[4], "records": total[0], "tokens": total[1]}
            for k, total in sorted(parts.items())
        ],
    }


def _check_learnt(mixture: Mixture, share: Mapping[str, float], label: str, left_out: Mapping[str, int]) -> None:
    """The floor, or that there is an anchor, once more: of what the optimiser has seen."""
    required = mixture.real_floor if mixture.floor == "rows" else 0.0
    if mixture.floor == "anchor" and mixture.anchor:
        held = all(real > 0 for real in share.values())
    else:
        held = all(real >= required - 1e-9 for real in share.values())
    if held:
        return
    told, found = (
        ", ".join(parts)
        for parts in ([f"{count:,} {why}" for why, count in left_out.items()], [f"{r:.1%} of {u}" for u, r in share.items()])
    )
    raise GuardError(
        f"round {label}: examples were not learnt from ({told}), and real data make up {found} of the others, where the floor is "
        f"{f'{required:.0%}' if required else 'an anchor of real data'}; nothing was promoted. Raise the plan's max_length, shorten these rows, or "
        "take them out of the real data"
    )


def _part_key(origin: Origin) -> tuple[str, str, str, int, str]:
    return (origin.kind, origin.proof, origin.source, origin.depth, origin.round)


def _encode_mixture(rows: list[tuple[str, str, int, int, float]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True))
    return pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, MIXTURE, strict=True)], schema=MIXTURE)


def check_floor(mixture: Mixture, share: Mapping[str, float], label: str) -> None:
    """The floor is checked on the mixture as written, by proved or attested origin, not on what was planned."""
    if mixture.floor != "rows":
        return
    for unit, real in share.items():
        if real < mixture.real_floor - 1e-9:
            raise GuardError(
                f"round {label}: real data make up {real:.1%} of the {unit} that the optimiser would see, and the floor is "
                f"{mixture.real_floor:.0%}. Rows of real data without proof or attestation count as synthetic: state their origin, "
                "or give more real data"
            )
