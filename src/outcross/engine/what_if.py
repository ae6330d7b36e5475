"""Mixtures on the record, made again without a model: as they were, or as another mixture would have dealt the same rows; and the batches
that the optimiser saw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from outcross.engine import admission
from outcross.engine.mixing import Dealt, Offer, offer, scaled
from outcross.engine.steps import Json
from outcross.engine.store import PRIMARY, RoundDir, RunDir, read_json, suffix
from outcross.engine.tables import decode_example, scalar_weight
from outcross.errors import StoreError
from outcross.mix import Floats, Ints, Traits
from outcross.recipe import Mixture
from outcross.stages import Role, seed_from
from outcross.types import Example

BY = ("origin", "depth", "subgroup")


@dataclass(frozen=True)
class Share:
    """Rows of one origin, depth or subgroup in a mixture: how many different ones, how often they are seen, and what they come to with
    repeats and weights, as the floor counts."""

    by: str
    value: str
    rows: int
    seen: int
    records: float
    tokens: float


@dataclass(frozen=True)
class Composition:
    """A mixture in numbers. `offered`: synthetic rows, each of which is used, waits or is left out; `real_rows`: how many different real
    rows are seen; `repeats`: how often each of the bench's real rows is, on average and at most; `real`: their share of records and tokens."""

    offered: int
    used: int
    waiting: int
    left_out: int
    records: float
    tokens: float
    real: tuple[float, float]
    real_rows: int
    repeats: tuple[float, int]
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Stored:
    """What one role's optimiser was given in a round, or in an inner turn of it. `before`: the complete rounds before it."""

    run: RunDir
    turn: RoundDir
    before: tuple[RoundDir, ...]
    folder: Path
    label: str
    role: Role

    @cached_property
    def marker(self) -> Json:
        found: Json = read_json(self.folder / "steps" / f"mix{suffix(self.role)}.json")
        return found

    @property
    def settings(self) -> Json:
        """The fields of the `Mixture` that it was made by. Raises `StoreError` for a run that an earlier version wrote."""
        if "mixture" not in self.marker:
            raise StoreError(f"{self.label} was run by an earlier version, which did not note what a mixture is made again from")
        return dict(self.marker["mixture"])

    def deal(self, mixture: Mixture) -> tuple[Offer, Dealt]:
        """The mixture that `mixture` makes of what was offered then, with the run's own draws.

        Raises `GuardError` when it cannot keep its floor, `StoreError` when a table of the record is missing.
        """
        sizes = self.folder / f"real{suffix(self.role)}.parquet"
        if not sizes.exists() and self.marker["real"]:
            raise StoreError(f"{self.folder} has no {sizes.name}, which holds the sizes of real rows; restore it from a copy")
        earlier = [folder for item in admission.learnable(self.before, self.turn) for folder in item.parts()]
        admitted = self.folder / "steps" / f"{admission.MARKER}.json"
        held = admitted.exists() and read_json(admitted)["decision"] != "accept"
        offered = offer(self.folder, self.role, mixture, earlier, self._buried, held=held)
        seeds = (seed_from(self.run.manifest["seed"], self.label, what, self.role) for what in ("mix", "order"))
        return offered, offered.deal(mixture, *seeds)

    @property
    def _buried(self) -> frozenset[str]:
        """The records that were tombstoned when the mixture was made."""
        found: frozenset[str] = frozenset()
        for path in sorted((self.run.root / "tombstones").glob("*.json")):
            if len(found) >= self.marker["tombstones"]:
                break
            found |= frozenset(read_json(path)["records"])
        return found

    def check(self, dealt: Dealt) -> None:
        """Raises `StoreError` unless `dealt` is, row by row, what mixture.parquet says."""
        table = pq.read_table(self.folder / f"mixture{suffix(self.role)}.parquet", columns=["source", "row", "repeats"])
        last = len(dealt.counts) - 1
        rows = [np.flatnonzero(counts) for counts in dealt.counts]
        names = ["real" if place == last else "history" if place else "new" for place in range(last + 1)]
        same = (
            table["row"].to_pylist() == np.concatenate(rows).tolist()
            and table["repeats"].to_pylist() == np.concatenate([c[r] for c, r in zip(dealt.counts, rows, strict=True)]).tolist()
            and table["source"].to_pylist() == [name for name, found in zip(names, rows, strict=True) for _ in found]
        )
        if not same:
            raise StoreError(
                f"{self.folder} holds another mixture than its rows, seed and settings make; its tables were changed after the run, or an "
                "earlier version drew it otherwise"
            )


