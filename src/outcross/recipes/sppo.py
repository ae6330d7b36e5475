"""Self-play preference optimisation: each answer's log-ratio is regressed on its win rate against the policy."""

from __future__ import annotations

from typing import Literal

from outcross.generate.draw import Draw
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe, Waived
from outcross.select import Parts
from outcross.stages import FitPlan, Verifier
from outcross.train.objectives import WinRate
from outcross.types import Loss, Sampling
from outcross.verify.judge_pairwise import PairwiseJudge

PLAN = FitPlan(lr=5e-7, epochs=1.0, batch=64, schedule="linear", warmup=0.1)  # §5.1
PAPER = Mixture("replace", Waived("the paper trains on this round's answers alone"))
GUARDED = Mixture(floor="anchor")


def sppo(
    bench: Bench,
    *,
    judge: Verifier = PairwiseJudge(),
    opponents: Literal["judge", "values"] = "judge",
    n: int = 5,
    rounds: int = 3,
    keep: Literal["best_worst", "all"] = "best_worst",
    form: Literal["paper", "trl"] = "paper",
    beta: float = 1e-3,
    temperature: float = 1.0,
    max_tokens: int = 512,
    stop: tuple[str, ...] = (),
    plan: FitPlan = PLAN,
    mix: Literal["paper", "guarded"] | Mixture = "guarded",
) -> Recipe:
    """SPPO (arXiv:2405.00675): a step of multiplicative weights towards the equilibrium of the preference game.

    Each round draws `n` answers to its part of the tasks; the target of the best and the worst is (win rate − ½)/beta, and the reference
    is the policy that drew them. `opponents`: "judge" takes any preference as it is, circles included; "values" makes a Bradley–Terry model of
    a judge's numbers, as the released code does of PairRM's (`compute_prob.py`), which also draws at temperature 0.7, top-p 0.9, where the
    paper has 1.0. The loss is the paper's, twice the code's; `form: trl` puts 1 and 0 for win rates, as trl's `sppo_hard` does. Differs from `iterative_dpo` in the target alone. Assumes a judge that can compare.
    """
    phase = Phase(
        "sppo",
        tasks=Parts(rounds),
        generate=Draw(n, Sampling(temperature, max_tokens=max_tokens, stop=stop)),
        verify=(judge,),
        learn={"policy": Learn(WinRate(Loss("sppo", beta, form=form), keep, opponents), plan, reference="champion")},
        mix={"paper": PAPER, "guarded": GUARDED}[mix] if isinstance(mix, str) else mix,
        rounds=rounds,
    )
    return Recipe("sppo", "arXiv:2405.00675", bench, (phase,))
