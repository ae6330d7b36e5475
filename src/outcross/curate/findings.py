"""What detectors find in a text: where it stands, what it is, and how it is shown without giving it away."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A passage `text[start:end]` of some `kind`, such as *email* or *private key*. `text` is the passage itself: print `masked(finding)`."""

    kind: str
    start: int
    end: int
    text: str


def masked(finding: Finding) -> str:
    """The kind, the first two characters and the length of a finding: enough to look for it, too little to use it."""
    return f"{finding.kind} {finding.text[:2]}… of {len(finding.text)} characters"


def disjoint(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in the text's order without those that overlap one given before them: the surest kind is given first."""
    kept: list[Finding] = []  # in the text's order
    for one in findings:
        place = bisect_left(kept, one.start, key=lambda other: other.start)
        if (place == 0 or kept[place - 1].end <= one.start) and (place == len(kept) or one.end <= kept[place].start):
            kept.insert(place, one)
    return kept
