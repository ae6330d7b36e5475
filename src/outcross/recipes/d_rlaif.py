"""Direct RLAIF: the judge's own score is the reward."""

from __future__ import annotations

from typing import Literal

from outcross.generate.draw import Draw
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe, Waived
from outcross.select import All, Sample
from outcross.stages import FitPlan, Verifier
from outcross.train.objectives import Reinforce
from outcross.types import Loss, Sampling
from outcross.verify.judge_pointwise import PointwiseJudge

PLAN = FitPlan(lr=1e-5, epochs=1.0, batch=128, schedule="constant", warmup=0.0)  # appendix G
PAPER = Mixture("replace", Waived("the paper trains on this round's answers alone"))
GUARDED = Mixture(floor="anchor")  # rows under "pg" are about their round's policy and never enter history


def d_rlaif(
    bench: Bench,
    *,
    judge: Verifier = PointwiseJudge(),
    n: int = 4,
    rounds: int = 8,
    inner: int = 1,
    tasks_per_round: int | None = None,
    beta: float = 0.05,
    baseline: Literal["leave_one_out", "mean", "critic", "none"] = "leave_one_out",
    temperature: float = 0.9,
    max_tokens: int = 128,
    stop: tuple[str, ...] = (),
    plan: FitPlan = PLAN,
    mix: Literal["paper", "guarded"] | Mixture = "guarded",
) -> Recipe:
    """Direct RLAIF (arXiv:2309.00267 v3 §2.2.2): REINFORCE on (1 − beta) · score − beta · KL to the first model.

    The score is the mean of 1 … 10 by the judge's likelihoods, as 0 … 1 (there −1 … 1, which is as half this beta). The paper's baseline is a
    learned value; here it is the mean of the other answers to the prompt, without a second network (`baseline="critic"` asks one). Differs from `rlaif` in having no reward model in
    between, which goes stale as the policy moves. `judge: policy` in the run file is its same-checkpoint form.
    """
    phase = Phase(
        "d_rlaif",
        tasks=All() if tasks_per_round is None else Sample(tasks_per_round),
        generate=Draw(n, Sampling(temperature, max_tokens=max_tokens, stop=stop)),
        verify=(judge,),
        learn={"policy": Learn(Reinforce(Loss("pg", beta), baseline), plan, reference="first")},
        mix={"paper": PAPER, "guarded": GUARDED}[mix] if isinstance(mix, str) else mix,
        inner=inner,
        rounds=rounds,
    )
    return Recipe("d_rlaif", "arXiv:2309.00267", bench, (phase,))
