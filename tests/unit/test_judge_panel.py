"""Panels of judges, and how well they agree."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest
from helpers import context, group
from hypothesis import given
from hypothesis import strategies as st
from judges import biased, weighing
from toys import model, phase, play, recipe

from outcross.engine.forecast import steps_of
from outcross.engine.guards import check_bench
from outcross.errors import ConfigError
from outcross.evaluate.pass_rate import PassRate
from outcross.generate.draw import Draw
from outcross.judgement import judgement_of, preferences
from outcross.models.scripted import Scripted
from outcross.report.agreement import Level, alpha
from outcross.stages import calls_of
from outcross.types import Group, Response
from outcross.verify.combine import Retried
from outcross.verify.exact import Exact
from outcross.verify.judge_pairwise import PairwiseJudge
from outcross.verify.judge_panel import Panel
from outcross.verify.judge_pointwise import PointwiseJudge

N: Any = np.nan
OBSERVERS = (  # Krippendorff (2011), section C: four observers, twelve units, missing data
    (1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3),
    (N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N),
)


def units(rows: Any) -> list[list[float]]:
    return [[float(value) for value in column if value == value] for column in zip(*rows, strict=True)]  # noqa: PLR0124  NaN


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_equals_the_published_worked_example(level: Level, published: float) -> None:
    assert alpha(units(OBSERVERS), level) == pytest.approx(published, abs=5e-4)


def test_alpha_equals_the_published_examples_of_two_observers() -> None:
    """Krippendorff (2011), sections A and B: binary and nominal data without gaps."""
    binary = ((0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0))
    assert alpha(units(binary)) == pytest.approx(0.095, abs=5e-4)
    nominal = tuple(tuple(map("abcde".index, text)) for text in ("aabbdcccedda", "babbbccceddd"))
    assert alpha(units(nominal)) == pytest.approx(0.692, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(5))
def test_alpha_equals_the_reference_library(level: Level, seed: int) -> None:
    rng = random.Random(seed)
    rows = [[rng.choice([1, 2, 3, 4, 5, N]) for _ in range(20)] for _ in range(4)]
    expected = krippendorff.alpha(reliability_data=np.array(rows, dtype=float), level_of_measurement=level)
    assert alpha(units(rows), level) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=5), min_size=2, max_size=20))
def test_alpha_is_one_for_agreement_and_never_more(data: list[list[int]]) -> None:
    found = alpha(data, "interval")
    assert found is None or found <= 1.0 + 1e-12
    agreed = alpha([[unit[0]] * len(unit) for unit in data])
    assert agreed is None or agreed == pytest.approx(1.0)


def test_there_is_nothing_to_agree_about_where_all_say_the_same_or_nobody_can_be_paired() -> None:
    assert alpha([[1, 1], [1, 1]]) is None
    assert alpha([[1], [2]]) is None


# ── panels ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def scoring(number: int) -> Scripted:
    return weighing(lambda request: {str(number): 1.0}, f"always {number}")


def sat(folder: Path, numbers: list[int | None], ties: Any = "abstain") -> Any:
    judges = {f"j{i}": Scripted(lambda r: Response(error="lost"), name="lost") if n is None else scoring(n) for i, n in enumerate(numbers)}
    panel = Panel(tuple(PointwiseJudge(role) for role in judges), ties)
    (found,) = panel(context(folder, judges), [group("x")])
    return found.samples[0].scores[-1]


@pytest.mark.parametrize(
    ("numbers", "ties", "verdict", "value"),
    [
        ([10, 10, 1], "abstain", "pass", 2 / 3),
        ([1, 1, 10], "abstain", "fail", 1 / 3),
        ([10, 1], "abstain", "abstain", None),
        ([10, 1], "pass", "pass", 0.5),
        ([10, 1], "fail", "fail", 0.5),
        ([10, 10, None], "abstain", "pass", 1.0),
        ([10, None], "abstain", "error", None),
        ([10, None, None], "abstain", "error", None),
    ],
)
def test_most_of_the_judges_decide_and_the_tie_rule_where_they_do_not(
    tmp_path: Path, numbers: list[int | None], ties: Any, verdict: str, value: float | None
) -> None:
    score = sat(tmp_path, numbers, ties)
    assert score.verdict == verdict and score.value == (None if value is None else pytest.approx(value, abs=1e-6))
    found = judgement_of(score)
    assert found is not None and [member.judgement.role for member in found.panel if member.judgement] == [
        f"j{i}" for i in range(len(numbers))
    ]


def test_a_panel_of_comparing_judges_keeps_each_ones_pairs_and_gives_their_mean(tmp_path: Path) -> None:
    judges = {"one": biased(len, 0.0), "two": biased(lambda text: -len(text), 0.0)}
    panel = Panel(tuple(PairwiseJudge(role) for role in judges), "fail")
    (found,) = panel(context(tmp_path, judges), [group("a", "bbb")])
    assert set(preferences(found, "panel").values()) == {0.5}
    assert panel.ground == "judged" and panel.roles == ("one", "two") and panel.version == "1(pairwise_judge@1,pairwise_judge@1)"
    record = judgement_of(found.samples[0].scores[-1])
    assert record is not None and all(member.judgement is not None and len(member.judgement.pairs) == 1 for member in record.panel)


def test_members_that_are_no_judges_vote_too(tmp_path: Path) -> None:
    (found,) = Panel((Exact(), PointwiseJudge("j")), "fail")(
        context(tmp_path, {"j": scoring(10)}), [Group(group().task, group("5").samples)]
    )
    assert found.samples[0].verdict == "fail" and found.samples[0].value == pytest.approx(0.5)


def test_the_forecast_counts_the_pairs_of_as_many_answers_as_are_drawn(tmp_path: Path) -> None:
    """Through combinations and probes as well; a judge that compares is not asked about a part of a group again."""
    panel = Panel((PairwiseJudge("one"), PointwiseJudge("two")))
    assert calls_of(panel, 10, 5) == {"one": 201, "two": 51}
    assert calls_of(PassRate((), Draw(n=3), panel), 10, 1) == {"policy": 10, "one": 61, "two": 31}
    models = {"policy": model(), "judge": biased(len, 0.0)}
    made = recipe(phase(generate=Draw(n=5), verify=(Exact(), PairwiseJudge()), learn={}, rounds=2))
    steps = [step for step in steps_of(made, check_bench(made.bench)) if step.name == "pairwise_judge"]
    tasks = len(list(made.bench.tasks))
    assert [(step.times, step.calls) for step in steps] == [(2, {"judge": 1 + tasks * 20})]
    play(made, tmp_path, models)
    assert models["judge"].requests <= 2 * steps[0].calls["judge"]  # type: ignore[union-attr]  # equal texts are not asked about
    with pytest.raises(ConfigError, match="leave `retried` out"):
        Retried(PairwiseJudge())
