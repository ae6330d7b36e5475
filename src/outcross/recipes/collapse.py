"""What happens without guards: a model learns its own unverified output, generation after generation."""

from __future__ import annotations

from typing import Literal

from outcross.gate.observe import Observe
from outcross.generate.draw import Draw
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe, Waived
from outcross.select import All, Sample
from outcross.stages import FitPlan, Gate
from outcross.train.objectives import Imitate
from outcross.types import Sampling

_PAPERS = {"replace": "doi:10.1038/s41586-024-07566-y", "accumulate": "arXiv:2404.01413", "subsample": "arXiv:2410.16713"}


def collapse(
    bench: Bench,
    *,
    history: Literal["replace", "accumulate", "subsample"] = "replace",
    n: int = 1,
    rounds: int = 5,
    tasks_per_round: int | None = None,
    temperature: float = 1.0,
    max_tokens: int = 256,
    beams: int = 1,
    plan: FitPlan = FitPlan(),
    mix: Mixture | None = None,
    start: Literal["champion", "first", "scratch"] = "champion",
    gate: Gate = Observe(),
) -> Recipe:
    """Each generation is trained on what the one before said, and on nothing else that is new.

    *replace* forgets all earlier data (Shumailov et al. 2024; the run file must say `unsafe: true`), *accumulate* keeps every
    generation's (Gerstgrasser et al. 2024), *subsample* draws a set of constant size from all of them (Kazdan et al. 2024). No
    verifier, no floor of real data, no refusal: the gate writes down what it would have decided. A `mix` replaces `history` and the
    waived floor. `beams` above 1 searches for the most likely answers instead of drawing them, as Shumailov et al. did with five.
    """
    if mix is None:
        mix = Mixture(history, Waived("collapse is studied as in the papers, on unverified model output alone"))
    phase = Phase(
        "collapse",
        tasks=All() if tasks_per_round is None else Sample(tasks_per_round),
        generate=Draw(n, Sampling(temperature, max_tokens=max_tokens, beams=beams)),
        learn={"policy": Learn(Imitate(require_verified=False), plan, start)},
        mix=mix,
        gate=gate,
        rounds=rounds,
    )
    return Recipe("collapse", _PAPERS[mix.history], bench, (phase,))
