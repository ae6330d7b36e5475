"""Setting aside by what the verifiers found, and what every curator that looks at samples one by one is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

from outcross.errors import ConfigError, MissingExtra
from outcross.stages import Context, Stage
from outcross.types import Drop, Group, Sample

WINDOW = 256  # samples that are held where a model or numpy looks at many at once


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


def sifted(groups: Iterable[Group], curator: str, why_not: Callable[[Sample], str | None]) -> Iterator[Group | Drop]:
    """`parted` for each group in turn: `why_not` gives the reason to drop a sample, or None."""
    for group in groups:
        yield from parted(group, curator, why_not)


def sifted_together(
    groups: Iterable[Group], curator: str, why_not: Callable[[Sequence[Sample]], Iterable[str | None]]
) -> Iterator[Group | Drop]:
    """As `sifted`, with a `why_not` that gives one reason or None for each of some hundred answered samples."""
    held: list[Group] = []
    waiting = 0
    for group in groups:
        held.append(group)
        waiting += len(group.samples)
        if waiting >= WINDOW:
            yield from _sifted(held, curator, why_not)
            held, waiting = [], 0
    yield from _sifted(held, curator, why_not)


def _sifted(groups: list[Group], curator: str, why_not: Callable[[Sequence[Sample]], Iterable[str | None]]) -> Iterator[Group | Drop]:
    reasons = iter(why_not([sample for group in groups for sample in group.samples if not sample.error]))
    for group in groups:
        yield from parted(group, curator, lambda sample: next(reasons))


def outside(what: str, value: float, low: float | None, high: float | None, unit: str = "") -> str | None:
    """Why a value is outside of a band that includes its ends, or None: *what* too low or too high, the value and the limit."""
    if low is not None and value < low:
        return f"{what} too low: {value:.6g}{unit}, below {low:.6g}"
    if high is not None and value > high:
        return f"{what} too high: {value:.6g}{unit}, above {high:.6g}"
    return None


def need(module: str, package: str, what: str) -> None:
    """Raises `MissingExtra` unless a package of the extra `curate` is installed: when a stage is built, and not when a round was paid for."""
    if find_spec(module) is None:
        raise MissingExtra(package, "curate", what)


def check_band(stage: str, low: float | None, high: float | None, least: float = 0.0, most: float | None = None) -> None:
    """Raises `ConfigError` for a band that keeps everything, nothing, or lies outside of what the value can be."""
    lowest, highest = least if low is None else low, (float("inf") if most is None else most) if high is None else high
    if low is None and high is None:
        raise ConfigError(f"{stage}: neither `low` nor `high` is given, so that everything would stay; give one, or leave the stage out")
    if not least <= lowest <= highest or (most is not None and highest > most):
        allowed = f"{least:g} ≤ low ≤ high" + ("" if most is None else f" ≤ {most:g}")
        raise ConfigError(f"{stage}: low={low}, high={high}; allowed are {allowed}")
