"""Curation as reparation: what is kept has the group shares of real data.

Models fed on their own output lose small groups first. Choosing each batch so that the groups keep their shares counteracts it (Wyllie et al.,
FAccT 2024, arXiv:2403.07857, algorithmic reparation).
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.curate.quality import parted
from outcross.curate.spill import spilled, unspilled
from outcross.errors import ConfigError, DataError
from outcross.stages import Context, Stage
from outcross.types import Drop, Group, Sample


@dataclass(frozen=True)
class Quotas:
    """How many samples of each group stay, and how many each group lacks for its share of what stays."""

    keep: Mapping[str, int]
    short: Mapping[str, int]


@dataclass(frozen=True)
class KeepShares(Stage):
    """Keeps answered samples so that each group (the task's `subgroup`) has at most its share in the run's real rows: of what is surplus
    the samples with the lowest mean of the verifiers' values go, or random ones.

    by: "score" (without a value comes last; ties at random) or "random".
    at_least: the share of samples that stays in any case. Where groups are so scarce that exact shares would cost more, they
        stay short, and the reason of each drop says which and by how many: generate more for them.

    No group is ever wiped out: one sample of each that came in stays, and groups that real data do not have, and tasks without one, are left
    alone. Reads the round twice: it goes to disk under the stage's state. Memory: about 100 bytes per sample. Raises `DataError` when no real row
    has a group.
    """

    by: Literal["score", "random"] = "score"
    at_least: float = 0.5
    trims: ClassVar[bool] = True
    whole_round: ClassVar[bool] = True  # gives nothing before it has seen the last sample

    def __post_init__(self) -> None:
        if self.by not in ("score", "random"):
            raise ConfigError(f"{self.name}: by is {self.by!r}; allowed: score, random")
        if not 0 <= self.at_least <= 1:
            raise ConfigError(f"{self.name}: at_least is {self.at_least}; it is a share between 0 and 1")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        real = Counter(row.subgroup for row in ctx.past.real if row.subgroup is not None)
        if not real:
            raise DataError(
                f"{self.name}: no real row of the run names a group; give the real data a column of groups (`subgroup`), or leave it out"
            )
        shares = {name: count / real.total() for name, count in real.items()}
        work = ctx.past.state(self.name) / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            ranked = self._ranked(ctx, spilled(groups, work / "groups"), shares)
            quotas = quotas_of({name: len(found) for name, found in ranked.items()}, shares, self.at_least)
            surplus = {place for name, found in ranked.items() for _, _, place in found[quotas.keep[name] :]}
            yield from self._kept(
                unspilled(work / "groups"), surplus, {name: self._reason(name, ranked, quotas, shares) for name in ranked}
            )
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _ranked(self, ctx: Context, groups: Iterable[Group], shares: Mapping[str, float]) -> dict[str, list[tuple[float, float, int]]]:
        """By group, (minus the value, a random number, the place in the round) of each answered sample, the best first."""
        rng = ctx.rng(self.name)
        found: dict[str, list[tuple[float, float, int]]] = {}
        place = 0
        for group in groups:
            name = group.task.subgroup
            for sample in group.samples:
                if not sample.error and name in shares:
                    found.setdefault(str(name), []).append((self._rank(sample), rng.random(), place))
                place += 1
        for members in found.values():
            members.sort()
        return found

    def _rank(self, sample: Sample) -> float:
        value = sample.value
        if self.by == "random":
            return 0.0
        return math.inf if value is None or math.isnan(value) else -value

    def _reason(self, name: str, ranked: Mapping[str, list[tuple[float, float, int]]], quotas: Quotas, shares: Mapping[str, float]) -> str:
        short = ", ".join(f"{other!r} by {count}" for other, count in sorted(quotas.short.items()))
        return (
            f"surplus: group {name!r} keeps {quotas.keep[name]} of {len(ranked[name])}, {shares[name]:.3f} of real rows; "
            f"{f'short: {short}' if short else 'no group is short'}"
        )

    def _kept(self, groups: Iterable[Group], surplus: set[int], reasons: Mapping[str, str]) -> Iterator[Group | Drop]:
        place = 0
        for group in groups:
            gone = {sample.id for index, sample in enumerate(group.samples, place) if index in surplus}
            place += len(group.samples)
            reason = reasons.get(str(group.task.subgroup))

            def why_not(sample: Sample, gone: set[str] = gone, reason: str | None = reason) -> str | None:
                return reason if sample.id in gone else None

            yield from parted(group, self.name, why_not)


def quotas_of(counts: Mapping[str, int], shares: Mapping[str, float], at_least: float) -> Quotas:
    """How many of `counts` samples of each group stay so that every group of `shares` (which sum to 1) has its share of what stays.

    What stays is as much as the scarcest group allows, T = min over groups of count / share, but at least `at_least` of all samples: group g
    keeps min(count, max(1, ⌊T · share⌋)). A group with fewer than ⌊T · share⌋ is short, one without a sample too.
    """
    total = sum(counts.values())
    target = max(
        min((counts.get(name, 0) / share for name, share in shares.items()), default=0.0), _least(counts, shares, at_least * total)
    )
    wanted = {name: math.floor(target * share + 1e-9) for name, share in shares.items()}
    keep = {name: min(count, max(1, wanted[name])) for name, count in counts.items()}
    short = {name: number - counts.get(name, 0) for name, number in wanted.items() if number > counts.get(name, 0)}
    return Quotas(keep, short)


def _least(counts: Mapping[str, int], shares: Mapping[str, float], asked: float) -> float:
    """The smallest T for which Σ min(count, T · share) is `asked`: groups fill up in the order of count / share."""
    left, open_share = asked, sum(shares[name] for name in counts)
    for name in sorted(counts, key=lambda name: counts[name] / shares[name]):
        if left <= 0 or open_share <= 0:
            break
        if left / open_share <= counts[name] / shares[name]:
            return left / open_share
        left -= counts[name]
        open_share -= shares[name]
    return 0.0 if asked <= 0 else max(counts[name] / shares[name] for name in counts)
