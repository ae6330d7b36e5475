"""Lineage, walked both ways: task → sample → example → mixture → optimiser steps → model → decision → later models.

trace(run, "3f2a9c")                a task, sample, example, real row or model, by its id or the first digits of it
trace(run, "step:train/0000:17")    an optimiser step of a round; "step:train/0000:judge:17" of another role
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from outcross.engine.store import PRIMARY, RunDir, suffix
from outcross.errors import ConfigError, StoreError
from outcross.report import lookup
from outcross.report.lineage import Contents, ExampleLink, Kind, Lineage, ModelLink, SampleLink, Use

SHORTEST = 6
MOST = 20


@dataclass(frozen=True)
class Trace:
    """Everything one identifier is connected with. `models` learnt from it (for a model: itself), `earlier` are those a
    model was trained from, `later` those trained on from them. Lists are capped; `samples_total` counts all samples."""

    kind: Kind
    id: str
    samples: tuple[SampleLink, ...] = ()
    samples_total: int = 0
    examples: tuple[ExampleLink, ...] = ()
    uses: tuple[Use, ...] = ()
    models: tuple[ModelLink, ...] = ()
    earlier: tuple[ModelLink, ...] = ()
    later: tuple[ModelLink, ...] = ()
    contents: Contents | None = None


def trace(run: RunDir, id_prefix: str, most: int = MOST) -> Trace:
    """What `id_prefix` is and what it is connected with; lists hold at most `most` entries.

    Raises `ConfigError` when the prefix is too short, fits several identifiers or names no step, `StoreError` when the
    record holds nothing of that name.
    """
    record = Lineage(run)
    if id_prefix.startswith("step:"):
        return _step(record, id_prefix, most)
    kind, found = _resolve(record, id_prefix)
    match kind:
        case "model":
            return _model(record, found, most)
        case "sample" | "task":
            column = "id" if kind == "sample" else "task_id"
            samples = list(record.samples(column, [found]))
            examples = list(record.examples_of([sample.id for sample in samples]))
            return _forward(record, Trace(kind, found, tuple(samples[:most]), len(samples)), examples, most)
        case _:
            examples = list(record.examples([found]))
            parents = [parent for example in examples for parent in example.parents]
            samples = list(record.samples("id", parents)) if parents else []
            return _forward(record, Trace(kind, found, tuple(samples[:most]), len(samples)), examples, most)


def _forward(record: Lineage, begun: Trace, examples: Sequence[ExampleLink], most: int) -> Trace:
    uses = list(record.uses([example.id for example in examples]))
    learnt = dict.fromkeys(use.model for use in uses if use.seen)
    models = [model for model in record.models if model.id in learnt]
    return Trace(
        begun.kind,
        begun.id,
        begun.samples,
        begun.samples_total,
        tuple(examples[:most]),
        tuple(uses[:most]),
        tuple(models),
        later=record.later(learnt),
    )


def _model(record: Lineage, found: str, most: int) -> Trace:
    models = tuple(model for model in record.models if model.id == found)
    trained = next((model for model in models if model.round != "start"), None)
    said = {item.label: lookup.count(part / "groups.parquet", "outcross.source", found) for item, part in record.parts()}
    contents = Contents("start", models[0].role if models else "", {}, (), 0, (), {k: v for k, v in said.items() if v})
    if trained is not None:
        contents = record.contents(trained, most, contents.said)
    return Trace("model", found, models=models, earlier=record.earlier(found), later=record.later([found]), contents=contents)


_STEP = re.compile(r"step:(?P<label>.+?/\d{4})(?:/(?:inner_)?(?P<inner>\d+))?(?::(?P<role>[^:/]+))?:(?P<step>\d+)")


def _step(record: Lineage, name: str, most: int) -> Trace:
    asked = _STEP.fullmatch(name)
    if asked is None:
        raise ConfigError(f"{name!r} names no optimiser step; write step:PHASE/ROUND:NUMBER, for example step:train/0000:17")
    item = next((item for item, _ in record.rounds if item.label == asked["label"]), None)
    if item is None:
        labels = ", ".join(item.label for item, _ in record.rounds) or "none"
        raise StoreError(f"the run has no complete round {asked['label']!r}; complete rounds: {labels}")
    part = item.folder / f"inner_{asked['inner']}" if asked["inner"] else item.folder
    role, step = asked["role"] or PRIMARY, int(asked["step"])
    ids = lookup.in_step(part / f"order{suffix(role)}.parquet", step)
    if not ids:
        last = lookup.last_step(part / f"order{suffix(role)}.parquet")
        steps = f"its steps are 0 to {last}" if last is not None else f"it taught {role} nothing"
        raise StoreError(f"{item.label} has no step {step} of {role}; {steps}")
    sources: dict[str, tuple[int, int]] = {}
    for row in lookup.rows(part / f"mixture{suffix(role)}.parquet", ("source", "repeats"), {"id": set(ids)}):
        old = sources.get(row["source"], (0, 0))
        sources[row["source"]] = (old[0] + 1, old[1] + row["repeats"])
    examples = tuple(record.examples(list(dict.fromkeys(ids))[:most]))
    models = tuple(model for model in record.models if model.round == item.label and model.role == role)
    contents = Contents(item.label, role, sources, (), len(ids), examples)
    return Trace("step", name, models=models, later=record.later([model.id for model in models]), contents=contents)


def _resolve(record: Lineage, prefix: str) -> tuple[Kind, str]:
    found = sorted(record.named(prefix))
    exact = [item for item in found if item[1] == prefix]
    if exact:
        return exact[0]
    if len(prefix) < SHORTEST:
        raise ConfigError(f"{prefix!r} has {len(prefix)} characters; give the whole id or at least its first {SHORTEST}")
    if not found:
        raise StoreError(
            f"nothing in {record.run.root} has an id that starts with {prefix!r}; ids of samples, examples, tasks and models stand in "
            "the report and in the Parquet tables, those of real rows in mixture.parquet"
        )
    if len(found) == 1:
        return found[0]
    listed = ", ".join(f"{kind} {name}" for kind, name in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise ConfigError(f"{prefix!r} fits {len(found)} ids: {listed}{more}; give more characters")
