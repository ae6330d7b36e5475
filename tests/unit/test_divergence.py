"""The divergence alarm: reward up, check down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from toys import FREE, HELD_OUT, PROBES, TASKS, Judge, model, outcomes, phase, play, recipe

from outcross.curate.dedup import Dedup
from outcross.engine.divergence import alarms, reward_of
from outcross.engine.guards import independent_checks, quality_checks
from outcross.engine.store import RunDir
from outcross.engine.tables import rows_of
from outcross.errors import GuardError
from outcross.evaluate.pass_rate import PassRate
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.recipe import Recipe
from outcross.report.read import summary
from outcross.stages import Context, FitPlan
from outcross.types import Example, Group, Measurement, Sample, Score
from outcross.verify.each import with_score
from outcross.verify.exact import Exact

HUNDRED = tuple(map(str, range(100)))
CHECK = PassRate(HELD_OUT, Draw(n=4), Exact(), label="exact")


def measured(mean: float, *, better: bool = True, items: tuple[str, ...] = HUNDRED) -> dict[str, Measurement]:
    """A probe whose items are 0 or 1, with this mean."""
    values = tuple(1.0 if number < mean * len(items) else 0.0 for number in range(len(items)))
    return {"check": Measurement("check", items, values, higher_is_better=better)}


def reward(mean: float, error: float = 0.02) -> dict[str, Any]:
    return {"mean": mean, "error": error, "tasks": 100}


# ── when it is raised ──────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("now", "check", "raised"),
    [
        (0.7, 0.3, True),
        (0.7, 0.5, False),  # the check holds
        (0.7, 0.7, False),  # both rise
        (0.3, 0.3, False),  # both fall
        (0.53, 0.3, False),  # the reward rose by less than its noise
        (0.7, 0.49, False),  # the check fell by less than its noise
    ],
)
def test_it_takes_a_reward_that_rises_and_a_check_that_falls_both_beyond_noise(now: float, check: float, raised: bool) -> None:
    told = alarms(reward(now), reward(0.5), ["check"], measured(check), measured(0.5))
    assert bool(told) == raised
    assert not told or told[0].startswith("reward up, check down: since the phase began the training reward rose by 0.2 ")


def test_lower_may_be_better_and_replicates_are_paired() -> None:
    assert alarms(reward(0.7), reward(0.5), ["check"], measured(0.7, better=False), measured(0.5, better=False))
    assert not alarms(reward(0.7), reward(0.5), ["check"], measured(0.3, better=False), measured(0.5, better=False))

    def replicated(value: float, *spread: float) -> dict[str, Measurement]:
        return {"check": Measurement("check", HUNDRED, (value,), tuple(value + item for item in spread))}

    noise = (0.3, -0.3, 0.1, -0.1)
    assert alarms(reward(0.7), reward(0.5), ["check"], replicated(0.4, *noise), replicated(0.5, *noise))  # the same noise in both
    assert not alarms(reward(0.7), reward(0.5), ["check"], replicated(0.4, *noise), replicated(0.5, *reversed(noise)))


def test_without_a_first_reward_or_a_common_probe_there_is_nothing_to_compare() -> None:
    assert alarms(reward(0.9), None, ["check"], measured(0.1), measured(0.9)) == []
    assert alarms(None, reward(0.1), ["check"], measured(0.1), measured(0.9)) == []
    assert alarms(reward(0.9), reward(0.1), ["check"], measured(0.1), {}) == []
    assert alarms(reward(0.9), reward(0.1), ["check"], measured(0.1), measured(0.9, items=tuple("abc"))) == []


def test_a_probe_that_rests_on_the_same_judge_tells_of_a_rise_where_the_reward_cannot() -> None:
    """Win rates within a group average to one half, whatever the policy does."""

    def both(check: float, liked: float) -> dict[str, Measurement]:
        return measured(check) | {"liked": msgspec.structs.replace(measured(liked)["check"], probe="liked")}

    still = reward(0.5, 0.0), reward(0.5, 0.0)
    assert alarms(*still, ["check"], both(0.3, 0.9), both(0.5, 0.5)) == []
    (told,) = alarms(*still, ["check"], both(0.3, 0.9), both(0.5, 0.5), ["liked"])
    assert told.startswith("reward up, check down: since the phase began liked, which rests on what training is told, rose by 0.4 ")
    assert alarms(*still, ["check"], both(0.5, 0.9), both(0.5, 0.5), ["liked"]) == []  # the check holds
    assert alarms(*still, ["check"], both(0.3, 0.3), both(0.5, 0.5), ["liked"]) == []  # both fall
    assert alarms(*still, ["check"], both(0.3, 0.51), both(0.5, 0.5), ["liked"]) == []  # within noise
    assert alarms(None, None, ["check"], both(0.3, 0.9), both(0.5, 0.5), ["liked"]) and not alarms(
        None, None, [], both(0, 1), {}, ["liked"]
    )


def test_noise_alone_raises_it_seldom() -> None:
    rng = np.random.default_rng(0)
    raised = 0
    for _ in range(1000):
        first, now = (rng.normal(0.5, 0.02) for _ in range(2))
        mine, theirs = ({"check": Measurement("check", HUNDRED, tuple(map(float, rng.random(100) < 0.5)))} for _ in range(2))
        raised += bool(alarms(reward(now), reward(first), ["check"], mine, theirs))
    assert raised / 1000 < 0.01  # both at 5 %, and independent: 0.25 %


# ── which checks are independent ───────────────────────────────────────────────────────────────────────────────────────
def test_a_check_by_the_training_verifier_or_its_judge_is_none() -> None:
    made = recipe(phase(verify=(Judge(("judge",)),)), probes=(CHECK, PassRate(HELD_OUT, Draw(), Judge(("judge",)), label="judge")))
    models: Mapping[str, Any] = {"policy": model(), "judge": Scripted(["x"])}
    assert independent_checks(made.bench, made.phases[0], models) == ["pass_rate_exact"]
    assert quality_checks(made.bench, made.phases[0], models) == (["pass_rate_exact"], ["pass_rate_judge"])
    both = recipe(phase(verify=(Judge(), Exact())), probes=(CHECK,))
    assert independent_checks(both.bench, both.phases[0], models) == []
    assert independent_checks(both.bench, phase(verify=()), models) == []
    assert quality_checks(both.bench, phase(verify=()), models) == ([], [])


# ── in a run ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class LikesOnes(Judge):
    """A judge that likes answers that begin with a one, whatever was asked."""

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple(with_score(item, self._liked(item)) for item in group.samples))

    def _liked(self, sample: Sample) -> Score:
        liked = sample.text.startswith("1")
        return Score(self.name, self.version, "pass" if liked else "fail", float(liked))


def hacked(action: Literal["warn", "refuse", "stop"], rounds: int = 3) -> Recipe:
    """A judge that can be pleased by anybody, beside a check that knows the sums; training follows the judge."""
    train = phase(verify=(LikesOnes(),), curate=(), mix=FREE, rounds=rounds)
    return recipe(train, probes=(CHECK, *PROBES[1:]), divergence=action)


@dataclass(frozen=True)
class Compares(LikesOnes):
    """The same judge, that compares: a win rate among the answers to a task."""

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            liked = [item.text.startswith("1") for item in group.samples]
            rates = [0.5 + (mine - sum(liked) / len(liked)) / 2 for mine in liked]
            scores = [Score(self.name, self.version, "pass" if rate > 0.5 else "fail", rate) for rate in rates]
            yield Group(group.task, tuple(map(with_score, group.samples, scores)))


def learnt() -> Any:
    """A policy that can add, so that there is something to lose."""
    examples = [Example(task.id, task.prompt, str(task.answer)) for task in (*TASKS, *HELD_OUT)]
    return model().fit(examples, plan=FitPlan(lr=1.0, epochs=20, batch=16), reference=None, seed=0, seen=lambda step, ids, **facts: None)


def test_a_run_that_games_its_judge_is_headed_refused_or_stopped(tmp_path: Path) -> None:
    warned = play(hacked("warn"), tmp_path / "warn", {"policy": learnt()}, unsafe=True)
    records = [turn.record for turn in warned.rounds()]
    assert records[0]["alarms"] == [] and records[-1]["reward"]["mean"] > records[0]["reward"]["mean"] + 0.1
    assert "pass_rate_exact, which training is not told, changed by -" in records[-1]["alarms"][0]
    assert outcomes(warned) == ["promoted"] * 3
    assert any(line.startswith("divergence alarm in train/0002: reward up, check down") for line in summary(warned).headings)

    first = next(number for number, item in enumerate(records) if item["alarms"])
    refused = play(hacked("refuse"), tmp_path / "refuse", {"policy": learnt()}, unsafe=True)
    assert outcomes(refused)[: first + 1] == ["promoted"] * first + ["refused"]
    decision = refused.rounds()[first].decision
    assert decision is not None and decision.reason.startswith("divergence alarm: reward up") and "The gate said:" in decision.reason

    with pytest.raises(GuardError, match=r"divergence alarm: .* `outcross resume .*stop` goes on"):
        play(hacked("stop"), tmp_path / "stop", {"policy": learnt()}, unsafe=True)
    stopped = RunDir(tmp_path / "stop")
    assert outcomes(stopped) == ["promoted"] * first + ["refused"]


def test_a_judge_that_compares_is_caught_by_a_probe_that_asks_the_same_judge(tmp_path: Path) -> None:
    judge = Scripted(["unasked"], name="judge")
    liked = PassRate(HELD_OUT, Draw(n=4), LikesOnes(("judge",)), margin=0.9, label="liked")
    train = phase(verify=(Compares(("judge",)),), curate=(), mix=FREE, rounds=3)
    for probes, caught in (((CHECK, liked, *PROBES[1:]), True), ((CHECK, *PROBES[1:]), False)):
        found = play(recipe(train, probes=probes), tmp_path / str(caught), {"policy": learnt(), "judge": judge}, unsafe=True)
        records = [turn.record for turn in found.rounds()]
        assert all(item["reward"]["mean"] == pytest.approx(0.5) for item in records)
        assert any(item["alarms"] for item in records) == caught
        assert not caught or "pass_rate_liked, which rests on what training is told, rose by" in records[-1]["alarms"][0]


def test_the_reward_is_the_mean_over_tasks_of_all_samples_set_aside_or_not(tmp_path: Path) -> None:
    run = play(recipe(phase(rounds=1, curate=(Dedup(),))), tmp_path)
    turn = run.rounds()[0]
    values: dict[str, list[float]] = {}
    for name in ("groups", "drops"):
        for row in rows_of(turn.folder / f"{name}.parquet"):
            values.setdefault(row["task_id"], []).append(row["value"])
    means = [sum(found) / len(found) for found in values.values()]
    found = reward_of(turn)
    assert found is not None and found["tasks"] == len(means) == 37
    assert found["mean"] == pytest.approx(sum(means) / len(means))
