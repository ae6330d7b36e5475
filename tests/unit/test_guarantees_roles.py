"""Phases of every shape keep the guarantees: several roles, aliases, inner turns, early ends, other starts, no learning, pruned models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from toys import LEARN, MIX, PLAN, REAL, Bent, Says, model, outcomes, phase, play, recipe, record

from outcross.engine.budget import Budget
from outcross.engine.recall import recall
from outcross.engine.store import RunDir
from outcross.engine.tables import rows_of
from outcross.errors import BudgetReached, DataError
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.models.tabular import Tabular
from outcross.recipe import Learn
from outcross.stages import FitPlan, Model, Seen
from outcross.train.objectives import Imitate
from outcross.types import Example

FIRST = Learn(Imitate(per_task=1), PLAN)


class Told(Tabular):
    """The toy model, noting how often it was fitted, on how many examples, and from which model."""

    fits: ClassVar[list[tuple[str, int, str]]] = []

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Tabular:
        rows = list(examples)
        Told.fits.append((self.id, len(rows), "" if reference is None else reference.id))
        return _telling(super().fit(rows, plan=plan, reference=reference, seed=seed, seen=seen))

    def load(self, folder: Path, /) -> Tabular:
        return _telling(super().load(folder))

    def fresh(self, seed: int, /) -> Tabular:
        return _telling(super().fresh(seed))


def _telling(made: Tabular) -> Tabular:
    made.__class__ = Told
    return made


@pytest.fixture(autouse=True)
def _no_fits() -> None:
    Told.fits = []


def told(*answers: str) -> Told:
    return Told(answers or [str(i) for i in range(13)])


# ── several roles ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_roles_of_their_own_models_are_taught_apart_and_promoted_together(tmp_path: Path) -> None:
    models = {"policy": told(), "critic": told(*map(str, range(20)))}
    found = play(recipe(phase(learn={"policy": LEARN, "critic": FIRST}), gate=Says("pr")), tmp_path, models)
    assert outcomes(found) == ["promoted", "refused"] and len(Told.fits) == 4
    first, second = found.rounds()
    assert first.record["champion"].keys() == {"policy", "critic"}
    for role, suffix in (("policy", ""), ("critic", ".critic")):
        assert (tmp_path / f"champion{suffix}").readlink() == Path(f"train/0000/model{suffix}")
        assert second.record["fits"][role]["start"] == first.record["fits"][role]["model"]
        made, mixed, seen = (
            {row["id"] for row in rows_of(first.folder / f"{name}{suffix}.parquet")} for name in ("examples", "mixture", "order")
        )
        assert made and made <= mixed == seen
    assert [line["name"] for line in first.record["counts"] if line["stage"] == "learn"] == ["imitate:policy", "imitate:critic"]


def test_roles_that_are_one_model_are_taught_in_one_fit(tmp_path: Path) -> None:
    one = told()
    found = play(recipe(phase(learn={"policy": LEARN, "critic": FIRST}, rounds=2)), tmp_path, {"policy": one, "critic": one, "judge": one})
    for turn, (_, size, _) in zip(found.rounds(), Told.fits, strict=True):
        mixed = [row["repeats"] for name in ("mixture", "mixture.critic") for row in rows_of(turn.folder / f"{name}.parquet")]
        assert size == sum(mixed)
        assert turn.record["fits"]["policy"] == turn.record["fits"]["critic"]
        assert not (turn.folder / "model.critic").exists()
    assert (tmp_path / "champion.critic").readlink() == (tmp_path / "champion").readlink() == Path("train/0001/model")
    assert recall(found, "exact").models == ("train/0000/model", "train/0001/model")


def test_an_alias_that_is_not_taught_follows_its_model(tmp_path: Path) -> None:
    one = model()
    found = play(recipe(phase(generate=Draw(n=6, role="writer"))), tmp_path, {"policy": one, "writer": one})
    first, second = found.rounds()
    sources = [{row["outcross"]["source"] for row in rows_of(turn.folder / "groups.parquet")} for turn in (first, second)]
    assert sources == [{one.id}, {first.record["fits"]["policy"]["model"]}]


def test_a_role_that_learnt_in_an_earlier_inner_turn_only_is_promoted_too(tmp_path: Path) -> None:
    """The critic's objective finds nothing in the second turn; what it learnt in the first is part of the candidate."""
    learn = {"policy": LEARN, "critic": Learn(Bent(_FirstTurn(), Imitate()), PLAN)}
    found = play(recipe(phase(learn=learn, inner=2, rounds=1)), tmp_path, {"policy": model(), "critic": model()})
    champion = found.rounds()[0].record["champion"]
    assert champion["critic"]["folder"] == "train/0000/inner_0/model.critic" and champion["policy"]["folder"] == "train/0000/inner_1/model"
    assert (tmp_path / "champion.critic").readlink() == Path("train/0000/inner_0/model.critic")


