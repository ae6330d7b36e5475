"""Would you train on this? The answer comes first, and then the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from outcross.audit.findings import Answer, Finding
from outcross.audit.kinds import ROW_KINDS
from outcross.audit.scan import Marks

LEFT = 0.5  # of the rows must stay


def verdict(findings: Sequence[Finding], rows: int, marks: Marks) -> tuple[Answer, str]:
    """*no*: something bad is not repaired by cleaning, or cleaning leaves less than half of the rows. *yes, after cleaning*: something of the
    level *warn* or *bad* is repaired by `outcross clean`. *yes*: neither. The sentence names the worst reasons."""
    cleaned = [item for item in findings if item.kind in ROW_KINDS and item.level != "note"]
    stuck = [item for item in findings if item.kind not in ROW_KINDS]
    gone = len(set().union(*(marks[item.kind] for item in findings if item.kind in ROW_KINDS and item.about.repair == "drop")))
    bad = [item for item in stuck if item.level == "bad"]
    if bad:
        return "no", f"Not as it is: {_told(bad)}. Cleaning does not repair that."
    if rows - gone < LEFT * rows:
        return "no", f"Not this set: cleaning would drop about {gone:,} of {rows:,} rows ({_told(cleaned)})."
    known = [item for item in stuck if item.level == "warn"]
    beside = f" Know before: {_told(known)}." if known else ""
    if cleaned:
        loss = f"drops about {gone:,} of {rows:,} rows" if gone else "drops no row and masks the passages"
        return "yes, after cleaning", f"Yes, after `outcross clean`, which {loss}: {_told(cleaned)}.{beside}"
    return "yes", f"Yes.{beside or ' Nothing was found that would keep it from training.'}"


def _told(findings: Sequence[Finding], most: int = 3) -> str:
    named = [f"{item.about.title} ({_share(item)})" for item in findings[:most]]
    rest = len(findings) - most
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")


def _share(item: Finding) -> str:
    return f"{item.rows:,} row{'' if item.rows == 1 else 's'}" if item.rows else f"{100 * item.share:.0f} %"
