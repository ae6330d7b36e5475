"""What a run will cost at most, from the plan alone: nothing is asked and nothing is spent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from outcross.engine.guards import BenchFacts, probes_of
from outcross.recipe import Recipe
from outcross.stages import Model, Role
from outcross.types import Sampling

ROW_BYTES = 600  # one stored sample with its lineage, measured on short texts; a token more is about two bytes
FALLBACK_MODEL_BYTES = 1_000_000


@dataclass(frozen=True)
class Forecast:
    """At most: `calls` by role and the tokens they may write, rows drawn, and bytes on disk with every model kept."""

    rounds: int
    tasks: int
    calls: Mapping[Role, int]
    completion_tokens: int
    disk_bytes: int


def forecast(recipe: Recipe, models: Mapping[Role, Model], facts: BenchFacts) -> Forecast:
    """An upper bound for a whole run. Stages that ask through other stages count what they say in `calls`."""
    calls: Counter[Role] = Counter()
    tokens = rounds = 0
    learns = 0
    for phase in recipe.phases:
        turns = phase.rounds * phase.inner
        rounds += phase.rounds
        learns += turns * len(phase.learn)
        asking = [phase.generate, *phase.verify, *phase.curate]
        for stage in asking:
            for role, count in _calls(stage, phase.tasks.at_most(facts.tasks)).items():
                calls[role] += turns * count
                tokens += turns * count * _tokens_a_call(stage)
        measured = phase.rounds + 1 if phase.learn else 0
        for probe in probes_of(recipe.bench, phase):
            for role, count in _calls(probe, facts.held_out).items():
                calls[role] += measured * count
                tokens += measured * count * _tokens_a_call(getattr(probe, "generator", probe))
    model_bytes = sum(int(getattr(model, "disk_bytes", FALLBACK_MODEL_BYTES)) for role, model in models.items() if _taught(recipe, role))
    disk = sum(calls.values()) * ROW_BYTES + 2 * tokens + (learns + 1) * model_bytes
    return Forecast(rounds, facts.tasks, dict(calls), tokens, disk)


def _calls(stage: object, tasks: int) -> Mapping[Role, int]:
    counter = getattr(stage, "calls", None)
    return counter(tasks) if counter is not None else {}


def _tokens_a_call(stage: object) -> int:
    sampling = getattr(stage, "sampling", None)
    limit = sampling.max_tokens if isinstance(sampling, Sampling) else Sampling().max_tokens
    return limit * int(getattr(stage, "n", 1))


def _taught(recipe: Recipe, role: Role) -> bool:
    return any(role in phase.learn for phase in recipe.phases)
