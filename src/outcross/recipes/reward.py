"""The two phases that RLAIF, RLHF and Constitutional AI share: a reward model learns from comparisons, and a policy from the reward model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from outcross.evaluate.preference import PairAccuracy
from outcross.gate.non_inferior import NonInferior
from outcross.gate.open import Open
from outcross.generate.draw import Draw
from outcross.recipe import Learn, Mixture, Phase, Waived
from outcross.recipes.d_rlaif import GUARDED, PAPER
from outcross.stages import FitPlan, Verifier
from outcross.tasks.pairs import Pairs
from outcross.train.objectives import Prefer, Reinforce
from outcross.types import Example, Loss, Sampling
from outcross.verify.reward_model import RewardModel

REWARD_PLAN = FitPlan(lr=1e-5, epochs=2.0, batch=128, schedule="constant", warmup=0.0)  # arXiv:2309.00267, appendix G
LABELS_ALONE = Mixture(floor=Waived("the reward model learns from the judge's labels alone, as in the paper"))
BESIDE_PEOPLE = Mixture(real_floor=0.5)


def reward_phase(
    judge: Verifier, comparisons: Iterable[Example] | None, held_out_pairs: Iterable[Example] | None, draw: Sampling, plan: FitPlan
) -> Phase:
    """Two answers a task, compared; the reward model learns how probably each is the better one."""
    probes = () if held_out_pairs is None else (PairAccuracy(held_out_pairs),)
    real = () if comparisons is None else Pairs(comparisons)  # the bench's rows are no comparisons
    return Phase(
        "reward",
        generate=Draw(2, draw),
        verify=(judge,),
        learn={"reward": Learn(Prefer(Loss("bt"), "all", labels="soft"), plan, real=real)},
        mix=LABELS_ALONE if comparisons is None else BESIDE_PEOPLE,
        probes=probes,
        gate=NonInferior() if probes else Open(),
    )


def policy_phase(draw: Sampling, n: int, rounds: int, beta: float, plan: FitPlan, mix: Literal["paper", "guarded"] | Mixture) -> Phase:
    """REINFORCE on the reward model's numbers, less beta times the divergence from the first model."""
    return Phase(
        "policy",
        generate=Draw(n, draw),
        verify=(RewardModel(),),
        learn={"policy": Learn(Reinforce(Loss("pg", beta)), plan, reference="first")},
        mix={"paper": PAPER, "guarded": GUARDED}[mix] if isinstance(mix, str) else mix,
        rounds=rounds,
    )
