"""How well the model still predicts text written by people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.errors import ConfigError, StageError
from outcross.evaluate.undecided import refuse_undecided
from outcross.stages import Context, LogProbs, Role, Stage
from outcross.types import Completion, Example, Ground, Measurement, Turn

CEILING = 100.0  # nats: what a token of probability zero counts, so that one of them does not make every mean infinite


@dataclass(frozen=True)
class RealLoss(Stage):
    """The mean negative log-likelihood of each real completion under the policy, in nats per token; lower is better.

    A token costs at most 100 nats. Raises `ConfigError` when the policy gives no log-probabilities, `StageError` when it
    gives none for an example or one that is not a number.
    """

    real: Iterable[Example]
    margin: float = 0.05
    label: str = ""
    roles: ClassVar[tuple[Role, ...]] = ("policy",)
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "fit"
    ground: ClassVar[Ground] = "exact"

    @property
    def name(self) -> str:
        return f"real_loss_{self.label}" if self.label else "real_loss"

    def __call__(self, ctx: Context, /) -> Measurement:
        model = ctx.model("policy")
        if not isinstance(model, LogProbs):
            raise ConfigError(f"{self.name} needs log-probabilities, which the policy {model.id!r} does not give; take a local model")
        items: list[str] = []

        def turns() -> Iterator[Turn]:
            for example in self.real:
                items.append(example.id)
                yield Turn(example.prompt, Completion(example.completion))

        values = [self._loss(log_probs) for log_probs in model.log_probs(turns())]
        if len(values) != len(items):
            raise StageError(f"{self.name}: the policy scored {len(values):,} of {len(items):,} real examples; each needs one answer")
        wrong = [item for item, value in zip(items, values) if not math.isfinite(value)]
        if wrong:
            raise StageError(
                f"{self.name}: the policy gave no token, or a log-probability that is no number at most 0, for {len(wrong):,} "
                f"of {len(items):,} real examples, first {wrong[0]!r}; correct its `log_probs`"
            )
        refuse_undecided(self.name, (), len(items))
        return Measurement(self.name, tuple(items), tuple(values), higher_is_better=False, unit="nats per token")

    @staticmethod
    def _loss(log_probs: Iterable[float]) -> float:
        losses = [min(-float(log_prob), CEILING) for log_prob in log_probs]
        return sum(losses) / len(losses) if losses else float("nan")
