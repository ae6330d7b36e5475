"""What a probe does with items it could not decide: few are left out, many stop the run."""

from __future__ import annotations

from collections.abc import Sequence

from outcross.errors import StageError
from outcross.types import Group

LIMIT = 0.05


def why_undecided(group: Group) -> str:
    """The first reason that the samples of a group give."""
    reasons = (sample.error or next((score.reason for score in sample.scores if score.reason), "") for sample in group.samples)
    return next((reason for reason in reasons if reason), "no sample was scored" if group.samples else "no sample was made")


def refuse_undecided(probe: str, undecided: Sequence[tuple[str, str]], items: int) -> None:
    """Raises `StageError` when there are no items, or when more than 5 % of them could not be measured.

    `undecided` holds (item, reason). A failure is neither a pass nor a fail, and a measurement that leaves out many items
    says little about the rest. Failed requests are not kept by the journal: resuming asks again.
    """
    if items == 0:
        raise StageError(f"probe {probe!r} has no items to measure; give it held-out items")
    if len(undecided) > LIMIT * items:
        item, reason = undecided[0]
        raise StageError(
            f"probe {probe!r} could not measure {len(undecided):,} of {items:,} items; at most {LIMIT:.0%} may be left out. "
            f"First: item {item!r}: {reason}. Repair what failed and resume: failed requests are asked again"
        )
