"""One suite for every stage that ships: found by walking the modules, built with arguments by name, held to the contract.

A new stage needs no test here. If it takes a required parameter that no other stage takes, add a value to `ARGUMENTS`.
"""

from __future__ import annotations

import atexit
import dataclasses
import importlib
import inspect
import pkgutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import count, islice
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from helpers import NoPast, context, failed, sample, score

import outcross.curate
import outcross.evaluate
import outcross.generate
import outcross.verify
from outcross.generate.draw import Draw
from outcross.images import packed
from outcross.judgement import Judgement, written
from outcross.models.hashed_embedder import HashedEmbedder, hashed_embedder
from outcross.models.tabular import Tabular
from outcross.recipe import fingerprint
from outcross.schema import Schema
from outcross.stages import Context, FitPlan, Stage
from outcross.types import (
    Canary,
    Completion,
    Content,
    Drop,
    Example,
    Ground,
    Group,
    Loss,
    Measurement,
    Origin,
    Request,
    Response,
    Sample,
    Score,
    Task,
    Turn,
)
from outcross.verify.each import with_score
from outcross.verify.exact import Exact

TASKS = tuple(Task(f"t{a}{b}", f"{a}+{b}=", str(a + b)) for a in range(5) for b in range(5))
REAL = tuple(Example(f"r{a}", f"{a}+0=", str(a), origin=Origin("real", "attested", "made up")) for a in range(10))
ANSWERED = tuple(Example(f"a{t.id}", t.prompt, str(t.answer), origin=Origin("synthetic", source="teacher", depth=1)) for t in TASKS[:20])
GROUNDS = ("kernel", "executed", "exact", "trained", "judged", "voted", "human")


def reward(prompts: list[str], completions: list[str], **columns: object) -> list[float | None]:
    return [float(len(text)) for text in completions]


def parity(content: Content) -> str | None:
    return ("even", "odd")[int(content) % 2] if isinstance(content, str) and content.isdecimal() else None


@dataclasses.dataclass(frozen=True)
class AgainstReference(Stage):
    """A judge that compares each answer with the task's: equal is a tie, anything else worse."""

    ground: ClassVar[Ground] = "judged"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            said = [Judgement("judge", "none", "a rule", opponent=("reference", len(group.task.answer or ""))) for _ in group.samples]
            values = [0.5 if item.text == group.task.answer else 0.1 for item in group.samples]
            yield Group(
                group.task,
                tuple(
                    item
                    if item.error
                    else with_score(item, Score("against", "1", "pass" if value == 0.5 else "fail", value, "", written(one)))
                    for item, value, one in zip(group.samples, values, said, strict=True)
                ),
            )


def a_database() -> Path:
    """A SQLite file, for as long as Python runs."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "own.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
    return path


def some_labels() -> Path:
    """Labelled answers that can be told apart, as JSONL, for as long as Python runs."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "labels.jsonl"
    path.write_text(
        "".join(f'{{"text": "the answer is {i}", "good": true}}\n{{"text": "no idea {i}", "good": false}}\n' for i in range(12))
    )
    return path


ARGUMENTS: dict[str, Any] = {
    "tasks": TASKS,
    "real": REAL,
    "generator": Draw(n=2),
    "verifier": Exact(),
    "function": reward,
    "cap": 2,
    "verifiers": (Exact(), Exact(casefold=True)),
    "completions": ANSWERED,
    "canaries": (Canary(TASKS[3], ("3", "4"), ("pass", "fail")),),
    "database": a_database(),
    "judge": AgainstReference(),
    "languages": ("en",),
    "labels": some_labels(),
    "reference": REAL,
    "group": parity,
}
EITHER: dict[str, dict[str, Any]] = {"Matches": {"pattern": "[0-9]+"}, "JsonSchema": {"schema": Schema.of({"type": "integer"})}}
EITHER["WinRate"] = {"opponents": "values"}
EITHER["PerplexityBetween"] = {"high": 50.0}
EITHER["WorstGroup"] = {"tasks": tuple(msgspec.structs.replace(task, subgroup="sums") for task in TASKS)}
IMAGES = tuple(Example(f"i{a}", f"dot #{a}", packed(np.full((2, 2), a / 30)), Loss("own"), origin=REAL[0].origin) for a in range(30))
EITHER["ImageRules"] = {"reference": IMAGES}
EITHER["ImageCopies"] = {"real": IMAGES}
"""Settings of stages that need one or another, by the stage's class."""


