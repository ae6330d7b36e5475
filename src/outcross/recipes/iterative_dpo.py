"""Iterative DPO: the control of self-play preference optimisation."""

from __future__ import annotations

from typing import Literal

from outcross.generate.draw import Draw
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.recipes.sppo import GUARDED, PAPER, PLAN
from outcross.select import Parts
from outcross.stages import FitPlan, Verifier
from outcross.train.objectives import Prefer
from outcross.types import Loss, Sampling
from outcross.verify.judge_pairwise import PairwiseJudge


def iterative_dpo(
    bench: Bench,
    *,
    judge: Verifier = PairwiseJudge(),
    n: int = 5,
    rounds: int = 3,
    beta: float = 0.1,
    temperature: float = 1.0,
    max_tokens: int = 512,
    stop: tuple[str, ...] = (),
    plan: FitPlan = PLAN,
    mix: Literal["paper", "guarded"] | Mixture = "guarded",
) -> Recipe:
    """DPO (arXiv:2305.18290) on the best and the worst of each round's answers, as arXiv:2405.00675 §5.1 sets it beside SPPO.

    The same draws, judge, parts of the tasks, reference and plan as `sppo`: what differs is the loss. Assumes that a reward explains the
    judge's preferences (Bradley–Terry).
    """
    phase = Phase(
        "iterative_dpo",
        tasks=Parts(rounds),
        generate=Draw(n, Sampling(temperature, max_tokens=max_tokens, stop=stop)),
        verify=(judge,),
        learn={"policy": Learn(Prefer(Loss("dpo", beta)), plan, reference="champion")},
        mix={"paper": PAPER, "guarded": GUARDED}[mix] if isinstance(mix, str) else mix,
        rounds=rounds,
    )
    return Recipe("iterative_dpo", "arXiv:2305.18290", bench, (phase,))
