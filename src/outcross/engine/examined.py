"""Verifying models that the run itself teaches: nobody can have tried them before, so the run does, on what a probe holds out.

A reward model that an earlier phase teaches and a probe examines (`outcross.stages.Examines`) needs no proof from outside. Before a phase learns from what
it says, the model that holds the role must be shown to be better than chance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from outcross.engine.champions import holder
from outcross.engine.guards import examiners
from outcross.engine.store import RoundDir, RunDir, read_measurements
from outcross.errors import GuardError
from outcross.recipe import Phase, Recipe
from outcross.sequential import clopper_pearson
from outcross.stages import name_of
from outcross.types import Measurement

ALPHA = 0.05


def check(run: RunDir, done: Sequence[RoundDir], phase: Phase, recipe: Recipe, *, tell: Callable[[str], None] | None = None) -> None:
    """Raises `GuardError` if a model that the verifiers of `phase` ask was examined and is not shown to beat chance. `tell`: hears of it
    instead, in a run that goes on all the same."""
    for told in doubts(run, done, phase, recipe):
        if tell is not None:
            tell(f"{told}; the run is `unsafe` and goes on")
            continue
        raise GuardError(
            f"{told}. Give more comparisons to learn from, or more to examine it with; `unsafe: true` learns from it all the same"
        )


def doubts(run: RunDir, done: Sequence[RoundDir], phase: Phase, recipe: Recipe) -> Iterator[str]:
    """Of each examined model that the verifiers of `phase` ask, and that is not shown to beat chance, what was found."""
    for verifier in phase.verify:
        for role, probe in examiners(verifier, phase, recipe).items():
            turn = holder(done, role)
            measured = read_measurements(run.start / "measurements.parquet") if turn is None else turn.measurements()
            found = measured[probe.name]
            low = least(found)
            if low <= probe.by_chance:
                whose = "the first model, since no other was promoted," if turn is None else f"the model of {turn.label}"
                yield (
                    f"phase {phase.name!r} would learn from {name_of(verifier)}, and {whose} is not shown to beat chance: {probe.name} "
                    f"{found.mean:.3f} on {len(_told(found))} items, at least {low:.3f} at {1 - ALPHA:.0%}, where {probe.by_chance:g} is guessing"
                )


def least(found: Measurement) -> float:
    """A lower bound of a mean of numbers between 0 and 1, one-sided at `ALPHA`: that of as many whole successes, exact for yes and no; 0 where nothing
    could be measured."""
    told = _told(found)
    return clopper_pearson(math.floor(math.fsum(told)), len(told), 2 * ALPHA).low


def _told(found: Measurement) -> Sequence[float]:
    """The values of the items that could be measured."""
    return [value for value in found.values if not math.isnan(value)]
