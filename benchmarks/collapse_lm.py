"""Early warning on small language models: the alarms over lineages of 0.2 M parameters on real text, by the families of `collapse_detection.py`.

    python benchmarks/collapse_lm.py --data ../shared/data --folder DIR [--seeds 5] [--healthy 10] [--weaker 2] [--tables]

A lineage is run through the real loop (`collapse_lm_lineages`), and its record is read: the shipped alarms decide, generation by generation, as they
would have in the run. Their settings were fixed on simulated lineages. How strongly a generation is tuned, and how strong a defect is, was redesigned four times with
pilots of all families in view: nothing here is blind, and those not marked (c) are merely those by which nothing was chosen last.
The true change at generation 2 is measured on fresh passages and answers. Lineages are kept in the folder, and one that is there is not run
again; `--tables` prints what is there and runs nothing. About 40 s of one core a lineage.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from collapse_detection import collapsing_table, counted, families_of, healthy_table, probe_table, severity_table
from collapse_lineages import ALPHA, ANY_LOSS, SHIPPED, Lineage, change, heard, null_deviations, shift
from collapse_lm_lineages import FAMILIES, MARGINS, ORACLE, Family, ModelLineage

from outcross.engine.watch import Silent
from outcross.gate.monitors.alarms import Alarms
from outcross.reproduce.lineage import Lived, Place, finished, live
from outcross.types import Alarm, Comparison, Measurement

LEAST_SHIFT = 2.0
TOLERANCES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Plan:
    """One lineage to run, of a family and a seed."""

    family: Family
    seed: int

    @property
    def lineage(self) -> ModelLineage:
        return ModelLineage(self.family)

    def folder(self, root: Path) -> Path:
        return root / f"seed_{self.seed}"

    def there(self, root: Path) -> bool:
        return finished(self.folder(root) / self.lineage.name)

    def lived(self, data: Path, root: Path) -> Lived:
        folder = self.folder(root)
        folder.mkdir(parents=True, exist_ok=True)
        return live(self.lineage, Place(data, folder, self.seed), Silent())


def plans(seeds: int, healthy: int, weaker: int) -> list[Plan]:
    """Seed by seed, so that what is there early is of all families: collapsing ones first, healthy ones for two seeds at a time, then weaker ones."""
    found = []
    for seed in range(max(seeds, -(-healthy // 2), weaker)):
        found += [Plan(family, seed) for family in FAMILIES if not family.healthy and not family.weaker and seed < seeds]
        found += [Plan(family, each) for each in (2 * seed, 2 * seed + 1) for family in FAMILIES if family.healthy and each < healthy]
    return found + [Plan(family, seed) for seed in range(weaker) for family in FAMILIES if family.weaker]


def generations_of(lived: Lived, label: str = "") -> list[dict[str, Measurement]]:
    """What the probes found, of the first model and of each generation after it."""
    return [{name: lived[f"{name}{label}"].measured[number] for name in MARGINS} for number in range(len(lived["real_loss"].measured))]


def listen(family: Family, lived: Lived) -> Lineage:
    """What the alarms say of a lineage, and what is true of it."""
    generations = generations_of(lived)
    truth = {name: change(course[2], course[0]) for name in MARGINS if len(course := lived[f"{name}_{ORACLE}"].measured) > 2}
    return heard(family, generations, MARGINS, planned=len(generations) - 1, watches=(SHIPPED, ANY_LOSS), oracle=truth)


def report(found: Sequence[Lineage]) -> Iterator[str]:
    calm = [lineage for lineage in found if lineage.family.healthy]
    weak = [lineage for lineage in found if getattr(lineage.family, "weaker", False)]
    sick = [lineage for lineage in found if not lineage.family.healthy and lineage not in weak]
    yield f"{len(sick)} collapsing lineages, {len(calm)} healthy, {len(weak)} weaker"
    if len(calm) < 3 or not sick:
        return
    null = null_deviations(calm)
    yield from healthy_table(calm)
    yield ""
    yield from raised_by(calm)
    yield ""
    enough = [lineage for lineage in sick if shift(lineage, null)[0] > LEAST_SHIFT]
    yield f"{len(enough)} of {len(sick)} collapsing lineages have a true shift of more than {LEAST_SHIFT:g} null deviations at generation 2"
    yield from collapsing_table(enough, null)
    late = [lineage for lineage in enough if lineage.moved.get("real_loss", lineage.played + 1) > 1]
    early = [lineage for lineage in late if lineage.by(2)]
    yield f"where mean real loss does not move its margin in generation 1 already: {counted([one.before_loss(one.moved) for one in early])} before it"
    yield ""
    yield from probe_table(enough)
    yield ""
    yield from severity_table([*sick, *weak], null)
    yield ""
    yield from losses(found)


def raised_by(calm: Sequence[Lineage]) -> Iterator[str]:
    """By probe: in how many healthy lineages it is ever shown worse with all of a round's alpha, and how far it moved on average by the end."""
    yield "| healthy: probe alone | shown worse in | mean change at the end, margins |"
    yield "|---|---|--:|"
    for name, margin in MARGINS.items():
        ends = sum(lineage.change[-1][name] for lineage in calm) / len(calm) / margin
        yield f"| {name} | {counted([name in lineage.shown for lineage in calm])} | {ends:+.2f} |"


