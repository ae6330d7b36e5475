"""The gate that releases only rows that are shown to be no worse than real data and than what was released before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from outcross.gate.reason import amount
from outcross.gate.rows.unpaired import Gap, estimate, gap, power, visible
from outcross.stages import Bounds, Stage
from outcross.types import Check, Comparison, Decision, Measurement

OTHERS = {"real": "real data", "release": "earlier releases", "limit": "the limit"}


@dataclass(frozen=True)
class NoWorse(Stage):
    """Releases a round's new rows if they are shown, on every probe with a margin, to be less than it behind earlier releases and behind real
    data, and if every probe with a limit reaches it. The new rows are judged alone: a large release before them would hide a bad round.

    alpha: the chance, over the whole run, of releasing rows of which the process that made them is worse than a margin. Each round spends an
        equal part of what is left, released or not, and limits that a bound must reach count. It is split over rounds and not over checks, because all of them must hold (an
        intersection–union test: Berger, Technometrics 24, 1982).
    minimum_items: with fewer tasks in either set nothing is released, whatever they show.

    With neither real data nor an earlier release only the limits are left, and the decision says so. Limits of exact values are compared
    as they are; others must be reached by the lower bound. Raises `GuardError` when a probe was not measured alike for both sets.
    """

    alpha: float = 0.05
    minimum_items: int = 100

    def __call__(self, comparison: Comparison, bounds: Mapping[str, Bounds], /) -> Decision:
        alpha = max(0.0, comparison.alpha_left) / max(1, comparison.rounds - comparison.round)
        if alpha <= 0:
            reason = f"refused: nothing is left of the gate's alpha of {self.alpha:g} for round {comparison.round + 1}; plan more rounds"
            return Decision(False, reason, self.name)
        checks = tuple(
            check
            for probe, asked in bounds.items()
            if probe in comparison.candidate
            for check in self._checks(comparison, probe, asked, alpha)
        )
        if not checks:
            return Decision(True, "ungated: there is nothing to compare these rows with, and no limit", self.name, gated=False)
        spent = max(check.alpha for check in checks)  # limits of exact values cost nothing
        return Decision(all(check.passed for check in checks), _explain(checks, comparison), self.name, checks, spent)

    def _checks(self, comparison: Comparison, probe: str, asked: Bounds, alpha: float) -> Iterator[Check]:
        candidate = comparison.candidate[probe]
        if asked.limit is not None:
            yield self._limit(candidate, asked, alpha)
        for against in asked.against if asked.margin is not None else ():
            other = (comparison.first if against == "real" else comparison.champion).get(probe)
            if other is not None:
                assert asked.margin is not None
                yield self._held(candidate, other, against, asked.margin, asked.either_way, alpha)

    def _limit(self, candidate: Measurement, asked: Bounds, alpha: float) -> Check:
        assert asked.limit is not None
        sign = 1.0 if candidate.higher_is_better else -1.0
        value, limit, items = sign * candidate.mean, sign * asked.limit, len(candidate.items)
        over = value - limit
        if not items:
            return Check(candidate.probe, "limit", 0.0, 0.0, 0.0, alpha, 0.0, items, False, self._few(items))
        if asked.exact:
            return Check(candidate.probe, "limit", over, over, 0.0, 0.0, 1.0, items, over >= 0, candidate.items[0] if items == 1 else "")
        if items < self.minimum_items:
            return Check(candidate.probe, "limit", over, over, 0.0, alpha, 0.0, items, False, self._few(items))
        found = estimate(candidate, alpha)
        chance = 1.0 if found.low >= limit else 0.0
        return Check(candidate.probe, "limit", over, found.low - limit, 0.0, alpha, chance, items, found.low >= limit)

    def _held(
        self, candidate: Measurement, other: Measurement, against: Literal["release", "real"], margin: float, either_way: bool, alpha: float
    ) -> Check:
        fewest = min(len(candidate.items), len(other.items))
        if fewest < self.minimum_items:
            difference = candidate.mean - other.mean if fewest else 0.0
            return Check(candidate.probe, against, difference, difference, margin, alpha, 0.0, fewest, False, self._few(fewest))
        found = gap(candidate, other, alpha)
        if either_way:
            found = Gap(-abs(found.estimate), min(found.low, -found.high), -abs(found.estimate), found.error, found.items)
        passed = found.low > -margin
        seen = visible(found.error, alpha)
        unseen = not passed and found.estimate > -margin and seen > margin
        note = f"with {found.items:,} tasks a difference under {amount(seen, candidate.unit)} cannot be seen" if unseen else ""
        return Check(
            candidate.probe, against, found.estimate, found.low, margin, alpha, power(margin, found.error, alpha), found.items, passed, note
        )

    def _few(self, items: int) -> str:
        return f"{items:,} tasks, and at least {self.minimum_items:,} are asked for in each set"


def _explain(checks: tuple[Check, ...], comparison: Comparison) -> str:
    """Why the rows were released, or all that they failed."""
    failed = [_said(check, comparison) for check in checks if not check.passed]
    if failed:
        return "refused: " + "; ".join(failed)
    compared = {check.against for check in checks} - {"limit"}
    nothing = "" if compared else "; there is neither real data nor an earlier release to compare with"
    return "released: " + "; ".join(_said(check, comparison) for check in checks) + nothing


def _said(check: Check, comparison: Comparison) -> str:
    candidate = comparison.candidate[check.probe]
    unit = candidate.unit
    value = _value(candidate.mean, unit)
    note = f" ({check.note})" if check.note else ""
    if check.against == "limit":
        limit = candidate.mean - (check.estimate if candidate.higher_is_better else -check.estimate)
        worse = "below" if candidate.higher_is_better else "above"
        if not check.passed and check.estimate >= 0:
            sure = "rests on too few tasks" if not check.low < 0 else "is not shown to reach it"
            return f"{check.probe} {value} against the limit of {_value(limit, unit)} {sure}{note}"
        return f"{check.probe} {value}, {'not ' if check.passed else ''}{worse} the limit of {_value(limit, unit)}{note}"
    other = (comparison.first if check.against == "real" else comparison.champion)[check.probe]
    held = f"{check.probe} {value} vs {_value(other.mean, unit)} of {OTHERS[check.against]}"
    if check.passed:
        return f"{held} (at most {amount(max(-check.low, 0.0), unit)} behind, margin {amount(check.margin, unit)})"
    if check.estimate <= -check.margin:
        return f"{held} is off by {amount(-check.estimate, unit)}, margin {amount(check.margin, unit)}{note}"
    if check.low <= -check.margin:
        return f"{held} may be off by up to {amount(-check.low, unit)}, margin {amount(check.margin, unit)}{note}"
    return f"{held} rests on too few tasks{note}"


def _value(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "share" else f"{value:.3g} {unit}".rstrip()