def found(package: Any) -> list[type[Stage]]:
    """The public stages defined in a package's modules, or in one module."""
    modules = [package]
    if hasattr(package, "__path__"):
        modules = [importlib.import_module(f"{package.__name__}.{item.name}") for item in pkgutil.iter_modules(package.__path__)]
    classes = [kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    return [kind for kind in classes if issubclass(kind, Stage) and not kind.__name__.startswith("_")]


LEARNERS_OF_IMAGES = ("ImageClass", "TrainSyntheticTestReal", "TrainRealTestSynthetic", "SyntheticOverDuplicates")
"""They ask or teach a classifier of images and can do nothing with a text: tests/unit/test_image_verifiers.py, tests/unit/test_tstr.py."""
ELSEWHERE = ("VerifiersTaskReward", "PairAccuracy", *LEARNERS_OF_IMAGES)
"""Proved elsewhere: the first needs a package that is too large for this environment (tests/unit/test_interop.py), the second measures a
reward model and not the policy (tests/unit/test_preference.py)."""
GENERATORS, CURATORS = found(outcross.generate), found(outcross.curate)
VERIFIERS = [kind for kind in found(outcross.verify) if kind.__name__ not in ELSEWHERE]
OBJECTIVES, PROBES = found(importlib.import_module("outcross.train.objectives")), found(outcross.evaluate)
PROBES = [kind for kind in PROBES if kind.__name__ not in ELSEWHERE]
EVERY = [*GENERATORS, *VERIFIERS, *CURATORS, *OBJECTIVES, *PROBES]


def built(kind: type[Stage], **instead: Any) -> Any:
    needed = [
        item.name
        for item in dataclasses.fields(kind)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]
    missing = [name for name in needed if name not in ARGUMENTS]
    assert not missing, f"{kind.__name__} needs {missing}: add values to ARGUMENTS"
    own = EITHER.get(kind.__name__, {})
    given = ARGUMENTS | own | instead
    return kind(**{name: given[name] for name in (*needed, *(name for name in own if name not in needed))})


def taught() -> Tabular:
    plan = FitPlan(lr=1.0, epochs=5, batch=8)
    return Tabular([str(i) for i in range(12)]).fit(REAL, plan=plan, reference=None, seed=0, seen=lambda step, ids, **facts: None)


def mixed(index: int) -> Group:
    """A group with all that can occur: right, wrong and doubled answers, a cut-off one, a failed request, earlier scores."""
    task = TASKS[index % len(TASKS)]
    made = (
        sample(str(task.answer), 6 * index, task.prompt, scores=(score("pass", 1.0, "earlier"),)),
        sample("no idea", 6 * index + 1, task.prompt, scores=(score("fail", 0.0, "earlier"),)),
        failed(6 * index + 2),
        sample(str(task.answer), 6 * index + 3, task.prompt),
        sample("cut", 6 * index + 4, task.prompt, finished=False),
        sample("", 6 * index + 5, task.prompt, scores=(score("error", None, "earlier"),)),
    )
    return Group(task, made)


def ids(samples: tuple[Sample, ...]) -> list[str]:
    return [item.id for item in samples]


def test_every_package_of_stages_has_some() -> None:
    assert all((GENERATORS, VERIFIERS, CURATORS, OBJECTIVES, PROBES))
    assert len({kind.__name__ for kind in EVERY}) == len(EVERY), "names on the record must be unique"


# ── all stages ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", EVERY)
def test_a_stage_is_a_frozen_dataclass_that_prints_compares_and_has_a_fingerprint(kind: type[Stage]) -> None:
    stage, twin = built(kind), built(kind)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert stage == twin and repr(stage) == repr(twin)
    assert fingerprint(stage) == fingerprint(twin)
    assert stage.name and stage.version and isinstance(stage.roles, tuple) and isinstance(stage.parallel, bool)
    assert all(role and number >= 0 for role, number in stage.calls(10).items()) and set(stage.calls(10)) <= set(stage.roles)
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}(")


class Untouchable:
    """Data that must not be read while a stage is built."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("building a stage read its data")


@pytest.mark.parametrize("kind", EVERY)
def test_building_a_stage_does_no_work(kind: type[Stage]) -> None:
    built(kind, tasks=Untouchable(), real=Untouchable())


# ── generators ─────────────────────────────────────────────────────────────────────────────────────────────────────────
class Moody(Tabular):
    """Fails on every third request."""

    def _answer(self, request: Request, log_probs: Any) -> Response:
        if request.seed % 3 == 0:
            return Response(error="busy")
        return super()._answer(request, log_probs)


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_gives_one_group_a_task_in_order_and_keeps_failures(kind: type[Stage], tmp_path: Path) -> None:
    stage = built(kind)
    models = dict.fromkeys(stage.roles, Moody([f"say the number {i}" for i in range(12)]))  # as long as an instruction has to be
    groups = list(stage(context(tmp_path, models), TASKS))
    assert [group.task for group in groups] == list(TASKS)
    samples = [item for group in groups for item in group.samples]
    assert len({item.id for item in samples}) == len(samples)
    assert {bool(item.error) for item in samples} == {True, False}
    for item in samples:
        assert bool(item.error) != bool(item.turns)
        assert item.origin.kind == "synthetic" and item.origin.depth == 1 and item.origin.round == "phase/0000" and item.origin.source
    assert groups == list(stage(context(tmp_path, models), TASKS)), "the same seed must give the same groups"


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_streams(kind: type[Stage], tmp_path: Path) -> None:
    stage = built(kind)
    models = dict.fromkeys(stage.roles, Tabular(["1"]))
    endless = (TASKS[index % len(TASKS)] for index in count())
    assert len(list(islice(stage(context(tmp_path, models), endless), 3))) == 3


# ── verifiers ──────────────────────────────────────────────────────────────────────────────────────────────────────────
class Worth(Tabular):
    """Values a turn by the length of its answer, and embeds by spelling."""

    def values(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        return ([float(len(str(turn.completion.content)))] for turn in turns)

    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        return HashedEmbedder(64).embed(texts)


def seated(folder: Path, stage: Any) -> Context:
    """A context with a model for every role that the stage asks; it weighs letters and numbers as judges are asked to. Real rows have a group."""
    ctx = context(folder, dict.fromkeys(stage.roles, Worth(["A", "B", *map(str, range(1, 11))])))
    return dataclasses.replace(ctx, past=NoPast(folder, [msgspec.structs.replace(row, subgroup="sums") for row in REAL]))


@pytest.mark.parametrize("kind", VERIFIERS)
def test_a_verifier_adds_one_score_to_each_answer_and_changes_nothing_else(kind: type[Stage], tmp_path: Path) -> None:
    stage = built(kind)
    given = [mixed(index) for index in range(4)]
    ctx = seated(tmp_path, stage)
    version = f"{stage.version}(reward@{ctx.model('reward').id})" if "reward" in stage.roles else stage.version
    result = list(stage(ctx, given))
    assert [group.task for group in result] == [group.task for group in given]
    for before, after in zip(given, result, strict=True):
        assert ids(before.samples) == ids(after.samples)
        for old, new in zip(before.samples, after.samples, strict=True):
            if old.error:
                assert new == old, "a failed request has nothing to judge"
                continue
            assert new.scores[:-1] == old.scores and (new.turns, new.origin, new.seat) == (old.turns, old.origin, old.seat)
            added = new.scores[-1]
            assert (added.verifier, added.version) == (stage.name, version)
            assert (added.value is not None) == (added.verdict in ("pass", "fail"))
            assert added.verdict == "pass" or added.reason or added.value is not None or added.verdict == "abstain"
    assert stage.ground in GROUNDS
    assert result == list(stage(seated(tmp_path, stage), given))


@pytest.mark.parametrize("kind", VERIFIERS)
def test_a_verifier_never_passes_an_answer_that_was_cut_off(kind: type[Stage], tmp_path: Path) -> None:
    stage = built(kind)
    (group,) = stage(seated(tmp_path, stage), [Group(TASKS[0], (sample("0", prompt=TASKS[0].prompt, finished=False),))])
    assert group.samples[0].verdict != "pass"


STREAMING = [kind for kind in [*VERIFIERS, *CURATORS, *OBJECTIVES] if not getattr(kind, "whole_round", False)]
"""A stage that says `whole_round` keeps the best of a round: it has to see the round's end, and proves its memory in tests of its own."""


@pytest.mark.parametrize("kind", STREAMING)
def test_a_stage_on_groups_streams(kind: type[Stage], tmp_path: Path) -> None:
    also = 2 if kind in OBJECTIVES else 1  # a worse answer, for those that compare
    passing = (Group(g.task, (distinct(g.samples[0], index), *g.samples[1:also])) for index, g in enumerate(map(mixed, count())))
    stage = built(kind)
    assert len(list(islice(stage(seated(tmp_path, stage), passing), 3))) == 3


def distinct(item: Sample, index: int) -> Sample:
    """The sample with an answer and an identifier of its own, so that no curator waits for a new one."""
    turn = item.turns[0]
    turns = (type(turn)(turn.prompt, Completion(f"{item.text} {index}")),)
    return Sample(f"{item.id}-{index}", turns, item.origin, item.seat, item.scores)


# ── curators ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", CURATORS)
def test_a_curator_passes_on_or_sets_aside_each_sample_once(kind: type[Stage], tmp_path: Path) -> None:
    stage = built(kind)
    given = [mixed(index) for index in range(6)]
    kept: list[str] = []
    dropped: list[str] = []
    originals = {item.id: item for group in given for item in group.samples}
    for item in stage(seated(tmp_path, stage), given):
        group = item.group if isinstance(item, Drop) else item
        assert group.samples and all(originals[one.id] == one for one in group.samples), "a curator changes no sample"
        if isinstance(item, Drop):
            assert item.curator == stage.name and item.reason
            whole = len(group.samples) == 6
            assert whole or not any(one.error for one in group.samples), "a failed request goes with its whole group or stays"
        (dropped if isinstance(item, Drop) else kept).extend(ids(group.samples))
        if not stage.trims:
            assert len(group.samples) == 6, "only a curator that says `trims` may take samples off a group"
    assert sorted(kept + dropped) == sorted(originals)
    order = {identifier: place for place, identifier in enumerate(originals)}
    assert [order[identifier] for identifier in kept] == sorted(order[identifier] for identifier in kept)


# ── objectives ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_an_objective_learns_from_answers_it_can_name(kind: type[Stage], tmp_path: Path) -> None:
    stage = built(kind)
    given = [mixed(index) for index in range(6)]
    examples = list(stage(context(tmp_path), given))
    known = {item.id: item for group in given for item in group.samples}
    assert examples and len({example.id for example in examples}) == len(examples)
    for example in examples:
        parents = [known[parent] for parent in example.origin.parents]
        assert parents and all(parent.turns and not parent.error for parent in parents)
        assert all(parent.verdict in ("pass", "fail") for parent in parents), "errors, abstentions and the unverified are not learnt"
        assert example.origin.kind == "synthetic" and example.origin.depth == 1
    assert examples == list(stage(context(tmp_path), given)) and isinstance(stage.uses_peers, bool)


# ── probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_measures_the_same_items_whichever_model_it_looks_at(kind: type[Stage], tmp_path: Path) -> None:
    stage = built(kind)
    others = {"embedder": hashed_embedder(), "reference": taught()}

    def seen(policy: Tabular) -> Measurement:
        ctx = context(tmp_path, others | {"policy": policy})
        measured: Measurement = stage(dataclasses.replace(ctx, past=NoPast(tmp_path, REAL)))
        return measured

    first, second, again = seen(taught()), seen(Tabular([str(i) for i in range(12)])), seen(taught())
    assert isinstance(first, Measurement) and first == again
    assert (first.probe, first.items, first.unit) == (second.probe, second.items, second.unit)
    assert first.probe == stage.name and len(first.items) > 0
    assert len(first.values) == len(first.items) or (len(first.values) == 1 and first.replicates)
    assert stage.kind in ("quality", "diversity", "fit") and stage.ground in GROUNDS and stage.margin > 0
