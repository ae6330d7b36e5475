"""What a plan's gates can see: told before anything is spent, because a bench that is too small refuses good models or none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outcross.recipe import Phase, Recipe
    from outcross.stages import Probe

DIFFERING = 0.2  # of the answers, between two models as good as each other: what a forecast has to assume


def power_lines(recipe: Recipe, held_out: int) -> Iterator[str]:
    """For each guarded probe of each gated phase, how likely an unchanged candidate passes, the smallest drop that can be seen and the
    items that the margin needs; or that this is not known yet."""
    from outcross.engine.guards import gate_of, probes_of

    for phase in recipe.phases:
        alpha = gate_of(recipe.bench, phase).alpha / sum(item.rounds for item in recipe.phases if item.learn) if phase.learn else 0
        fewest = getattr(gate_of(recipe.bench, phase), "minimum_items", 0)
        if alpha and held_out < fewest:
            yield f"! the gate of {phase.name} refuses every round: {held_out:,} held-out items, and it asks for at least {fewest:,}"
        probes = probes_of(recipe.bench, phase) if alpha else ()
        for probe in filter(_of_answers, probes):
            yield _forecast(phase, probe, held_out, alpha)
        others = [probe for probe in probes if not _of_answers(probe)]
        if others:
            named = ", ".join(f"{probe.name} (margin {probe.margin:g})" for probe in others)
            yield (
                f"gate of {phase.name}: what drop it can see of {named} is not known before a model is measured, since it hangs on how much items "
                "differ; `outcross show RUN` prints the power of each check from the first round on"
            )


def _of_answers(probe: Probe) -> bool:
    """Whether a probe's items are answers that pass or fail, of which the spread can be assumed; not a statistic over all of them."""
    from outcross.evaluate.pass_rate import PassRate

    return isinstance(probe, PassRate)


def _forecast(phase: Phase, probe: Probe, held_out: int, alpha: float) -> str:
    from outcross.gate.paired import items_needed, power, visible_drop

    chance = power(held_out, probe.margin, alpha, DIFFERING, share=True)
    needed = items_needed(probe.margin, alpha, DIFFERING, share=True)
    seen = visible_drop(held_out, alpha, DIFFERING, share=True)
    short = f", and with {held_out:,} a drop under {100 * seen:.1f} points cannot be seen" if needed > held_out else ""
    return (
        f"gate of {phase.name}: a candidate exactly as good passes the {100 * probe.margin:g}-point margin of {probe.name} {chance:.0%} of "
        f"the time (α {alpha:.4f} a round, if {DIFFERING:.0%} of answers differ); 80 % take {needed:,} items{short}"
    )
