"""The control: the same training on real data alone."""

from __future__ import annotations

from typing import Literal

from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.stages import FitPlan
from outcross.train.objectives import Imitate


def real_only(
    bench: Bench,
    *,
    budget: int,
    rounds: int = 3,
    plan: FitPlan = FitPlan(),
    start: Literal["champion", "first", "scratch"] = "champion",
) -> Recipe:
    """Nothing is generated; each round sees `budget` real records, all of them equally often up to one.

    With the budget, plan, start and rounds of a method's run it spends the same optimiser steps on the same real data, so that the
    difference between the two is what the method's own data brought.
    """
    phase = Phase(
        "real_only",
        generate=None,
        learn={"policy": Learn(Imitate(), plan, start)},
        mix=Mixture(real_floor=1.0, real_epochs=float(budget), budget=budget),
        rounds=rounds,
    )
    return Recipe("real_only", "", bench, (phase,))
