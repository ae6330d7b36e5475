"""How likely the policy's answers are to a model that does not change: the first one, or any other frozen one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outcross.errors import ConfigError, StageError
from outcross.evaluate.answered import Answered, answered
from outcross.evaluate.scored import losses, mean, scorer
from outcross.evaluate.statistics import half_samples
from outcross.stages import Context, Generator, LogProbs, Role, Stage
from outcross.types import Completion, Example, Ground, Measurement, Task, Turn

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Subsets = npt.NDArray[np.bool_]

REFERENCE = "reference"


@dataclass(frozen=True)
class _UnderReference(Stage):
    """What both probes share: answers by the generator, scored by the role `reference`."""

    tasks: Iterable[Task]
    generator: Generator

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, REFERENCE)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.generator.calls(tasks)

    def _scored(self, ctx: Context) -> tuple[Answered, LogProbs, dict[str, list[float]]]:
        """The answers, the model that scores, and by item each answer's loss in nats per token."""
        model = scorer(ctx, self.name, REFERENCE)
        found = answered(ctx, self.name, self.generator, self.tasks)
        values: dict[str, list[float]] = {item: [] for item in found.items}
        turns = (
            (item, sample.turns[-1]) for item, samples in zip(found.items, found.samples, strict=True) for sample in samples if sample.turns
        )
        for item, tokens in losses(self.name, model, turns, "answers"):
            values[item].append(mean(tokens))
        return found, model, values


@dataclass(frozen=True)
class SelfPerplexity(_UnderReference):
    """How surprising the policy's answers are to the model of role `reference`, per item, in nats per token (the logarithm of perplexity).

    It falls when a model turns to what was likely from the start, as models do that learn from their own samples (Shumailov et al., Nature
    631, 2024, figure 1c). Bind `reference` to the policy (`reference: policy`), which makes it the first model in all rounds, or to
    another model. A fall is a loss here; a rise, to text that the first model would never write, shows in `LikelihoodShift`. A policy that
    learns what is right may fall too: then raise `margin`.
    """

    margin: float = 0.2
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("self_perplexity", self.label)))

    def __call__(self, ctx: Context, /) -> Measurement:
        found = {item: mean(each) for item, each in self._scored(ctx)[2].items() if each}
        return Measurement(self.name, tuple(found), tuple(found.values()), unit="nats per token")


@dataclass(frozen=True)
class LikelihoodShift(_UnderReference):
    """How far the histogram of the answers' log-likelihoods under the role `reference` is from that of real text, as a chi-squared distance:
    Σ (p − q)² / q over the bins, where q are the shares of real text; lower is better and 0 is as real.

    bins: equal parts of the real rows by their likelihood, so that q is about 1/bins. Mass that moves to what is likely and a new tail of
        what is never written both raise it (Shumailov et al., Nature 631, 2024, figure 1c). All mass in one bin is bins − 1.
    real: rows of the kind that the tasks' answers should be. They are the frozen yardstick, so that their own sampling error is no part of the error.

    The estimate has no bias: the squared share is over pairs of different items, so that answers that are distributed as real ones have
    the mean 0, whatever their number, and the value may be below 0. Likelihood is per token, the mean over an answer's.
    """

    real: Iterable[Example]
    bins: int = 10
    margin: float = 0.2
    replicates: int = 300
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "fit"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("likelihood_shift", self.label)))

    def __call__(self, ctx: Context, /) -> Measurement:
        import numpy as np

        found, model, values = self._scored(ctx)
        real = self._real(model)
        edges = bin_edges(real, self.bins)
        if not len(edges):
            raise StageError(f"{self.name}: all {len(real):,} real rows have one likelihood under the reference; give rows that differ")
        shares = np.bincount(np.searchsorted(edges, real), minlength=len(edges) + 1) / len(real)
        rows = [
            np.bincount(np.searchsorted(edges, values[item]), minlength=len(shares)) / max(1, len(values[item])) for item in found.items
        ]
        measured = chi_squared(np.array(rows), shares, half_samples(found.items, self.replicates))
        return found.measurement(measured, "chi-squared over real", higher_is_better=False)

    def _real(self, model: LogProbs) -> Floats:
        import numpy as np

        rows = ((row.id, Turn(row.prompt, Completion(row.completion))) for row in self.real)
        found = np.array([mean(tokens) for _, tokens in losses(self.name, model, rows, "real rows")])
        if len(found) < self.bins:
            raise ConfigError(
                f"{self.name} cuts the real rows into {self.bins} bins and has {len(found):,} rows; give more rows, or fewer bins"
            )
        return found


def bin_edges(real: Floats, bins: int) -> Floats:
    """Where to cut values into `bins` parts that are equally common in `real`, in rising order; fewer where values are tied. A value on an edge
    belongs below it, and the last bin is not empty."""
    import numpy as np

    edges = np.unique(np.quantile(real, np.arange(1, bins) / bins, method="inverted_cdf"))
    found: Floats = edges[edges < real.max()]
    return found


def chi_squared(rows: Floats, shares: Floats, subsets: Subsets) -> Floats:
    """Σ (p − q)² / q for each subset (subsets, items), where p is the mean of its `rows` (items, bins), each a histogram or zero, and q are
    `shares` (bins,), without the bias of p's sampling error."""
    import numpy as np

    given = subsets[:, rows.any(axis=1)].astype(np.float64)
    rows = rows[rows.any(axis=1)]
    sums, sizes = given @ rows, given.sum(axis=1)
    own = given @ (rows**2 / shares).sum(axis=1)
    found: Floats = ((sums**2 / shares).sum(axis=1) - own) / np.maximum(sizes * (sizes - 1), 1) - 1
    return found
