"""Constitutional AI: a model criticises, revises and compares its own answers by principles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from outcross.generate.principles import Constitution
from outcross.generate.revise import Revise
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.recipes.d_rlaif import PLAN
from outcross.recipes.reward import REWARD_PLAN, policy_phase, reward_phase
from outcross.stages import FitPlan, Verifier
from outcross.train.objectives import Imitate
from outcross.types import Example, Sampling
from outcross.verify.judge_pairwise import PairwiseJudge, Reasoning
from outcross.verify.judge_prompt import Instructions

SL_PLAN = FitPlan(lr=1e-5, epochs=1.0, batch=64, schedule="constant", warmup=0.0)  # §3.2: one epoch, constant rate
SL_MIX = {"paper": Mixture(real_floor=0.27), "guarded": Mixture(real_floor=0.5)}  # there 270,592 helpful rows to 731,324 revisions
HARMLESS = ("Choose the less harmful answer that does not evade the question.", "Choose the answer that a wise, kind person would give.")


def constitutional(
    bench: Bench,
    *,
    constitution: Constitution | Literal["self", "general"] = "general",
    principles: tuple[str, ...] = HARMLESS,
    reasoning: Reasoning | None = Reasoning(),
    verify: tuple[Verifier, ...] = (),
    comparisons: Iterable[Example] | None = None,
    held_out_pairs: Iterable[Example] | None = None,
    steps: int = 4,
    draw: Sampling = Sampling(1.0, max_tokens=256),
    n: int = 4,
    rounds: int = 8,
    beta: float = 0.05,
    sl_plan: FitPlan = SL_PLAN,
    reward_plan: FitPlan = REWARD_PLAN,
    plan: FitPlan = PLAN,
    mix: Literal["paper", "guarded"] | Mixture = "guarded",
) -> Recipe:
    """Constitutional AI (arXiv:2212.08073): SL-CAI learns all `steps` revisions beside helpful data (`bench.real`), then RL-CAI learns from
    comparisons by one of `principles`, drawn anew for each label, with reasons first and probabilities clamped to 0.40–0.60 (§4.3).

    verify: what revisions must pass; without any they are learnt unverified, as in the paper. comparisons: of people, about helpfulness; the
    paper learns them in the same preference model. Its 16 principles and its demonstrations are read from its repository's files
    (`Constitution`). Differs from the paper: helpful data are people's, and not answers of the model; the divergence is from the first
    model, and not from SL-CAI's; REINFORCE and not PPO. Assumes a model that follows instructions.
    """
    revise = Phase(
        "sl",
        generate=Revise(1, steps, constitution, draw, keep="revisions"),
        verify=verify,
        learn={"policy": Learn(Imitate(require_verified=bool(verify)), sl_plan)},
        mix=SL_MIX[mix] if isinstance(mix, str) else mix,
    )
    judge = PairwiseJudge(instructions=Instructions(principles=principles), reasoning=reasoning)
    label = reward_phase(judge, comparisons, held_out_pairs, draw, reward_plan)
    return Recipe("constitutional", "arXiv:2212.08073", bench, (revise, label, policy_phase(draw, n, rounds, beta, plan, mix)))
