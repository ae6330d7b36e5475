"""How far the law of the answers is from that of real ones, as two normal laws of their vectors."""

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

FEWEST = 8  # items: halves of them still have a covariance


@dataclass(frozen=True)
class FrechetDistance(Stage):
    """The squared Fréchet distance of the answers from as many real ones, both as normal laws of their vectors: FID (Heusel et al., arXiv:1706.08500),
    over whatever `embedder` is; lower is better and 0 is the same mean and covariance.

    embedder: the role of the model that turns contents into vectors: for images a classifier of their own domain, for text an encoder.
    reference: real examples, at least as many as tasks, of which the first are compared; None: the tasks' own answers.

    The estimate is biased upwards, by about 1 over the number of items (Chong & Forsyth, arXiv:1911.07023), and more the wider the vectors: real data
    against other real data is above 0. So only values of equal numbers and one embedder can be compared; there are as many real
    rows as items, which the measurement names.
    One answer an item counts. Replicates are half samples of the items and of the real rows, about the value; halves have about twice the bias, which
    is why only their spread is used.
    """

    tasks: Iterable[Task]
    generator: Generator
    reference: Iterable[Example] | None = None
    embedder: Role = "embedder"
    margin: float = 1.0
    replicates: int = 100
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "fit"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("frechet_distance", self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, self.embedder)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        import numpy as np

        model, tasks = embedding_model(self.name, ctx, self.embedder), list(self.tasks)
        if len(tasks) < FEWEST:
            raise ConfigError(
                f"{self.name} compares covariances and has {len(tasks)} items; give {FEWEST} or more, and more than vectors are wide"
            )
        contents = real_contents(self.name, tasks, self.reference)
        found = answered(self.name, ctx, self.generator, tasks)
        real, fake = vectors(model, contents), vectors(model, found.given)
        on_real = half_samples([f"real {index}" for index in range(len(real))], self.replicates)
        on_fake = half_samples(found.items, self.replicates)[:, found.has]
        values = np.array([frechet(real[a], fake[b]) for a, b in zip(on_real, on_fake, strict=True)])
        return Measurement(self.name, found.items, (float(values[0]),), about_the_value(values), False, "squared distance")


def frechet(first: Floats, second: Floats) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of two sets of points (points, width), with unbiased covariances (Dowson & Landau, Journal of
    Multivariate Analysis 12, 1982, 450–455).

    The trace of the root is the sum of the singular values of Σ₁^½Σ₂^½, here from any roots of both: R₁ᵀR₁ = Σ₁ gives ‖R₁R₂ᵀ‖ in that norm. No
    product of covariances is made, which would halve the digits.
    """
    import numpy as np

    roots = _root(first), _root(second)
    shift = float(((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum())
    own = sum(float((root**2).sum()) for root in roots)
    return shift + own - 2 * float(np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum())


def _root(points: Floats) -> Floats:
    """R (the fewer of points and width, width) with RᵀR the covariance of the points."""
    import numpy as np

    centred: Floats = (points - points.mean(axis=0)) / np.sqrt(len(points) - 1)
    if len(centred) <= centred.shape[1]:
        return centred
    found: Floats = np.asarray(np.linalg.qr(centred, mode="r"))
    return found
