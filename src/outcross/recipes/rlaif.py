"""RLAIF: a model's preferences train a reward model, and the reward model trains the policy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from outcross.recipe import Bench, Mixture, Recipe
from outcross.recipes.d_rlaif import PLAN
from outcross.recipes.reward import REWARD_PLAN, policy_phase, reward_phase
from outcross.stages import FitPlan, Verifier
from outcross.types import Example, Sampling
from outcross.verify.judge_pairwise import PairwiseJudge


def rlaif(
    bench: Bench,
    *,
    judge: Verifier = PairwiseJudge(),
    comparisons: Iterable[Example] | None = None,
    held_out_pairs: Iterable[Example] | None = None,
    draw: Sampling = Sampling(0.9, max_tokens=128),
    n: int = 4,
    rounds: int = 8,
    beta: float = 0.05,
    reward_plan: FitPlan = REWARD_PLAN,
    plan: FitPlan = PLAN,
    mix: Literal["paper", "guarded"] | Mixture = "guarded",
) -> Recipe:
    """RLAIF (arXiv:2309.00267): soft labels, asked in both orders → a reward model by cross-entropy → REINFORCE with a KL penalty.

    comparisons: those of people, which the guarded mixture sets beside the judge's as half of what the reward model learns from; without
    any, and under "paper", it learns from labels alone. held_out_pairs: comparisons that gate the reward model. Differs from `rlhf` in who
    labels. Baseline and mixture of the policy as in `d_rlaif`.
    """
    label = reward_phase(judge, comparisons if mix != "paper" else None, held_out_pairs, draw, reward_plan)
    return Recipe("rlaif", "arXiv:2309.00267", bench, (label, policy_phase(draw, n, rounds, beta, plan, mix)))
