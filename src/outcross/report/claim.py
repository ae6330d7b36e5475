"""What a run may claim in the end: the last champion against the first on fresh items.

Champions are chosen by their measurements, so that those flatter them (the winner's curse). Items that no gate has seen do not.
"""

from __future__ import annotations

from outcross.engine.store import RunDir, read_measurements
from outcross.report import numbers as n
from outcross.report.intervals import paired


def claim(run: RunDir) -> str:
    """A sentence with a 95 % interval for each probe of `bench.final`, paired by items; empty while nothing was measured."""
    last, first = (read_measurements(run.root / "final" / f"measurements{of}.parquet") for of in ("", ".first"))
    told = []
    for probe, found in last.items():
        change = paired(found, first[probe])
        ends = "" if change is None or change.low is None or change.high is None else _ends(change.low, change.high, found.unit)
        values = f"{n.quantity(first[probe].mean, found.unit)} → {n.with_unit(found.mean, found.unit)}"
        moved = f" ({n.signed(change.mean, found.unit)}{ends})" if change is not None else ""
        told.append(f"{n.words(probe)} {values}{moved} on {n.plural(len(found.items), 'item')}")
    return f" On fresh items, which no gate saw: {', '.join(told)}." if told else ""


def _ends(low: float, high: float, unit: str) -> str:
    return f", 95 % {n.difference(low, unit)} to {n.difference(high, unit)}"
