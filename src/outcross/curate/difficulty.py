"""Setting aside tasks that are too easy or too hard to learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from outcross.curate.quality import check_band, outside
from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Drop, Group, Verdict


@dataclass(frozen=True)
class SolveRate(Stage):
    """Keeps tasks of which `low` to `high` of the samples passed: what always passes or always fails teaches nothing where a sample is
    compared with its group. DAPO drops the tasks with a rate of 0 and 1 (arXiv:2503.14476, §3.2); the band of 0.2 to 0.8 is ours.

    verifier: whose verdicts count; empty: all verifiers' together (`Sample.verdict`).
    judged: how many samples must have passed or failed for a rate; errors and abstentions are neither.

    Groups stay or go whole, failed requests too, so that group baselines hold.
    """

    low: float = 0.2
    high: float = 0.8
    verifier: str = ""
    judged: int = 2
    trims: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_band(self.name, self.low, self.high, 0.0, 1.0)
        if self.judged < 1:
            raise ConfigError(f"{self.name}: judged is {self.judged}; a rate needs 1 sample or more")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        for group in groups:
            reason = self._why_not(group)
            yield group if reason is None else Drop(group, self.name, reason)

    def _why_not(self, group: Group) -> str | None:
        answered = [sample for sample in group.samples if not sample.error]
        if not answered:
            return None
        if self.verifier:
            found: list[Verdict | None] = [
                score.verdict for sample in answered for score in sample.scores if score.verifier == self.verifier
            ]
        else:
            found = [sample.verdict for sample in answered]
        passed, judged = found.count("pass"), found.count("pass") + found.count("fail")
        if judged < self.judged:
            return f"solve rate unknown: {judged} of {len(answered)} samples passed or failed, fewer than {self.judged}"
        return outside("solve rate", passed / judged, self.low, self.high, f" ({passed} of {judged})")
