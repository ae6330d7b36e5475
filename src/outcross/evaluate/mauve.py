"""How close the law of the answers is to that of the real ones, by how both fill the same cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outcross.errors import ConfigError
from outcross.evaluate.statistics import half_samples
from outcross.evaluate.vectors import about_the_value, answered, embedding_model, real_contents, vectors
from outcross.stages import Context, Generator, Role, Stage
from outcross.types import Example, Ground, Measurement, Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Flags = npt.NDArray[np.bool_]

SCALE = 5.0  # c of the paper
WEIGHTS = 25  # mixtures on the curve
EXPLAINED = 0.9  # of the variance, by the principal components kept
RESTARTS, STEPS = 5, 100


@dataclass(frozen=True)
class Mauve(Stage):
    """MAUVE (Pillutla et al., arXiv:2102.01454) of the model's answers and real ones: 1 when both fill the same cells alike, near 0 when
    they share none.

    Vectors are scaled to length 1 and reduced to nine tenths of their variance, both sets together are cut into cells by k-means, and the score is the
    area under the curve of exp(−5·KL) of both histograms from their mixtures, as in the authors' package.

    reference: real examples, at least as many as tasks, of which the first are compared; None: the tasks' own answers.
    embedder: the role of the model that turns contents into vectors. buckets: cells; None: a tenth of the items.

    The score depends on the number of items, cells and the embedder: compare values of one bench alone, and give it a thousand items or more.
    With few, even real data is well below 1. One answer an item counts. Replicates are half samples of answers and of real examples over the
    same cells, about the value. Time: items × cells × width per step of k-means, at most 5 × 100; memory: vectors, and items × cells.
    """

    tasks: Iterable[Task]
    generator: Generator
    reference: Iterable[Example] | None = None
    embedder: Role = "embedder"
    buckets: int | None = None
    margin: float = 0.1
    replicates: int = 300
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("mauve", self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, self.embedder)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        model, tasks = embedding_model(self.name, ctx, self.embedder), list(self.tasks)
        buckets = self.buckets or max(2, round(len(tasks) / 10))
        if not 2 <= buckets <= len(tasks):
            raise ConfigError(f"{self.name} cuts {len(tasks):,} items into {buckets:,} cells; give 2 to {len(tasks):,} `buckets`")
        contents = real_contents(self.name, tasks, self.reference)
        found = answered(self.name, ctx, self.generator, tasks)
        real, fake = vectors(model, contents), vectors(model, found.given)
        cells = quantised(real, fake, buckets)
        on_real = half_samples([f"real {index}" for index in range(len(real))], self.replicates)
        on_fake = half_samples(found.items, self.replicates)[:, found.has]
        values = area(histograms(cells[: len(real)], on_real, buckets), histograms(cells[len(real) :], on_fake, buckets))
        return Measurement(self.name, found.items, (float(values[0]),), about_the_value(values), unit="mauve")


def area(p: Floats, q: Floats) -> Floats:
    """MAUVE of pairs of histograms, rows of (pairs, cells) that sum to 1 (Pillutla et al., equations 1 and 2): the area under
    (exp(−c·KL(q|r)), exp(−c·KL(p|r))) for mixtures r of both, averaged over both directions as in the authors' package."""
    import numpy as np
    from scipy.integrate import trapezoid

    weights = np.linspace(1e-6, 1 - 1e-6, WEIGHTS)
    ends = np.zeros((len(p), 1)), np.ones((len(p), 1))
    # From r = q, where KL(q|r) is 0, to r = p: the first coordinate falls from 1 to 0 and the second rises.
    far = np.stack([np.exp(-SCALE * _divergence(q, w * p + (1 - w) * q)) for w in weights], axis=1)
    near = np.stack([np.exp(-SCALE * _divergence(p, w * p + (1 - w) * q)) for w in weights], axis=1)
    x, y = np.hstack([ends[1], far, ends[0]]), np.hstack([ends[0], near, ends[1]])
    under: Floats = (trapezoid(x, y, axis=1) - trapezoid(y, x, axis=1)) / 2
    return under


def histograms(cells: Integers, subsets: Flags, buckets: int) -> Floats:
    """The share of each subset's points in each cell, (subsets, buckets)."""
    import numpy as np

    inside = np.zeros((len(cells), buckets))
    inside[np.arange(len(cells)), cells] = 1.0
    counts = subsets.astype(np.float64) @ inside
    found: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return found


def quantised(real: Floats, fake: Floats, buckets: int) -> Integers:
    """The cell of each point, first of the real ones: k-means of both together, the best of five starts, which are always the same."""
    import warnings

    import numpy as np
    from scipy.cluster.vq import kmeans2

    points = _reduced(np.concatenate([real, fake])).astype(np.float32)
    best: Integers = np.zeros(len(points), dtype=np.int64)
    least = np.inf
    for start in range(RESTARTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a cell may be empty: fewer different points than cells
            first = points[np.random.RandomState(start).permutation(len(points))[:buckets]]
            centres, cells = kmeans2(points, first, STEPS, minit="matrix")
        cost = float(((points - centres[cells]) ** 2).sum())
        if cost < least:
            best, least = cells.astype(np.int64), cost
    return best


def _reduced(points: Floats) -> Floats:
    """Points of length 1 by their first principal components."""
    import numpy as np

    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    centred = unit - unit.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    kept = np.cumsum(values[::-1]) / max(float(values.sum()), 1e-300)
    found: Floats = centred @ directions[:, ::-1][:, : int(np.argmax(kept >= EXPLAINED)) + 1]
    return found


def _divergence(p: Floats, q: Floats) -> Floats:
    """KL(p|q) of each pair of rows; every cell of p is in q."""
    from scipy.special import rel_entr

    found: Floats = rel_entr(p, q).sum(axis=1)
    return found
