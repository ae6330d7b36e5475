"""The steps inside a round: generate → learn → mix → fit. Each leaves a marker when its files are on disk, and is skipped
when the marker is there: a killed run repeats at most the step it was in."""

from __future__ import annotations

import shutil
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from outcross.engine.conserve import Admit, Counter, Decontaminate, ErrorRule, blamed, curated, generated, verified
from outcross.engine.guards import BenchFacts, held_out_in
from outcross.engine.pipeline import pipelined
from outcross.engine.store import RoundDir, read_json, save_folder, suffix, write_json
from outcross.engine.tables import (
    DROPS,
    EXAMPLES,
    MIXTURE,
    ORDER,
    SAMPLES,
    Writer,
    decode_example,
    decode_groups,
    encode_drops,
    encode_examples,
    encode_groups,
    rows_of,
    scalar_weight,
)
from outcross.engine.watch import Watch
from outcross.errors import GuardError, StageError, StoreError
from outcross.mix import EMPTY, Plan, Pool, plan
from outcross.recipe import Bench, Learn, Mixture, Phase, Waived
from outcross.stages import Context, CountsTokens, Model, Role, Trainable, name_of, version_of
from outcross.text import prompt_text, words
from outcross.types import Content, Drop, Example, Group, Origin

SHOWN = 3  # groups of a round that the watcher sees
Json = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """Where one turn of a phase works: its folder, its label, and what it may see."""

    phase: Phase
    bench: Bench
    facts: BenchFacts
    folder: Path
    label: str
    history: tuple[RoundDir, ...]
    buried: frozenset[str]
    watch: Watch
    errors: ErrorRule = ErrorRule()
    verifying: list[Counter] = field(default_factory=list)  # those of the batch at hand, a verifier each
    held: bool = False  # what the round made waits for people and enters no mixture

    def marked(self, step: str) -> Json | None:
        """What the step's marker holds, or None while the step is not done."""
        path = self.folder / "steps" / f"{step}.json"
        return read_json(path) if path.exists() else None

    def mark(self, step: str, value: Json) -> Json:
        write_json(self.folder / "steps" / f"{step}.json", value)
        return value


@dataclass(frozen=True)
class StoredGroups:
    """The kept groups of a round, read from disk each time they are iterated."""

    path: Path

    def __iter__(self) -> Iterator[Group]:
        return decode_groups(rows_of(self.path))


# ── generate → verify → curate, as one pipelined stream ────────────────────────────────────────────────────────────────
def generate(part: Part, ctx: Context) -> list[Json]:
    """Fill groups.parquet and drops.parquet; the counts of every stage."""
    done = part.marked("generate")
    if done is not None:
        return list(done["counts"])
    shutil.rmtree(part.folder / "state", ignore_errors=True)
    phase = part.phase
    assert phase.generate is not None
    counters = [Counter("generate", name_of(phase.generate))]
    tasks = Admit(part.facts.index)(phase.tasks(ctx, part.bench.tasks))
    with (
        ExitStack() as threads,  # ended at once when anything fails: a thread left alone would go on asking models
        Writer(part.folder / "groups.parquet", SAMPLES, encode_groups, rows=1024) as kept,
        Writer(part.folder / "drops.parquet", DROPS, encode_drops, rows=1024) as dropped,
    ):
        first = pipelined(_watched(part, generated(phase.generate, ctx, tasks, counters[0]), counters[0]))
        stream: Iterator[Group] = threads.enter_context(closing(first))
        for verifier in phase.verify:
            counters.append(Counter("verify", name_of(verifier)))
            part.verifying.append(counters[-1])
            judged = pipelined(_watched(part, verified(verifier, ctx, stream, counters[-1], part.errors), counters[-1]))
            stream = threads.enter_context(closing(judged))
        curators: list[Any] = [Decontaminate(part.facts.index), *phase.curate]
        for curator in curators:
            counters.append(Counter("curate", name_of(curator)))
            stream = _set_aside(curated(curator, ctx, stream, counters[-1]), dropped)
        shown: list[Group] = []
        for group in _watched(part, stream, counters[-1]):
            if len(shown) < SHOWN:
                shown.append(group)
            kept.add(group)
    for counter in counters:
        counter.close()
    part.watch.samples(part.label, shown)
    return list(part.mark("generate", {"counts": [counter.counts() for counter in counters]})["counts"])


def _set_aside(items: Iterable[Group | Drop], dropped: Writer[Drop]) -> Iterator[Group]:
    for item in items:
        if isinstance(item, Drop):
            dropped.add(item)
        else:
            yield item


