"""The quickstart at a size that takes seconds: every arm runs through the command line, and what is told is on the record."""

from __future__ import annotations

from pathlib import Path

import pytest

from outcross import quickstart as work
from outcross.config.runfile import plan
from outcross.engine.store import RunDir
from outcross.errors import ConfigError, OutcrossError
from outcross.recipe import Waived


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model and rounds so small that an arm takes a second; what it learns is of no interest here."""
    monkeypatch.setattr(work, "MODEL", {**work.MODEL, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2})
    for name, value in {"REAL_ROWS": 100, "HELD_OUT": 400, "PROMPTS": 60, "START_EPOCHS": 2.0}.items():
        monkeypatch.setattr(work, name, value)


def test_every_arm_sees_the_same_number_of_optimiser_rows_under_the_same_plan() -> None:
    recipes = [plan(work.run_file(arm, 0), Path()).build_recipe() for arm in work.ARMS]
    phases = [recipe.phases[0] for recipe in recipes]
    assert {phase.mix.budget for phase in phases} == {work.BATCH * work.STEPS}
    assert len({phase.learn["policy"].plan for phase in phases}) == 1
    assert {phase.rounds for phase in phases} == {work.ROUNDS}
    floors = {arm.name: phase.mix.floor for arm, phase in zip(work.ARMS, phases, strict=True)}
    assert [name for name, floor in floors.items() if not isinstance(floor, Waived)] == ["guarded", "real-only", "unverified with floor"]
    assert [arm.name for arm in work.ARMS if arm.gated] == ["guarded"]
    verified = [bool(phase.verify) for phase in phases]
    assert [arm.name for arm, checked in zip(work.ARMS, verified, strict=True) if checked] == ["guarded", "verified without floor"]


def test_arms_are_chosen_by_name() -> None:
    assert work.arms_named("all") == work.ARMS
    assert [arm.name for arm in work.arms_named("unverified-replace, guarded")] == ["unverified replace", "guarded"]
    with pytest.raises(ConfigError, match=r"no arm is called 'gaurded'; did you mean 'guarded'"):
        work.arms_named("gaurded")


@pytest.mark.usefixtures("small")
def test_two_arms_run_side_by_side_and_end_as_their_records_say(tmp_path: Path) -> None:
    told: list[str] = []
    arms = work.arms_named("real_only,unverified_replace")
    work.train_start(tmp_path, 0, told.append)
    again = (tmp_path / "start" / "model" / "model.safetensors").stat().st_mtime_ns
    work.train_start(tmp_path, 0, told.append)
    assert (tmp_path / "start" / "model" / "model.safetensors").stat().st_mtime_ns == again
    work.run_arms(arms, tmp_path, 0, told.append)
    assert sum("round" in line for line in told) == 2 * work.ROUNDS
    for ending in work.endings(arms, tmp_path):
        run = RunDir(tmp_path / ending.arm.folder)
        assert (ending.promoted, ending.rounds) == (work.ROUNDS, work.ROUNDS)
        assert ending.end == run.rounds()[-1].record["measurements"][work.PROBE]["candidate"]
        fits = [turn.record["fits"]["policy"] for turn in run.rounds()]
        orders = {fit["examples"] + fit.get("skipped", 0) for fit in fits}  # empty answers are not learnt
        assert orders == {work.BATCH * work.STEPS}
    decisions = list(work.replayed_gate(RunDir(tmp_path / "unverified_replace")))
    assert len(decisions) == work.ROUNDS
    assert all(decision.gated for _, decision in decisions)
    page = work.write_picture(arms, tmp_path).read_text()
    assert "unverified replace" in page and "real-only" in page


@pytest.mark.usefixtures("small")
def test_an_arm_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(OutcrossError, match=r"(?s)the arm 'real-only' ended with exit code 7.*start/model"):
        work.run_arms(work.arms_named("real_only"), tmp_path, 0, lambda line: None)
