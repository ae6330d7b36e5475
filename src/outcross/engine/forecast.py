"""What a run will cost at most, from the plan alone: nothing is asked and nothing is spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outcross.engine.guards import BenchFacts, watched_by
from outcross.recipe import Recipe
from outcross.stages import Model, Role, calls_of, name_of, roles_of
from outcross.types import Sampling

ROW_BYTES = 600  # one stored sample with its lineage, measured on short texts; a token more is about two bytes
FALLBACK_MODEL_BYTES = 1_000_000
TEMPLATE_TOKENS = 64  # what a chat template may put around a prompt


@dataclass(frozen=True)
class Load:
    """What one role is asked at most. A token of a prompt is at least one byte of it."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Load) -> Load:
        return Load(self.calls + other.calls, self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens)


@dataclass(frozen=True)
class Forecast:
    """At most: what each role is asked, and bytes on disk with every model kept. `money`: of the roles whose model has a price; None
    when none has one."""

    rounds: int
    tasks: int
    roles: Mapping[Role, Load]
    money: float | None
    disk_bytes: int

    @property
    def total(self) -> Load:
        return sum(self.roles.values(), Load())


@dataclass(frozen=True)
class Step:
    """One stage or probe of a phase, asked `times` over the run, each time about `tasks` tasks or, a `probe`, held-out items; a probe of
    `rows` reads the rows that are to be released."""

    phase: str
    stage: Any
    times: int
    tasks: int
    probe: bool = False
    rows: bool = False
    samples: int = 1  # of a task, that the stage is given

    @property
    def name(self) -> str:
        return name_of(self.stage)

    @property
    def calls(self) -> Mapping[Role, int]:
        """Requests each time, by role. Stages that ask through other stages count what they say in `calls`."""
        return calls_of(self.stage, self.tasks, self.samples)

    @property
    def answers(self) -> int:
        """Completions a request."""
        return int(getattr(self._asking, "n", 1))

    @property
    def completion_tokens(self) -> int:
        """Tokens a request may be answered with."""
        sampling = getattr(self._asking, "sampling", None)
        return self.answers * (sampling.max_tokens if isinstance(sampling, Sampling) else Sampling().max_tokens)

    @property
    def judged(self) -> int:
        """Tokens about an item that a judge inside a probe reads."""
        return self.completion_tokens if roles_of(getattr(self.stage, "verifier", None)) else 0

    @property
    def _asking(self) -> Any:
        return getattr(self.stage, "generator", self.stage)


def steps_of(recipe: Recipe, facts: BenchFacts) -> Iterator[Step]:
    """All that asks models in a run, phase by phase."""
    for phase in recipe.phases:
        tasks = phase.tasks.at_most(facts.tasks)
        for stage in (phase.generate, *phase.verify, *phase.curate):
            if stage is not None:
                yield Step(phase.name, stage, phase.rounds * phase.inner, tasks, samples=getattr(phase.generate, "n", 1))
        for probe in watched_by(recipe.bench, phase) if phase.learn else ():
            yield Step(phase.name, probe, phase.rounds + 1, facts.held_out, probe=True)
        for test in phase.release.probes if phase.release is not None else ():  # on a round's rows and on those released before
            yield Step(phase.name, test, 2 * phase.rounds, tasks, probe=True, rows=True)
    for probe in recipe.bench.final:
        yield Step("final", probe, 2, len(list(getattr(probe, "tasks", ()))) or facts.held_out, probe=True)


def forecast(recipe: Recipe, models: Mapping[Role, Model], facts: BenchFacts, takes_n: Collection[Role] = ()) -> Forecast:
    """An upper bound for a whole run. An endpoint may ignore `n` and be sent a request for each completion, unless its role is among
    `takes_n`."""
    roles: dict[Role, Load] = {}
    written: dict[str, int] = {}  # by phase: the answers to one task, which later stages of the phase may read
    for step in steps_of(recipe, facts):
        for role, count in step.calls.items():
            each = step.answers if getattr(models.get(role), "in_flight", None) and role not in takes_n else 1
            load, said = _most(step, count, each, step.judged if step.probe and not step.rows else written.get(step.phase, 0), facts)
            roles[role] = roles.get(role, Load()) + load
            if not step.probe:
                written[step.phase] = written.get(step.phase, 0) + said
    taught = [role for role in models if any(role in phase.learn for phase in recipe.phases)]
    model_bytes = sum(int(getattr(models[role], "disk_bytes", FALLBACK_MODEL_BYTES)) for role in taught)
    fits = sum(phase.rounds * phase.inner * len(phase.learn) for phase in recipe.phases)
    total = sum(roles.values(), Load())
    disk = total.calls * ROW_BYTES + 2 * total.completion_tokens + (fits + 1) * model_bytes
    return Forecast(sum(phase.rounds for phase in recipe.phases), facts.tasks, roles, _money(roles, models), disk)


def _most(step: Step, count: int, each: int, earlier: int, facts: BenchFacts) -> tuple[Load, int]:
    """What a step asks a role at most over the run, `each` times a question, and the tokens it writes about one task. Each call may read
    the task, what the stage itself says, and every answer before it."""
    a_task = -(-count // max(1, step.tasks))
    task_bytes = (
        facts.asked_held_out
        if step.probe and not step.rows
        else facts.asked
        if step.tasks == facts.tasks
        else step.tasks * facts.asked_longest
    )
    said = a_task * step.completion_tokens
    before = step.tasks * (a_task * earlier + step.completion_tokens * a_task * (a_task - 1) // 2)
    prompts = a_task * task_bytes + count * (TEMPLATE_TOKENS + _text_of(step.stage)) + before
    return Load(step.times * count * each, step.times * prompts * each, step.times * count * step.completion_tokens), said


def _text_of(value: Any) -> int:
    """Bytes of all text in a stage's fields: templates, rubrics, worked examples. Tasks of a probe are counted elsewhere."""
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sum(_text_of(getattr(value, item.name)) for item in dataclasses.fields(value) if item.name not in ("tasks", "real"))
    if isinstance(value, Mapping):
        return sum(map(_text_of, value.values()))
    return sum(map(_text_of, value)) if isinstance(value, list | tuple) else 0


def price_of(model: object) -> Any:
    """The price of a model where somebody gave one, else None."""
    price = getattr(model, "price", None)
    return price if price is not None and price.given else None


def _money(roles: Mapping[Role, Load], models: Mapping[Role, Model]) -> float | None:
    priced = [(price_of(models[role]), load) for role, load in roles.items() if role in models]
    found = [price.of(load.prompt_tokens, load.completion_tokens).money for price, load in priced if price is not None]
    return float(sum(found)) if found else None
