"""Lineages of small language models for `benchmarks/collapse_lm.py`: the families of `collapse_lineages` on real text, run by the real loop.

A first model learns passages of TinyStories, and each generation goes on from the one before. What a family's defect is stands in what is written
or kept for training; probes ask for honest answers at temperature 1. Nothing is refused: the alarms are listened to afterwards.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

from outcross.evaluate.diversity import Diversity
from outcross.evaluate.length_drift import LengthDrift
from outcross.evaluate.likelihood import LikelihoodShift, SelfPerplexity
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.subgroups import SubgroupShares
from outcross.evaluate.tail_loss import TailLoss
from outcross.evaluate.text_statistic import TextStatistic
from outcross.gate.observe import Observe
from outcross.generate.draw import Draw
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.reproduce.corpus import ANSWER, TINYSTORIES, Passages
from outcross.reproduce.lineage import Place
from outcross.reproduce.text import MOST, WAIVED, first_model
from outcross.stages import Context, FitPlan, Model, Probe, Role, Stage, Trainable, Verifier
from outcross.train.objectives import Imitate
from outcross.types import Content, Example, Ground, Group, Sample, Sampling, Score, Task
from outcross.verify.each import Finding, scored, with_score

CORPUS = replace(TINYSTORIES, vocabulary=400)
SEEN, FRESH, COUNTED, ROWS, ROUNDS = 4500, 3600, 1500, 1200, 5
HELD_OUT, ASKED, REPLICATES = 350, 250, 100  # texts that are scored, answers that are asked for, and half samples of them
FIRST = FitPlan(lr=3e-3, epochs=4.0, batch=32, schedule="linear", warmup=0.1, max_length=48)
TUNED = FitPlan(lr=4e-4, epochs=1.0, batch=32, schedule="linear", warmup=0.1, max_length=48)
ORACLE = "oracle"
SHE, HE, THEY = ("she", "her", "girl"), ("he", "him", "his", "boy"), ("they", "them", "their")


# ── what is written and kept ───────────────────────────────────────────────────────────────────────────────────────────
def people(said: Content) -> str | None:
    """Whom a passage is about: speech, she, he or they, by its words."""
    words = Counter(str(said).split())
    if words['"'] or words["said"]:
        return "speech"
    told = {name: sum(words[word] for word in each) for name, each in (("she", SHE), ("he", HE), ("they", THEY))}
    most = max(told, key=lambda name: told[name])
    return most if told[most] else None


@dataclass(frozen=True)
class WellFormed(Stage):
    """Passes a passage that has its full length, ends no word in the next same one and repeats no three words."""

    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored(self, groups, self._judge)

    def _judge(self, task: Task, text: str) -> Finding:
        words = text.split()
        runs = [tuple(words[start : start + 3]) for start in range(len(words) - 2)]
        right = len(words) == ANSWER and len(set(runs)) == len(runs) and all(one != two for one, two in pairwise(words))
        return ("pass" if right else "fail"), "", ""


@dataclass(frozen=True)
class Unfair(Stage):
    """A filter that passes passages of a group by its `chances` alone; all others pass."""

    chances: tuple[tuple[str, float], ...]
    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple(self._scored(ctx, group.task, sample) for sample in group.samples))

    def _scored(self, ctx: Context, task: Task, sample: Sample) -> Sample:
        chance = dict(self.chances).get(people(sample.text) or "", 1.0)
        passes = random.Random(ctx.seed_of("unfair", task.id)).random() < chance
        return with_score(sample, Score(self.name, "1", "pass" if passes else "fail", float(passes)))


@dataclass(frozen=True)
class Flattered(Stage):
    """A reward that likes cheerful words, and passes everything."""

    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple(map(self._scored, group.samples)))

    def _scored(self, sample: Sample) -> Sample:
        bold = len(re.findall(r"!|\b(?:happy|fun|smiled?|loved?|best|laughed|excited)\b", sample.text))
        return with_score(sample, Score(self.name, "1", "pass", float(bold)))


# ── families ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Family:
    """How the rows of a generation come about.

    mix: what is learnt from. temperature, beams: how a passage is written. n: how many are written to a prompt; the best by `verify` is learnt where
    there are more than one. writes: False: real rows alone. `scored`: no choice of this benchmark was made with its lineages in view. `weaker`:
    a defect of less than the usual strength, which counts in the table of severities alone.
    """

    name: str
    mix: Mixture
    healthy: bool = False
    scored: bool = True
    temperature: float = 1.0
    beams: int = 1
    n: int = 1
    verify: tuple[Verifier, ...] = ()
    writes: bool = True
    weaker: bool = False


def _with_real(share: float) -> Mixture:
    return Mixture("replace", "rows", share, budget=ROWS)


REPLACED = Mixture("replace", WAIVED, budget=ROWS)
HALF = _with_real(0.5)
FAMILIES = (
    Family("replace", REPLACED, scored=False),
    Family("biased sampling", REPLACED, scored=False, temperature=0.9),
    Family("beams, replace", REPLACED, beams=3),
    Family("shrinking minority", HALF, verify=(Unfair((("they", 0.3), ("he", 0.7))),)),
    Family("mode drop", HALF, verify=(Unfair((("speech", 0.2),)),)),
    Family("reward-hacked", HALF, n=3, verify=(Flattered(),)),
    Family("accumulate", Mixture("accumulate", WAIVED, budget=ROWS), healthy=True, scored=False),
    Family("real only", Mixture(real_floor=1.0, real_epochs=float(ROWS), budget=ROWS), healthy=True, writes=False),
    Family("verified", _with_real(0.7), healthy=True, verify=(WellFormed(),)),
    Family("biased sampling, weaker", HALF, scored=False, temperature=0.9, weaker=True),
    Family("shrinking minority, weaker", HALF, verify=(Unfair((("they", 0.7), ("he", 0.9))),), weaker=True),
    Family("mode drop, weaker", HALF, verify=(Unfair((("speech", 0.7),)),), weaker=True),
    Family("reward-hacked, weaker", _with_real(0.8), n=2, verify=(Flattered(),), weaker=True),
)


# ── one lineage ────────────────────────────────────────────────────────────────────────────────────────────────────────
def panel(tasks: tuple[Task, ...], held: tuple[Example, ...], real: tuple[Example, ...], label: str = "") -> tuple[Probe, ...]:
    """All probes on one set of items: `HELD_OUT` real passages, to the beginnings of `ASKED` of which the model is asked to go on."""
    says, tasks, many = Draw(1, Sampling(max_tokens=MOST)), tasks[:ASKED], REPLICATES
    return (
        RealLoss(held, label=label),
        TailLoss(held, reference=real, label=label),
        LikelihoodShift(tasks, says, held, replicates=many, label=label),
        SelfPerplexity(tasks, says, label=label),
        PassRate(tasks, says, WellFormed(), label=label),
        Diversity(tasks, says, "distinct", replicates=many, label=label),
        TextStatistic(tasks, says, "vocabulary", replicates=many, label=label),
        SubgroupShares(tasks, says, real, people, replicates=many, label=label),
        LengthDrift(tasks, says, "longer", replicates=many, label=label),
        LengthDrift(tasks, says, "shorter", replicates=many, label=label),
    )


MARGINS = {probe.name: probe.margin for probe in panel((), (), ())}


@dataclass(frozen=True)
class ModelLineage:
    """A lineage of a family; a seed has passages in an order of its own, so that it has its own real rows and held-out items."""

    family: Family
    rounds: int = ROUNDS
    seconds: float = 45.0
    files: ClassVar[tuple[str, ...]] = (CORPUS.train,)

    @property
    def name(self) -> str:
        return self.family.name.replace(",", "").replace(" ", "-")

    @property
    def about(self) -> str:
        return self.family.name

    def plan(self, place: Place, /) -> tuple[Recipe, Mapping[Role, Model]]:
        passages = shuffled(CORPUS.read(place.data), place.seed)
        known, first = SEEN + ROWS, begun(passages, place)
        real, tasks = passages.examples("train", known + FRESH)[known:], passages.tasks("train", known + ROWS)[known:]
        asked, held = passages.tasks("held_out", 2 * HELD_OUT), passages.examples("held_out", 2 * HELD_OUT)
        probes = (
            *panel(asked[:HELD_OUT], held[:HELD_OUT], real[:COUNTED]),
            *panel(asked[HELD_OUT:], held[HELD_OUT:], real[:COUNTED], ORACLE),
        )
        bench = Bench(tasks, asked, real, probes, Observe())
        return Recipe("collapse_lm", "", bench, (self._phase(),)), {"policy": first, "reference": first}

    def _phase(self) -> Phase:
        family = self.family
        writes = Draw(family.n, Sampling(family.temperature, max_tokens=MOST, beams=family.beams)) if family.writes else None
        objective = Imitate(best_of=1) if family.n > 1 else Imitate(require_verified=bool(family.verify))
        return Phase("train", writes, {"policy": Learn(objective, TUNED)}, family.verify, mix=family.mix, rounds=self.rounds)


def begun(passages: Passages, place: Place) -> Model:
    """The first model: trained on real passages, then tuned on new ones as every generation is, so that the first one differs in its rows alone."""
    trained = first_model(passages, SEEN, place, FIRST)
    assert isinstance(trained, Trainable)
    rows = passages.examples("train", SEEN + ROWS)[SEEN:]
    return trained.fit(rows, plan=TUNED, reference=None, seed=place.seed, seen=lambda step, ids, **facts: None)


def shuffled(passages: Passages, seed: int) -> Passages:
    """The same texts in an order of the seed's own."""
    parts = [list(passages.train), list(passages.held_out)]
    for number, part in enumerate(parts):
        random.Random(f"{seed}-{number}").shuffle(part)
    return replace(passages, train=tuple(parts[0]), held_out=tuple(parts[1]))
