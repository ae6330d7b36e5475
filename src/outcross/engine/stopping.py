"""Fits that a probe may end early (`FitPlan.stop`): on which items, and how the probe asks about a model that is still learning.

Weights are chosen by what the probe finds. A gate that saw the same items would see the luck of that choice, and a probe of rows that are learnt would
see them learnt by heart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from itertools import chain

from outcross.engine.conserve import blamed
from outcross.engine.guards import BenchFacts, asked_text, held_out_in, probes_of
from outcross.errors import ConfigError, GuardError, StageError
from outcross.recipe import Learn, Recipe
from outcross.stages import Context, EarlyStop, Model, Role
from outcross.text import HeldOutIndex, prompt_text
from outcross.types import Example, Task


def check(recipe: Recipe, facts: BenchFacts) -> None:
    """Raises `GuardError` where an early stop looks at items that a gate or the final claim sees too, or that are learnt from; `ConfigError` where its
    probe has no items of its own."""
    for phase in recipe.phases:
        seen_by_gates = [item for probe in probes_of(recipe.bench, phase) for item in items_of(probe)]
        for role, learn in phase.learn.items():
            if learn.plan.stop is None:
                continue
            where = f"phase {phase.name!r}: the early stop of {role!r}"
            own = list(items_of(learn.plan.stop.probe))
            if not own:
                raise ConfigError(
                    f"{where} measures by {learn.plan.stop.probe.name}, which has no items of its own; give the probe `tasks`, `real` or `pairs`"
                )
            _check_unseen(own, facts.index, where, "no gate may see them: give it items of its own")
            _check_unseen(own, _index(seen_by_gates), where, "the gate sees them too: give it items of its own")
            _check_unseen(
                chain(recipe.bench.tasks, _real(recipe, learn)), _index(own), where, "it is learnt from: take it out of one of the two"
            )


def items_of(probe: object) -> Iterator[Task | Example]:
    """What a probe asks about, measures by or compares."""
    for name in ("tasks", "real", "pairs"):
        yield from getattr(probe, name, None) or ()


def _real(recipe: Recipe, learn: Learn) -> Iterable[Example]:
    return (recipe.bench.real if learn.real is None else learn.real) or ()


def _index(items: Iterable[Task | Example]) -> HeldOutIndex:
    """By what is asked; of rows that ask nothing, such as plain text, by what they say."""
    return HeldOutIndex(text for item in items if (text := _known_by(item)).strip())


def _known_by(item: Task | Example) -> str:
    asked = asked_text(item.prompt)
    return asked_text(item.completion) if isinstance(item, Example) and not asked.strip() else asked


def _check_unseen(items: Iterable[Task | Example], index: HeldOutIndex, where: str, so: str) -> None:
    for item in items:
        why = held_out_in(item, index) if isinstance(item, Example) else index.match(asked_text(item.prompt))
        if why:
            raise GuardError(f"{where}: the item {item.id!r} ({prompt_text(item.prompt)[:80]!r}) {why}; {so}")


def better(stop: EarlyStop, ctx: Context, roles: Collection[Role]) -> Callable[[Model], float]:
    """What `stop`'s probe finds of a model in the place of `roles`, higher is better; equal draws at each look. Raises `StageError` when nothing could be
    measured."""

    def measured(model: Model) -> float:
        with blamed(f"probe {stop.probe.name}"):
            found = stop.probe(replace(ctx, models={**ctx.models, **dict.fromkeys(roles, model)}, round="early stop", index=0))
        if math.isnan(found.mean):
            raise StageError(
                f"the early stop's probe {stop.probe.name} could measure none of its {len(found.items)} items; see why in the run's journal"
            )
        return found.mean if found.higher_is_better else -found.mean

    return measured