def _watched(part: Part, groups: Iterable[Group], counter: Counter) -> Iterator[Group]:
    done, total = 0, part.phase.tasks.at_most(part.facts.tasks)
    for group in groups:
        done += 1
        if done % 64 == 0:
            part.watch.stage(part.label, f"{counter.stage} {counter.name}", done, total, counter.detail)
        yield group
    part.watch.stage(part.label, f"{counter.stage} {counter.name}", done, done, counter.detail)


# ── learn: groups → examples ───────────────────────────────────────────────────────────────────────────────────────────
def learn(part: Part, ctx: Context, role: Role, what: Learn) -> Json:
    """Fill examples.parquet for a role; how many samples became examples. Memory: 8 bytes a sample, more for those learnt."""
    done = part.marked(f"learn{suffix(role)}")
    if done is not None:
        return done
    stored = StoredGroups(part.folder / "groups.parquet")
    counter = Counter("learn", f"{_snake(what.objective)}:{role}")
    samples = array("q")
    for row in rows_of(stored.path, ["id", "error"]):
        samples.append(hash(row["id"]))
        counter.failed += bool(row["error"])
    counter.into = len(samples)
    known = array("q", np.sort(np.frombuffer(samples, np.int64)).tobytes())
    count_tokens = _token_counter(ctx.model(role))
    used: set[int] = set()
    made = 0
    with Writer(part.folder / f"examples{suffix(role)}.parquet", EXAMPLES, encode_examples) as table, blamed(f"learn {counter.name}"):
        for example in what.objective(ctx, stored):
            why = held_out_in(example, part.facts.index)
            if why:
                raise GuardError(f"the objective {counter.name} made example {example.id}, which {why}; nothing held out may be learnt")
            parents = [key for key in map(hash, example.origin.parents) if _among(known, key)]
            if not parents:
                raise StageError(
                    f"learn {counter.name}: example {example.id} names no sample of this round among its parents "
                    f"{example.origin.parents!r:.80}; without its lineage a recall could not find it"
                )
            used.update(parents)
            made += 1
            table.add((example, count_tokens(example)))
    counter.kept = len(used)
    counter.dropped = counter.into - counter.failed - counter.kept
    if counter.dropped < 0:
        raise StageError(f"learn {counter.name}: examples were made of failed requests; {counter.failed} of {counter.into} samples failed")
    counter.detail["examples"] = made
    return part.mark(f"learn{suffix(role)}", {"counts": counter.counts(), "examples": made})


def _among(known: array[int], key: int) -> bool:
    place = bisect_left(known, key)
    return place < len(known) and known[place] == key


def _snake(stage: object) -> str:
    return str(getattr(stage, "name", type(stage).__name__.lower()))


def _token_counter(model: Model) -> Callable[[Example], int]:
    """Counts an example's tokens: the model's own, or words where it counts none."""
    count: Callable[[Content | Any], int]
    if isinstance(model, CountsTokens):
        count = model.count_tokens
    else:
        count = _words

    def tokens(example: Example) -> int:
        extra = 0 if example.rejected is None else count(example.rejected)
        return count(example.prompt) + count(example.completion) + extra

    return tokens


def _words(content: Any) -> int:
    return max(1, len(words(prompt_text(content))))


# ── mix: new + history + real → what the optimiser sees ────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Source:
    """A table of examples of this round or an earlier one, without tombstoned rows and rows that may not be kept."""

    path: Path
    buried: frozenset[str]
    keeps_own: bool  # history holds no policy-gradient examples: they are on-policy and stale
    held: bool = False  # no row of it may be seen

    def _rows(self, columns: list[str] | None) -> Iterator[Json]:
        if self.held:
            return
        for row in rows_of(self.path, columns):
            parents = row["outcross"]["parents"]
            if self.buried and (row["id"] in self.buried or any(parent in self.buried for parent in parents)):
                continue
            if self.keeps_own or row["loss"] != "pg":
                yield row

    def pool(self) -> Pool:
        """Sizes of the rows. Without tombstones and outside history only two columns are read."""
        if not self.buried and self.keeps_own and not self.held and self.path.exists():
            table = pq.read_table(self.path, columns=["n_tokens", "weight"])
            return Pool(table["n_tokens"].to_numpy().astype(np.float64), np.abs(table["weight"].to_numpy()))
        rows = list(self._rows(["id", "loss", "n_tokens", "weight", "outcross"]))
        return Pool(np.array([row["n_tokens"] for row in rows], float), np.abs(np.array([row["weight"] for row in rows], float)))

    def examples(self) -> Iterator[Example]:
        return (decode_example(row) for row in self._rows(None))