@dataclass(frozen=True)
class _FirstTurn:
    def __call__(self, items: list[Any]) -> list[Any]:
        return [item for item in items if item.origin.round.endswith("/0")]


# ── inner turns ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_inner_turns_have_folders_of_their_own_and_follow_one_another(tmp_path: Path) -> None:
    found = play(recipe(phase(inner=3, rounds=2)), tmp_path)
    for turn in found.rounds():
        assert [part.name for part in turn.parts()] == ["inner_0", "inner_1", "inner_2"]
        assert not (turn.folder / "groups.parquet").exists() and (turn.folder / "measurements.parquet").exists()
        sources = [{row["outcross"]["source"] for row in rows_of(part / "groups.parquet")} for part in turn.parts()]
        rounds = [{row["outcross"]["round"] for row in rows_of(part / "groups.parquet")} for part in turn.parts()]
        assert all(len(found) == 1 for found in sources) and len(set().union(*sources)) == 3
        assert rounds == [{f"{turn.label}/{k}"} for k in range(3)]
        assert turn.record["champion"]["policy"]["folder"] == f"{turn.label}/inner_2/model"
    told = recall(found, "exact")
    assert told.models == tuple(f"train/{i:04d}/inner_{k}/model" for i in range(2) for k in range(3))


def test_a_deduplicator_remembers_across_inner_turns_and_rounds(tmp_path: Path) -> None:
    found = play(recipe(phase(inner=2, rounds=2)), tmp_path)
    parts = [part for turn in found.rounds() for part in turn.parts()]
    names = [sorted(path.stem for path in (part / "state" / "dedup").iterdir()) for part in parts]
    assert [len(files) for files in names] == [1, 2, 3, 4]
    kept = [(row["prompt"], row["completion"]) for part in parts for row in rows_of(part / "groups.parquet")]
    assert len(kept) == len(set(kept))


def test_inner_turns_are_resumed_where_they_stopped(tmp_path: Path) -> None:
    made = recipe(phase(inner=3, rounds=1))
    play(made, tmp_path / "whole", {"policy": told()})
    whole, cap, stops = list(Told.fits), 20, 0
    Told.fits = []
    while not (tmp_path / "parts/train/0000/round.json").exists():
        try:
            play(made, tmp_path / "parts", {"policy": told()}, budget=Budget(requests=cap))
        except BudgetReached:
            stops += 1
        cap += 20
    assert stops > 3 and record(tmp_path / "parts") == record(tmp_path / "whole")
    assert Told.fits == whole  # no fit was done twice


# ── where a fit starts ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("start", ["champion", "first", "scratch"])
@pytest.mark.parametrize("reference", [None, "champion", "first"])
def test_a_fit_starts_and_refers_to_what_it_says(start: Any, reference: Any, tmp_path: Path) -> None:
    first = told().fit(REAL, plan=PLAN, reference=None, seed=0, seen=lambda step, ids, **facts: None)
    Told.fits = []
    found = play(recipe(phase(rounds=2, learn={"policy": replace(LEARN, start=start, reference=reference)})), tmp_path, {"policy": first})
    champion = found.rounds()[0].record["fits"]["policy"]["model"]
    starts = {"champion": [first.id, champion], "first": [first.id] * 2, "scratch": [told().id] * 2}[start]
    references = {None: ["", ""], "champion": [first.id, champion], "first": [first.id] * 2}[reference]
    assert [(began, referred) for began, _, referred in Told.fits] == list(zip(starts, references, strict=True))
    assert [turn.record["fits"]["policy"]["start"] for turn in found.rounds()] == starts


