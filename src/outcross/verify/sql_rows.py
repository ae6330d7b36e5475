"""When two results of queries are the same."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from outcross.verify.each import PASS, Finding

Row = tuple[Any, ...]
_SHOWN = 90  # characters of a row in the evidence


def compared(said: Sequence[Row], expected: Sequence[Row], *, ordered: bool, tolerance: float) -> Finding:
    """Whether two lists of rows are the same, in order or as multisets.

    Floating-point numbers within `tolerance` are the same, relative to the larger or, below 1, absolutely; whole numbers and texts
    only when equal; nulls are equal to each other. Without an order, rows that are equal are paired first, and the
    rest such that every row finds a partner if there is a way.
    """
    if ordered:
        differ = next((at for at, pair in enumerate(zip(said, expected)) if not _same(*pair, tolerance)), None)
        if differ is not None:
            reason = "the rows are in another order" if Counter(said) == Counter(expected) else "different rows"
            return "fail", reason, f"row {differ + 1} is {_shown(said[differ])}, expected {_shown(expected[differ])}"
    if len(said) != len(expected) or not ordered:
        more, missing = _left(said, expected), _left(expected, said)
        if not _paired(more, missing, tolerance):
            told = [f"not expected: {_shown(more[0])}"] if more else []
            told += [f"missing: {_shown(missing[0])}"] if missing else []
            reason = "different rows" if len(said) == len(expected) else "a different number of rows"
            return "fail", reason, "; ".join(told)
    return PASS


def _left(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """The rows that have no equal among the others, as often as they have none."""
    counts = Counter(others)
    found = []
    for row in rows:
        if counts[row]:
            counts[row] -= 1
        else:
            found.append(row)
    return found


def _paired(rows: list[Row], others: list[Row], tolerance: float) -> bool:
    """Whether every row finds a partner that is the same: neighbours in sorted order first, else by a matching."""
    if len(rows) != len(others):
        return False
    if all(_same(row, other, tolerance) for row, other in zip(sorted(rows, key=_order), sorted(others, key=_order))):
        return True
    import numpy
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    near = numpy.array([[_same(row, other, tolerance) for other in others] for row in rows])
    return bool((maximum_bipartite_matching(csr_matrix(near)) >= 0).all())


def _order(row: Row) -> tuple[tuple[str, Any], ...]:
    return tuple(("1", float(value)) if _number(value) else ("2", repr(value)) for value in row)


def _number(value: object) -> bool:
    return isinstance(value, int | float | Decimal)


def _same(row: Row, other: Row, tolerance: float) -> bool:
    return len(row) == len(other) and all(_alike(*pair, tolerance) for pair in zip(row, other))


def _alike(value: Any, other: Any, tolerance: float) -> bool:
    if value == other:
        return True
    if not (_number(value) and _number(other)) or (isinstance(value, int) and isinstance(other, int)):
        return False
    return math.isclose(value, other, rel_tol=tolerance, abs_tol=tolerance)


def _shown(row: Row) -> str:
    text = repr(row)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