@dataclass(frozen=True)
class Mixed:
    """The examples of a round's mixture, repeats included, read from disk each time they are iterated."""

    sources: Sequence[tuple[Source, np.ndarray[Any, np.dtype[np.int64]]]]
    real: Iterable[Example]
    real_counts: np.ndarray[Any, np.dtype[np.int64]]
    real_weight: float

    def rows(self) -> Iterator[tuple[str, int, Example, int]]:
        """(source, row number in it, example, repeats) of every row that is seen."""
        for index, (source, counts) in enumerate(self.sources):
            name = "new" if index == 0 else "history"
            for row, (example, count) in enumerate(zip(source.examples(), counts.tolist(), strict=True)):
                if count:
                    yield name, row, example, count
        if self.real_counts.any():
            for row, (example, count) in enumerate(zip(self.real, self.real_counts.tolist(), strict=True)):
                if count:
                    yield "real", row, self._weighted(example), count

    def _weighted(self, example: Example) -> Example:
        if self.real_weight == 1.0:
            return example
        weight = example.weight
        scaled = tuple(w * self.real_weight for w in weight) if isinstance(weight, tuple) else weight * self.real_weight
        return msgspec.structs.replace(example, weight=scaled)

    def __iter__(self) -> Iterator[Example]:
        for _, _, example, count in self.rows():
            for _ in range(count):
                yield example


@dataclass(frozen=True)
class Chain:
    """Several roles' mixtures, one after the other: roles that alias one model are taught in one fit."""

    parts: tuple[Mixed, ...]

    def __iter__(self) -> Iterator[Example]:
        return chain.from_iterable(self.parts)


def mix(part: Part, ctx: Context, role: Role, *, fitted: bool = False) -> tuple[Mixed, Json]:
    """The round's mixture and its composition; mixture.parquet says which row was seen how often.

    A mixture that was written and not `fitted` yet is written anew when more records have been tombstoned since.
    """
    mixture = part.phase.mix
    name = f"examples{suffix(role)}.parquet"
    new = Source(part.folder / name, part.buried, keeps_own=True, held=part.held)
    keeps = mixture.history != "replace"
    earlier = [Source(folder / name, part.buried, keeps_own=False) for item in part.history for folder in item.parts()] if keeps else []
    pools = [source.pool() for source in (new, *earlier)]
    real = part.bench.real if part.bench.real is not None else ()
    real_pool = _real_pool(real, ctx.model(role))
    history_pool = Pool(*(np.concatenate([getattr(p, f) for p in (*pools[1:], EMPTY)]) for f in ("tokens", "weight")))
    chosen = plan(pools[0], history_pool, real_pool, mixture, np.random.default_rng(ctx.seed_of("mix", role)))
    edges = np.cumsum([len(pool) for pool in pools[1:]])[:-1].astype(int)
    parts = [chosen.new, *(np.split(chosen.history, edges) if earlier else [])]
    mixed = Mixed(list(zip((new, *earlier), parts, strict=True)), real, chosen.real, chosen.real_weight)
    done = part.marked(f"mix{suffix(role)}")
    if done is None or (done["tombstones"] != len(part.buried) and not fitted):
        done = part.mark(f"mix{suffix(role)}", _write_mixture(part, ctx, role, mixed, chosen, len(real_pool)))
    return mixed, done


def _real_pool(real: Iterable[Example], model: Model) -> Pool:
    count = _token_counter(model)
    sizes = [(count(example), abs(scalar_weight(example))) for example in real]
    return Pool(np.array([s for s, _ in sizes], float), np.array([w for _, w in sizes], float))


