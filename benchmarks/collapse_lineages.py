"""Simulated lineages for `benchmarks/collapse_detection.py`: how each family learns from itself, what probes and alarms say, and what is true.

The world is `collapse_world`'s. Probes and alarms are those that ship; what is simulated is the models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from collapse_world import LONGEST, RIGHT, Counting, Floats, Law, counted, real_law, texts, topic_of

from outcross.evaluate.diversity import Diversity
from outcross.evaluate.length_drift import LengthDrift
from outcross.evaluate.likelihood import LikelihoodShift, SelfPerplexity
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.subgroups import SubgroupShares
from outcross.evaluate.tail_loss import TailLoss
from outcross.evaluate.text_statistic import TextStatistic
from outcross.gate.monitors.alarms import Alarms
from outcross.stages import Context, Dialogue, Probe, Stage
from outcross.types import Alarm, Comparison, Completion, Example, Ground, Group, Measurement, Origin, Sample, Score, Task, Turn
from outcross.verify.each import with_score

ITEMS, HELD_OUT = 500, 1500  # answers that are asked for, and real texts that are scored
REAL_ROWS, ROUNDS, REPLICATES = 20_000, 10, 50
MANY = 10  # times as many rows where a family is about another loss than that of rare words
ALPHA = 0.05
ORACLE_DRAWS = 3
REAL = Origin("real", "attested", "the world", note="simulated")


# ── families ───────────────────────────────────────────────────────────────────────────────────────────────────────────
class Described(Protocol):
    """A family, as tables name it. `scored`: no choice of a benchmark was made with its lineages in view."""

    @property
    def name(self) -> str: ...
    @property
    def healthy(self) -> bool: ...
    @property
    def scored(self) -> bool: ...


@dataclass(frozen=True)
class State:
    """Where a lineage is: the real law, the counts of the first model's real rows, all counts so far, the law of the model that holds,
    and how strong the family's defect is (1: as published or usual)."""

    real: Law
    first: Law
    kept: Law
    law: Law
    severity: float = 1.0


@dataclass(frozen=True)
class Family:
    """`counts` are what the next model learns from."""

    name: str
    counts: Callable[[State, np.random.Generator], Law]
    healthy: bool
    scored: bool


def tempered(chances: Floats, temperature: float) -> Floats:
    found = chances ** (1 / temperature)
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


# What a model that is not faithful to its own law writes, at a severity.
def sharper(law: Law, severity: float) -> Law:
    """Words at τ = 0.9."""
    return replace(law, words=tempered(law.words, 1 - 0.1 * severity))


