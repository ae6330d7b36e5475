"""Early warning, measured: how soon do alarms see lineages that collapse, how often do they cry wolf over those that do not?

    python benchmarks/collapse_detection.py [--lineages 204] [--mild 3] [--seed 0] [--jobs 1]

Lineages are simulated (`collapse_world`, `collapse_lineages`): six families that collapse, each in its own way, and three that do not, of 10
planned generations. Probes and alarms are those that ship, with the alarms' own budget of 5 % a run. What could be chosen (tolerance, panel,
items) was chosen on the families marked (c), and the others were scored once.

A collapsing lineage counts when its true change at generation 2 is more than 2 null standard deviations on some probe: the standard
deviation of what is measured on healthy lineages. The truth is measured on fresh items and draws.
`collapse_lm.py` does the same with small language models, `collapse_guards.py` tries what the whole engine prevents.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

from collapse_lineages import ANY_LOSS, FAMILIES, ROUNDS, SHIPPED, Described, Family, Lineage, null_deviations, play, shift
from gate import interval

COLLAPSING = tuple(family for family in FAMILIES if not family.healthy)
HEALTHY = tuple(family for family in FAMILIES if family.healthy)
PLAYED = 5  # generations of a collapsing lineage that are looked at
WATCHES = (SHIPPED, ANY_LOSS)
LEAST_SHIFT = 2.0
STRENGTHS = (0.05, 0.1, 0.2, 0.5)
BINS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, float("inf"))


def counted(found: Sequence[bool]) -> str:
    return interval(sum(found), len(found)) if found else "none"


def healthy_table(lineages: Sequence[Lineage]) -> Iterator[str]:
    rounds = lineages[0].played
    yield f"| healthy, {rounds} generations | lineages | false alarm | a warning or more | tolerance 0 | real loss at the end |"
    yield "|---|--:|---|---|---|--:|"
    for name, part in parts(lineages):
        cells = [counted([lineage.by(rounds, watch) for lineage in part]) for watch in WATCHES]
        warned = counted([lineage.warned is not None for lineage in part])
        moved = -statistics.mean(lineage.change[-1]["real_loss"] for lineage in part)
        yield f"| {name} | {len(part)} | {cells[0]} | {warned} | {cells[1]} | {moved:+.4f} |"


def collapsing_table(lineages: Sequence[Lineage], null: Mapping[str, float]) -> Iterator[str]:
    yield (
        "| collapsing | lineages | true shift at 2, median (least) | most on | alarm by 1 | alarm by 2 | of these before mean real loss moves a "
        "margin | before its own test | by 2, tolerance 0 |"
    )
    yield "|---|--:|--:|---|---|---|---|---|---|"
    for name, part in parts(lineages):
        shifts = [shift(lineage, null) for lineage in part]
        most = statistics.mode(probe for _, probe in shifts)
        early = [lineage for lineage in part if lineage.by(2)]
        cells = [
            counted([lineage.by(1) for lineage in part]),
            counted([lineage.by(2) for lineage in part]),
            counted([lineage.before_loss(lineage.moved) for lineage in early]),
            counted([lineage.before_loss(lineage.shown) for lineage in early]),
            *(counted([lineage.by(2, watch) for lineage in part]) for watch in WATCHES[1:]),
        ]
        sizes = f"{statistics.median(size for size, _ in shifts):.1f} ({min(size for size, _ in shifts):.1f})"
        yield f"| {name} | {len(part)} | {sizes} | {most} | {' | '.join(cells)} |"


def parts(lineages: Sequence[Lineage]) -> Iterator[tuple[str, list[Lineage]]]:
    """Lineages by family, those that choices were made on, the others, and all."""
    for family in families_of(lineages):
        part = [lineage for lineage in lineages if lineage.family == family]
        yield f"{family.name}{'' if family.scored else ' (c)'}", part
    yield "chosen on (c)", [lineage for lineage in lineages if not lineage.family.scored]
    yield "**scored**", [lineage for lineage in lineages if lineage.family.scored]
    yield "all", list(lineages)


def families_of(lineages: Sequence[Lineage]) -> list[Described]:
    """The families of these lineages, in their order."""
    return list(dict.fromkeys(lineage.family for lineage in lineages))


def probe_table(lineages: Sequence[Lineage]) -> Iterator[str]:
    names, families = tuple(lineages[0].change[0]), families_of(lineages)
    yield f"| probe alone: share shown worse by generation 2 | {' | '.join(family.name for family in families)} | leads real loss's margin by |"
    yield f"|---|{'--:|' * len(families)}--:|"
    for name in names:
        cells = []
        for family in families:
            part = [lineage for lineage in lineages if lineage.family == family]
            cells.append(f"{statistics.mean(lineage.shown.get(name, PLAYED + 1) <= 2 for lineage in part):.0%}")
        leads = [lineage.moved.get("real_loss", PLAYED + 1) - lineage.shown[name] for lineage in lineages if name in lineage.shown]
        lead = f"{statistics.mean(leads):+.1f} ({len(leads)} of {len(lineages)})" if leads else "never shown"
        yield f"| {name} | {' | '.join(cells)} | {lead} |"


def severity_table(lineages: Sequence[Lineage], null: Mapping[str, float]) -> Iterator[str]:
    yield "| true shift at generation 2, null deviations | lineages | alarm by 2 | alarm by 4 | families |"
    yield "|---|--:|---|---|---|"
    for low, high in pairwise(BINS):
        part = [lineage for lineage in lineages if low <= shift(lineage, null)[0] < high]
        if part:
            told = (counted([lineage.by(last) for lineage in part]) for last in (2, 4))
            names = ", ".join(sorted({lineage.family.name for lineage in part}))
            yield f"| {low:g} to {high:g} | {len(part)} | {' | '.join(told)} | {names} |"


@dataclass(frozen=True)
class Plan:
    """One lineage to play."""

    family: Family
    number: int
    severity: float = 1.0
    generations: int = PLAYED
    oracle: bool = True

    def __call__(self) -> Lineage:
        return play(self.family, self.number, severity=self.severity, generations=self.generations, watches=WATCHES, oracle=self.oracle)


def healthy_plans(lineages: int, seed: int) -> list[Plan]:
    every = range(-(-lineages // len(HEALTHY)))
    return [Plan(family, number_of(seed, place, n), 1.0, ROUNDS, False) for place, family in enumerate(HEALTHY) for n in every]


def collapsing_plans(lineages: int, seed: int) -> list[Plan]:
    every = range(-(-lineages // len(COLLAPSING)))
    return [Plan(family, number_of(seed, 10 + place, n)) for place, family in enumerate(COLLAPSING) for n in every]


def weaker_plans(each: int, seed: int) -> list[Plan]:
    return [
        Plan(family, number_of(seed, 20 + place, 100 * step + n), severity, 4)
        for place, family in enumerate(COLLAPSING)
        for step, severity in enumerate(STRENGTHS)
        for n in range(each)
    ]


def played(plans: Sequence[Plan], jobs: int) -> list[Lineage]:
    """The lineages, in order, whatever the number of processes."""
    if jobs == 1:
        return [plan() for plan in plans]
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(Plan.__call__, plans, chunksize=2))


def report(lineages: int, mild: int, seed: int, jobs: int = 1) -> Iterator[str]:
    calm = played(healthy_plans(lineages, seed), jobs)
    yield from healthy_table(calm)
    yield ""
    yield from told_of_collapse(played(collapsing_plans(lineages, seed), jobs), null_deviations(calm))
    if mild:
        yield ""
        weaker = played(weaker_plans(mild, seed), jobs)
        yield f"Weaker defects, at {', '.join(f'{strength:g}' for strength in STRENGTHS)} of the usual strength: {len(weaker):,} lineages"
        yield from severity_table(weaker, null_deviations(calm))


def told_of_collapse(found: Sequence[Lineage], null: Mapping[str, float]) -> Iterator[str]:
    enough = [lineage for lineage in found if shift(lineage, null)[0] > LEAST_SHIFT]
    yield f"{len(found):,} collapsing lineages, {len(enough):,} of them with a true shift of more than {LEAST_SHIFT:g} null deviations"
    yield from collapsing_table(enough, null)
    yield ""
    yield from probe_table(enough)


def number_of(seed: int, place: int, number: int) -> int:
    """A seed of its own for each lineage."""
    return 10_000_000 * seed + 10_000 * place + number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lineages", type=int, default=204, help="collapsing ones, and as many healthy ones")
    parser.add_argument("--mild", type=int, default=3, help="lineages of each family at each weaker strength")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    asked = parser.parse_args()
    began = time.perf_counter()
    for line in report(asked.lineages, asked.mild, asked.seed, asked.jobs):
        print(line, flush=True)
    print(f"\n{time.perf_counter() - began:.0f} seconds in {asked.jobs} processes")


if __name__ == "__main__":
    main()
