"""The gate that tests and records, and refuses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outcross.gate.non_inferior import NonInferior
from outcross.stages import Stage
from outcross.types import Comparison, Decision


@dataclass(frozen=True)
class Observe(Stage):
    """Promotes every candidate and records what `test` would have decided: for benches that are too small for the gate,
    and for runs whose point is to watch a method fail. Reports call such a run *ungated*.

    The test splits its own alpha over the planned rounds; nothing is promised, so nothing is spent.
    """

    test: NonInferior = NonInferior()

    @property
    def alpha(self) -> float:
        return 0.0

    def __call__(self, comparison: Comparison, margins: Mapping[str, float], /) -> Decision:
        left = self.test.alpha * max(1, comparison.rounds - comparison.round) / max(1, comparison.rounds)
        would = self.test(_with_alpha(comparison, left), margins)
        return Decision(True, f"ungated; the gate would have {would.reason}", self.name, would.checks, gated=False)


def _with_alpha(comparison: Comparison, left: float) -> Comparison:
    return Comparison(comparison.candidate, comparison.champion, comparison.first, comparison.round, comparison.rounds, left)
