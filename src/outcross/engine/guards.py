"""The guarantees that hold whatever the recipe: what is refused before anything is spent, and what is counted on the way.

`check_plan` refuses a plan that cannot keep a guarantee; `check_bench` reads the bench's data once; `Counter` proves that
nothing is lost between two stages; `decontaminated` sets aside whatever stands in the held-out set.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from outcross.errors import DataError, GuardError, StageError
from outcross.recipe import Bench, Mixture, Phase, Recipe, Waived
from outcross.stages import Model, Probe, Role, Trainable, Verifier, name_of, roles_of
from outcross.text import HeldOutIndex, digest, prompt_text
from outcross.types import Drop, Group, Sample, Task

SOUND = ("kernel", "executed", "exact")  # grounds that may serve training and the gate alike
KINDS = ("quality", "diversity", "fit")


def check_plan(recipe: Recipe, models: Mapping[Role, Model], *, unsafe: bool = False) -> list[str]:
    """The headings that a reader must see before anything else. Raises `GuardError` naming every breach at once."""
    problems = [problem for phase in recipe.phases for problem in _phase_problems(recipe.bench, phase, models, unsafe)]
    names = [phase.name for phase in recipe.phases]
    problems += [f"two phases are called {name!r}; each needs a name of its own" for name, n in Tally(names).items() if n > 1]
    if not recipe.phases:
        problems.append(f"the recipe {recipe.name!r} has no phases; it needs at least one")
    if problems:
        raise GuardError("this plan was refused before anything was spent:\n" + "\n".join(f"  - {item}" for item in problems))
    return _headings(recipe)


def gate_of(bench: Bench, phase: Phase) -> Any:
    """The gate of a phase: its own, or the bench's."""
    return bench.gate if phase.gate is None else phase.gate


def probes_of(bench: Bench, phase: Phase) -> tuple[Probe, ...]:
    """The probes of a phase: its own, or the bench's."""
    return bench.probes if phase.probes is None else phase.probes


def _phase_problems(bench: Bench, phase: Phase, models: Mapping[Role, Model], unsafe: bool) -> Iterator[str]:
    where = f"phase {phase.name!r}"
    if phase.rounds < 1 or phase.inner < 1:
        yield f"{where} has rounds={phase.rounds}, inner={phase.inner}; both must be at least 1"
    yield from _role_problems(phase, where, models, bench)
    yield from _mixture_problems(phase.mix, where, bench, unsafe) if phase.learn else ()
    for learn in phase.learn.values():
        for curator in phase.curate:
            if getattr(curator, "trims", False) and getattr(learn.objective, "uses_peers", False):
                yield (
                    f"{where}: the curator {name_of(curator)} trims samples off groups, and the objective "
                    f"{type(learn.objective).__name__} compares the samples of a group; curate whole groups only"
                )
    if phase.learn and gate_of(bench, phase).alpha > 0:
        yield from _gate_problems(bench, phase, where, models)


def _role_problems(phase: Phase, where: str, models: Mapping[Role, Model], bench: Bench) -> Iterator[str]:
    stages = [phase.generate, *phase.verify, *phase.curate, *(probes_of(bench, phase) if phase.learn else ())]
    for stage in stages:
        for role in roles_of(stage):
            if role not in models:
                yield f"{where}: {name_of(stage)} asks the role {role!r}, and the run has only {sorted(models)}; add it under `models:`"
    taught: dict[int, str] = {}
    for role, learn in phase.learn.items():
        other = taught.setdefault(id(models.get(role)), role)
        if role in models and (learn.plan, learn.start, learn.reference) != (
            phase.learn[other].plan,
            phase.learn[other].start,
            phase.learn[other].reference,
        ):
            yield f"{where}: the roles {other!r} and {role!r} are one model and are taught in one fit; give them the same plan, start and reference"
        if learn.start == "scratch" and role in models and not hasattr(models[role], "fresh"):
            yield f"{where} trains {role!r} from scratch, and its model {type(models[role]).__name__} has no untrained form; use start: first"
        if role not in models:
            yield f"{where} teaches the role {role!r}, and the run has only {sorted(models)}; add it under `models:`"
        elif not isinstance(models[role], Trainable):
            yield f"{where} teaches the role {role!r}, whose model {type(models[role]).__name__} cannot be trained"


