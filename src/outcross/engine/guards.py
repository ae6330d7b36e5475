"""The guarantees that hold whatever the recipe: what is refused before anything is spent.

`check_plan` refuses a plan that cannot keep a guarantee, `check_bench` reads the bench's data once, `check_floor` holds the
two together.
"""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from outcross.engine.proofs import DOUBTFUL, Proof, proof_for, why_unproven
from outcross.errors import DataError, GuardError, did_you_mean
from outcross.mix import problems
from outcross.recipe import Bench, Expert, Learn, Mixture, Phase, Recipe, Release, Waived
from outcross.stages import Examines, Model, Probe, Role, StopsEarly, Trainable, Verifier, name_of, roles_of
from outcross.text import HeldOutIndex, digest, normalise, prompt_text
from outcross.types import Array, Content, Example, Prompt, Task, content_hash

SOUND = ("kernel", "executed", "exact")  # grounds that may serve training and the gate alike
KINDS = ("quality", "diversity", "fit")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # phases and roles name folders and files
# what a run's folder holds beside its phases
TAKEN = ("start", "logs", "tombstones", "champion", "release", "export", "lock", "final", "training")


def check_plan(recipe: Recipe, models: Mapping[Role, Model], *, unsafe: bool = False, proofs: Sequence[Proof] = ()) -> list[str]:
    """The headings that a reader must see before anything else. Raises `GuardError` naming every breach at once."""
    problems = [problem for phase in recipe.phases for problem in _phase_problems(recipe.bench, phase, models, unsafe)]
    unproven = [(phase, line) for phase in recipe.phases for line in _unproven(phase, None if unsafe else recipe, models, proofs)]
    problems += [f"{line}; {_PROVE}" for phase, line in unproven if phase.learn and not unsafe]
    names = [phase.name for phase in recipe.phases]
    problems += [f"two phases are called {name!r}; each needs a name of its own" for name, n in Tally(names).items() if n > 1]
    problems += _probe_problems(recipe)
    if not recipe.phases:
        problems.append(f"the recipe {recipe.name!r} has no phases; it needs at least one")
    if problems:
        raise GuardError("this plan was refused before anything was spent:\n" + "\n".join(f"  - {item}" for item in problems))
    return [*_headings(recipe), *(f"unproven verifier: {line}" for _, line in unproven), *_limits_of_proofs(recipe, models, proofs)]


_PROVE = "try it on answers of the policy that people labelled (`outcross verifier-check`), name the proof under `proofs:`, or say `unsafe: true`"


def _unproven(phase: Phase, examining: Recipe | None, models: Mapping[Role, Model], proofs: Sequence[Proof]) -> Iterator[str]:
    """Opinions that nobody has shown to be worth more than no filter, and that the recipe, if it is `examining`, will not examine itself."""
    for verifier in phase.verify:
        if examining is not None and examiners(verifier, phase, examining):
            continue
        why = why_unproven(verifier, models, proofs) if verifier.ground in DOUBTFUL else None
        if why is not None:
            verb = "learns from" if phase.learn else "keeps rows by"
            yield f"phase {phase.name!r} {verb} {name_of(verifier)}, whose ground is {verifier.ground!r}: {why}"


def _limits_of_proofs(recipe: Recipe, models: Mapping[Role, Model], proofs: Sequence[Proof]) -> Iterator[str]:
    """What a proof leaves open: whose answers it is about, and whether its judge stays the model that was tried."""
    verifiers = {name_of(verifier): verifier for phase in recipe.phases for verifier in phase.verify if verifier.ground in DOUBTFUL}
    taught = {id(models[role]) for phase in recipe.phases for role in phase.learn if role in models}
    for name, verifier in verifiers.items():
        proof = proof_for(verifier, models, proofs)
        if proof is not None and not proof.answers_of:
            yield f"the proof of {name} does not say whose answers were labelled: nothing shows that they were this policy's"
        for role in roles_of(verifier) if proof is not None else ():
            if role in models and id(models[role]) in taught:
                yield f"the proof of {name} is about the model that the run begins with, and the run teaches its {role}: check it again afterwards"


def gate_of(bench: Bench, phase: Phase) -> Any:
    """The gate of a phase: its own, or the bench's."""
    return bench.gate if phase.gate is None else phase.gate