# ── early ends, data only ──────────────────────────────────────────────────────────────────────────────────────────────
def test_until_ends_a_phase_once_its_probe_is_there(tmp_path: Path) -> None:
    plain = play(recipe(phase(rounds=5)), tmp_path / "plain")
    losses = [turn.record["measurements"]["real_loss"]["candidate"] for turn in plain.rounds()]
    assert losses[0] > losses[1] > losses[2]
    made = recipe(phase(rounds=5, until=("real_loss", losses[1])), phase("second", rounds=1))
    found = play(made, tmp_path / "until")
    assert [turn.label for turn in found.rounds()] == ["train/0000", "train/0001", "second/0000"]
    again = play(made, tmp_path / "until")
    assert [turn.label for turn in again.rounds()] == ["train/0000", "train/0001", "second/0000"]
    refused = play(recipe(phase(rounds=3, until=("real_loss", losses[0])), gate=Says("r")), tmp_path / "refused")
    assert outcomes(refused) == ["refused"] * 3  # a refused candidate reaches nothing


def test_a_phase_without_learning_makes_data_and_no_model(tmp_path: Path) -> None:
    found = play(recipe(phase(learn={}, rounds=2)), tmp_path, {"policy": Scripted(["1", "2"])})
    assert outcomes(found) == ["data only"] * 2
    assert sorted(path.name for path in tmp_path.rglob("*")) and not list(tmp_path.rglob("model*")) and not (tmp_path / "champion").exists()
    assert found.rounds()[0].record["decision"] is None and not list(tmp_path.rglob("examples*"))


def test_a_phase_without_a_generator_learns_real_rows_alone(tmp_path: Path) -> None:
    (turn,) = play(recipe(phase(generate=None, verify=(), curate=(), mix=replace(MIX, budget=25), rounds=1)), tmp_path).rounds()
    rows = list(rows_of(turn.folder / "mixture.parquet"))
    assert {row["source"] for row in rows} == {"real"} and sum(row["repeats"] for row in rows) == 25
    assert turn.record["counts"] == [] and turn.record["outcome"] == "promoted"


# ── the disk ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def kept_models(found: RunDir) -> list[str]:
    return sorted(str(path.relative_to(found.root)) for path in found.root.rglob("model*") if path.is_dir())


@pytest.mark.parametrize(("keep", "rounds"), [("all", [0, 1, 2, 3, 4]), ("champion", [3]), (1, [3]), (2, [1, 3]), (9, [0, 1, 3])], ids=str)
def test_keep_models_bounds_the_disk_and_deletes_no_record(keep: Any, rounds: list[int], tmp_path: Path) -> None:
    made = recipe(phase(rounds=5), gate=Says("pprpr"))
    found = play(made, tmp_path, keep_models=keep)
    assert kept_models(found) == ["start/model", *(f"train/{number:04d}/model" for number in rounds)]
    assert found.champion() == (tmp_path / "train/0003/model").resolve()
    assert all((turn.folder / "examples.parquet").exists() for turn in found.rounds()) and len(found.rounds()) == 5
    assert outcomes(play(made, tmp_path, keep_models=keep)) == outcomes(found)


def test_pruning_keeps_the_champion_of_every_role(tmp_path: Path) -> None:
    """The critic learns in the first phase only; what promotes the policy later does not cost the critic its model."""
    both = {"policy": LEARN, "critic": FIRST}
    made = recipe(phase("both", learn=both, rounds=1), phase("alone", rounds=2))
    found = play(made, tmp_path, {"policy": told(), "critic": told()}, keep_models="champion")
    assert kept_models(found) == ["alone/0001/model", "both/0000/model.critic", "start/model", "start/model.critic"]
    assert found.champion("critic") == (tmp_path / "both/0000/model.critic").resolve()
    assert len(play(made, tmp_path, {"policy": told(), "critic": told()}, keep_models="champion").rounds()) == 3


def test_pruning_reaches_inner_turns(tmp_path: Path) -> None:
    found = play(recipe(phase(inner=2, rounds=2)), tmp_path, keep_models="champion")
    assert kept_models(found) == ["start/model", "train/0001/inner_1/model"]


# ── streams that change while they are read ────────────────────────────────────────────────────────────────────────────
def test_a_round_needs_tasks_but_may_choose_none(tmp_path: Path) -> None:
    assert outcomes(play(recipe(phase(tasks=_None(), rounds=1)), tmp_path / "none")) == ["nothing learnt"]
    with pytest.raises(DataError, match=r"bench\.tasks is empty"):
        play(recipe(tasks=()), tmp_path / "empty")


@dataclass(frozen=True)
class _None:
    def __call__(self, ctx: Any, tasks: Any, /) -> Any:
        return iter(())

    def at_most(self, tasks: int, /) -> int:
        return 0
