"""The toy reward model: what it learns from comparisons, and that it keeps it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from feedback import COMPARISONS, HELD_OUT_PAIRS, nothing_seen

from outcross.errors import ModelError
from outcross.models.tabular_reward import TabularReward
from outcross.stages import FitPlan, Trainable, Values
from outcross.types import Completion, Example, Loss, Origin, Turn

BT = Loss("bt")
LONG = FitPlan(lr=0.3, epochs=500, batch=4, schedule="constant", warmup=0.0)


def pair(target: float | None, name: str = "pair", **more: Any) -> Example:
    return Example(
        name, "which?", "left", **{"loss": BT, "rejected": "right", "target": target, "origin": Origin("synthetic", depth=3), **more}
    )


def fitted(*rows: Example, plan: FitPlan = LONG) -> TabularReward:
    return TabularReward().fit(rows, plan=plan, reference=None, seed=0, seen=nothing_seen)


def difference(model: TabularReward) -> float:
    (left,), (right,) = model.values([Turn("which?", Completion("left")), Turn("which?", Completion("right"))])
    return left - right


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9])
def test_a_soft_label_is_learnt_as_the_probability_it_is(p: float) -> None:
    assert 1 / (1 + math.exp(-difference(fitted(pair(p))))) == pytest.approx(p, abs=1e-3)


def test_a_hard_label_has_no_end_and_weights_are_heeded() -> None:
    assert difference(fitted(pair(None))) > 3
    rows = (pair(1.0, weight=3.0), pair(0.0, "other", weight=1.0))
    assert 1 / (1 + math.exp(-difference(fitted(*rows)))) == pytest.approx(0.75, abs=1e-3)


def test_numbers_are_learnt_by_regression() -> None:
    rows = [Example(said, "rate:", said, Loss("value"), target=worth) for said, worth in (("a", 0.2), ("b", -1.0))]
    found = list(fitted(*rows).values([Turn("rate:", Completion(row.completion)) for row in rows]))
    assert found == [pytest.approx((0.2,), abs=1e-3), pytest.approx((-1.0,), abs=1e-3)]


def test_what_people_chose_carries_over_to_other_prompts() -> None:
    model = fitted(*COMPARISONS, plan=FitPlan(lr=5.0, epochs=5, batch=16))
    turns = [[Turn(row.prompt, Completion(said)) for said in (row.completion, row.rejected) if said is not None] for row in HELD_OUT_PAIRS]
    right = sum(a > b for a, b in ([value for (value,) in model.values(both)] for both in turns))
    assert right / len(turns) > 0.9


def test_it_is_trainable_gives_values_and_keeps_both(tmp_path: Path) -> None:
    blank, model = TabularReward(), fitted(pair(0.8))
    assert isinstance(model, Trainable) and isinstance(model, Values)
    assert difference(blank) == 0 and model.id != blank.id and model.depth == 3 and blank.depth == 0
    assert model.fresh(0).id == blank.id
    model.save(tmp_path)
    back = blank.load(tmp_path)
    assert (back.id, back.depth, difference(back)) == (model.id, model.depth, difference(model))
    with pytest.raises(ModelError, match="holds no tabular reward model"):
        blank.load(tmp_path / "nowhere")


@pytest.mark.parametrize("row", [pair(None, rejected=None), pair(None, loss=Loss("nll"))])
def test_other_losses_are_refused(row: Example) -> None:
    with pytest.raises(ModelError, match="pairs by bt and targets by value"):
        fitted(row)