def probes_of(bench: Bench, phase: Phase) -> tuple[Probe, ...]:
    """The probes of a phase: its own, or the bench's."""
    return bench.probes if phase.probes is None else phase.probes


def examiners(verifier: Verifier, phase: Phase, recipe: Recipe) -> Mapping[Role, Examines]:
    """The probe that examines each role that `verifier` asks, in a phase before `phase` that teaches it; empty unless all are examined."""
    earlier = recipe.phases[: recipe.phases.index(phase)]
    found = {
        role: probe
        for past in earlier
        for probe in probes_of(recipe.bench, past)
        if isinstance(probe, Examines)
        for role in roles_of(probe)
        if role in past.learn
    }
    asked = roles_of(verifier)
    return {role: found[role] for role in sorted(asked)} if asked and set(asked) <= found.keys() else {}


def real_of(bench: Bench, learn: Learn) -> Iterable[Example] | None:
    """The real rows that a role learns: its own, or the bench's; None where there are none."""
    if learn.real is None:
        return bench.real
    return None if learn.real == () else learn.real


def watched_by(bench: Bench, phase: Phase) -> tuple[Probe, ...]:
    """The probes that a phase measures: those that its gate guards, and those that the bench's alarms watch beside them."""
    guarded = probes_of(bench, phase)
    more = bench.alarms.probes if bench.alarms is not None and phase.learn else ()
    return (*guarded, *(probe for probe in more if probe not in guarded))


def _probe_problems(recipe: Recipe) -> Iterator[str]:
    """The first champion is measured once by each probe name, so a name must mean one probe."""
    known: dict[str, Probe] = {}
    for phase in recipe.phases:
        for probe in watched_by(recipe.bench, phase) if phase.learn else ():
            if known.setdefault(probe.name, probe) != probe:
                yield f"phase {phase.name!r}: another probe is called {probe.name!r} already and measures something else; give it a label"


def _phase_problems(bench: Bench, phase: Phase, models: Mapping[Role, Model], unsafe: bool) -> Iterator[str]:
    where = f"phase {phase.name!r}"
    if phase.rounds < 1 or phase.inner < 1:
        yield f"{where} has rounds={phase.rounds}, inner={phase.inner}; both must be at least 1"
    if not NAME.fullmatch(phase.name) or phase.name in TAKEN:
        yield f"{where}: a phase's name is the name of its folder; use letters, digits, - and _, and none of {', '.join(TAKEN)}"
    names = [probe.name for probe in probes_of(bench, phase)]
    if phase.until is not None and phase.until[0] not in names:
        yield f"{where} lasts until the probe {phase.until[0]!r} reaches {phase.until[1]}; {did_you_mean(phase.until[0], names)}"
    yield from _role_problems(phase, where, models, bench)
    yield from _mixture_problems(phase, where, bench, unsafe) if phase.learn else ()
    for learn in phase.learn.values():
        for curator in phase.curate:
            if getattr(curator, "trims", False) and getattr(learn.objective, "uses_peers", False):
                yield (
                    f"{where}: the curator {name_of(curator)} trims samples off groups, and the objective "
                    f"{type(learn.objective).__name__} compares the samples of a group; curate whole groups only"
                )
        n, needed = getattr(phase.generate, "n", None), getattr(learn.objective, "answers_needed", 1)
        if isinstance(n, int) and n < needed:
            yield (
                f"{where} draws n = {n} answer a task, and its objective {name_of(learn.objective)} compares the answers of a task, so that it "
                f"could learn from none; draw {needed} or more"
            )
    if phase.learn and gate_of(bench, phase).alpha > 0:
        yield from _gate_problems(bench, phase, where, models)
    if phase.release is not None:
        yield from _release_problems(phase.release, phase, where, bench)
    if phase.expert is not None:
        yield from _expert_problems(phase.expert, phase, where)


def _expert_problems(expert: Expert, phase: Phase, where: str) -> Iterator[str]:
    if not (0 < expert.limit < 1 and 0 < expert.alpha < 1):
        yield f"{where}: admit has limit={expert.limit}, alpha={expert.alpha}; both are shares between 0 and 1"
    if phase.inner > 1:
        yield f"{where} turns {phase.inner} times a round and its rows wait for people; use inner: 1, since nobody can look between the turns"
    if phase.release is not None and not expert.wait:
        yield f"{where} releases its rows or refuses them when a round ends; leave out `wait: false`"


