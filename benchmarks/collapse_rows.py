"""Would it be earlier to watch what a model is about to learn? Alarms on the rows of each generation, before the fit, in the simulated world.

    python benchmarks/collapse_rows.py [--lineages 204] [--seed 0]

The lineages are those of `collapse_detection.py`, by the same seeds. A probe of the model can raise an alarm in the generation that it measures at the
earliest, so that a lineage whose mean real loss moves its margin in generation 1 is never told before it. Here the shipped probes that
need texts alone look at 500 of the rows that a generation is about to learn, against as many honest answers of the first model. They have
half of the alarms' budget, 2.5 % a run, and leave the other half to the model. An alarm on a generation's rows is before that generation.
The engine does not do this: it measures models.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from collapse_detection import Plan, collapsing_plans, counted, healthy_plans
from collapse_lineages import (
    ALPHA,
    ROUNDS,
    Family,
    State,
    begin,
    flattering,
    large_groups,
    likely_only,
    measure,
    one_topic_less,
    panel,
    sharper,
    step,
)
from collapse_world import ENDINGS, RIGHT, Law

from outcross.gate.monitors.alarms import Alarms
from outcross.types import Comparison

OF_TEXTS = ("self_perplexity", "diversity_distinct", "text_vocabulary", "subgroup_shares", "length_longer", "length_shorter")
LOOKED_AT = 2  # generations of a collapsing lineage


def right_alone(law: Law) -> Law:
    """Texts that a verifier passed."""
    return replace(law, endings=law.endings * np.array([float(ending in RIGHT) for ending in ENDINGS])).normalised()


WRITTEN: Mapping[str, Callable[[State], Law]] = {
    "replace": lambda state: state.law,
    "biased sampling": lambda state: sharper(state.law, state.severity),
    "beams, replace": lambda state: likely_only(state.law, state.severity),
    "shrinking minority": lambda state: large_groups(state.law, state.severity),
    "mode drop": lambda state: one_topic_less(state.law, state.severity),
    "reward-hacked": lambda state: flattering(state.law, state.severity),
    "accumulate": lambda state: state.law,
    "real only": lambda state: state.real,
    "verified": lambda state: right_alone(state.law),
}
"""By family, the law of the rows that are about to be learnt; real rows that are learnt beside them are left out."""


@dataclass(frozen=True)
class Read:
    """The generation whose rows raise the first alarm, the probes that do, and the generation whose mean real loss is a margin worse."""

    family: Family
    alarm: int | None
    probes: tuple[str, ...]
    moved: int | None

    @property
    def before_loss(self) -> bool:
        return self.alarm is not None and (self.moved is None or self.alarm <= self.moved)


def read(plan: Plan, generations: int, monitor: Alarms = Alarms(ALPHA / 2)) -> Read:
    """The lineage of this plan, the same as `play` plays, its rows looked at up to the first alarm."""
    rng = np.random.default_rng([plan.number, 7])
    state = start = begin(rng, plan.severity)
    loss, *others = panel(state.real, plan.number)
    probes = [probe for probe in others if probe.name in OF_TEXTS]
    margins = {probe.name: probe.margin for probe in probes}
    first, began = measure(probes, start.law, start.law), measure([loss], start.law, start.law)[loss.name].mean
    alarm, moved = None, None
    names: tuple[str, ...] = ()
    for round in range(generations):
        if alarm is None:
            rows = measure(probes, WRITTEN[plan.family.name](state), start.law)
            told = [found for found in monitor(Comparison(rows, first, first, round, ROUNDS, 0.0), margins, []) if found.rounds]
            alarm, names = (round + 1, tuple(dict.fromkeys(found.probe for found in told))) if told else (None, ())
        state = step(plan.family, state, rng)
        if moved is None and measure([loss], state.law, start.law)[loss.name].mean - began >= loss.margin:
            moved = round + 1
    return Read(plan.family, alarm, names, moved)


def table(found: Sequence[Read]) -> Iterator[str]:
    yield f"| rows, before they are learnt | lineages | alarm in generation 1 | by {LOOKED_AT} | mean real loss moves in 1 | of these before it | by |"
    yield "|---|--:|---|---|--:|---|---|"
    for family in dict.fromkeys(one.family for one in found if not one.family.healthy):
        part = [one for one in found if one.family == family]
        at_once = [one for one in part if one.moved == 1]
        told = [counted([one.alarm is not None and one.alarm <= last for one in part]) for last in (1, LOOKED_AT)]
        names = ", ".join(sorted({name for one in part for name in one.probes}))
        early = counted([one.before_loss for one in at_once])
        yield f"| {family.name}{'' if family.scored else ' (c)'} | {len(part)} | {' | '.join(told)} | {len(at_once)} | {early} | {names} |"
    yield ""
    yield f"| healthy, {ROUNDS} generations | lineages | false alarm |"
    yield "|---|--:|---|"
    for family in dict.fromkeys(one.family for one in found if one.family.healthy):
        part = [one for one in found if one.family == family]
        yield f"| {family.name} | {len(part)} | {counted([one.alarm is not None for one in part])} |"
    calm = [one for one in found if one.family.healthy]
    yield f"| all | {len(calm)} | {counted([one.alarm is not None for one in calm])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lineages", type=int, default=204, help="collapsing ones, and as many healthy ones")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.process_time()
    plans = [*collapsing_plans(asked.lineages, asked.seed), *healthy_plans(asked.lineages, asked.seed)]
    for line in table([read(plan, ROUNDS if plan.family.healthy else LOOKED_AT) for plan in plans]):
        print(line, flush=True)
    print(f"\n{time.process_time() - began:.0f} CPU seconds")


if __name__ == "__main__":
    main()
