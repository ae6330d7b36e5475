"""The guards on trial: text lineages that lose most, run again by the whole engine, and by part of it to see what each guard costs.

With every guard on a lineage learns a floor of 70 % real rows beside all that was accepted so far, from text that passed an exact check, in as many
optimiser steps as without; alarms may raise the floor, stop the run and roll it back, and the gate may refuse. What is read of such a lineage
is the model that holds after each generation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.tail_loss import TailLoss
from outcross.evaluate.text_statistic import TextStatistic
from outcross.gate.monitors.alarms import Alarms
from outcross.gate.non_inferior import NonInferior
from outcross.gate.observe import Observe
from outcross.generate.draw import Draw
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.reproduce import text
from outcross.reproduce.corpus import Passages
from outcross.reproduce.lineage import Lineage, Lived, Place
from outcross.reproduce.text import MOST, PLAN, TUNED, TextLineage, first_model
from outcross.reproduce.trained import LOSS, TAIL, VOCABULARY, Found, Read, TrainedClaim, fall, rise, worse
from outcross.stages import Context, Model, Role, Stage
from outcross.train.objectives import Imitate
from outcross.types import Ground, Group, Sample, Sampling, Score
from outcross.verify.each import with_score

FLOOR = 0.7


@dataclass(frozen=True)
class Varied(Stage):
    """Passes a text that says no three words twice, cut off or not: passages are of a fixed length here, and small models do not know it."""

    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple(map(self._scored, group.samples)))

    def _scored(self, sample: Sample) -> Sample:
        if sample.error:
            return sample
        words = sample.text.split()
        runs = list(zip(words, words[1:], words[2:], strict=False))
        varied = len(set(runs)) == len(runs) > 0
        return with_score(sample, Score(self.name, "1", "pass" if varied else "fail", float(varied)))


@dataclass(frozen=True)
class GuardedLineage:
    """`bare` with a floor of real rows, verified text and all that was accepted before; `judged`: and with alarms and the gate."""

    bare: TextLineage
    judged: bool = True
    held_out: int = 600

    @property
    def name(self) -> str:
        return f"{self.bare.name}-{'guarded' if self.judged else 'floored'}"

    @property
    def about(self) -> str:
        guards = f"{FLOOR:.0%} real rows and text that passed a check"
        return f"{guards}, judged by alarms and gate" if self.judged else guards

    @property
    def files(self) -> tuple[str, ...]:
        return self.bare.files

    @property
    def seconds(self) -> float:
        return 1.3 * self.bare.seconds

    def plan(self, place: Place, /) -> tuple[Recipe, Mapping[Role, Model]]:
        bare = self.bare
        passages = bare.corpus.read(place.data)
        first = first_model(passages, bare.rows, place)
        writes = Draw(1, Sampling(bare.temperature, max_tokens=MOST, beams=bare.beams))
        learn = Learn(Imitate(), TUNED if bare.tuned else PLAN, "champion" if bare.tuned else "scratch")
        mix = Mixture(real_floor=FLOOR, budget=bare.rows)
        phase = Phase("guarded", writes, {"policy": learn}, (Varied(),), mix=mix, rounds=bare.rounds)
        return Recipe("guarded", "", self._bench(passages), (phase,)), {"policy": first}

    def _bench(self, passages: Passages) -> Bench:
        """Probes of quality, diversity and fit, of honest answers at T = 1. Two margins are wider than the probes' own: of 600 items a gate could
        not show less of a share of passes or of rare tokens."""
        tasks, held_out = passages.tasks("held_out", self.held_out), passages.examples("held_out", self.held_out)
        real, says = passages.examples("train", self.bare.rows), Draw(1, Sampling(max_tokens=MOST))
        probes = (
            RealLoss(held_out),
            TailLoss(held_out, reference=real, margin=0.25),
            TextStatistic(tasks, says, "vocabulary"),
            PassRate(tasks, says, Varied(), margin=0.1),
        )
        gate, alarms = (NonInferior(), Alarms()) if self.judged else (Observe(), None)
        return Bench(passages.tasks("train", self.bare.rows), tasks, real, probes, gate, alarms=alarms)


def prevented(bare: TextLineage, guarded: GuardedLineage) -> Read:
    """By how much more the loss rises without guards, over the items that both lineages have."""

    def read(lived: Mapping[str, Lived]) -> Found:
        without, under = (lived[one.name][LOSS] for one in (bare, guarded))
        items = min(bare.held_out, guarded.held_out)
        gaps = (without.values(-1) - without.values(0))[:items] - (under.values(-1) - under.values(0))[:items]
        return float(gaps.mean()), float(gaps.std(ddof=1) / math.sqrt(items))

    return read


REPLACE, COLD, WIKI, BEAMS = (GuardedLineage(bare) for bare in (text.REPLACE, text.COLD, text.WIKI_REPLACE, text.WIKI_BEAMS))
FLOORED = GuardedLineage(text.WIKI_REPLACE, judged=False)


def _claim(name: str, what: str, lineages: tuple[Lineage, ...], read: Read) -> TrainedClaim:
    place = "the guards on trial"
    return TrainedClaim(f"guards-text-{name}", "ours", place, None, "direction", f"{what} (0.2M parameters)", lineages=lineages, read=read)


def _prevents(name: str, guarded: GuardedLineage, how: str) -> TrainedClaim:
    what = f"{how}: held-out loss rises more without guards than with a floor, verification, alarms and gate"
    return _claim(name, what, (guarded.bare, guarded), prevented(guarded.bare, guarded))


GUARD_CLAIMS: tuple[TrainedClaim, ...] = (
    _prevents("replace", REPLACE, "TinyStories, T = 1, from scratch"),
    _prevents("cold", COLD, "TinyStories, T = 0.3, from scratch"),
    _prevents("tuned", WIKI, "wikitext-2, T = 1, tuned further"),
    _prevents("beams", BEAMS, "wikitext-2, 5 beams, tuned further"),
    _claim("gain", "wikitext-2, tuned further: with every guard on held-out loss falls", (WIKI,), fall(WIKI, LOSS)),
    _claim(
        "cost",
        "wikitext-2, tuned further: alarms and gate cost gain: without them the floored and verified lineage ends with less loss",
        (WIKI, FLOORED),
        worse(WIKI, FLOORED),
    ),
    _claim("not-enough-tail", "wikitext-2: with every guard on the rarest tenth of tokens still loses", (WIKI,), rise(WIKI, TAIL)),
    _claim("not-enough-vocabulary", "wikitext-2: with every guard on the vocabulary still shrinks", (WIKI,), fall(WIKI, VOCABULARY)),
)
