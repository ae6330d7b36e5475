"""How long answers are, and whether they end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.evaluate.rows.chosen import per_task
from outcross.stages import Bounds, Context, Rows, Stage
from outcross.types import Ground, Measurement, Sample


@dataclass(frozen=True)
class AnswerLength(Stage):
    """The binary logarithm of an answer's length in characters, per task: one more is twice as long. Neither longer nor shorter is better, so the
    mean may be `margin` doublings off on either side. Answers that are no text have no length."""

    margin: float = 1.0
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "fit"
    ground: ClassVar[Ground] = "exact"

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.margin, either_way=True)

    def __call__(self, ctx: Context, rows: Rows, /) -> Measurement | None:
        found = dict(per_task(rows, _doublings))
        return Measurement(self.name, tuple(found), tuple(found.values()), unit="doublings") if found else None


def _doublings(sample: Sample) -> float | None:
    return math.log2(1 + len(sample.text)) if isinstance(sample.content, str) else None


@dataclass(frozen=True)
class Finished(Stage):
    """The share of a task's rows whose answer ended by itself and was not cut off at the token limit. It is a statement about these very rows, so
    that the gate asks for no bound."""

    limit: float = 0.99
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"
    ground: ClassVar[Ground] = "exact"

    @property
    def bounds(self) -> Bounds:
        return Bounds(limit=self.limit, exact=True)

    def __call__(self, ctx: Context, rows: Rows, /) -> Measurement | None:
        found = dict(per_task(rows, _finished))
        return Measurement(self.name, tuple(found), tuple(found.values()), unit="share") if found else None


def _finished(sample: Sample) -> float:
    return float(all(turn.completion.finished for turn in sample.turns))