def _mixture_problems(mix: Mixture, where: str, bench: Bench, unsafe: bool) -> Iterator[str]:
    if not 0 <= mix.real_floor <= 1:
        yield f"{where}: mix.real_floor is {mix.real_floor}; it is a share between 0 and 1"
    if mix.history == "replace" and not unsafe:
        yield (
            f"{where} replaces its history: each round forgets the data of the rounds before, the setting in which models collapse; "
            "say `unsafe: true` in the run file if that is what you study"
        )
    if bench.real is None and not isinstance(mix.floor, Waived):
        yield (
            f"{where} has a floor of real data and the bench has no real data; give `bench.real`, or waive the floor with a reason "
            '(`mix: {floor: {waived: "…"}}`)'
        )


def _gate_problems(bench: Bench, phase: Phase, where: str, models: Mapping[Role, Model]) -> Iterator[str]:
    probes = probes_of(bench, phase)
    kinds = {probe.kind for probe in probes}
    needed = [kind for kind in KINDS if kind not in kinds and not (kind == "fit" and bench.real is None)]
    if needed:
        yield (
            f"{where} is gated and its bench lacks a probe of {' and of '.join(needed)}; a gate guards quality, diversity and "
            "fit to real data, or a collapse in one of them passes unseen"
        )
    names = Tally(probe.name for probe in probes)
    yield from (f"{where}: {n} probes are called {name!r}; give each a label" for name, n in names.items() if n > 1)
    for verifier in phase.verify:
        if verifier.ground not in SOUND:
            yield from _independence(verifier, probes, where, models)


def _independence(verifier: Verifier, probes: Iterable[Probe], where: str, models: Mapping[Role, Model]) -> Iterator[str]:
    """A trained, judged, voted or human verdict may teach only if the gate measures quality by something else."""
    judges = {models[role].id for role in roles_of(verifier) if role in models}
    for probe in probes:
        asked = {models[role].id for role in roles_of(probe) if role != "policy" and role in models}
        if probe.kind == "quality" and name_of(verifier) not in probe.name and not (asked & judges):
            return
    yield (
        f"{where} learns from {name_of(verifier)}, whose ground is {verifier.ground!r}, and every probe of quality rests on the same "
        "verifier or judging model; add a probe with another one, or the gate would only repeat what training was told"
    )


def _headings(recipe: Recipe) -> list[str]:
    found = []
    if recipe.bench.real is None:
        found.append("no real anchor: the bench holds no real data")
    for phase in recipe.phases:
        if phase.learn and isinstance(phase.mix.floor, Waived):
            found.append(f"floor of real data waived in phase {phase.name}: {phase.mix.floor.reason}")
        if phase.learn and phase.mix.history == "replace":
            found.append(f"history replaced in phase {phase.name}: earlier rounds are forgotten")
        if phase.learn and not gate_of(recipe.bench, phase).alpha > 0:
            found.append(f"ungated: phase {phase.name} promotes without a test")
    return found


@dataclass(frozen=True)
class BenchFacts:
    """What one pass over the bench found."""

    tasks: int
    held_out: int
    real: int
    index: HeldOutIndex


