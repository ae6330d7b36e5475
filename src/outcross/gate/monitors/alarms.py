"""Alarms over a whole run, and the ladder of what follows from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.errors import ConfigError, GuardError
from outcross.gate.harm import Harm, harm
from outcross.gate.reason import WHO, amount
from outcross.stages import Probe, Stage
from outcross.types import ACTIONS, Action, Alarm, Comparison, Measurement


@dataclass(frozen=True)
class Rung:
    """What follows when a probe that is shown to be worse has fallen by at least so many of its `margins` (the estimate counts), and has been
    shown to be so in at least so many `rounds` in a row."""

    action: Action
    margins: float = 0.0
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.action not in ACTIONS or self.margins < 0 or self.rounds < 1:
            raise ConfigError(
                f"the rung {self.action!r} has margins={self.margins:g}, rounds={self.rounds}; an action is one of {', '.join(ACTIONS)}, "
                "margins are 0 or more, rounds 1 or more"
            )


LADDER = (
    Rung("note"),
    Rung("warn", margins=0.5),
    Rung("warn", rounds=2),
    Rung("raise_real", margins=1.0),
    Rung("stop", margins=3.0),
    Rung("roll_back", margins=5.0),
)


@dataclass(frozen=True)
class Alarms(Stage):
    """Tests in every round, refused ones too, whether a probe of the candidate is worse than of the first champion (generation 0), and than of
    the champion that it was to follow; each of them paired, one-sided, for harm alone.

    alpha: the chance that any alarm is raised in a whole run in which nothing got worse. It is spent evenly over the planned rounds (a linear
        spending function: Lan & DeMets, Biometrika 70, 1983) and, within a round, over its tests by the union bound (Dunn, JASA 56,
        1961). Both hold however probes and rounds depend on each other. In the first round, and in others after it where nothing has been
        promoted, the two tests are one.
    tolerance: the share of its margin by which a probe must be shown to be worse, at the least (a test of a minimum effect: Murphy & Myors,
        Journal of Applied Psychology 84, 1999). Two models that were trained apart are never quite alike, and a paired test of losses tells
        even a fiftieth of a margin; 0 asks for any loss at all.
    ladder: what follows; the strongest rung that is reached counts, and each action includes those before it: a note on the record, a
        warning that heads the report, a higher floor of real data in the rounds that follow, a stop once the round's record is complete
        (which promotes nothing and can be resumed), and a return to the last champion whose own round raised no warning.
    probes: measured beside the bench's, watched here, and not guarded by the gate.
    step, most: by how much each round that reaches "raise_real" lifts the floor (or the anchor's weight), and the highest that it may be.

    An alarm's change is a little too bad, because it was chosen for being bad. A probe that cannot be paired is noted, and the round goes on.
    """

    alpha: float = 0.05
    ladder: tuple[Rung, ...] = LADDER
    probes: tuple[Probe, ...] = ()
    step: float = 0.1
    most: float = 0.95
    tolerance: float = 0.05
    version: ClassVar[str] = "2"

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ConfigError(f"alarms have tolerance={self.tolerance:g}; it is a share of each probe's margin, from 0 up to 1")
        if not (0 < self.alpha < 1 and 0 < self.step < 1 and 0 < self.most <= 1):
            raise ConfigError(f"alarms have alpha={self.alpha:g}, step={self.step:g}, most={self.most:g}; each is a share between 0 and 1")
        if not self.ladder:
            raise ConfigError(
                "alarms have an empty ladder, so that nothing could follow; leave out `alarms`, or give it a rung such as `note`"
            )

    @property
    def acts(self) -> Action:
        return max((rung.action for rung in self.ladder), key=ACTIONS.index)

    def __call__(self, comparison: Comparison, margins: Mapping[str, float], before: Sequence[Sequence[Alarm]], /) -> tuple[Alarm, ...]:
        tests = list(_tests(comparison, margins))
        alpha = self.alpha / max(1, comparison.rounds) / max(1, len(tests))
        if comparison.round >= comparison.rounds:
            return ()
        found = (self._test(comparison.candidate[probe], other, against, margins[probe], alpha, before) for probe, against, other in tests)
        return tuple(alarm for alarm in found if alarm is not None)

    def _test(
        self,
        candidate: Measurement,
        other: Measurement,
        against: Literal["champion", "first"],
        margin: float,
        alpha: float,
        before: Sequence[Sequence[Alarm]],
    ) -> Alarm | None:
        try:
            found = harm(candidate, other, alpha)
        except GuardError as error:
            return Alarm(candidate.probe, against, 0.0, 0.0, 0.0, alpha, "note", f"not tested: {error}", 0)
        if not found.high < -self.tolerance * margin:
            return None
        rounds = 1 + _in_a_row(candidate.probe, before)
        reached = [rung.action for rung in self.ladder if -found.change >= rung.margins * margin and rounds >= rung.rounds]
        action = max(reached, key=ACTIONS.index, default=None)
        if action is None:
            return None
        told = _told(candidate, other, WHO[against], found, margin, rounds)
        return Alarm(candidate.probe, against, found.change, found.low, found.high, alpha, action, told, rounds, found.items)


def _tests(comparison: Comparison, margins: Mapping[str, float]) -> Iterator[tuple[str, Literal["champion", "first"], Measurement]]:
    for probe in margins:
        if probe not in comparison.candidate:
            continue
        first, champion = comparison.first.get(probe), comparison.champion.get(probe)
        if first is not None:
            yield probe, "first", first
        if champion is not None and champion != first:
            yield probe, "champion", champion


def _in_a_row(probe: str, before: Sequence[Sequence[Alarm]]) -> int:
    """In how many rounds just before this one the probe was shown to be worse."""
    count = 0
    for alarms in reversed(before):
        if not any(alarm.probe == probe and alarm.rounds for alarm in alarms):
            break
        count += 1
    return count


def _told(candidate: Measurement, other: Measurement, who: str, found: Harm, margin: float, rounds: int) -> str:
    unit = candidate.unit
    row = f", for {rounds} rounds in a row" if rounds > 1 else ""
    verb = "fell" if candidate.higher_is_better else "rose"
    ends = f"by {amount(-found.high, unit)} to {amount(-found.low, unit)}"
    values = f"{other.mean:.3g} to {candidate.mean:.3g}"
    return f"{candidate.probe} {verb} by {amount(-found.change, unit)} against {who} ({values}; {ends}; margin {amount(margin, unit)}){row}"
