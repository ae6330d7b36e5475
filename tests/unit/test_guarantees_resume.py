"""Budgets stop a run resumably, the same run twice is the same record, and a folder goes on with its own run only."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from toys import FREE, MIX, TASKS, AnyLoss, Says, model, phase, play, recipe, record

from outcross.curate.dedup import Dedup
from outcross.engine.budget import Budget
from outcross.engine.loop import run
from outcross.engine.store import write_json
from outcross.engine.watch import Silent
from outcross.errors import BudgetReached, ConfigError, StoreError
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.report.read import summary


def test_a_budget_stops_at_any_point_and_the_resumed_record_is_the_uninterrupted_one(tmp_path: Path) -> None:
    made = recipe(phase(rounds=2))
    play(made, tmp_path / "whole")
    expected, stops = record(tmp_path / "whole"), 0
    cap = 1
    while not (tmp_path / "parts/train/0001/round.json").exists():
        with contextlib.suppress(BudgetReached):
            play(made, tmp_path / "parts", budget=Budget(requests=cap))
        cap, stops = cap + 40, stops + 1
    assert stops > 4 and record(tmp_path / "parts") == expected
    for name in ("tokens", "requests", "seconds"):
        budget = Budget(**{name: 1 if name != "seconds" else 1e-9})
        with pytest.raises(BudgetReached, match=f"{name} is spent .* --budget.{name}"):
            play(made, tmp_path / str(budget), budget=budget)
        play(made, tmp_path / str(budget))
        assert record(tmp_path / str(budget)) == expected


def test_what_was_paid_for_is_not_asked_again(tmp_path: Path) -> None:
    made = recipe(phase(rounds=1, learn={}, mix=FREE))
    writer = Scripted(["1", "2", "3"])
    with pytest.raises(BudgetReached):
        play(made, tmp_path, {"policy": writer}, budget=Budget(requests=1))
    writer.requests, before = 0, len(TASKS) - writer.requests
    play(made, tmp_path, {"policy": writer})
    assert writer.requests == before


def test_the_same_twice_is_the_same_record_and_another_seed_is_not(tmp_path: Path) -> None:
    made = recipe(phase(rounds=3), gate=Says("prp"))
    one, two, other = (record(play(made, tmp_path / name, seed=seed).root) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert one == two and len(one) > 40
    assert one["train/0000/groups.parquet"] != other["train/0000/groups.parquet"]


def test_a_changed_recipe_is_refused_with_what_changed_and_nothing_is_touched(tmp_path: Path) -> None:
    play(recipe(phase(rounds=1)), tmp_path)
    before = record(tmp_path)
    changed = recipe(phase(rounds=2, generate=Draw(n=7), mix=replace(MIX, real_floor=0.6), curate=(Dedup("group"),)))
    with pytest.raises(ConfigError) as caught:
        play(changed, tmp_path)
    for line in (
        "recipe.canonical.phases[0].rounds: 1 → 2",
        "recipe.canonical.phases[0].generate.n: 6 → 7",
        "recipe.canonical.phases[0].mix.real_floor: 0.5 → 0.6",
        'recipe.canonical.phases[0].curate[0].across: "run" → "group"',
        "Use another folder (--out) for the changed run, or undo the change to resume this one.",
    ):
        assert line in str(caught.value)
    with pytest.raises(ConfigError, match=r"seed: 3 → 4"):
        play(recipe(phase(rounds=1)), tmp_path, seed=4)
    with pytest.raises(ConfigError, match=r"models\.policy\.id"):
        play(recipe(phase(rounds=1)), tmp_path, {"policy": AnyLoss(["1"])})
    assert record(tmp_path) == before


def test_a_later_format_is_not_guessed_at(tmp_path: Path) -> None:
    play(recipe(phase(rounds=1)), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    write_json(tmp_path / "manifest.json", {**manifest, "format": 9})
    with pytest.raises(StoreError, match="has format 9; this version of Outcross reads format 1"):
        play(recipe(phase(rounds=1)), tmp_path)


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_a_run_whose_record_is_not_what_was_written_does_not_go_on(tmp_path: Path, how: str) -> None:
    """Without its examples an earlier round would be forgotten, and nobody told."""
    made = recipe(phase(rounds=2))
    play(made, tmp_path)
    shutil.rmtree(tmp_path / "train/0001")
    table = tmp_path / "train/0000/examples.parquet"
    table.unlink() if how == "gone" else table.write_bytes((tmp_path / "train/0000/groups.parquet").read_bytes())
    with pytest.raises(StoreError, match=rf"examples\.parquet (is|was) {how}\. Restore"):
        play(made, tmp_path)
    assert not (tmp_path / "train/0001").exists()


def test_other_versions_of_libraries_are_told_when_a_run_goes_on(tmp_path: Path) -> None:
    class Notes(Silent):
        def note(self, text: str, /) -> None:
            told.append(text)

    told: list[str] = []
    made = recipe(phase(rounds=1))
    play(made, tmp_path)
    run(made, {"policy": model()}, tmp_path, seed=3, watch=Notes())
    assert told == []
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["versions"]["numpy"] = "1.0"
    write_json(tmp_path / "manifest.json", manifest)
    run(made, {"policy": model()}, tmp_path, seed=3, watch=Notes())
    assert len(told) == 1 and "numpy 1.0 → " in told[0]


def test_a_phase_ends_before_its_first_round_where_the_first_model_has_reached_its_goal(tmp_path: Path) -> None:
    found = play(recipe(phase(rounds=3, until=("pass_rate", 0.0))), tmp_path / "now")
    assert found.rounds() == [] and summary(found).verdict.startswith("No round was needed")
    found = play(recipe(phase(rounds=3, until=("pass_rate", 2.0))), tmp_path / "never")
    assert len(found.rounds()) == 3