def _write_mixture(part: Part, ctx: Context, role: Role, mixed: Mixed, chosen: Plan, size: int) -> Json:
    """Write mixture.parquet. What counts as real is a row of the bench whose origin is proved or attested, and nothing else."""
    count = _token_counter(ctx.model(role))
    parts: dict[tuple[str, str, str, int, str], list[float]] = {}
    real = [0.0, 0.0]
    with Writer(part.folder / f"mixture{suffix(role)}.parquet", MIXTURE, _encode_mixture) as table:
        for source, row, example, repeats in mixed.rows():
            weight = scalar_weight(example)
            table.add((example.id, source, row, repeats, weight))
            total = parts.setdefault(_part_key(example.origin), [0.0, 0.0])
            seen = repeats * abs(weight)
            tokens = seen * count(example)
            total[0] += seen
            total[1] += tokens
            if source == "real" and example.origin.is_real:
                real[0] += seen
                real[1] += tokens
    every = [sum(total[i] for total in parts.values()) for i in range(2)]
    share = {unit: real[i] / every[i] if every[i] else 0.0 for i, unit in enumerate(("records", "tokens"))}
    mixture = part.phase.mix
    _check_floor(mixture, share if parts else {}, part.label)
    return {
        "records": every[0],
        "tokens": every[1],
        "real_share": share,
        "tombstones": len(part.buried),
        "floor": f"waived: {mixture.floor.reason}" if isinstance(mixture.floor, Waived) else mixture.floor,
        "required": mixture.real_floor if mixture.floor == "rows" else None,
        "waiting": chosen.waiting,
        "new": int(chosen.new.sum()),
        "history": int(chosen.history.sum()),
        "real": int(chosen.real.sum()),
        "real_epochs": float(chosen.real.sum()) / size if size else 0.0,
        "parts": [
            {"kind": k[0], "proof": k[1], "source": k[2], "depth": k[3], "round": k[4], "records": total[0], "tokens": total[1]}
            for k, total in sorted(parts.items())
        ],
    }


def _part_key(origin: Origin) -> tuple[str, str, str, int, str]:
    return (origin.kind, origin.proof, origin.source, origin.depth, origin.round)


def _encode_mixture(rows: list[tuple[str, str, int, int, float]]) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True))
    return pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, MIXTURE, strict=True)], schema=MIXTURE)


def _check_floor(mixture: Mixture, share: Mapping[str, float], label: str) -> None:
    """The floor is checked on the mixture as written, by proved or attested origin, not on what was planned."""
    if mixture.floor != "rows":
        return
    for unit, real in share.items():
        if real < mixture.real_floor - 1e-9:
            raise GuardError(
                f"round {label}: real data make up {real:.1%} of the {unit} that the optimiser would see, and the floor is "
                f"{mixture.real_floor:.0%}. Rows of bench.real without proof or attestation count as synthetic: state their origin, "
                "or give more real data"
            )


# ── fit ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def fit(
    part: Part, ctx: Context, role: Role, what: Learn, start: Trainable, reference: Model | None, examples: Chain
) -> tuple[Trainable, Json]:
    """Train a candidate and save it; the order in which examples met the optimiser goes to order.parquet."""
    folder = part.folder / f"model{suffix(role)}"
    done = part.marked(f"fit{suffix(role)}")
    if done is not None and folder.exists():
        found = start.load(folder)
        if found.id != done["model"]:
            raise StoreError(
                f"{folder} holds the model {found.id}, and {done['model']} was fitted there; remove the folder to fit it again"
            )
        return found, done
    steps = count = 0
    with Writer(part.folder / f"order{suffix(role)}.parquet", ORDER, _encode_order) as table:

        def seen(step: int, ids: Sequence[str]) -> None:
            nonlocal steps, count
            steps, count = step + 1, count + len(ids)
            for item in ids:
                table.add((step, item))
            part.watch.stage(part.label, f"train {role}", steps, None, {"examples": count})

        candidate = start.fit(examples, plan=what.plan, reference=reference, seed=ctx.seed_of("fit", role), seen=seen)
    if folder.exists():
        shutil.rmtree(folder)
    save_folder(folder, candidate.save)
    skipped = len(getattr(candidate, "skipped", ()))
    facts = {"steps": steps, "examples": count, "start": start.id, "model": candidate.id, "depth": candidate.depth, "skipped": skipped}
    return candidate, part.mark(f"fit{suffix(role)}", facts)


def _encode_order(rows: list[tuple[int, str]]) -> pa.RecordBatch:
    steps, ids = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(steps, pa.int32()), pa.array(ids, pa.string())], schema=ORDER)


def versions(phase: Phase) -> tuple[dict[str, str], dict[str, Json]]:
    """Versions of all stages of a phase, and the ground of its verifiers, by name."""
    stages = [phase.generate, *phase.verify, *phase.curate, *(learn.objective for learn in phase.learn.values())]
    verifiers = {name_of(v): {"version": version_of(v), "ground": v.ground} for v in phase.verify}
    return {name_of(stage): version_of(stage) for stage in stages if stage is not None}, verifiers
