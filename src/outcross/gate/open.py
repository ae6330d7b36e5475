"""No gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outcross.stages import Stage
from outcross.types import Comparison, Decision


@dataclass(frozen=True)
class Open(Stage):
    """Promotes every candidate untested. Reports call such a run *ungated*."""

    @property
    def alpha(self) -> float:
        return 0.0

    def __call__(self, comparison: Comparison, margins: Mapping[str, float], /) -> Decision:
        return Decision(True, "ungated: promoted without a test", self.name, gated=False)
