"""Lineages of trained models: each is a recipe run through the loop like any other, and read from its record like any other.

A kind of model joins by a class with the fields of `Lineage` and a `plan`; claims read what the probes measured, generation by generation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from outcross.engine import loop
from outcross.engine.alarms import alarms_of
from outcross.engine.store import RunDir, read_measurements
from outcross.engine.watch import Watch
from outcross.errors import GuardError, StoreError
from outcross.recipe import Recipe
from outcross.stages import Model, Role
from outcross.types import ACTIONS, Measurement

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """Where lineages of one seed are run: the folder of the data, the folder for the lineages, and the seed."""

    data: Path
    folder: Path
    seed: int


class Lineage(Protocol):
    """A first model and its descendants.

    name: of its folder and in tables. about: what each generation learns from. files: what it needs of the data folder, by path.
    seconds: about what one takes on one core.
    """

    @property
    def name(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def files(self) -> tuple[str, ...]: ...
    @property
    def seconds(self) -> float: ...
    def plan(self, place: Place, /) -> tuple[Recipe, Mapping[Role, Model]]:
        """What to run, and the first models. May train and keep those under `place.folder`."""


@dataclass(frozen=True)
class Course:
    """What one probe found of the first model and, after each generation, of the model that holds: where nothing is refused, its own."""

    measured: tuple[Measurement, ...]

    @property
    def means(self) -> Floats:
        """One number a generation."""
        return np.array([found.mean for found in self.measured])

    def values(self, generation: int) -> Floats:
        """By item, of the first model at 0."""
        return np.array(self.measured[generation].values)

    def error(self, generation: int, before: int = 0) -> float:
        """The standard error of the change from one generation to another, over the items that both have or over replicates."""
        one, other = self.measured[generation], self.measured[before]
        if one.replicates is not None and other.replicates is not None:
            return float(np.std(np.subtract(one.replicates, other.replicates), ddof=1))
        gaps = np.subtract(one.values, other.values)
        return float(gaps.std(ddof=1) / np.sqrt(len(gaps)))


Lived = Mapping[str, Course]
"""A lineage's courses by probe name."""


def missing(lineage: Lineage, data: Path) -> list[str]:
    """Files that the lineage needs and the data folder lacks."""
    return [name for name in lineage.files if not (data / name).is_file()]


def live(lineage: Lineage, place: Place, watch: Watch) -> Lived:
    """Run the lineage, or go on with it where it stopped, and read what its probes found."""
    root = place.folder / lineage.name
    if not finished(root):
        if not stopped(root):
            _run(lineage, place, root, watch)
        (root / DONE).write_text(version("outcross"))
    return courses(root)


def _run(lineage: Lineage, place: Place, root: Path, watch: Watch) -> None:
    recipe, models = lineage.plan(place)
    with contextlib.ExitStack() as closing:
        for model in models.values():
            closing.callback(model.close)
        try:
            loop.run(recipe, models, root, seed=place.seed, options=loop.Options(unsafe=True, keep_models="champion"), watch=watch)
        except GuardError:
            if not stopped(root):
                raise


DONE = "finished"  # beside the record; holds the version of Outcross


def finished(root: Path) -> bool:
    """Whether this version finished the lineage; of another, the engine decides whether it is the same run."""
    return (root / DONE).exists() and (root / DONE).read_text() == version("outcross")


def stopped(root: Path) -> bool:
    """Whether an alarm of the last round ended the lineage, as its recipe wants it to."""
    run = RunDir(root)
    turns = run.rounds() if run.exists else []
    return bool(turns) and any(ACTIONS.index(alarm.action) >= ACTIONS.index("stop") for alarm in alarms_of(turns[-1]))


def courses(root: Path) -> Lived:
    """The courses of a finished lineage, from its record: shorter where an alarm ended it. Raises `StoreError` when a generation lacks a probe."""
    run = RunDir(root)
    start = read_measurements(run.start / "measurements.parquet")
    held, own = [start], {"start": start}
    for number, turn in enumerate(run.rounds(), 1):
        own[turn.label] = turn.measurements() or held[-1]  # nothing is measured where nothing was learnt
        if own[turn.label].keys() != start.keys():
            raise StoreError(f"{root}: generation {number} has other probes than the first model; remove the folder to run it anew")
        last = own[turn.label] if turn.record["outcome"] == "promoted" else held[-1]
        held.append(own[turn.record["rolled_back"]["to"]] if "rolled_back" in turn.record else last)
    return {name: Course(tuple(found[name] for found in held)) for name in start}
