"""Does the gate keep its word, and what does it let through? Lineages are simulated item by item and decided by the gate that ships.

    python benchmarks/gate.py [--lineages 2000] [--alarms 2000] [--seed 0]

A lineage has several rounds. The candidate of each round has a true quality drawn around the champion's: better, the same, or just worse
than the margin allows. A lineage is broken when a model is ever promoted whose true loss, against the champion it replaces or against the first
model, reaches the margin. Three sorts of measurement: pass or fail, a continuous loss, and paired replicates of one statistic.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest, norm

from outcross.gate.monitors.alarms import Alarms
from outcross.gate.non_inferior import NonInferior
from outcross.gate.paired import power
from outcross.types import Comparison, Measurement

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ALPHA, ROUNDS, ITEMS, REPLICATES = 0.05, 4, 400, 200


@dataclass(frozen=True)
class Kind:
    """A sort of measurement: its margin, and how a model of true quality q (0 is the first model's) is measured on one set of items."""

    name: str
    margin: float
    sees: Callable[[np.random.Generator, float, Floats], Measurement]


def pass_or_fail(rng: np.random.Generator, quality: float, items: Floats) -> Measurement:
    """Each item has a chance of its own; models differ in all of them by the same amount, so that the mean is exact."""
    right = rng.random(len(items)) < np.clip(0.25 + 0.5 * items + quality, 0, 1)
    return Measurement("probe", _names(len(items)), tuple(map(float, right)), unit="share")


def continuous(rng: np.random.Generator, quality: float, items: Floats) -> Measurement:
    """A loss with heavy, skewed differences, as a few documents that a model lost make them."""
    noise = 0.3 * (rng.exponential(1.0, len(items)) - 1.0)
    return Measurement("probe", _names(len(items)), tuple(map(float, 2 * items - quality + noise)), None, False, "nats")


def replicates(rng: np.random.Generator, quality: float, items: Floats) -> Measurement:
    """The exponential of a mean, as diversities are, with its bootstrap; the resamples are the same for all models."""
    values = math.log1p(quality) + 0.3 * rng.normal(0, 1, len(items)) + (items - items.mean())
    drawn = np.random.default_rng(7).multinomial(len(items), np.full(len(items), 1 / len(items)), REPLICATES)
    spread = np.exp(drawn @ values / len(items))
    return Measurement("probe", _names(len(items)), (float(np.exp(values.mean())),), tuple(map(float, spread)), unit="nats")


_NAMES: dict[int, tuple[str, ...]] = {}


def _names(count: int) -> tuple[str, ...]:
    return _NAMES.setdefault(count, tuple(map(str, range(count))))


SORTS = {"pass or fail": Kind("pass or fail", 0.08, pass_or_fail), "continuous": Kind("continuous", 0.05, continuous)}
SORTS["replicates"] = Kind("replicates", 0.06, replicates)


def lineage(rng: np.random.Generator, kind: Kind, gate: NonInferior, rounds: int = ROUNDS, items: int = ITEMS) -> tuple[bool, int]:
    """Whether a model was ever promoted whose true loss reaches the margin, and how many were promoted."""
    difficulty = rng.random(items)
    first = champion = kind.sees(rng, 0.0, difficulty)
    held, left, promoted, broken = 0.0, gate.alpha, 0, False
    for round in range(rounds):
        step = (-1.0, -1.02, -1.2, 0.0, 0.3, -0.5, float(rng.normal(0, 0.7)))[rng.integers(7)]
        quality = held + kind.margin * step
        candidate = kind.sees(rng, quality, difficulty)
        mine, now, start = ({"probe": measured} for measured in (candidate, champion, first))
        decision = gate(Comparison(mine, now, start, round, rounds, left), {"probe": kind.margin})
        left = max(0.0, left - decision.alpha_spent)
        if decision.promote:
            broken |= quality - held <= -kind.margin + 1e-12 or quality <= -kind.margin + 1e-12
            promoted, held, champion = promoted + 1, quality, candidate
    return broken, promoted


def worst_lineage(rng: np.random.Generator, kind: Kind, gate: NonInferior, rounds: int = ROUNDS, items: int = ITEMS) -> bool:
    """The same where every candidate is exactly the margin worse than the champion: the most that the gate can be tempted."""
    difficulty = rng.random(items)
    champion = kind.sees(rng, 0.0, difficulty)
    candidates = (kind.sees(rng, -kind.margin, difficulty) for _ in range(rounds))
    left = gate.alpha
    for round, candidate in enumerate(candidates):
        mine, now = {"probe": candidate}, {"probe": champion}
        decision = gate(Comparison(mine, now, now, round, rounds, left), {"probe": kind.margin})
        left = max(0.0, left - decision.alpha_spent)
        if decision.promote:
            return True
    return False


def passes(rng: np.random.Generator, kind: Kind, loss: float, items: int, trials: int) -> float:
    """How often a candidate of this true loss, in margins, is promoted in the first of four rounds."""
    gate, count = NonInferior(ALPHA), 0
    for _ in range(trials):
        difficulty = rng.random(items)
        champion, candidate = kind.sees(rng, 0.0, difficulty), kind.sees(rng, -loss * kind.margin, difficulty)
        held = {"probe": champion}
        count += gate(Comparison({"probe": candidate}, held, held, 0, ROUNDS, ALPHA), {"probe": kind.margin}).promote
    return count / trials


def healthy(rng: np.random.Generator, monitor: Alarms, rounds: int, shift: float = 0.0, items: int = 300) -> int | None:
    """The first generation, from 1, in which an alarm is raised: three sorts of probe, of which nothing is worse than at the start by more than
    `shift` standard deviations of the difference that noise alone makes."""
    difficulty = rng.random(items)
    noise = {"pass or fail": 0.62 / math.sqrt(items), "continuous": 0.42 / math.sqrt(items), "replicates": 0.42 / math.sqrt(items)}
    margins = {name: kind.margin for name, kind in SORTS.items()}

    def measured(by: float) -> dict[str, Measurement]:
        return {name: _named(name, kind.sees(rng, -by * noise[name], difficulty)) for name, kind in SORTS.items()}

    first = champion = measured(0.0)
    for round in range(rounds):
        candidate = measured(shift)
        if monitor(Comparison(candidate, champion, first, round, rounds, 0.0), margins, []):
            return round + 1
        champion = candidate
    return None


def _named(name: str, found: Measurement) -> Measurement:
    return Measurement(name, found.items, found.values, found.replicates, found.higher_is_better, found.unit)


def interval(count: int, whole: int) -> str:
    """A share with its exact 95 % interval (Clopper & Pearson)."""
    found = binomtest(count, whole).proportion_ci(0.95, "exact")
    return f"{count / whole:.2%} ({found.low:.2%} to {found.high:.2%})"


def report(lineages: int, alarms: int, seed: int) -> Iterator[str]:
    yield f"{lineages:,} lineages of {ROUNDS} rounds, {ITEMS} items, alpha {ALPHA:.0%}"
    yield "| measurement | a champion ever worse than the margin | every candidate exactly at the margin | promotions a lineage |"
    yield "|---|---|---|---|"
    everything = 0
    for number, kind in enumerate(SORTS.values()):
        rng = np.random.default_rng([seed, number])
        part = lineages // len(SORTS) + (number < lineages % len(SORTS))
        found = [lineage(rng, kind, NonInferior(ALPHA)) for _ in range(part)]
        broken, worst = sum(item[0] for item in found), sum(worst_lineage(rng, kind, NonInferior(ALPHA)) for _ in range(part))
        everything += broken
        yield f"| {kind.name} ({part:,}) | {interval(broken, part)} | {interval(worst, part)} | {sum(item[1] for item in found) / part:.2f} |"
    yield f"| all ({lineages:,}) | {interval(everything, lineages)} | | |"
    yield ""
    yield "Power: how often a candidate is promoted, by its true loss in margins and the number of items (pass or fail, margin 8 points)"
    yield "| items | −0.5 (better) | 0 | 0.25 | 0.5 | 0.75 | 1 | forecast at 0 |"
    yield "|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng([seed, 9])
    for items in (200, 400, 800, 1600):
        cells = [passes(rng, SORTS["pass or fail"], loss, items, 200) for loss in (-0.5, 0, 0.25, 0.5, 0.75, 1)]
        forecast = power(items, 0.08, ALPHA / ROUNDS, 0.42, share=True)
        yield f"| {items:,} | {' | '.join(f'{cell:.0%}' for cell in cells)} | {forecast:.0%} |"
    yield ""
    rng = np.random.default_rng([seed, 10])
    false = sum(healthy(rng, Alarms(ALPHA), 4) is not None for _ in range(alarms))
    yield f"Alarms: {alarms:,} healthy lineages of 4 rounds, 3 probes: any alarm in {interval(false, alarms)}; the budget is {ALPHA:.0%}"
    yield "| shift of all 3 probes, null deviations | seen by generation 1 | by generation 2 | by generation 4 | one test, normal theory |"
    yield "|---|---|---|---|---|"
    for shift in (1, 2, 3, 4):
        when = [healthy(rng, Alarms(ALPHA), 4, shift) for _ in range(300)]
        by = [sum(item is not None and item <= last for item in when) / len(when) for last in (1, 2, 4)]
        theory = norm.cdf(shift - norm.isf(ALPHA / 4 / 3))
        yield f"| {shift} | {' | '.join(f'{share:.0%}' for share in by)} | {theory:.0%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lineages", type=int, default=2000)
    parser.add_argument("--alarms", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.process_time()
    for line in report(asked.lineages, asked.alarms, asked.seed):
        print(line, flush=True)
    print(f"\n{time.process_time() - began:.0f} CPU seconds")


if __name__ == "__main__":
    main()
