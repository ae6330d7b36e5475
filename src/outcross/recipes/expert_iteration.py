"""Rejection-sampling fine-tuning: draw, keep what is right, imitate it, repeat."""

from __future__ import annotations

from typing import Literal

from outcross.curate.dedup import Dedup
from outcross.errors import ConfigError
from outcross.generate.draw import Draw
from outcross.recipe import Admit, Bench, Learn, Mixture, Phase, Recipe
from outcross.select import All, Sample
from outcross.stages import FitPlan, Verifier
from outcross.train.objectives import Imitate
from outcross.types import Sampling


def expert_iteration(
    bench: Bench,
    *,
    verify: tuple[Verifier, ...],
    n: int = 4,
    rounds: int = 3,
    tasks_per_round: int | None = None,
    temperature: float = 1.0,
    max_tokens: int = 256,
    stop: tuple[str, ...] = (),
    template: str = "{prompt}",
    plan: FitPlan = FitPlan(),
    mix: Mixture = Mixture(),
    start: Literal["champion", "first", "scratch"] = "champion",
    admit: Admit = None,
) -> Recipe:
    """STaR (arXiv:2203.14465) and ReST-EM (arXiv:2312.06585) without rationalisation.

    Each round draws `n` answers a task, keeps the different ones that every verifier passes, and learns them by
    maximum likelihood beside real data. The papers begin every fit from the base model (`start="first"`) and have neither a floor
    of real data nor a gate; here each round continues from the champion. Assumes a verifier that is right: what it lets through
    is learnt.
    """
    if not verify:
        raise ConfigError("expert_iteration has no verifier, so nothing could be learnt; name one under bench.verify, for example `exact`")
    phase = Phase(
        "expert_iteration",
        tasks=All() if tasks_per_round is None else Sample(tasks_per_round),
        generate=Draw(n, Sampling(temperature, max_tokens=max_tokens, stop=stop), template=template),
        verify=verify,
        curate=(Dedup(),),
        learn={"policy": Learn(Imitate(), plan, start)},
        mix=mix,
        rounds=rounds,
        admit=admit,
    )
    return Recipe("expert_iteration", "arXiv:2203.14465, arXiv:2312.06585", bench, (phase,))
