"""Rows that repeat one another, or real rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outcross.audit.scan import SIMILAR, Marks, Scan
from outcross.curate.nearest import OWN, near_duplicates


def copies(data: Scan, real: Scan | None, work: Path, stays: NDArray[np.bool_] | None = None) -> Marks:
    """Exact duplicates, then near duplicates of real rows, then of earlier rows: each row is told once, and one row of each cluster stays.

    stays: bool (rows,), the rows that are compared at all; None: all. `work`: an empty place on disk.
    """
    rows = np.arange(data.rows) if stays is None else np.flatnonzero(stays)
    found: Marks = {"duplicates": {}, "memorised": {}, "near": {}}
    _, first, back = np.unique(data.hashes[rows], return_index=True, return_inverse=True)
    earliest = rows[first[back]]
    for row, other in zip(rows[earliest != rows].tolist(), earliest[earliest != rows].tolist(), strict=True):
        found["duplicates"][row] = f"equals row {other + 1}"
    unique = rows[earliest == rows]
    data.shelf.copy(unique, work)
    shelf = type(data.shelf)(work)
    near = near_duplicates(shelf, [real.shelf] if real else [], np.zeros(len(unique)), SIMILAR)
    for place in np.flatnonzero(near.shelf != -1).tolist():
        other, jaccard = int(near.document[place]), float(near.jaccard[place])
        if near.shelf[place] == OWN:
            found["near"][int(unique[place])] = f"Jaccard {jaccard:.2f} with row {int(unique[other]) + 1}"
        else:
            found["memorised"][int(unique[place])] = f"Jaccard {jaccard:.2f} with row {other + 1} of the real data"
    return {kind: marks for kind, marks in found.items() if marks}