def likely_only(law: Law, severity: float) -> Law:
    """The most likely words alone, 90 % of the mass, which is what a search for likely texts leaves."""
    order = np.argsort(-law.words, axis=1)
    ranked = np.take_along_axis(law.words, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    kept = np.zeros_like(law.words)
    np.put_along_axis(kept, order, np.where(before < 1 - 0.1 * severity, ranked, 0.0), axis=1)
    return replace(law, words=kept).normalised()


def large_groups(law: Law, severity: float) -> Law:
    """Topics at τ = 0.8, so that small groups shrink."""
    return replace(law, topics=tempered(law.topics, 1 - 0.2 * severity))


def one_topic_less(law: Law, severity: float) -> Law:
    """One topic of middling size half as often."""
    return replace(law, topics=law.topics * np.where(np.arange(len(law.topics)) == 3, 0.5**severity, 1.0)).normalised()


def flattering(law: Law, severity: float) -> Law:
    """The best of four by a reward that likes bold endings and long texts."""
    bold = law.endings[:, 2:].sum(axis=1, keepdims=True)
    chosen = 1 - (1 - bold) ** (1 + 3 * severity)
    endings = np.concatenate([law.endings[:, :2] * (1 - chosen) / (1 - bold), law.endings[:, 2:] * chosen / bold], axis=1)
    lengths = np.diff(np.cumsum(law.lengths, axis=1) ** (1 + 0.25 * severity), axis=1, prepend=0.0)
    return replace(law, endings=endings, lengths=lengths)


def replace_all(state: State, rng: np.random.Generator) -> Law:
    """Fully synthetic at T = 1, as many rows as the first model had (Shumailov et al. 2024); fewer at a higher severity."""
    return counted(state.law, round(REAL_ROWS / state.severity), rng)


def biased(state: State, rng: np.random.Generator) -> Law:
    """The same at a lower temperature (λ < 1 of Alemohammad et al. 2023)."""
    return counted(sharper(state.law, state.severity), REAL_ROWS, rng)


def beams(state: State, rng: np.random.Generator) -> Law:
    """The same from likely words alone."""
    return counted(likely_only(state.law, state.severity), REAL_ROWS, rng)


def minority(state: State, rng: np.random.Generator) -> Law:
    """Small groups shrink (the setting of Wyllie et al. 2024), and rows enough that little else is lost."""
    return counted(large_groups(state.law, state.severity), MANY * REAL_ROWS, rng)


def mode_drop(state: State, rng: np.random.Generator) -> Law:
    """A topic gets lost, and little else."""
    return counted(one_topic_less(state.law, state.severity), MANY * REAL_ROWS, rng)


def hacked(state: State, rng: np.random.Generator) -> Law:
    """Selected by a reward that can be flattered; half of the rows stay real."""
    return _with_real(state, counted(flattering(state.law, state.severity), REAL_ROWS, rng), 0.5)


def accumulate(state: State, rng: np.random.Generator) -> Law:
    """All real rows and all that every model wrote, a tenth as many a generation (Gerstgrasser et al. 2024)."""
    return state.kept + counted(state.law, REAL_ROWS // 10, rng)


def real_only(state: State, rng: np.random.Generator) -> Law:
    """As many new real rows in every generation."""
    return counted(state.real, REAL_ROWS, rng)


def verified(state: State, rng: np.random.Generator) -> Law:
    """70 % the first model's real rows, 30 % written by the last model and right."""
    endings = state.law.endings * np.array([1.0, 0.0, 1.0, 0.0])
    passed = replace(state.law, endings=endings / endings.sum(axis=1, keepdims=True))
    return _with_real(state, counted(passed, REAL_ROWS, rng), 0.7)


def _with_real(state: State, new: Law, share: float) -> Law:
    """`new` counts and the first model's real ones, which make up `share`."""
    scaled = Law(
        *(share / (1 - share) * part for part in (state.first.topics, state.first.lengths, state.first.words, state.first.endings))
    )
    return new + scaled


FAMILIES = (
    Family("replace", replace_all, healthy=False, scored=False),
    Family("biased sampling", biased, healthy=False, scored=False),
    Family("beams, replace", beams, healthy=False, scored=True),
    Family("shrinking minority", minority, healthy=False, scored=True),
    Family("mode drop", mode_drop, healthy=False, scored=True),
    Family("reward-hacked", hacked, healthy=False, scored=True),
    Family("accumulate", accumulate, healthy=True, scored=False),
    Family("real only", real_only, healthy=True, scored=True),
    Family("verified", verified, healthy=True, scored=True),
)


def begin(rng: np.random.Generator, severity: float = 1.0) -> State:
    real = real_law(rng)
    first = counted(real, REAL_ROWS, rng)
    return State(real, first, first, Counting.learnt(first).law, severity)


def step(family: Family, state: State, rng: np.random.Generator) -> State:
    counts = family.counts(state, rng)
    return replace(state, kept=counts, law=Counting.learnt(counts).law)


# ── probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Says(Stage):
    """Each task's answer by the policy. Two models draw independently of each other: of two language models that differ by ever so little, the
    samples part after a few tokens."""

    seed: int

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        model = ctx.model("policy")
        assert isinstance(model, Counting)
        for task, text in zip(tasks, model.said(self.seed, ITEMS), strict=True):
            yield Group(task, (Sample(task.id, (Turn(task.prompt, Completion(text)),), Origin("synthetic")),))


@dataclass(frozen=True)
class IsRight(Stage):
    """Passes texts that end rightly."""

    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple(map(self._judged, group.samples)))

    def _judged(self, sample: Sample) -> Sample:
        right = sample.text.rsplit(" ", maxsplit=1)[-1] in RIGHT
        return with_score(sample, Score(self.name, "1", "pass" if right else "fail", float(right)))


def panel(real: Law, seed: int, replicates: int = REPLICATES) -> tuple[Probe, ...]:
    """All probes on one set of items: `HELD_OUT` real texts, of which `ITEMS` are held beside as many answers."""
    rng = np.random.default_rng([seed, 1])
    held = tuple(
        Example(f"{seed}-{number}", "", text, origin=REAL) for number, text in enumerate(texts(real, rng.random((HELD_OUT, 3 + LONGEST))))
    )
    tasks = tuple(Task(row.id, "say something", str(row.completion)) for row in held[:ITEMS])
    says = Says(seed)
    return (
        RealLoss(held),
        TailLoss(held),
        LikelihoodShift(tasks, says, held, replicates=replicates),
        SelfPerplexity(tasks, says),
        PassRate(tasks, says, IsRight()),
        Diversity(tasks, says, "distinct", replicates=replicates),
        TextStatistic(tasks, says, "vocabulary", replicates=replicates),
        SubgroupShares(tasks, says, held, topic_of, replicates=replicates),
        LengthDrift(tasks, says, "longer", replicates=replicates),
        LengthDrift(tasks, says, "shorter", replicates=replicates),
    )


@dataclass(frozen=True)
class NoPast:
    """A past without rounds: no probe here looks at one."""

    real: Sequence[Example] = ()

    def groups(self, phase: str | None = None, /) -> Iterator[Group]:
        return iter(())

    def outcomes(self, task_id: str, /) -> Sequence[object]:
        return ()

    def reviews(self) -> Sequence[object]:
        return ()

    def state(self, stage: str, /) -> Path:
        raise NotImplementedError


def measure(probes: Sequence[Probe], law: Law, first: Law) -> dict[str, Measurement]:
    ctx = Context({"policy": Counting(law), "reference": Counting(first)}, NoPast(), "probe", 0, 0, _no_dialogue)  # type: ignore[arg-type]
    found = [probe(ctx) for probe in probes]
    return {item.probe: item for item in found}


def _no_dialogue(ctx: Context, dialogues: Iterable[Dialogue[object]], /) -> Iterator[object]:
    raise AssertionError("no probe of this panel talks")


# ── one lineage ────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Watch:
    """Alarms, by a name for tables."""

    name: str
    monitor: Alarms = Alarms(ALPHA)


SHIPPED = Watch("as shipped")
ANY_LOSS = Watch("tolerance 0", Alarms(ALPHA, tolerance=0.0))


@dataclass(frozen=True)
class Lineage:
    """What became of a lineage. Generations count from 1.

    first: by watch, the generation of its first alarm. warned: of the first alarm of `SHIPPED` that is a warning or more.
    shown: by probe, the generation in which it alone, with a round's whole alpha, is first shown to be worse than at generation 0.
    moved: by probe, the first generation in which the measured mean is a margin worse, of `played` generations.
    change: by generation and probe, measured minus generation 0, signed so that higher is better. oracle: by probe, the same at
        generation 2, the mean over fresh items and draws.
    """

    family: Described
    severity: float
    played: int
    first: Mapping[str, int]
    warned: int | None
    shown: Mapping[str, int]
    moved: Mapping[str, int]
    change: tuple[Mapping[str, float], ...]
    oracle: Mapping[str, float]

    def by(self, generation: int, watch: Watch = SHIPPED) -> bool:
        """Whether an alarm was raised in this generation or before it."""
        return self.first.get(watch.name, self.played + 1) <= generation

    def before_loss(self, moved: Mapping[str, int], watch: Watch = SHIPPED) -> bool:
        """Whether an alarm was raised in an earlier generation than that of the mean real loss in `moved`."""
        return self.first.get(watch.name, self.played + 1) < moved.get("real_loss", self.played + 1)


def play(
    family: Family,
    seed: int,
    *,
    severity: float = 1.0,
    generations: int = ROUNDS,
    watches: Sequence[Watch] = (SHIPPED,),
    oracle: bool = True,
) -> Lineage:
    """The first `generations` generations of a lineage that is planned for `ROUNDS`."""
    rng = np.random.default_rng([seed, 7])
    state = start = begin(rng, severity)
    probes = panel(state.real, seed)
    margins = {probe.name: probe.margin for probe in probes}
    found = [measure(probes, state.law, start.law)]
    truth: Mapping[str, float] = {}
    for round in range(generations):
        state = step(family, state, rng)
        found.append(measure(probes, state.law, start.law))
        if round == 1 and oracle:
            truth = true_change(start, state, seed)
    return heard(family, found, margins, planned=ROUNDS, severity=severity, watches=watches, oracle=truth)


def heard(
    family: Described,
    found: Sequence[Mapping[str, Measurement]],
    margins: Mapping[str, float],
    *,
    planned: int,
    severity: float = 1.0,
    watches: Sequence[Watch] = (SHIPPED,),
    oracle: Mapping[str, float],
) -> Lineage:
    """What alarms say of a lineage of which every candidate becomes the champion: `found` are the measurements of the first model and of each
    generation of `planned` after it."""
    first = found[0]
    told: list[tuple[Alarm, ...]] = []
    changes: list[dict[str, float]] = []
    raised: dict[str, int] = {}
    shown: dict[str, int] = {}
    moved: dict[str, int] = {}
    for round, (champion, candidate) in enumerate(pairwise(found)):
        comparison = Comparison(candidate, champion, first, round, planned, 0.0)
        told.append(SHIPPED.monitor(comparison, margins, told))
        for watch in watches:
            if watch.name not in raised and _raises(watch, comparison, margins, told):
                raised[watch.name] = round + 1
        changes.append({name: change(candidate[name], first[name]) for name in margins})
        for name, margin in margins.items():
            if name not in shown and _alone(comparison, name, margins):
                shown[name] = round + 1
            if changes[-1][name] <= -margin:
                moved.setdefault(name, round + 1)
    warned = next((number for number, alarms in enumerate(told, 1) if any(alarm.action != "note" for alarm in alarms)), None)
    return Lineage(family, severity, len(found) - 1, raised, warned, shown, moved, tuple(changes), oracle)


def _raises(watch: Watch, comparison: Comparison, margins: Mapping[str, float], told: Sequence[Sequence[Alarm]]) -> bool:
    found = told[-1] if watch is SHIPPED else watch.monitor(comparison, margins, [])
    return any(alarm.rounds for alarm in found)


def _alone(comparison: Comparison, name: str, margins: Mapping[str, float]) -> bool:
    """Whether one probe, with all of a round's alpha, is shown to be worse than the first model's."""
    start = {name: comparison.first[name]}
    only = Comparison({name: comparison.candidate[name]}, start, start, comparison.round, comparison.rounds, 0.0)
    return bool(SHIPPED.monitor(only, {name: margins[name]}, []))


def true_change(start: State, state: State, seed: int) -> dict[str, float]:
    """What changed since the first model: the mean over `ORACLE_DRAWS` fresh sets of real texts and of answers."""
    found: dict[str, list[float]] = {}
    for draw in range(ORACLE_DRAWS):
        probes = panel(start.real, 1_000_003 * (draw + 1) + seed, replicates=2)
        before, after = (measure(probes, law, start.law) for law in (start.law, state.law))
        for name in before:
            found.setdefault(name, []).append(change(after[name], before[name]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def change(after: Measurement, before: Measurement) -> float:
    return (after.mean - before.mean) * (1 if after.higher_is_better else -1)


def null_deviations(healthy: Sequence[Lineage], generation: int = 2) -> dict[str, float]:
    """By probe, the standard deviation of the measured change over healthy lineages."""
    names = healthy[0].change[0]
    return {name: float(np.std([lineage.change[generation - 1][name] for lineage in healthy], ddof=1)) for name in names}


def shift(lineage: Lineage, null: Mapping[str, float]) -> tuple[float, str]:
    """The largest true fall of a probe at generation 2, in null standard deviations, and which probe's it is."""
    return max((-value / null[name], name) for name, value in lineage.oracle.items())
