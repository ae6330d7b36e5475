"""Whether answers grow longer or shorter than real ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outcross.evaluate.answered import answered
from outcross.evaluate.statistics import half_samples
from outcross.stages import Context, Generator, Role, Stage
from outcross.text import words
from outcross.types import Example, Ground, Measurement, Task

if TYPE_CHECKING:
    from outcross.evaluate.statistics import Answers, Floats, Subsets


@dataclass(frozen=True)
class LengthDrift(Stage):
    """How much longer, or shorter, answers are than real ones: the difference of the mean binary logarithms of their lengths, sign turned,
    so that 0 is as real and −1 twice as long (or half as long).

    drift: which of the two counts as a loss; use a probe of either to guard both sides. An absolute difference would have no usable
        standard error where there is none. counted: what length is measured in.
    reference: real answers, at least as many as tasks; None: the tasks' own.

    Judges and reward models like length, and most of the gain of feedback can be length (Singhal et al., arXiv:2310.03716); collapsed
    models break off or run on.
    """

    tasks: Iterable[Task]
    generator: Generator
    drift: Literal["longer", "shorter"] = "longer"
    counted: Literal["characters", "words"] = "characters"
    reference: Iterable[Example] | None = None
    margin: float = 0.5
    replicates: int = 300
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "fit"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("length", self.drift, self.label)))

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return self.generator.roles

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        found = answered(ctx, self.name, self.generator, self.tasks)
        subsets = half_samples(found.items, self.replicates)
        over = self._doublings(found.texts(), subsets) - self._doublings(found.real(self.reference), subsets)
        return found.measurement(-over if self.drift == "longer" else over, "doublings over real")

    def _doublings(self, answers: Answers, subsets: Subsets) -> Floats:
        """The mean over the items of each subset that have an answer."""
        import numpy as np

        lengths = np.array([self._length(texts) for texts in answers])
        given = ~np.isnan(lengths)
        found: Floats = (subsets[:, given] @ lengths[given]) / np.maximum(subsets[:, given].sum(axis=1), 1)
        return found

    def _length(self, texts: Sequence[str]) -> float:
        """The mean binary logarithm of one more than an answer's length; NaN without answers."""
        sizes = [len(text) if self.counted == "characters" else len(words(text)) for text in texts]
        return math.fsum(math.log2(1 + size) for size in sizes) / len(sizes) if sizes else math.nan