def _release_problems(release: Release, phase: Phase, where: str, bench: Bench) -> Iterator[str]:
    if phase.learn or phase.generate is None:
        yield f"{where} is to release rows; such a phase generates and teaches nothing. Split it into two phases"
    names = Tally(probe.name for probe in release.probes)
    yield from (f"{where}: {n} probes of its rows are called {name!r}; give each a label" for name, n in names.items() if n > 1)
    kinds = {probe.kind for probe in release.probes}
    needed = [kind for kind in KINDS if kind not in kinds and not (kind == "fit" and bench.real is None)]
    if release.gate.alpha > 0 and needed:
        yield (
            f"{where} is gated and its release lacks a probe of {' and of '.join(needed)}; a gate guards quality, diversity and "
            "fit to real data, or a collapse in one of them passes unseen"
        )


def _role_problems(phase: Phase, where: str, models: Mapping[Role, Model], bench: Bench) -> Iterator[str]:
    stages: list[object] = [
        phase.generate,
        *phase.verify,
        *phase.curate,
        *((*watched_by(bench, phase), *bench.final) if phase.learn else ()),
        *(learn.plan.stop.probe for learn in phase.learn.values() if learn.plan.stop is not None),
    ]
    stages += phase.release.probes if phase.release is not None else ()
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
        if not NAME.fullmatch(role) or role == "tmp":
            yield f"{where} teaches the role {role!r}, which names files of the record; use letters, digits, - and _"
        if role not in models:
            yield f"{where} teaches the role {role!r}, and the run has only {sorted(models)}; add it under `models:`"
        elif not isinstance(models[role], Trainable):
            yield f"{where} teaches the role {role!r}, whose model {type(models[role]).__name__} cannot be trained"
        elif learn.plan.stop is not None and not isinstance(models[role], StopsEarly):
            yield f"{where} may stop teaching {role!r} early, which its model {type(models[role]).__name__} cannot; leave `stop` out of its plan"


def _mixture_problems(phase: Phase, where: str, bench: Bench, unsafe: bool) -> Iterator[str]:
    mix = phase.mix
    yield from (f"{where}: mix.{problem}" for problem in problems(mix))
    if mix.history == "replace" and not unsafe:
        yield (
            f"{where} replaces its history: each round forgets the data of the rounds before, the setting in which models collapse; "
            "say `unsafe: true` in the run file if that is what you study"
        )
    if not isinstance(mix.floor, Waived) and any(real_of(bench, learn) is None for learn in phase.learn.values()):
        yield (
            f"{where} has a floor of real data and the bench has no real data; give `bench.real`, or waive the floor with a reason "
            '(`mix: {floor: {waived: "…"}}`)'
        )


def _gate_problems(bench: Bench, phase: Phase, where: str, models: Mapping[Role, Model]) -> Iterator[str]:
    probes = probes_of(bench, phase)
    kinds = {probe.kind for probe in probes}
    apart = phase.probes is not None and "policy" not in phase.learn  # a reward model says nothing that could lose its diversity
    needed = [kind for kind in (KINDS[:1] if apart else KINDS) if kind not in kinds and not (kind == "fit" and bench.real is None)]
    if apart and not any(role in phase.learn for probe in probes for role in roles_of(probe)):
        yield (
            f"{where} teaches {', '.join(phase.learn)} and none of its probes asks that role, so that its gate would test nothing that it "
            "teaches; add one that does, such as `pair_accuracy`"
        )
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
    if any(probe.kind == "quality" and _independent(verifier, probe, models) for probe in probes):
        return
    yield (
        f"{where} learns from {name_of(verifier)}, whose ground is {verifier.ground!r}, and every probe of quality rests on the same "
        "verifier or judging model; add a probe with another one, or the gate would only repeat what training was told"
    )


def _independent(verifier: Verifier, probe: Probe, models: Mapping[Role, Model]) -> bool:
    """Whether a probe rests on neither this verifier nor a model that it asks."""
    judges = {models[role].id for role in roles_of(verifier) if role in models}
    asked = {models[role].id for role in roles_of(probe) if role != "policy" and role in models}
    same = name_of(getattr(probe, "verifier", probe)) == name_of(verifier) or name_of(verifier) in probe.name
    return not same and not (asked & judges)


