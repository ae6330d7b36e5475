"""How often the model's answers pass a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.evaluate.undecided import refuse_undecided, why_undecided
from outcross.stages import Context, Generator, Role, Stage, Verifier, calls_of
from outcross.types import Ground, Measurement, Task


@dataclass(frozen=True)
class PassRate(Stage):
    """The share of an item's samples that pass, per item: the front half of the loop on held-out tasks.

    Only passes and fails count. An item whose samples all ended in an error or an abstention is left out, not counted as
    zero; the gate counts it as lost when the candidate alone has no verdict there. More than 5 % of such items raise
    `StageError`. `label` tells several pass rates of one bench apart. `margin` is a share: 0.02 is two points.
    """

    tasks: Iterable[Task]
    generator: Generator
    verifier: Verifier
    margin: float = 0.02
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"

    @property
    def name(self) -> str:
        return f"pass_rate_{self.label}" if self.label else "pass_rate"

    @property
    def ground(self) -> Ground:
        return self.verifier.ground

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, *self.verifier.roles)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return Counter(self.generator.calls(tasks)) + Counter(calls_of(self.verifier, tasks, getattr(self.generator, "n", 1)))

    def __call__(self, ctx: Context, /) -> Measurement:
        values: dict[str, float] = {}
        undecided: list[tuple[str, str]] = []
        for group in self.verifier(ctx, self.generator(ctx, self.tasks)):
            verdicts = Counter(sample.verdict for sample in group.samples)
            decided = verdicts["pass"] + verdicts["fail"]
            if decided:
                values[group.task.id] = verdicts["pass"] / decided
            else:
                undecided.append((group.task.id, why_undecided(group)))
        refuse_undecided(self.name, undecided, len(values) + len(undecided))
        return Measurement(self.name, tuple(values), tuple(values.values()), unit="share")
