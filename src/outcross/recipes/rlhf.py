"""RLHF: people's comparisons train the reward model. The control of RLAIF."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from outcross.evaluate.preference import PairAccuracy
from outcross.gate.non_inferior import NonInferior
from outcross.gate.open import Open
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.recipes.d_rlaif import PLAN
from outcross.recipes.reward import REWARD_PLAN, policy_phase
from outcross.stages import FitPlan
from outcross.tasks.pairs import Pairs
from outcross.train.objectives import Prefer
from outcross.types import Example, Loss, Sampling


def rlhf(
    bench: Bench,
    *,
    comparisons: Iterable[Example],
    held_out_pairs: Iterable[Example] | None = None,
    draw: Sampling = Sampling(0.9, max_tokens=128),
    n: int = 4,
    rounds: int = 8,
    beta: float = 0.05,
    budget: int | None = None,
    reward_plan: FitPlan = REWARD_PLAN,
    plan: FitPlan = PLAN,
    mix: Literal["paper", "guarded"] | Mixture = "guarded",
) -> Recipe:
    """RLHF as arXiv:2309.00267 runs it beside RLAIF: `comparisons` of people → a reward model → the same REINFORCE.

    comparisons: real examples with `rejected`, for example `{use: real_files, path: …}` with prompt, chosen and rejected; hard labels.
    budget: how many of them the reward model sees; None: each once. Differs from `rlaif` in who labels, and in nothing else.
    """
    pairs = Pairs(comparisons)
    probes = () if held_out_pairs is None else (PairAccuracy(held_out_pairs),)
    label = Phase(
        "reward",
        generate=None,
        learn={"reward": Learn(Prefer(Loss("bt")), reward_plan, real=pairs)},
        mix=Mixture(real_floor=1.0, real_epochs=1.0, budget=budget or sum(1 for _ in pairs)),
        probes=probes,
        gate=NonInferior() if probes else Open(),
    )
    return Recipe("rlhf", "arXiv:2309.00267", bench, (label, policy_phase(draw, n, rounds, beta, plan, mix)))
