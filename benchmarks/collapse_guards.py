"""The guards on trial: lineages that collapse, run by the whole engine with more and more of its guards. What is prevented, at what cost?

    python benchmarks/collapse_guards.py [--rounds 4] [--seed 0]

The world is `collapse_world`'s. A first model is right less often than people are, writes training data with a defect of one of the families of
`collapse_lineages`, and learns in the real loop. Guards are added one after the other: none (history replaced, nothing checked); a floor of
70 % real rows and accumulated history; verification by an exact check; alarms that may stop and roll back, and the gate. What is shown of the
model that holds in the end is exact, because its law is known.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from collapse_lineages import REAL, IsRight, large_groups, likely_only, one_topic_less, sharper
from collapse_world import ENDINGS, LONGEST, RIGHT, SHORTEST, WRITES, Counting, Law, counted, real_law, texts, topic_of

from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.errors import GuardError
from outcross.evaluate.diversity import Diversity
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.subgroups import SubgroupShares
from outcross.evaluate.tail_loss import TailLoss
from outcross.gate.monitors.alarms import Alarms
from outcross.gate.non_inferior import NonInferior
from outcross.gate.observe import Observe
from outcross.generate.draw import Draw
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe, Waived
from outcross.stages import Context, FitPlan, Stage, Verifier
from outcross.train.objectives import Imitate
from outcross.types import Example, Ground, Group, Sample, Score, Task
from outcross.verify.each import with_score

TASKS, ITEMS, REAL_ROWS = 1000, 800, 3000
FIRST_ENDS = (0.62, 0.25, 0.08, 0.05)  # of the first model, which is right seven times in ten
DEFECTS: dict[str, Callable[[Law], Law] | None] = {
    "replace": None,
    "biased sampling": partial(sharper, severity=1.0),
    "beams, replace": partial(likely_only, severity=1.0),
    "shrinking minority": partial(large_groups, severity=1.0),
    "mode drop": partial(one_topic_less, severity=1.0),
    "reward-hacked": None,
}
GUARDS = ("none", "floor", "floor, verification", "floor, verification, alarms, gate")


@dataclass(frozen=True)
class Flattered(Stage):
    """A reward that likes bold endings and long texts, and passes everything."""

    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple(map(self._scored, group.samples)))

    def _scored(self, sample: Sample) -> Sample:
        *words, ending = sample.text.split(" ")
        return with_score(sample, Score(self.name, "1", "pass", float(ending in ENDINGS[2:]) + len(words) / 100))


def recipe(real: Law, family: str, guards: int, rounds: int, rng: np.random.Generator) -> Recipe:
    def said(count: int) -> list[str]:
        return texts(real, rng.random((count, 3 + LONGEST)))

    held_out = tuple(Task(f"h{number}", f"say {number}", text) for number, text in enumerate(said(ITEMS)))
    held = tuple(Example(f"held-{number}", f"say {number}", text, origin=REAL) for number, text in enumerate(said(ITEMS)))
    known = tuple(Example(f"real-{number}", f"tell {number}", text, origin=REAL) for number, text in enumerate(said(REAL_ROWS)))
    tasks = tuple(Task(f"t{number}", f"{WRITES} {number}") for number in range(TASKS))
    probes = (
        PassRate(held_out, Draw(n=1), IsRight(), margin=0.05),
        Diversity(held_out, Draw(n=1), "distinct", margin=0.02, replicates=100),
        SubgroupShares(held_out, Draw(n=1), held, topic_of, margin=0.5, replicates=100),
        RealLoss(held),
        TailLoss(held, margin=0.25),
    )
    hacked = family == "reward-hacked"
    verify: tuple[Verifier, ...] = (Flattered(),) if hacked else ()
    if guards >= 2:
        verify = (*verify, IsRight())
    mix = Mixture(real_floor=0.7) if guards else Mixture("replace", Waived("the guards are on trial"))
    objective = Imitate(best_of=1) if hacked else Imitate(require_verified=bool(verify))
    whole = guards >= 3
    bench = Bench(tasks, held_out, known, probes, NonInferior() if whole else Observe(), alarms=Alarms() if whole else None)
    learn = {"policy": Learn(objective, FitPlan(), "champion")}
    phase = Phase("train", Draw(n=4 if hacked else 1), learn, verify, mix=mix, rounds=rounds)
    return Recipe("guards", "", bench, (phase,))


@dataclass(frozen=True)
class Outcome:
    """What the model that holds in the end is: by how much its loss on real text rose, in nats a token; how often it is right; how much rarer
    than among people its rarest-served topic is; and what became of the rounds."""

    loss: float
    right: float
    group: float
    rounds: str


def trial(family: str, guards: int, rounds: int, seed: int) -> Outcome:
    rng = np.random.default_rng(seed)
    real = real_law(rng)
    began = counted(replace(real, endings=np.tile(np.array(FIRST_ENDS), (len(real.topics), 1))), REAL_ROWS, rng).estimated()
    first = Counting(began, DEFECTS[family])
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        stopped = ""
        try:
            run(recipe(real, family, guards, rounds, rng), {"policy": first}, root, seed=seed, options=Options(unsafe=True))
        except GuardError as error:
            stopped = "; stopped" + (", rolled back" if "rolled back" in str(error) else "")
        held = RunDir(root)
        turns = held.rounds()
        last = first.load(held.champion() or held.start / "model").law
        promoted = sum(turn.promoted for turn in turns)
    told = f"{promoted} of {len(turns)} promoted{stopped}"
    return Outcome(true_loss(real, last) - true_loss(real, began), true_right(last), float((last.topics / real.topics).min()) - 1, told)


def true_loss(real: Law, law: Law) -> float:
    """The expected loss of real text in nats a token, as many tokens as a mean text has."""
    sizes = np.arange(SHORTEST, LONGEST + 1)
    lengths = real.lengths @ sizes
    topics = -(real.topics * np.log(law.topics)).sum()
    ends = (
        -(real.topics[:, None] * (real.endings * np.log(law.endings))).sum()
        - (real.topics[:, None] * real.lengths * np.log(law.lengths)).sum()
    )
    words = -(real.topics * lengths * (real.words * np.log(law.words)).sum(axis=1)).sum()
    return float((topics + ends + words) / (real.topics @ lengths + 2))


def true_right(law: Law) -> float:
    return float(law.topics @ law.endings[:, [ending in RIGHT for ending in ENDINGS]].sum(axis=1))


def report(rounds: int, seed: int) -> Iterator[str]:
    yield f"{rounds} rounds of {TASKS:,} tasks, {REAL_ROWS:,} real rows, {ITEMS:,} held-out items; the first model is right {sum(FIRST_ENDS[::2]):.0%} of the time"
    yield "| family | guards | real loss, nats per token | right | worst-served topic | rounds |"
    yield "|---|---|--:|--:|--:|---|"
    for family in DEFECTS:
        for guards, name in enumerate(GUARDS):
            found = trial(family, guards, rounds, seed)
            yield f"| {family} | {name} | {found.loss:+.3f} | {found.right:.0%} | {found.group:+.0%} | {found.rounds} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.process_time()
    for line in report(asked.rounds, asked.seed):
        print(line, flush=True)
    print(f"\n{time.process_time() - began:.0f} CPU seconds")


if __name__ == "__main__":
    main()
