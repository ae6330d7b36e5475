"""What a run will cost as far as a preview can tell: its measurements, extrapolated to all tasks and rounds, with their spread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import msgspec

from outcross.engine.forecast import Step, price_of, steps_of
from outcross.engine.guards import BenchFacts
from outcross.engine.preview import Preview, Used, previewed
from outcross.engine.resume import seconds_by_step
from outcross.engine.store import RunDir
from outcross.recipe import Recipe
from outcross.stages import Model, Role

LEVEL = 0.95


class Range(msgspec.Struct, frozen=True):
    """A forecast number; `low` and `high` are None where nothing is known about its spread."""

    expected: float
    low: float | None = None
    high: float | None = None


class Amount(msgspec.Struct, frozen=True):
    """What a role is expected to be asked, over the whole run."""

    requests: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    money: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))

    def times(self, factor: float) -> Amount:
        return Amount(*(factor * getattr(self, name) for name in self.__struct_fields__))


class Expected(msgspec.Struct, frozen=True):
    """A whole run, what is done already included. Requests, tokens and money: 95 % intervals from the spread over `tasks` previewed
    tasks. `money` is None when no model that is asked has a price, `seconds` when no time was measured. `notes`: what is
    assumed and what is not counted."""

    tasks: int
    roles: Mapping[Role, Amount]
    requests: Range
    prompt_tokens: Range
    completion_tokens: Range
    money: Range | None
    seconds: Range | None
    notes: tuple[str, ...]


def expected(recipe: Recipe, models: Mapping[Role, Model], facts: BenchFacts, seen: Preview, run: RunDir) -> Expected:
    """The forecast of a whole run from a preview of its first phase, and from the clocks of the rounds that `run` has finished.

    Steps outside the previewed phase, probes for one, are counted with the tokens that the preview measured for the role.
    """
    measured = _Measured(recipe, models, facts, seen)
    asked = list(measured.steps())
    roles: dict[Role, Amount] = {}
    for _, role, amount in asked:
        roles[role] = roles.get(role, Amount()) + amount
    total = sum(roles.values(), Amount())
    ranges = {name: Range(getattr(total, name), *_around(getattr(total, name), seen, name)) for name in Amount.__struct_fields__}
    seconds, of_time = _seconds(recipe, models, asked, seen, run)
    priced = any(price_of(models[role]) is not None for role in roles)
    notes = [*measured.notes(), *_unpriced(models, roles, priced), *of_time]
    counted = (ranges["requests"], ranges["prompt_tokens"], ranges["completion_tokens"])
    return Expected(seen.tasks, roles, *counted, ranges["money"] if priced else None, seconds, tuple(notes))


@dataclass(frozen=True)
class _Measured:
    recipe: Recipe
    models: Mapping[Role, Model]
    facts: BenchFacts
    seen: Preview

    def steps(self) -> Iterator[tuple[Step, Role, Amount]]:
        """(step, role, what it will be asked) of all that can be told."""
        phase = previewed(self.recipe)
        numbers = count()  # as the preview numbered the phase's steps
        for step in steps_of(self.recipe, self.facts):
            if step.phase == phase.name and not step.probe:
                number = next(numbers)
                for role in dict.fromkeys(item.role for item in self.seen.used if item.step == number):
                    found = self._amount(item for item in self.seen.used if (item.step, item.role) == (number, role))
                    yield step, role, found.times(step.times * step.tasks / self.seen.tasks)
                continue
            for role, calls in step.calls.items():
                if self._of(role):
                    yield step, role, self._one(role, step.answers).times(step.times * calls)

    def _of(self, role: Role) -> list[Used]:
        """What the preview asked the model of a role, under whichever name."""
        same = {other for other, model in self.models.items() if role in self.models and model.id == self.models[role].id}
        return [item for item in self.seen.used if item.role in same]

    def _one(self, role: Role, answers: int) -> Amount:
        """One question for `answers` completions: each as long as those of the preview."""
        found = self._of(role)
        whole, asks = self._amount(found), sum(item.requests for item in found)
        one_by_one = {item.role for item in found} & set(self.seen.one_by_one)
        requests = answers if one_by_one else 1
        completions = max(1, sum(item.completions for item in found))
        prompt = whole.prompt_tokens * (answers / completions if one_by_one else 1 / asks)
        completion = answers * whole.completion_tokens / completions
        price = price_of(self.models[role])
        return Amount(requests, prompt, completion, price.of(prompt, completion).money if price is not None else 0.0)

    def _amount(self, items: Iterable[Used]) -> Amount:
        found = (Amount(_requests(item, self.seen), item.prompt_tokens, item.completion_tokens, item.money) for item in items)
        return sum(found, Amount())

    def notes(self) -> Iterator[str]:
        unknown = {role for step in steps_of(self.recipe, self.facts) for role, calls in step.calls.items() if calls and not self._of(role)}
        if any(phase.learn and phase.rounds * phase.inner > 1 for phase in self.recipe.phases):
            yield "later rounds are taken to answer as the first does"
        if any(learn.plan.stop is not None for phase in self.recipe.phases for learn in phase.learn.values()):
            yield "what the looks of early stops ask is not counted"
        for role in sorted(unknown):
            yield f"what {role} is asked is not counted: the preview did not ask it"
        if self.seen.tasks < 2:
            yield "one task says nothing about the spread; preview a few"


def _requests(item: Used, seen: Preview) -> int:
    return max(item.requests, item.completions) if item.role in seen.one_by_one else item.requests


def _around(total: float, seen: Preview, name: str) -> tuple[float | None, float | None]:
    """The 95 % interval of an extrapolated total: Student's t over the previewed tasks' own totals, in proportion."""
    values: dict[str, float] = {}
    for item in seen.used:
        found = _requests(item, seen) if name == "requests" else getattr(item, name)
        values[item.task] = values.get(item.task, 0.0) + found
    n = seen.tasks
    mean = sum(values.values()) / n if n else 0.0
    if n < 2 or not mean:
        return None, None
    from scipy.special import stdtrit

    spread = math.sqrt((sum((value - mean) ** 2 for value in values.values()) + (n - len(values)) * mean**2) / (n - 1))
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * spread / math.sqrt(n) / mean
    return max(sum(values.values()), total * (1 - half)), total * (1 + half)  # what the preview took is the least


def _unpriced(models: Mapping[Role, Model], roles: Iterable[Role], priced: bool) -> Iterator[str]:
    missing = [role for role in roles if price_of(models[role]) is None]
    if priced and missing:
        yield f"money leaves out {', '.join(missing)}: no price given"


# ── time ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _seconds(
    recipe: Recipe, models: Mapping[Role, Model], asked: Sequence[tuple[Step, Role, Amount]], seen: Preview, run: RunDir
) -> tuple[Range | None, list[str]]:
    """Phases with finished rounds by those rounds' clocks, the others by the preview's pace; and what is left out."""
    done = _finished(run)
    total = [0.0, 0.0, 0.0]
    notes, known = [], False
    for phase in recipe.phases:
        rounds = done.get(phase.name)
        if rounds:
            times = (sum(rounds) / len(rounds), min(rounds), max(rounds))
            known = True
        else:
            mine = [item for item in asked if item[0].phase == phase.name]
            fast, slow, missing = _asking_seconds(models, mine, seen)
            times = (fast / phase.rounds, fast / phase.rounds, slow / phase.rounds)
            known = known or fast > 0
            notes += [f"the time that {role} takes is not counted: nothing new was asked of it" for role in missing]
            if phase.learn:
                notes.append(f"the time to train and to score given texts in {phase.name} is not counted: no round is finished yet")
        total = [whole + phase.rounds * part for whole, part in zip(total, times, strict=True)]
    return (Range(*total) if known else None), list(dict.fromkeys(notes))


def _asking_seconds(
    models: Mapping[Role, Model], asked: Sequence[tuple[Step, Role, Amount]], seen: Preview
) -> tuple[float, float, list[Role]]:
    """Seconds with every slot of the endpoints in use, and at the pace of the preview itself; roles without a pace.

    The stages of a round run at the same time, each probe after the others; a model that plays two roles serves both in turn.
    """
    loads: dict[str, dict[str, list[float]]] = {}
    missing = []
    for step, role, amount in asked:
        pace = seen.pace.get(role)
        if pace is None or not pace.requests:
            missing.append(role)
            continue
        slots = getattr(models[role], "in_flight", None)
        requests = amount.requests
        slow = requests * pace.busy / pace.requests
        if slots is None and pace.completion_tokens:
            slow = amount.completion_tokens * pace.busy / pace.completion_tokens
        one_by_one = step.times * pace.service / pace.requests  # a round takes as long as one request, at least
        fast = slow if slots is None else min(slow, max(requests * pace.service / pace.requests / slots, one_by_one))
        load = loads.setdefault(step.name if step.probe else "", {}).setdefault(models[role].id, [0.0, 0.0])
        load[0], load[1] = load[0] + fast, load[1] + slow
    both = [sum(max(load[kind] for load in stage.values()) for stage in loads.values()) for kind in (0, 1)]
    return both[0], both[1], missing


def _finished(run: RunDir) -> dict[str, list[float]]:
    """By phase: the seconds of its finished rounds."""
    if not run.exists:
        return {}
    clock: dict[str, float] = {}
    for label, seconds in seconds_by_step(run):
        name = "/".join(label.split("/")[:2])  # inner turns belong to their round
        clock[name] = clock.get(name, 0.0) + seconds
    found: dict[str, list[float]] = {}
    for turn in run.rounds():
        found.setdefault(turn.phase, []).append(clock.get(turn.label, 0.0))
    return found
