"""The recall drill: a verifier with a planted bug lets 300 wrong rows into three rounds; what a recall names, loses, spares and leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from toys import LEARN, model, outcomes, phase, play, recipe, record

from outcross.curate.dedup import Dedup
from outcross.engine.loop import Options, run
from outcross.engine.recall import Recall, losses, named, recall, tombstone, untouched
from outcross.engine.reverify import Reverified, keep_scores, reverify
from outcross.engine.store import RunDir, read_json
from outcross.engine.tables import rows_of
from outcross.engine.watch import Silent
from outcross.errors import ConfigError
from outcross.recipe import Mixture, Recipe
from outcross.stages import Context, Stage, Verifier
from outcross.types import Canary, Completion, Ground, Group, Origin, Sample, Task, Turn, sample_id
from outcross.verify.combine import AllOf, AnyOf, FirstDecisive, Retried
from outcross.verify.each import Finding, scored
from outcross.verify.exact import Exact
from outcross.verify.vote import Vote

TASKS = tuple(Task(f"n{i}", f"which number, {i}? ", str(i % 11)) for i in range(50))


@dataclass(frozen=True)
class Checks(Stage):
    """Equality with the reference. Version 1 has a bug: it passes whatever is a number, and its canary does not see it."""

    version: str = "2"  # type: ignore[misc]
    canaries: ClassVar[tuple[Canary, ...]] = (Canary(Task("known", "1+1=", "2"), ("2", "two"), ("pass", "fail")),)
    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored(self, groups, self._judge)

    def _judge(self, task: Task, text: str) -> Finding:
        right = text.isdecimal() if self.version == "1" else text == task.answer
        return ("pass", "", "") if right else ("fail", "differs", "")


@dataclass(frozen=True)
class Answers(Stage):
    """Two wrong numbers, the right one, and no number at all for each task."""

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        for task in tasks:
            right = int(task.answer or 0)
            origin = Origin("synthetic", "none", "made up", 1, ctx.round, (task.id,))
            said = [str(right), str(right + 1), str(right + 2), "none"]
            turns = [(Turn(task.prompt, Completion(text)),) for text in said]
            yield Group(task, tuple(Sample(sample_id(task.id, place, one, origin), one, origin) for place, one in enumerate(turns)))


class Stops(Silent):
    """Ctrl-C while the third round trains."""

    def stage(self, round: str, stage: str, done: int, total: int | None, counts: Mapping[str, int], /) -> None:
        if round == "train/0002" and stage.startswith("train "):
            raise KeyboardInterrupt


def drill(version: str, **more: Any) -> Recipe:
    fields = {"generate": Answers(), "verify": (AnyOf((Exact(pattern="no usual form: (.*)"), Checks(version))),), "curate": (), "rounds": 3}
    return recipe(phase(**{**fields, "learn": {"policy": LEARN}, "mix": Mixture(real_floor=0.2, real_epochs=50), **more}), tasks=TASKS)


@pytest.fixture
def stopped(tmp_path: Path) -> RunDir:
    """Two rounds promoted, and a third one whose mixture is written and whose training was interrupted."""
    with suppress(KeyboardInterrupt):
        run(drill("1"), {"policy": model()}, tmp_path, seed=3, watch=Stops(), options=Options())
    found = RunDir(tmp_path)
    assert outcomes(found) == ["promoted", "promoted"] and len(found.begun()) == 3
    return found


def again(found: RunDir, present: Verifier | None = None) -> Reverified:
    return reverify(found, {}, {"train": present or AnyOf((Exact(pattern="no usual form: (.*)"), Checks()))}, "checks", "2", seed=3)


def wrong(found: RunDir) -> set[str]:
    """The rows that should never have passed, found without any of what is tested."""
    rows = [row for turn in found.begun() for row in rows_of(turn.folder / "groups.parquet")]
    return {row["id"] for row in rows if row["verdict"] == "pass" and row["completion"] != row["answer"]}


def test_the_drill(stopped: RunDir) -> None:
    bad = wrong(stopped)
    assert len(bad) == 300
    before = record(stopped.root)

    every = recall(stopped, "checks", "2")
    assert len(every.samples) == 600 and bad < set(every.passed) and len(every.passed) == 450
    checked = again(stopped)
    found = recall(stopped, "checks", "2", keep=checked.stand)
    assert set(found.samples) == bad == set(found.passed), "exactly the wrong rows"
    assert dict(zip(found.rounds, found.counts, strict=True)) == dict.fromkeys(("train/0000", "train/0001", "train/0002"), 100)
    assert found.models == found.promoted == ("train/0000/model", "train/0001/model"), "both checkpoints"
    assert checked.changes == {("pass", "pass"): 150, ("pass", "fail"): 300, ("fail", "fail"): 150}
    assert record(stopped.root) == before, "looking changes nothing"

    path = tombstone(stopped, found, "checks", "2", len(checked.stand))
    scores = list(rows_of(keep_scores(path, checked)))
    assert len(scores) == 600 and {row["id"] for row in scores if row["was"] != row["verdict"]} == bad
    assert {row["version"] for row in scores} == {AnyOf((Exact(), Checks())).version}
    after = record(stopped.root)
    assert {name: after[name] for name in before} == before, "old records are never rewritten"

    run(drill("1"), {"policy": model()}, stopped.root, seed=3)
    rebuilt = RunDir(stopped.root).rounds()[2]
    buried = {*found.samples, *found.examples}
    mixture = {row["id"] for row in rows_of(rebuilt.folder / "mixture.parquet") if row["repeats"]}
    assert mixture and not mixture & buried
    assert not {row["id"] for row in rows_of(rebuilt.folder / "order.parquet")} & buried
    parents = {row["id"]: row["outcross"]["parents"] for turn in stopped.begun() for row in rows_of(turn.folder / "examples.parquet")}
    assert sum(name in mixture for name in parents) == 150, "all right rows of three rounds are there"
    assert not bad.intersection(parent for name in mixture for parent in parents.get(name, ()))


def test_what_a_mixture_would_lose_is_counted_row_by_row(stopped: RunDir) -> None:
    found = recall(stopped, "checks", "2", keep=again(stopped).stand)
    told = losses(stopped, found)
    assert [(item.round, item.role) for item in told] == [(f"train/000{i}", "policy") for i in range(3)]
    for item, turn in zip(told, stopped.begun(), strict=True):
        sizes = {row["id"]: row["n_tokens"] for each in stopped.begun() for row in rows_of(each.folder / "examples.parquet")}
        rows = list(rows_of(turn.folder / "mixture.parquet"))
        lost = [row for row in rows if row["id"] in found.examples]
        assert item.rows == sum(row["repeats"] for row in lost) > 0
        assert item.tokens == sum(row["repeats"] * sizes[row["id"]] for row in lost)
        mixed = read_json(turn.folder / "steps/mix.json")
        assert item.share == pytest.approx(item.tokens / mixed["tokens"]) and item.real == mixed["real_share"]["tokens"]
        assert item.real_after == pytest.approx(item.real * mixed["tokens"] / (mixed["tokens"] - item.tokens))
        assert item.real_after > item.real
    assert told[0].rows == 100


def test_the_champion_that_is_left(stopped: RunDir) -> None:
    found = recall(stopped, "checks", "2")
    assert untouched(stopped, found) == stopped.start / "model"
    assert untouched(stopped, Recall((), (), (), ("train/0001/model",))) == stopped.root / "train/0000/model"
    assert untouched(stopped, Recall((), (), (), ())) == stopped.root / "train/0001/model"


def test_a_present_version_that_is_recalled_itself_judges_nothing(stopped: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"the present checks is version 1, which is one of those recalled \(1\)"):
        again(stopped, AnyOf((Exact(), Checks("1"))))
    with pytest.raises(ConfigError, match="nothing can verify train/0000 again"):
        reverify(stopped, {}, {"other": Checks()}, "checks", "2")


def test_votes_are_counted_again_over_whole_groups_though_curators_set_some_aside(tmp_path: Path) -> None:
    """The same vote finds what it found; of a part of the group it would not."""
    made = recipe(phase(verify=(Vote(at_least=0.3),), curate=(Dedup(),), rounds=1))
    found = play(made, tmp_path, unsafe=True)
    assert list(rows_of(tmp_path / "train/0000/drops.parquet"))
    with pytest.raises(ConfigError, match="one of those recalled"):
        reverify(found, {}, {"train": Vote(at_least=0.3)}, "vote")
    told = reverify(found, {}, {"train": Recount(at_least=0.3)}, "vote")
    assert told.found and all(item.stands for item in told.found)


@dataclass(frozen=True)
class Recount(Vote):
    """The vote under another name."""


# ── verifiers inside others ────────────────────────────────────────────────────────────────────────────────────────────
def test_the_parts_of_a_combination_are_read_from_its_version() -> None:
    inner = AnyOf((Exact(), Retried(Checks("1.2"))))
    outer = FirstDecisive((AllOf((inner, Vote())), Checks("3")))
    assert list(named(outer.name, outer.version)) == [
        ("first_decisive", outer.version),
        ("all_of", AllOf((inner, Vote())).version),
        ("any_of", inner.version),
        ("exact", "1"),
        ("checks", "1.2"),
        ("vote", "1"),
        ("checks", "3"),
    ]
    for odd in ("1", "", "1(", "1()", "1(exact)", "(a@1", "1(a@2))", "a)b"):
        assert next(iter(named("x", odd))) == ("x", odd)


def test_a_recall_reaches_into_combinations_and_generators(tmp_path: Path) -> None:
    deep = AllOf((AnyOf((Exact(), Checks("1"))), Vote(fewest=2, at_least=0.1)))
    found = play(recipe(phase(verify=(deep,), rounds=1)), tmp_path, unsafe=True)
    whole = recall(found, "all_of")
    assert whole.samples and recall(found, "checks", "2") == recall(found, "checks") == whole
    assert recall(found, "checks", "1").samples == () and recall(found, "all_of", "1").samples == ()
    assert recall(found, "all_of", "2") == whole, "a combination's own version stands before the parenthesis"
    with pytest.raises(ConfigError, match="did you mean 'checks'"):
        recall(found, "check")


@dataclass(frozen=True)
class Guided(Answers):
    """A generator with a combination inside."""

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        for group in super().__call__(ctx, tasks):
            inside = Origin("synthetic", "none", "made up", 1, ctx.round, (group.task.id,), ("any_of@1(checks@1,exact@1)",))
            yield Group(group.task, tuple(Sample(item.id, item.turns, inside) for item in group.samples[:1]) + group.samples[1:])


def test_a_combination_inside_a_generator_is_found_and_judged_again(tmp_path: Path) -> None:
    found = play(drill("2", generate=Guided(), verify=(Exact(),), rounds=1), tmp_path)
    told = recall(found, "checks", "2")
    assert len(told.samples) == len(TASKS)
    checked = reverify(found, {}, {"train": Checks()}, "checks", "2")
    assert checked.changes == {("pass", "pass"): len(TASKS)} and recall(found, "checks", "2", keep=checked.stand).samples == ()


def test_a_sample_that_two_verifiers_let_in_stands_only_if_both_still_do(tmp_path: Path) -> None:
    """The strictest of the old verdicts is held against the new one of all together."""
    lenient = AnyOf((Checks("1"), Exact()))
    found = play(drill("1", verify=(lenient, AllOf((Checks("1"),))), rounds=1), tmp_path)
    checked = reverify(found, {}, {"train": AllOf((AnyOf((Checks(), Exact())), AllOf((Checks(),))))}, "checks", "2")
    assert checked.changes == {("pass", "pass"): 50, ("pass", "fail"): 100, ("fail", "fail"): 50}
