"""How well the model still predicts text written by people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.evaluate.scored import losses, mean, scorer
from outcross.evaluate.undecided import refuse_undecided
from outcross.stages import Context, Role, Stage
from outcross.types import Completion, Example, Ground, Measurement, Turn


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
        model = scorer(ctx, self.name, "policy")
        rows = ((example.id, Turn(example.prompt, Completion(example.completion))) for example in self.real)
        found = [(item, mean(tokens)) for item, tokens in losses(self.name, model, rows, "real examples")]
        refuse_undecided(self.name, (), len(found))
        items, values = zip(*found, strict=True)
        return Measurement(self.name, items, values, higher_is_better=False, unit="nats per token")
