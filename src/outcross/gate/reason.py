"""A gate's decision in words and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

from outcross.gate.evidence import OVER_REAL, SHARE, Evidence
from outcross.gate.paired import items_needed, visible_drop
from outcross.types import Check, Comparison

WHO = {"champion": "the champion", "first": "the first model"}


def explain(checks: Sequence[Check], comparison: Comparison) -> str:
    """Why the candidate was promoted, or what it failed; a failure that is the same against both models is told once."""
    failed: dict[tuple[str, float, float], str] = {}
    for check in checks:
        if not check.passed:
            failed.setdefault((check.probe, check.estimate, check.low), _failure(check, comparison))
    if failed:
        return "refused: " + "; ".join(failed.values())
    shown = [_success(check, comparison) for check in checks if check.against == "champion"]
    return "promoted: " + "; ".join(shown) + "; within every margin of the first model too"


def shortage(evidence: Evidence, margin: float, unit: str) -> str:
    """Which drop so many items can show, and how many the margin needs; empty when they are enough."""
    needed = items_needed(margin, evidence.alpha, evidence.variance, share=evidence.share)
    if needed <= evidence.items:
        return ""
    visible = visible_drop(evidence.items, evidence.alpha, evidence.variance, share=evidence.share)
    return f"with {evidence.items:,} items a drop under {amount(visible, unit)} cannot be seen; {_rounded_up(needed):,} are needed"


def amount(value: float, unit: str) -> str:
    """A difference with its unit; shares in points."""
    plain = unit.removesuffix(OVER_REAL)
    return f"{100 * value:.1f} points" if plain == SHARE else f"{value:.3g} {plain}".rstrip()


def _success(check: Check, comparison: Comparison) -> str:
    unit = comparison.candidate[check.probe].unit
    sign = "+" if check.estimate >= 0 else ""
    return f"{_values(check, comparison)} ({sign}{amount(check.estimate, unit)}, at least {'+' if check.low >= 0 else ''}{amount(check.low, unit)})"


def _failure(check: Check, comparison: Comparison) -> str:
    unit = comparison.candidate[check.probe].unit
    who = WHO[check.against]
    if check.margin == 0:
        said = f"{_values(check, comparison)} is not shown to be better than {who} (at least {amount(check.low, unit)})"
    elif check.estimate <= -check.margin:
        said = f"{_values(check, comparison)} is worse than {who} by {amount(-check.estimate, unit)}, margin {amount(check.margin, unit)}"
    elif check.low <= -check.margin:
        said = (
            f"{_values(check, comparison)} may be worse than {who} by up to {amount(-check.low, unit)}, margin {amount(check.margin, unit)}"
        )
    else:
        said = f"{_values(check, comparison)} rests on too few items"
    return f"{said} ({check.note})" if check.note else said


def _values(check: Check, comparison: Comparison) -> str:
    earlier = comparison.champion if check.against == "champion" else comparison.first
    candidate, other = comparison.candidate[check.probe], earlier[check.probe]
    unit = "" if candidate.unit == SHARE else f" {candidate.unit}".rstrip()
    return f"{check.probe} {candidate.mean:.3g} vs {other.mean:.3g}{unit}"


def _rounded_up(count: int) -> int:
    """To two digits: the third is not known."""
    step = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return -(-count // step) * step
