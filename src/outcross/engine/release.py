"""Releases: what the rows of a data-only round measure, beside real data and what was released before. `loop` decides on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from outcross.engine import canaries
from outcross.engine.conserve import blamed
from outcross.engine.steps import Part
from outcross.engine.store import RoundRows, read_measurements
from outcross.engine.tables import MEASUREMENTS, Writer, encode_measurements
from outcross.errors import StageError
from outcross.recipe import Release
from outcross.stages import Context, Rows, RowsProbe, parts_of
from outcross.types import Comparison, Completion, Example, Group, Measurement, Sample, Task, Turn

Json = dict[str, Any]
REAL, RELEASE, ROUND = "real", "release", ""


@dataclass(frozen=True)
class ExampleRows:
    """Examples as a set of rows: real data, or rows of an earlier run."""

    examples: Iterable[Example]

    def __iter__(self) -> Iterator[Group]:
        for example in self.examples:
            task = Task(example.id, example.prompt, None, example.subgroup, example.origin)
            turns = (Turn(example.prompt, Completion(example.completion)),)
            yield Group(task, (Sample(example.id, turns, example.origin),))

    def made(self) -> Iterator[Group]:
        return iter(self)


@dataclass(frozen=True)
class Together:
    """Several sets of rows as one."""

    parts: Sequence[Rows]

    def __iter__(self) -> Iterator[Group]:
        return chain.from_iterable(self.parts)

    def made(self) -> Iterator[Group]:
        return chain.from_iterable(part.made() for part in self.parts)


@dataclass(frozen=True)
class Measured:
    """What the probes found of this round's rows, of earlier releases and of real data; empty where there is none."""

    round: Mapping[str, Measurement]
    release: Mapping[str, Measurement]
    real: Mapping[str, Measurement]
    rows: int
    tasks: int
    exact: frozenset[str] = frozenset()  # probes whose values speak of these very rows and have no interval

    def comparison(self, number: int, planned: int, alpha_left: float) -> Comparison:
        return Comparison(self.round, self.release, self.real, number, planned, alpha_left)

    def shown(self) -> Json:
        """The round's part of its record: by probe the three values, and a 95 % interval of the round's."""
        found = {}
        for name, measurement in self.round.items():
            low, high = (None, None) if name in self.exact else interval(measurement)
            found[name] = {
                "round": measurement.mean,
                "release": self.release[name].mean if name in self.release else None,
                "real": self.real[name].mean if name in self.real else None,
                "low": low,
                "high": high,
                "items": len(measurement.items),
                "unit": measurement.unit,
            }
        return {"rows": self.rows, "tasks": self.tasks, "probes": found}


def unmeasured(rows: RoundRows) -> Measured:
    """Rows that are not to be released whatever they are like."""
    sizes = [len(group.samples) for group in rows]
    return Measured({}, {}, {}, sum(sizes), len(sizes))


def measure(part: Part, ctx: Context, release: Release, rows: RoundRows) -> Measured:
    """All probes on the round's rows, on what was released before and on real data, written to the round's folder."""
    tasks, count = 0, 0
    for group in rows:
        tasks, count = tasks + 1, count + len(group.samples)
    earlier = Together([ExampleRows(release.against), *(turn.rows(part.buried) for turn in part.history)])
    real = ExampleRows(part.bench.real if part.bench.real is not None else ())
    sets: list[tuple[str, Rows]] = [(ROUND, rows), (RELEASE, earlier), (REAL, real)]
    found = [_measure(part, ctx, release.probes if count else (), each, who) for who, each in sets]
    exact = frozenset(probe.name for probe in release.probes if probe.bounds.exact)
    return Measured(found[0], found[1], found[2], count, tasks, exact)


def _measure(part: Part, ctx: Context, probes: Sequence[RowsProbe], rows: Rows, who: str) -> dict[str, Measurement]:
    path: Path = part.folder / f"measurements{'.' + who if who else ''}.parquet"
    if path.exists():
        return read_measurements(path)
    found = []
    canaries.before_batch(ctx, [item for probe in probes for item in parts_of(probe)], "probe", path)
    for number, probe in enumerate(probes):
        if who and (probe.bounds.margin is None or who not in probe.bounds.against):
            continue
        part.watch.stage(part.label, f"probe {probe.name}{' of ' + who if who else ''}", number, len(probes), {})
        with blamed(f"probe {probe.name}"):
            measurement = probe(ctx, rows)
        if measurement is None:
            continue
        if measurement.probe != probe.name:
            raise StageError(f"probe {probe.name} gave a measurement called {measurement.probe!r}; call it by the probe's name")
        found.append(measurement)
    with Writer(path, MEASUREMENTS, encode_measurements) as table:
        for measurement in found:
            table.add((who or "round", measurement))
    return {measurement.probe: measurement for measurement in found}


def interval(measurement: Measurement) -> tuple[float | None, float | None]:
    """A 95 % interval of a measurement's value; none with fewer than two values to judge by."""
    values = np.asarray(measurement.values, float)
    values = values[np.isfinite(values)]
    if measurement.replicates:
        low, high = np.quantile(np.asarray(measurement.replicates, float), [0.025, 0.975])
        return float(low), float(high)
    if len(values) < 2:
        return None, None
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


def compared(name: str, comparison: Comparison) -> dict[str, Any]:
    """A probe's line in the record: means, and a 95 % interval of the candidate's."""
    candidate = comparison.candidate[name]
    low, high = interval(candidate)
    return {
        "candidate": candidate.mean,
        "champion": comparison.champion[name].mean,
        "first": comparison.first[name].mean,
        "low": low,
        "high": high,
        "items": len(candidate.items),
        "unit": candidate.unit,
        "higher_is_better": candidate.higher_is_better,
    }
