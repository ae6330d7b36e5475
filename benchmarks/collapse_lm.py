"""Early warning on small language models: the alarms over lineages of `outcross.reproduce`, trained on real text.

    python benchmarks/collapse_lm.py --data ../shared/data [--seeds 2] [--rounds 5] [--rows 1200] [--folder DIR]

A lineage is run through the real loop, and its record is read: the alarms decide, generation by generation, as they would have in the run. Of
the healthy lineages one keeps all that was written before (a fourth of what the first model learnt from, a generation) and one 70 % real
rows. With `--folder`, lineages are kept, and one that is there is not run again. About a minute of one core each at the default size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gate import interval

from outcross.engine.watch import Silent
from outcross.evaluate.likelihood import SelfPerplexity
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.tail_loss import TailLoss
from outcross.evaluate.text_statistic import TextStatistic
from outcross.gate.monitors.alarms import Alarms
from outcross.reproduce.corpus import TINYSTORIES
from outcross.reproduce.lineage import Lived, Place, live
from outcross.reproduce.text import TextLineage
from outcross.types import Alarm, Comparison

KINDS = (
    (TextLineage(TINYSTORIES, "replace", tuned=True), False),
    (TextLineage(TINYSTORIES, "replace, τ = 0.8", temperature=0.8, tuned=True), False),
    (TextLineage(TINYSTORIES, "replace, 5 beams", beams=5, tuned=True), False),
    (TextLineage(TINYSTORIES, "accumulate", history="accumulate", tuned=True), True),
    (TextLineage(TINYSTORIES, "70 % real rows", real=0.7, tuned=True), True),
)
MARGINS = {
    "real_loss": RealLoss.margin,
    "tail_loss": TailLoss.margin,
    "text_vocabulary": TextStatistic.margin,
    "self_perplexity": SelfPerplexity.margin,
}


@dataclass(frozen=True)
class Told:
    """The first generation with an alarm, the probes that raised it, and the first one whose mean real loss is a margin worse."""

    alarm: int | None
    probes: tuple[str, ...]
    moved: int | None


def listen(lived: Lived, monitor: Alarms, margins: Mapping[str, float] = MARGINS) -> Told:
    """What the alarms say of a lineage in which every candidate becomes the champion."""
    courses = {name: lived[name].measured for name in margins}
    rounds = len(courses["real_loss"]) - 1
    generations = [{name: found[number] for name, found in courses.items()} for number in range(rounds + 1)]
    told: list[tuple[Alarm, ...]] = []
    for number in range(rounds):
        comparison = Comparison(generations[number + 1], generations[number], generations[0], number, rounds, 0.0)
        told.append(tuple(alarm for alarm in monitor(comparison, margins, told) if alarm.rounds))
    first = next((number for number, found in enumerate(told, 1) if found), None)
    means = lived["real_loss"].means
    moved = next((number for number in range(1, rounds + 1) if means[number] - means[0] >= margins["real_loss"]), None)
    return Told(first, tuple(dict.fromkeys(alarm.probe for alarm in told[first - 1])) if first else (), moved)


def report(data: Path, folder: Path, seeds: int, rounds: int, rows: int) -> Iterator[str]:
    yield f"{rounds} generations of {rows:,} passages; tolerance {Alarms().tolerance:g} of a margin"
    yield "| lineage | seed | first alarm | by | mean real loss moved a margin | real loss, generation by generation | seconds |"
    yield "|---|--:|--:|---|--:|---|--:|"
    sick: list[Told] = []
    calm: list[Told] = []
    for kind, healthy in KINDS:
        sized = TextLineage(kind.corpus, kind.about, kind.history, kind.real, kind.temperature, kind.beams, kind.tuned, 45.0, rounds, rows)
        for seed in range(seeds):
            began = time.process_time()
            lived = live(sized, Place(data, folder / f"seed_{seed}", seed), Silent())
            found = listen(lived, Alarms())
            (calm if healthy else sick).append(found)
            losses = ", ".join(f"{mean:.3f}" for mean in lived["real_loss"].means)
            spent = time.process_time() - began
            yield f"| {kind.about} | {seed} | {found.alarm} | {', '.join(found.probes)} | {found.moved} | {losses} | {spent:.0f} |"
    early = [found for found in sick if found.alarm is not None and found.alarm <= 2]
    yield ""
    yield f"Collapsing: an alarm by generation 2 in {interval(len(early), len(sick))}"
    if early:
        before = sum(found.moved is None or (found.alarm or 0) < found.moved for found in early)
        yield f"of these, before mean real loss moved a margin: {interval(before, len(early))}"
    yield f"Healthy: an alarm in {interval(sum(found.alarm is not None for found in calm), len(calm))} of lineages"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="the folder with tinystories/")
    parser.add_argument("--seeds", type=int, default=6, help="of each of the five kinds; 6 make 30 lineages")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--folder", type=Path, help="where lineages are kept; left out: nowhere")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        for line in report(asked.data, asked.folder or Path(passing), asked.seeds, asked.rounds, asked.rows):
            print(line, flush=True)


if __name__ == "__main__":
    main()
