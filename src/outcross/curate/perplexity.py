"""Setting aside by how surprised a reference model is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from outcross.curate.quality import check_band, outside, sifted_together
from outcross.errors import ConfigError
from outcross.stages import Context, LogProbs, Role, Stage
from outcross.types import Drop, Group, Sample


@dataclass(frozen=True)
class PerplexityBetween(Stage):
    """Keeps samples whose perplexity under the model of role `reference` lies in a band: exp(−mean log-probability of the answers' tokens
    given their prompts), over all turns.

    low: a bound from below sets aside what the reference finds too likely: stock phrases and loops, which grow as models feed on their
        own output (Shumailov et al. 2023, arXiv:2305.17493). high: from above, what it finds unlike language.

    A bound is in the reference's own terms: measure it on real rows first, for instance the 1st and 99th percentile. A band that cuts deep
    into real rows takes away the rare ones. Samples without a token stay.
    """

    low: float | None = None
    high: float | None = None
    trims: ClassVar[bool] = True
    roles: ClassVar[tuple[Role, ...]] = ("reference",)

    def __post_init__(self) -> None:
        check_band(self.name, self.low, self.high, least=1.0)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        model = ctx.model("reference")
        if not isinstance(model, LogProbs):
            raise ConfigError(
                f"{self.name}: the model of role 'reference' gives no log-probabilities; use one that does, such as "
                "`{use: torch_lm, path: FOLDER}` or an endpoint that echoes prompts"
            )
        scorer: LogProbs = model
        yield from sifted_together(groups, self.name, lambda samples: self._why_not(scorer, samples))

    def _why_not(self, model: LogProbs, samples: Sequence[Sample]) -> Iterator[str | None]:
        found = iter(model.log_probs(turn for sample in samples for turn in sample.turns))
        for sample in samples:
            tokens = [value for _ in sample.turns for value in next(found)]
            yield self._outside(tokens) if tokens else None

    def _outside(self, tokens: Sequence[float]) -> str | None:
        mean = sum(tokens) / len(tokens)
        if math.isnan(mean):
            return "perplexity unknown: the reference gave no number for a token"
        return outside("perplexity", math.exp(min(-mean, 700.0)), self.low, self.high, f" over {len(tokens)} tokens")