def independent_checks(bench: Bench, phase: Phase, models: Mapping[Role, Model]) -> list[str]:
    """The probes of quality that rest on none of the phase's verifiers, by name."""
    probes = (probe for probe in probes_of(bench, phase) if probe.kind == "quality")
    return [probe.name for probe in probes if phase.verify and all(_independent(verifier, probe, models) for verifier in phase.verify)]


def quality_checks(bench: Bench, phase: Phase, models: Mapping[Role, Model]) -> tuple[list[str], list[str]]:
    """The probes of quality that rest on none of the phase's verifiers, and those that rest on one or on a model that it asks, by name."""
    apart = independent_checks(bench, phase, models)
    return apart, [item.name for item in probes_of(bench, phase) if phase.verify and item.kind == "quality" and item.name not in apart]


def _headings(recipe: Recipe) -> list[str]:
    found = []
    if recipe.bench.real is None:
        found.append("no real anchor: the bench holds no real data")
    for phase in recipe.phases:
        if phase.learn and isinstance(phase.mix.floor, Waived):
            found.append(f"floor of real data waived in phase {phase.name}: {phase.mix.floor.reason}")
        elif phase.learn and not _asked_for(phase.mix):
            found.append(f"no floor of real data in phase {phase.name}: {'anchor' if phase.mix.floor == 'anchor' else 'real_floor'} is 0")
        if phase.learn and phase.mix.history == "replace":
            found.append(f"history replaced in phase {phase.name}: earlier rounds are forgotten")
        if phase.learn and not gate_of(recipe.bench, phase).alpha > 0:
            found.append(f"ungated: phase {phase.name} promotes without a test")
        if phase.release is not None:
            found += _release_headings(phase, phase.release)
    if any(phase.release for phase in recipe.phases) and recipe.bench.held_out == ():
        found.append("not decontaminated: the bench names no held-out items and no benchmarks that the rows must not hold")
    return found


def _asked_for(mix: Mixture) -> float:
    """The share or weight of real data that a floor asks for; 0 where there is none."""
    return 0.0 if isinstance(mix.floor, Waived) else mix.anchor if mix.floor == "anchor" else mix.real_floor


def _release_headings(phase: Phase, release: Release) -> Iterator[str]:
    if not phase.verify:
        yield f"unverified: no verifier checked the rows of phase {phase.name}"
    elif all(verifier.ground not in SOUND for verifier in phase.verify):
        grounds = ", ".join(f"{name_of(verifier)} ({verifier.ground})" for verifier in phase.verify)
        yield f"checked by opinion alone: the rows of phase {phase.name} rest on {grounds}"
    if not release.gate.alpha > 0:
        yield f"ungated: phase {phase.name} releases rows without a test"


@dataclass(frozen=True)
class BenchFacts:
    """What one pass over the bench found."""

    tasks: int
    held_out: int
    real: int
    index: HeldOutIndex
    known: int = 0  # real rows whose origin is proved or attested
    asked: int = 0  # bytes of all tasks' prompts, of the longest one, and of all held-out items'
    asked_longest: int = 0
    asked_held_out: int = 0


def asked_text(content: Prompt | Content) -> str:
    """What a prompt or an answer is compared with held-out items by: its text, or the hash of an array."""
    return content_hash(content) if isinstance(content, Array) else prompt_text(content)


