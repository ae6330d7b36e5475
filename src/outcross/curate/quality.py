"""Setting aside by what the verifiers found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Drop, Group, Sample


@dataclass(frozen=True)
class Passed(Stage):
    """Keeps samples that passed every verifier of `verifiers`, or every verifier when none is named. The reason of a drop is
    the verdict: fail, error, abstain or unverified. Failed requests stay."""

    verifiers: tuple[str, ...] = ()
    trims: ClassVar[bool] = True

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        for group in groups:
            yield from parted(group, self.name, self._why_not)

    def _why_not(self, sample: Sample) -> str | None:
        found = {score.verdict for score in sample.scores if not self.verifiers or score.verifier in self.verifiers}
        if self.verifiers and not {score.verifier for score in sample.scores} >= set(self.verifiers):
            found.discard("pass")
        for verdict in ("fail", "error", "abstain"):
            if verdict in found:
                return verdict
        return None if found else "unverified"


@dataclass(frozen=True)
class PerTask(Stage):
    """Keeps the first `cap` answered samples of a task (ReST-EM keeps ten, arXiv:2312.06585). Failed requests stay."""

    cap: int
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise ConfigError(f"per_task: cap is {self.cap}; keep at least 1 sample a task")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        for group in groups:
            kept = 0

            def why_not(sample: Sample) -> str | None:
                nonlocal kept
                kept += 1
                return None if kept <= self.cap else f"beyond {self.cap} per task"

            yield from parted(group, self.name, why_not)


def parted(group: Group, curator: str, why_not: Callable[[Sample], str | None]) -> Iterator[Group | Drop]:
    """What stays of a group, then one `Drop` per reason. Samples of failed requests stay and are not looked at."""
    kept: list[Sample] = []
    dropped: dict[str, list[Sample]] = {}
    for sample in group.samples:
        reason = None if sample.error else why_not(sample)
        if reason is None:
            kept.append(sample)
        else:
            dropped.setdefault(reason, []).append(sample)
    if not dropped:
        yield group
        return
    if kept:
        yield Group(group.task, tuple(kept))
    for reason, samples in dropped.items():
        yield Drop(Group(group.task, tuple(samples)), curator, reason)
