"""Whether answers lie among the real ones, and the real ones among the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outcross.errors import ConfigError
from outcross.evaluate import neighbours
from outcross.evaluate.vectors import about_the_value, answered, embedding_model, four_fifths, real_contents, vectors
from outcross.stages import Context, Generator, Role, Stage
from outcross.types import Example, Ground, Measurement, Task

if TYPE_CHECKING:
    from outcross.evaluate.neighbours import Flags, Floats

Statistic = Literal["coverage", "recall", "density", "precision"]


@dataclass(frozen=True)
class Coverage(Stage):
    """How much more of the real answers' space the model's answers reach than other real answers would; negative is less.

    coverage: the share of real points with an answer among their `k` nearest neighbours; recall: the share of real points near answers as answers
        are near each other: both fall when modes are lost. density: in how many neighbourhoods of real points an answer lies, over `k`;
        precision: the share of answers in at least one: both fall when answers are noise. From each the value that real data would
        have is taken off: of coverage its expectation (Naeem et al., arXiv:2002.09797), of the others (density is theirs, precision and recall
        are of Kynkäänniemi et al., arXiv:1904.06991) that of the real points, each left out in turn. An outlier among real points makes
        precision large, and one among answers recall: coverage and density are the sounder two.
    reference: real examples, at least as many as tasks, of which the first are compared; None: the tasks' own answers.
    embedder: the role of the model that turns contents into vectors; distances are Euclidean. `k`: neighbours; 5 is the paper's.

    One answer an item counts. A value above 0 is no merit: an answer that copies a real one covers it. So the gate (unit "… over real")
    asks that the candidate is not below the lower of 0 and the other model by more than the margin. Replicates are four fifths of the items
    and of the real points, about the value, with neighbourhoods as they are among all; their error is on the safe side: up to twice
    too large where nearly all is covered. Values are not per item, because neighbouring real points are
    covered by the same answers and so no independent trials.
    Memory: the vectors and 2 M distances at a time; time grows with the square of the items (10,000 of width 384: under a minute of one core).
    """

    tasks: Iterable[Task]
    generator: Generator
    statistic: Statistic = "coverage"
    reference: Iterable[Example] | None = None
    embedder: Role = "embedder"
    k: int = 5
    margin: float = 0.1
    replicates: int = 300
    label: str = ""
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, (self.statistic, self.label)))

    @property
    def kind(self) -> Literal["quality", "diversity", "fit"]:
        return "diversity" if self.statistic in ("coverage", "recall") else "fit"

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, self.embedder)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def __call__(self, ctx: Context, /) -> Measurement:
        model, tasks = embedding_model(self.name, ctx, self.embedder), list(self.tasks)
        contents = real_contents(self.name, tasks, self.reference)
        if not 1 <= self.k < 0.9 * len(tasks):  # a twentieth of the answers may be missing
            raise ConfigError(
                f"{self.name} looks at {self.k} neighbours of {len(tasks):,} points; give more tasks, or a smaller `k` of at least 1"
            )
        found = answered(self.name, ctx, self.generator, tasks)
        real, fake = vectors(model, contents), vectors(model, found.given)
        on_real = four_fifths([f"real {index}" for index in range(len(real))], self.replicates)
        on_fake = four_fifths(found.items, self.replicates)[:, found.has]
        values = self._measure(real, fake, on_real, on_fake) - self._expected(real, len(fake))
        return Measurement(
            self.name,
            found.items,
            (float(values[0]),),
            about_the_value(values, stretch=2.0),
            unit=f"{'density' if self.statistic == 'density' else 'share'} over real",
        )

    def _measure(self, real: Floats, fake: Floats, on_real: Flags, on_fake: Flags) -> Floats:
        measure = {
            "coverage": neighbours.coverage,
            "recall": neighbours.recall,
            "density": neighbours.density,
            "precision": neighbours.precision,
        }[self.statistic]
        return measure(real, fake, self.k, on_real, on_fake)

    def _expected(self, real: Floats, fakes: int) -> float:
        if self.statistic == "coverage":
            return neighbours.expected_coverage(len(real), fakes, self.k)
        if self.statistic == "density":
            return neighbours.expected_density(real, self.k)
        return neighbours.expected_precision(real, self.k)
