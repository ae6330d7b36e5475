"""What a fit told of its optimiser steps, drawn: the loss, and what the looks of an early stop found."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from outcross.engine.store import suffix
from outcross.report import numbers as n
from outcross.report.element import Child, Html, el
from outcross.report.figures import Mark, Series, line_chart
from outcross.report.parts import figure
from outcross.report.record import Fit

POINTS = 60  # of a curve: more steps are put together, and their median is drawn
NAMES = 5  # steps that are written under a curve
TITLES = {"loss": "loss by optimiser step", "early_stop": "what the early stop's probe found, higher is better"}
Told = list[tuple[int, float]]  # optimiser steps taken, and a number


def learning_part(folder: Path, role: str, fit: Fit) -> Iterator[Child]:
    """The curves of one fit, side by side; nothing where the model told nothing of its steps."""
    path = folder / f"losses{suffix(role)}.parquet"
    if not path.exists():
        return
    table = pq.read_table(path)
    told = {name: _told(table[name].to_pylist()) for name in TITLES if name in table.column_names}
    charts = [figure(TITLES[name], curve(TITLES[name], found, fit)) for name, found in told.items() if len(found) > 1]
    if charts:
        yield el("div", charts, class_="charts")


def _told(values: Sequence[float | None]) -> Told:
    return [(step, value) for step, value in enumerate(values, 1) if value is not None and math.isfinite(value)]


def binned(told: Told, most: int = POINTS) -> Told:
    """At most `most` points: the last step and the median of as many that follow each other."""
    each = math.ceil(len(told) / most)
    parts = [told[start : start + each] for start in range(0, len(told), each)]
    return [(part[-1][0], statistics.median(value for _, value in part)) for part in parts]


def curve(title: str, told: Told, fit: Fit) -> Html:
    """A number over the steps of a fit; of the looks of an early stop, the one whose weights were kept is marked."""
    last = told[-1][0]
    names = sorted({round(1 + (last - 1) * index / (NAMES - 1)) for index in range(NAMES)})

    def mark(step: int, value: float) -> Mark:
        return Mark(float(np.interp(step, names, range(len(names)))), value, note=f"step {n.count(step)}: {value:.4g}")

    shown = binned(told)
    kept = [(step, value) for step, value in told if step == fit.kept and title == TITLES["early_stop"]]
    series = [
        Series("", "s1", "line", tuple(mark(*each) for each in shown)),
        Series("kept", "s3", "solid", tuple(mark(*each) for each in kept)),
    ]
    bounds = (-math.inf, math.inf)
    return line_chart(title, series, [n.count(step) for step in names], "{:.3g}".format, width=480, height=200, bounds=bounds)
