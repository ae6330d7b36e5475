"""The gate of rows that tests and records, and refuses nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from outcross.gate.rows.no_worse import NoWorse
from outcross.stages import Bounds, Stage
from outcross.types import Comparison, Decision


@dataclass(frozen=True)
class Observe(Stage):
    """Releases every round and records what `test` would have decided: for sets that are too small for the gate. Reports and cards call
    such a release *ungated*."""

    test: NoWorse = NoWorse()

    @property
    def alpha(self) -> float:
        return 0.0

    def __call__(self, comparison: Comparison, bounds: Mapping[str, Bounds], /) -> Decision:
        left = self.test.alpha * max(1, comparison.rounds - comparison.round) / max(1, comparison.rounds)
        would = self.test(msgspec.structs.replace(comparison, alpha_left=left), bounds)
        return Decision(True, f"ungated; the gate would have {would.reason}", self.name, would.checks, gated=False)
