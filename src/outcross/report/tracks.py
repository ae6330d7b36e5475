"""What each probe found over a run: first champion, every candidate, and the champion that holds now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from outcross.engine.store import RunDir, read_measurements
from outcross.estimates import Estimate
from outcross.report.intervals import mean_interval, paired
from outcross.report.record import Found, Manifest, ProbeRecord, RoundRecord
from outcross.types import Measurement

Change = Literal["better", "worse", "worse within margin", "within margin", "unchanged", "not below real", "unclear"]
OVER_REAL = " over real"  # how a unit ends when 0 is as good as real data and more is no merit
KINDS = ("quality", "fit", "diversity")


@dataclass(frozen=True)
class Point:
    """A probe in one round: what it found of the candidate, and the champion's mean after the round's decision."""

    label: str
    candidate: Estimate
    holds: Estimate
    promoted: bool


@dataclass(frozen=True)
class Track:
    """One probe over a run. `change` is the present champion minus the first one, paired by items."""

    probe: str
    kind: str
    unit: str
    higher_is_better: bool
    margin: float
    first: Estimate
    now: Estimate
    change: Estimate | None
    points: tuple[Point, ...]

    def held(self, labels: Sequence[str]) -> list[Estimate]:
        """What the champion measured at the start and after each of these rounds: it stays where a round measured nothing."""
        after = {point.label: point.holds for point in self.points}
        found = [self.first]
        for label in labels:
            found.append(after.get(label, found[-1]))
        return found

    @property
    def limit(self) -> float:
        """The margin's distance from the first champion, on the worse side: from zero where a statistic over real data began
        above it, as the gate asks no more than real answers give."""
        if not self.higher_is_better:
            return self.first.mean + self.margin
        return (min(self.first.mean, 0.0) if self.unit.endswith(OVER_REAL) else self.first.mean) - self.margin

    @property
    def verdict(self) -> Change:
        """*better* or *worse*: the interval of the change excludes zero, and where all of a loss lies inside the margin it is *worse
        within margin*; *within margin*: the interval holds zero and lies inside the margin on both sides; *unchanged*: nothing moved
        on any item; else *unclear*. A statistic over real data that began at zero or above is held against zero: *not below real*
        when its interval lies above −margin."""
        change = self.now if self.from_real else self.change
        if change is None or change.low is None or change.high is None:
            return "unchanged" if self.first == self.now else "unclear"
        if self.from_real:
            return "not below real" if change.low > -self.margin else "worse" if change.high < 0 else "unclear"
        if change.low == change.high == 0:
            return "unchanged"
        inside = -self.margin < change.low and change.high < self.margin
        if change.low <= 0 <= change.high:
            return "within margin" if inside else "unclear"
        if (change.low > 0) == self.higher_is_better:
            return "better"
        return "worse within margin" if inside else "worse"

    @property
    def from_real(self) -> bool:
        """Whether real data is what the champion is held against: a statistic over it that began at zero or above. A distance from it is not:
        it begins above zero and is to fall."""
        return self.higher_is_better and self.unit.endswith(OVER_REAL) and self.first.mean >= 0


def champion_measurements(run: RunDir) -> Mapping[str, Measurement]:
    """The newest measurements of a champion, by probe: the first one's, overtaken by every promotion."""
    found = dict(read_measurements(run.start / "measurements.parquet"))
    for item in run.rounds():
        if item.promoted:
            found.update(item.measurements())
    return found


def read_tracks(run: RunDir, manifest: Manifest, rounds: Sequence[RoundRecord]) -> tuple[Track, ...]:
    """One track per probe that measured anything, quality first."""
    first = read_measurements(run.start / "measurements.parquet")
    now = champion_measurements(run)
    known = {probe.name: probe for probe in manifest.probes}
    names = [*known, *sorted({name for item in rounds for name in item.measurements} - set(known))]
    found = [_track(known.get(name, ProbeRecord(name, unit="")), rounds, first.get(name), now.get(name)) for name in names]
    shown = [track for track in found if track is not None]
    return tuple(sorted(shown, key=lambda track: KINDS.index(track.kind) if track.kind in KINDS else len(KINDS)))


def _track(probe: ProbeRecord, rounds: Sequence[RoundRecord], first: Measurement | None, now: Measurement | None) -> Track | None:
    measured = [(item, item.measurements[probe.name]) for item in rounds if probe.name in item.measurements]
    if first is None and not measured:
        return None
    start = mean_interval(first) if first is not None else _bare(measured[0][1].first, measured[0][1].items)
    points, holds = [], start
    for item, found in measured:
        candidate = Estimate(found.candidate, found.low, found.high, found.items)
        promoted = item.outcome == "promoted"
        holds = candidate if promoted else holds
        points.append(Point(item.label, candidate, holds, promoted))
    unit = probe.unit or next((found.unit for _, found in measured), first.unit if first is not None else "")
    higher = _higher(measured[0][1] if measured else None, first)
    change = paired(now, first) if now is not None and first is not None else None
    return Track(probe.name, probe.kind, unit, higher, probe.margin, start, holds, change, tuple(points))


def _bare(mean: float, items: int) -> Estimate:
    return Estimate(mean, None, None, items)


def _higher(found: Found | None, first: Measurement | None) -> bool:
    return found.higher_is_better if found is not None else first is None or first.higher_is_better