def check_bench(bench: Bench) -> BenchFacts:
    """Read tasks, held-out items and real rows once. Raises `DataError` for empty sets and doubled identifiers, `GuardError`
    for a held-out item among the tasks or the real rows. Memory: one hash per task, the texts of the held-out items."""
    held_out = list(bench.held_out)
    if not held_out and bench.probes:
        raise DataError("bench.held_out is empty; the probes need held-out items")
    index = HeldOutIndex(prompt_text(task.prompt) for task in held_out)
    held_ids = {task.id for task in held_out}
    seen: set[int] = set()
    for count, task in enumerate(bench.tasks):
        if digest(task.id) in seen:
            raise DataError(f"two tasks have the identifier {task.id!r} (the second is number {count}); identifiers must be unique")
        seen.add(digest(task.id))
        why = "has a held-out identifier" if task.id in held_ids else index.match(prompt_text(task.prompt))
        if why:
            raise GuardError(
                f"task {task.id!r} {why}: {prompt_text(task.prompt)[:80]!r}. Remove it from bench.tasks or from bench.held_out; "
                "a model that trains on what it is tested on cannot be judged"
            )
    if not seen:
        raise DataError("bench.tasks is empty; there is nothing to generate from. Check its path, split and filters")
    return BenchFacts(len(seen), len(held_out), _check_real(bench, index), index)


def _check_real(bench: Bench, index: HeldOutIndex) -> int:
    count = 0
    for example in bench.real or ():
        why = index.match(prompt_text(example.prompt))
        if why:
            raise GuardError(
                f"real row {example.id!r} {why}: {prompt_text(example.prompt)[:80]!r}. Remove it from bench.real; held-out items are for tests only"
            )
        count += 1
    if bench.real is not None and count == 0:
        raise DataError("bench.real is empty; give real rows, or say `real: none`")
    return count


Counts = dict[str, Any]


@dataclass
class Counter:
    """Samples into and out of one stage. `close` raises `StageError` unless in = kept + dropped + failed."""

    stage: str
    name: str
    into: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    detail: Tally[str] = field(default_factory=Tally)

    def counts(self) -> Counts:
        """The stage's line in the round's record."""
        return {
            "stage": self.stage,
            "name": self.name,
            "in": self.into,
            "kept": self.kept,
            "dropped": self.dropped,
            "failed": self.failed,
            "detail": dict(sorted(self.detail.items())),
        }

    def close(self) -> None:
        if self.into != self.kept + self.dropped + self.failed:
            raise StageError(
                f"{self.stage} {self.name}: {self.into} came in, {self.kept} kept + {self.dropped} dropped + {self.failed} failed came out; "
                "a stage must pass on or set aside everything it takes"
            )


@dataclass(frozen=True)
class Admit:
    """Lets tasks through to a generator, and stops the run at a held-out one that a selector brought in."""

    index: HeldOutIndex

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Task]:
        for task in tasks:
            why = self.index.match(prompt_text(task.prompt))
            if why:
                raise GuardError(f"the selector chose task {task.id!r}, which {why}; held-out items never reach a generator")
            yield task


def generated(stage: Any, ctx: Any, tasks: Iterable[Task], counter: Counter) -> Iterator[Group]:
    """Run a generator; one group per task, in order. `counter` counts samples; samples without an answer are failures."""
    asked: list[str] = []

    def noted() -> Iterator[Task]:
        for task in tasks:
            asked.append(task.id)
            yield task

    done = 0
    for group in stage(ctx, noted()):
        if done >= len(asked) or asked[done] != group.task.id:
            expected = asked[done] if done < len(asked) else "nothing more"
            raise StageError(
                f"generate {counter.name}: expected the group of task {expected!r}, got {group.task.id!r}; keep the order of tasks"
            )
        asked[done] = ""
        done += 1
        failures = sum(1 for sample in group.samples if sample.error)
        counter.into += len(group.samples)
        counter.failed += failures
        counter.kept += len(group.samples) - failures
        for sample in group.samples:
            if sample.error:
                counter.detail[sample.error[:80]] += 1
        yield group
    if done != len(asked):
        raise StageError(f"generate {counter.name}: {len(asked)} tasks went in and {done} groups came out; task {asked[done]!r} was lost")