def check_bench(bench: Bench) -> BenchFacts:
    """Read tasks, held-out items and real rows once. Raises `DataError` for empty sets and doubled identifiers, `GuardError`
    for a held-out item among the tasks or the real rows. Memory: one hash per task, the texts of the held-out items."""
    held_out = list(bench.held_out)
    if not held_out and bench.probes:
        raise DataError("bench.held_out is empty; the probes need held-out items")
    index = HeldOutIndex(text for task in held_out if (text := asked_text(task.prompt)).strip())
    held_ids = Tally(task.id for task in held_out)
    fresh = fresh_items(bench)
    for task in fresh:
        if why := "has a held-out identifier" if task.id in held_ids else index.match(asked_text(task.prompt)):
            raise GuardError(
                f"item {task.id!r} of bench.final {why}: {prompt_text(task.prompt)[:80]!r}. Fresh items are those that no gate sees: take it out of "
                "bench.held_out or of bench.final"
            )
    if fresh:
        index = HeldOutIndex(text for task in (*held_out, *fresh) if (text := asked_text(task.prompt)).strip())
        held_ids.update({task.id: 1 for task in fresh})
    doubled = next((name for name, n in held_ids.items() if n > 1), None)
    if doubled is not None:
        raise DataError(f"two held-out items have the identifier {doubled!r}; identifiers must be unique, because tests are paired by item")
    seen: set[int] = set()
    asked = longest = 0
    for count, task in enumerate(bench.tasks):
        if digest(task.id) in seen:
            raise DataError(f"two tasks have the identifier {task.id!r} (the second is number {count}); identifiers must be unique")
        seen.add(digest(task.id))
        size = len(prompt_text(task.prompt).encode(errors="replace"))
        asked, longest = asked + size, max(longest, size)
        why = "has a held-out identifier" if task.id in held_ids else index.match(asked_text(task.prompt))
        if why:
            raise GuardError(
                f"task {task.id!r} {why}: {prompt_text(task.prompt)[:80]!r}. Remove it from bench.tasks or from bench.held_out; "
                "a model that trains on what it is tested on cannot be judged"
            )
    if not seen:
        raise DataError("bench.tasks is empty; there is nothing to generate from. Check its path, split and filters")
    of_held_out = sum(len(prompt_text(task.prompt).encode(errors="replace")) for task in held_out)
    real, known = (0, 0) if bench.real is None else _read_real(bench.real, index, "bench.real")
    return BenchFacts(len(seen), len(held_out), real, index, known, asked, longest, of_held_out)


def fresh_items(bench: Bench) -> list[Task]:
    """The items that the probes of the final claim ask about, each once."""
    return list({task.id: task for probe in bench.final for task in getattr(probe, "tasks", ())}.values())


def check_floor(recipe: Recipe, facts: BenchFacts) -> None:
    """Raises `GuardError` when a phase has a floor of real rows and no row that its roles learn is known to be real, and when a role's own
    real rows hold held-out items or comparisons that a probe measures by; `DataError` when there are none."""
    compared = {
        _prompt_key(pair) for phase in recipe.phases for probe in probes_of(recipe.bench, phase) for pair in getattr(probe, "pairs", ())
    }
    for phase in recipe.phases:
        for role, learn in phase.learn.items():
            where, count, known = "bench.real", facts.real, facts.known
            if learn.real == ():
                continue
            if learn.real is not None:
                where = f"{role}'s own real data"
                count, known = _read_real(learn.real, facts.index, where, compared)
            if _asked_for(phase.mix) > 0 and count and not known:
                raise GuardError(
                    f"phase {phase.name!r} has a floor of {_asked_for(phase.mix):.0%} real data, and none of the {count:,} rows of {where} is "
                    "proved or attested to be real, so that all count as synthetic; state their origin, or waive the floor with a reason"
                )


def _prompt_key(example: Example) -> int:
    return digest(normalise(asked_text(example.prompt)))


def held_out_in(example: Example, index: HeldOutIndex) -> str | None:
    """Why something that an example asks or answers counts as held out, or None."""
    for content in (example.prompt, example.completion, example.rejected):
        if content is not None and (why := index.match(asked_text(content))):
            return why
    return None


def _read_real(real: Iterable[Example], index: HeldOutIndex, where: str, compared: Set[int] = frozenset()) -> tuple[int, int]:
    """How many rows there are, and how many of them are known to be real. `compared`: prompts of comparisons that a probe holds out."""
    count = known = 0
    for example in real:
        why = held_out_in(example, index)
        if why is None and compared and _prompt_key(example) in compared:
            why = "has the prompt of a comparison that a probe measures by"
        if why:
            raise GuardError(
                f"real row {example.id!r} {why}: {prompt_text(example.prompt)[:80]!r}. Remove it from {where}; held-out items are for tests only"
            )
        count += 1
        known += example.origin.is_real
    if count == 0:
        raise DataError(f"{where} is empty; give real rows, or say `real: none`")
    return count, known
