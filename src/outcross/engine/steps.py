"""The steps inside a round: generate → learn → mix (`engine/mixing.py`) → fit. Each leaves a marker when its files are on disk, and is skipped
when the marker is there: a killed run repeats at most the step it was in."""

from __future__ import annotations

import shutil
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from outcross.engine import stopping
from outcross.engine.conserve import Admit, Counter, Decontaminate, ErrorRule, blamed, curated, generated, verified
from outcross.engine.guards import BenchFacts, held_out_in
from outcross.engine.pipeline import pipelined
from outcross.engine.store import RoundDir, read_json, save_folder, suffix, write_json
from outcross.engine.tables import (
    DROPS,
    EXAMPLES,
    LOSSES,
    ORDER,
    SAMPLES,
    Writer,
    decode_groups,
    encode_drops,
    encode_examples,
    encode_groups,
    rows_of,
)
from outcross.engine.unlearnt import COLUMNS, unlearnt
from outcross.engine.watch import Watch
from outcross.errors import GuardError, StageError, StoreError
from outcross.recipe import Bench, Learn, Phase
from outcross.stages import Context, CountsTokens, KeepsProgress, Model, Role, StopsEarly, Trainable, name_of, version_of
from outcross.text import prompt_text, words
from outcross.types import Content, Drop, Example, Group

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
    training: Path | None = None  # where fits keep what a run that was stopped goes on from

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
        if counter.errors:
            part.watch.note(f"{part.label}: {counter.unjudged()}")
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
    count_tokens = token_counter(ctx.model(role))
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
    counter.detail.update(unlearnt(rows_of(stored.path, list(COLUMNS)), used, compared=getattr(what.objective, "uses_peers", False)))
    if not made:
        why = ", ".join(f"{count:,} {reason}" for reason, count in (*sorted(counter.detail.items()), ("failed", counter.failed)) if count)
        part.watch.note(f"{part.label}: learn {counter.name}: no example of {counter.into:,} answers{f': {why}' if why else ''}")
    counter.detail["examples"] = made
    return part.mark(f"learn{suffix(role)}", {"counts": counter.counts(), "examples": made})


def _among(known: array[int], key: int) -> bool:
    place = bisect_left(known, key)
    return place < len(known) and known[place] == key


def _snake(stage: object) -> str:
    return str(getattr(stage, "name", type(stage).__name__.lower()))


def token_counter(model: Model) -> Callable[[Example], int]:
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


# ── fit ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
class Offered(Protocol):
    """The examples of a round's mixture."""

    def __iter__(self) -> Iterator[Example]: ...
    def without(
        self, part: Part, tokens_of: Callable[[Example], int], skipped: Set[str], left_out: Mapping[str, int], /
    ) -> Mapping[str, float]:
        """The share of real data once a model has left some out; raises `GuardError` when that breaks the floor."""


def fit(
    part: Part, ctx: Context, roles: Sequence[Role], what: Learn, start: Trainable, reference: Model | None, examples: Offered
) -> tuple[Trainable, Json]:
    """Train a candidate for `roles`, which one model plays, and save it under the first; the order in which examples met the optimiser goes to
    order.parquet, and what the model tells of each step to losses.parquet."""
    role = roles[0]
    folder = part.folder / f"model{suffix(role)}"
    done = part.marked(f"fit{suffix(role)}")
    if done is not None and folder.exists():
        found = start.load(folder)
        if found.id != done["model"]:
            raise StoreError(
                f"{folder} holds the model {found.id}, and {done['model']} was fitted there; remove the folder to fit it again"
            )
        return found, done
    learner = start
    if part.training is not None and isinstance(start, KeepsProgress):
        learner = start.keeping(part.training / "fit", part.training)
    if what.plan.stop is not None and isinstance(learner, StopsEarly):
        learner = learner.watched(stopping.better(what.plan.stop, ctx, roles))
    steps = count = 0
    facts: list[tuple[int, Mapping[str, float]]] = []
    with Writer(part.folder / f"order{suffix(role)}.parquet", ORDER, _encode_order) as table:

        def seen(step: int, ids: Sequence[str], **told: float) -> None:
            nonlocal steps, count
            steps, count = step + 1, count + len(ids)
            for item in ids:
                table.add((step, item))
            facts.append((step, told))
            loss = {"loss": told["loss"]} if "loss" in told else {}
            part.watch.stage(part.label, f"train {role}", steps, None, {"examples": count, **loss})
            part.watch.learnt(part.label, role, step, told)

        plan = what.plan if part.phase.mix.order is None else replace(what.plan, shuffle=False)
        candidate = learner.fit(examples, plan=plan, reference=reference, seed=ctx.seed_of("fit", role), seen=seen)
    if any(told for _, told in facts):
        with Writer(part.folder / f"losses{suffix(role)}.parquet", LOSSES, _encode_losses) as losses:
            for item in facts:
                losses.add(item)
    skipped, told = tuple(getattr(candidate, "skipped", ())), dict(getattr(candidate, "left_out", {}))
    share = examples.without(part, token_counter(ctx.model(role)), frozenset(skipped), told) if skipped else {}
    if folder.exists():
        shutil.rmtree(folder)
    save_folder(folder, candidate.save)
    summary = {
        "steps": steps,
        "examples": count,
        "start": start.id,
        "model": candidate.id,
        "depth": candidate.depth,
        "skipped": len(skipped),
    }
    summary |= {"left_out": told, "real_share": share} if skipped else {}
    looks = {step: told["early_stop"] for step, told in facts if "early_stop" in told}
    kept = {"kept": max(looks, key=lambda step: looks[step]) + 1} if looks else {}  # the first of equals, as the fit chose
    marked = part.mark(f"fit{suffix(role)}", {**summary, **kept})
    if part.training is not None:
        shutil.rmtree(part.training / "fit", ignore_errors=True)
    return candidate, marked


def _encode_order(rows: list[tuple[int, str]]) -> pa.RecordBatch:
    steps, ids = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(steps, pa.int32()), pa.array(ids, pa.string())], schema=ORDER)


def _encode_losses(rows: list[tuple[int, Mapping[str, float]]]) -> pa.RecordBatch:
    columns = [pa.array([told.get(name) for _, told in rows], pa.float64()) for name in LOSSES.names[1:]]
    return pa.RecordBatch.from_arrays([pa.array([step for step, _ in rows], pa.int32()), *columns], schema=LOSSES)


def versions(phase: Phase) -> tuple[dict[str, str], dict[str, Json]]:
    """Versions of all stages of a phase, and the ground of its verifiers, by name."""
    stages = [phase.generate, *phase.verify, *phase.curate, *(learn.objective for learn in phase.learn.values())]
    verifiers = {name_of(v): {"version": version_of(v), "ground": v.ground} for v in phase.verify}
    return {name_of(stage): version_of(stage) for stage in stages if stage is not None}, verifiers