def verified(stage: Verifier, ctx: Any, groups: Iterable[Group], counter: Counter) -> Iterator[Group]:
    """Run a verifier; the same groups and samples in the same order, each with one more score (failed requests excepted)."""
    waiting: list[tuple[str, tuple[str, ...]]] = []

    def noted() -> Iterator[Group]:
        for group in groups:
            waiting.append((group.task.id, tuple(sample.id for sample in group.samples)))
            yield group

    taken = 0
    for group in stage(ctx, noted()):
        found = (group.task.id, tuple(sample.id for sample in group.samples))
        if taken >= len(waiting) or waiting[taken] != found:
            raise StageError(
                f"verify {counter.name}: the group of task {group.task.id!r} came back changed or out of order; only add scores"
            )
        waiting[taken] = ("", ())
        taken += 1
        for sample in group.samples:
            _count_verdict(sample, counter)
        yield group
    if taken != len(waiting):
        raise StageError(f"verify {counter.name}: {len(waiting)} groups went in and {taken} came out; task {waiting[taken][0]!r} was lost")


def _count_verdict(sample: Sample, counter: Counter) -> None:
    counter.into += 1
    if sample.error:
        counter.failed += 1
        counter.detail["not judged: no answer"] += 1
        return
    verdict = next((score.verdict for score in reversed(sample.scores) if score.verifier == counter.name), None)
    if verdict is None:
        raise StageError(f"verify {counter.name}: sample {sample.id} of an answered request came back without a score of {counter.name!r}")
    counter.detail[verdict] += 1
    if verdict == "error":
        counter.failed += 1
    else:
        counter.kept += 1


def curated(
    stage: Callable[[Any, Iterable[Group]], Iterator[Group | Drop]], ctx: Any, groups: Iterable[Group], counter: Counter
) -> Iterator[Group | Drop]:
    """Run a curator; each sample leaves once, kept or set aside with a reason. Reasons are counted by what stands before
    their first colon. Memory: the samples inside the curator."""
    inside: dict[str, None] = {}

    def noted() -> Iterator[Group]:
        for group in groups:
            counter.into += len(group.samples)
            for sample in group.samples:
                inside[sample.id] = None
            yield group

    for item in stage(ctx, noted()):
        samples = item.group.samples if isinstance(item, Drop) else item.samples
        for sample in samples:
            if sample.id not in inside:
                raise StageError(f"curate {counter.name}: sample {sample.id} left twice or never came in")
            del inside[sample.id]
        if isinstance(item, Drop):
            counter.dropped += len(samples)
            counter.detail[item.reason.partition(":")[0]] += len(samples)
        else:
            counter.kept += len(samples)
        if samples:
            yield item
    if inside:
        raise StageError(
            f"curate {counter.name}: {len(inside)} samples never came out, the first is {next(iter(inside))}; keep or drop each one"
        )


@dataclass(frozen=True)
class Decontaminate:
    """Sets aside samples whose prompt or answer stands in the held-out set: by equality up to layout, or by a shared 13-gram."""

    index: HeldOutIndex
    name: str = "decontaminate"

    def __call__(self, ctx: object, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        for group in groups:
            asked = self.index.match(prompt_text(group.task.prompt))
            reasons = [asked or self._said(group.task, sample) for sample in group.samples]
            if not any(reasons):
                yield group
                continue
            kept = tuple(sample for sample, reason in zip(group.samples, reasons, strict=True) if reason is None)
            if kept:
                yield Group(group.task, kept)
            for sample, reason in zip(group.samples, reasons, strict=True):
                if reason is not None:
                    yield Drop(Group(group.task, (sample,)), self.name, f"held out: {reason}")

    def _said(self, task: Task, sample: Sample) -> str | None:
        for turn in sample.turns:
            asked = "" if turn.prompt == task.prompt else prompt_text(turn.prompt)
            for text in (asked, _text(turn.completion.content)):
                if text and (why := self.index.match(text)):
                    return why
        return None


def _text(content: object) -> str:
    return content if isinstance(content, str) else ""