def stored(run: RunDir, role: Role = PRIMARY) -> Iterator[Stored]:
    """The mixtures on the record of a run for one role, in order."""
    rounds = run.rounds()
    for place, turn in enumerate(rounds):
        parts = turn.parts()
        for k, folder in enumerate(parts):
            if (folder / "steps" / f"mix{suffix(role)}.json").exists():
                label = turn.label if folder == turn.folder else f"{turn.label}/{k}"
                yield Stored(run, turn, tuple(rounds[:place]), folder, label, role)


def composition(offered: Offer, dealt: Dealt) -> Composition:
    """What a mixture is made of, by origin, generation depth and subgroup."""
    pools = (*offered.pools, offered.real)
    counts = np.concatenate(dealt.counts)
    records = np.concatenate([_seen(c, p.weight, s) for c, p, s in zip(dealt.counts, pools, dealt.scales, strict=True)])
    tokens = records * np.concatenate([pool.tokens for pool in pools])
    whole = [float(column.sum()) for column in (records, tokens)]
    base, known = len(counts) - len(offered.real), offered.is_real
    real = [float(column[base:][known].sum()) / total if total else 0.0 for column, total in zip((records, tokens), whole, strict=True)]
    own = counts[base:][known]
    return Composition(
        base + int((~known).sum()),
        dealt.plan.used,
        dealt.plan.waiting,
        dealt.plan.left_out,
        whole[0],
        whole[1],
        (real[0], real[1]),
        int(np.count_nonzero(own)),
        (float(own.mean()) if len(own) else 0.0, int(own.max(initial=0))),
        tuple(_shares(offered, counts, records, tokens)),
    )


def _seen(counts: Ints, weight: Floats, scale: Floats | None) -> Floats:
    found: Floats = counts * weight * (1.0 if scale is None else np.abs(scale))
    return found


def _shares(offered: Offer, counts: Ints, records: Floats, tokens: Floats) -> Iterator[Share]:
    traits = Traits.joined([pool.known for pool in (*offered.pools, offered.real)])
    for by in BY:
        labels = traits.labels(by)
        size = len(labels.names) + 1
        codes = np.where(labels.codes < 0, size - 1, labels.codes)
        sums = [np.bincount(codes, column, minlength=size) for column in (counts > 0, counts, records, tokens)]
        for place in np.argsort(-sums[2], kind="stable").tolist() if by != "depth" else range(size):
            if sums[1][place]:
                name = labels.names[place] if place < size - 1 else ""
                yield Share(by, name, int(sums[0][place]), int(sums[1][place]), float(sums[2][place]), float(sums[3][place]))


# ── batches ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Met:
    """A row of a batch as the optimiser saw it: its source (new, history or real), and the example with the weight that it had then; None
    where it is a real row and its data are not at hand."""

    id: str
    source: str
    weight: float
    example: Example | None


def batch(found: Stored, step: int, real: Iterable[Example] = ()) -> list[Met]:
    """The rows of one optimiser step, in their order. `real`: the role's real rows, whose texts the record does not hold.

    Raises `StoreError` when there is no such step.
    """
    order = found.folder / f"order{suffix(found.role)}.parquet"
    if not order.exists():
        raise StoreError(f"{found.label} has no {order.name}: {found.role} is taught with another role in one fit, or not at all")
    ids = ds.dataset(order).to_table(columns=["id"], filter=ds.field("step") == step)["id"].to_pylist()
    if not ids:
        last = pc.max(pq.read_table(order, columns=["step"])["step"]).as_py()
        raise StoreError(f"{found.label} has no batch {step}; its batches are 0 to {last}")
    mixed: dict[str, tuple[str, float]] = {}
    for path in sorted(found.folder.glob("mixture*.parquet")):
        table = ds.dataset(path).to_table(columns=["id", "source", "weight"], filter=ds.field("id").isin(ids))
        mixed = {row["id"]: (row["source"], row["weight"]) for row in table.to_pylist()} | mixed
    texts = {example.id: example for example in _texts(found, ids)}
    wanted = set(ids) - texts.keys()
    texts |= {example.id: example for example in real if example.id in wanted} if wanted else {}
    return [_met(name, *mixed[name], texts.get(name)) for name in ids]


def _met(name: str, source: str, weight: float, example: Example | None) -> Met:
    if example is None or isinstance(example.weight, tuple):
        own = scalar_weight(example) if example is not None else 0.0
        return Met(name, source, weight, example and scaled(example, weight / own if own else None))
    return Met(name, source, weight, scaled(example, weight / example.weight) if example.weight not in (0.0, weight) else example)


def _texts(found: Stored, ids: list[str]) -> Iterator[Example]:
    for folder in (found.folder, *(folder for item in found.before for folder in item.parts())):
        for path in sorted(folder.glob("examples*.parquet")):
            for rows in ds.dataset(path).to_batches(filter=ds.field("id").isin(ids)):
                yield from map(decode_example, rows.to_pylist())