def first_alarm(lived: Lived, tolerance: float) -> tuple[int, bool] | None:
    """The generation of the first alarm with a `tolerance`, and whether fresh items and answers bear it out: whether on these, too, one of the probes that
    alarm is worse than the first model by more than the tolerance."""
    found, fresh, monitor = generations_of(lived), generations_of(lived, f"_{ORACLE}"), Alarms(ALPHA, tolerance=tolerance)
    told: list[tuple[Alarm, ...]] = []
    for round, (champion, candidate) in enumerate(pairwise(found)):
        told.append(monitor(Comparison(candidate, champion, found[0], round, len(found) - 1, 0.0), MARGINS, told))
        if alarming := [alarm.probe for alarm in told[-1] if alarm.rounds]:
            true = any(change(fresh[round + 1][name], fresh[0][name]) < -tolerance * MARGINS[name] for name in alarming)
            return round + 1, true
    return None


def tolerance_table(played: Sequence[tuple[Family, Lived]]) -> Iterator[str]:
    """What a higher tolerance costs and spares. It may be chosen by the columns marked (c); the others are then its score."""
    yield "| tolerance, of a margin | healthy (c): alarm | healthy: alarm | of all healthy alarms, borne out | collapsing (c): by 2 | collapsing: by 2 |"
    yield "|---|---|---|---|---|---|"
    for tolerance in TOLERANCES:
        heard = [(family, first_alarm(lived, tolerance)) for family, lived in played if not family.weaker]
        cells = [
            *(
                counted([first is not None for family, first in heard if family.healthy and family.scored is scored])
                for scored in (False, True)
            ),
            counted([first[1] for family, first in heard if family.healthy and first is not None]),
            *(
                counted([first is not None and first[0] <= 2 for family, first in heard if not family.healthy and family.scored is scored])
                for scored in (False, True)
            ),
        ]
        yield f"| {tolerance:g} | {' | '.join(cells)} |"


def losses(found: Sequence[Lineage]) -> Iterator[str]:
    yield "| mean change since the first model, generation by generation | lineages | real loss | tail loss |"
    yield "|---|--:|---|---|"
    for family in families_of(found):
        part = [lineage for lineage in found if lineage.family == family]
        means = [
            ", ".join(f"{-sum(one.change[number][name] for one in part) / len(part):+.3f}" for number in range(part[0].played))
            for name in ("real_loss", "tail_loss")
        ]
        yield f"| {family.name} | {len(part)} | {' | '.join(means)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="the folder with tinystories/")
    parser.add_argument("--folder", type=Path, required=True, help="where lineages are kept")
    parser.add_argument("--seeds", type=int, default=5, help="of each of the six collapsing families; 5 make 30 lineages")
    parser.add_argument("--healthy", type=int, default=10, help="seeds of each of the three healthy families; 10 make 30 lineages")
    parser.add_argument("--weaker", type=int, default=2, help="seeds of each of the four families with a weaker defect")
    parser.add_argument("--tables", action="store_true", help="run nothing, print what is there")
    asked = parser.parse_args()
    found, played = [], []
    for plan in plans(asked.seeds, asked.healthy, asked.weaker):
        if asked.tables and not plan.there(asked.folder):
            continue
        began = time.process_time()
        played.append((plan.family, plan.lived(asked.data, asked.folder)))
        found.append(listen(*played[-1]))
        if not asked.tables:
            spent = time.process_time() - began
            print(f"{plan.family.name}, seed {plan.seed}: {spent:.0f} s, alarm in {found[-1].first.get(SHIPPED.name)}", flush=True)
    for line in (*report(found), "", *tolerance_table(played)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
