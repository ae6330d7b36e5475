"""Which documents of a shelf are near duplicates: of older shelves first, then of a better document of their own.

Within a shelf the greedy rule holds: best first, a document is kept unless a kept one is its near duplicate. So whatever is dropped
resembles, by at least the threshold, something that stays; chains of small changes are not swept away with their first link.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outcross.curate.minhash import U32, similarity
from outcross.curate.ngrams import I64
from outcross.curate.shelf import Shelf

OWN = -2  # `Found.shelf` of a document whose near duplicate stands on its own shelf
KEPT = -1
_PAIRS = 1 << 20  # candidate pairs compared at once


@dataclass(frozen=True)
class Found:
    """What each document resembles: the number of the older shelf (or `OWN`, or `KEPT`: nothing), the document there, and how much
    (`jaccard`, or a cosine where vectors are compared)."""

    shelf: NDArray[np.int32]
    document: I64
    jaccard: NDArray[np.float64]


@dataclass(frozen=True)
class _Entries:
    """Documents in buckets of two or more, by bucket and, within it, best first: equal length arrays."""

    buckets: I64
    documents: I64

    def where(self, mask: NDArray[np.bool_]) -> _Entries:
        return _Entries(self.buckets[mask], self.documents[mask])

    def heads(self) -> NDArray[np.bool_]:
        """Which entries come first in their bucket."""
        first = np.ones(len(self.buckets), np.bool_)
        first[1:] = self.buckets[1:] != self.buckets[:-1]
        return first


def near_duplicates(shelf: Shelf, older: Sequence[Shelf], scores: NDArray[np.float64], threshold: float) -> Found:
    """Compare `shelf` with `older` shelves, the first taking precedence, and with itself, higher scores first and earlier
    documents first among equals. `scores`: float (documents,)."""
    count = len(shelf)
    found = Found(np.full(count, KEPT, np.int32), np.full(count, -1, np.int64), np.zeros(count))
    for number, other in enumerate(older):
        if len(other):
            _against(shelf, other, number, found, threshold)
    _within(shelf, np.lexsort((np.arange(count), -scores)), found, threshold)
    return found


def _against(shelf: Shelf, other: Shelf, number: int, found: Found, threshold: float) -> None:
    full = np.flatnonzero(other.side.sizes[:, 0] > 0)
    for mine, theirs in zip(shelf.keys, other.keys, strict=True):
        left = np.flatnonzero((found.shelf == KEPT) & (shelf.side.sizes[:, 0] > 0))
        keys, left = _sorted_keys(mine[left], left)
        begins, ends = (np.searchsorted(keys, theirs[full].astype(np.int64), side) for side in ("left", "right"))
        for these, those in _products(left, full, begins, ends):
            jaccard = similarity(shelf.side, these, other.side, those, threshold)
            _note(found, number, these, those, jaccard)


def _sorted_keys(keys: U32, documents: I64) -> tuple[I64, I64]:
    """Keys in ascending order and the document of each, ascending among equal keys."""
    marked = np.sort((keys.astype(np.uint64) << np.uint64(32)) | documents.astype(np.uint64))
    return (marked >> np.uint64(32)).astype(np.int64), (marked & np.uint64(2**32 - 1)).astype(np.int64)


def _products(left: I64, full: I64, begins: I64, ends: I64) -> Iterator[tuple[I64, I64]]:
    """Pairs of each document `full[i]` with `left[begins[i]:ends[i]]`, so many at once that memory stays bounded."""
    several = np.flatnonzero(ends > begins)
    totals = np.cumsum((ends - begins)[several])
    start = 0
    while start < len(several):
        done = int(totals[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(totals, done + _PAIRS)))
        part = several[start:stop]
        lengths = (ends - begins)[part]
        places = np.arange(int(lengths.sum())) + np.repeat(begins[part] - (np.cumsum(lengths) - lengths), lengths)
        yield left[places], np.repeat(full[part], lengths)
        start = stop


def _note(found: Found, number: int, these: I64, those: I64, jaccard: NDArray[np.float64]) -> None:
    """Remember for each undecided document the most similar of what it resembles; the earliest among equals."""
    hits = np.flatnonzero((jaccard > 0) & (found.shelf[these] == KEPT))
    hits = hits[np.lexsort((those[hits], -jaccard[hits], these[hits]))]
    first = np.ones(len(hits), np.bool_)
    first[1:] = these[hits][1:] != these[hits][:-1]
    best = hits[first]
    found.shelf[these[best]] = number
    found.document[these[best]] = those[best]
    found.jaccard[these[best]] = jaccard[best]


def _within(shelf: Shelf, order: I64, found: Found, threshold: float) -> None:
    """The greedy rule, many documents at a time: whoever is best in all of its buckets stays, and is compared with the others there."""
    order = order[(found.shelf[order] == KEPT) & (shelf.side.sizes[order, 0] > 0)]
    entries = _buckets(shelf.keys, order)
    while len(entries.buckets):
        heads = entries.heads()
        waiting = np.bincount(entries.documents, minlength=len(order)) - np.bincount(entries.documents[heads], minlength=len(order))
        stays = waiting == 0
        leads = heads & stays[entries.documents]
        leaders = np.repeat(np.where(leads, entries.documents, -1)[heads], np.diff(np.append(np.flatnonzero(heads), len(heads))))
        compared = np.flatnonzero((leaders >= 0) & ~heads)
        pairs = np.unique(leaders[compared] * len(order) + entries.documents[compared])
        for begin in range(0, len(pairs), _PAIRS):
            those, these = np.divmod(pairs[begin : begin + _PAIRS], len(order))
            jaccard = similarity(shelf.side, order[these], shelf.side, order[those], threshold)
            _note(found, OWN, order[these], order[those], jaccard)
        entries = entries.where(~stays[entries.documents] & (found.shelf[order[entries.documents]] == KEPT))
        entries = _shared(entries)


def _buckets(keys: U32, order: I64) -> _Entries:
    """Entries of all buckets that hold two documents or more; documents are numbered by their place in `order`."""
    parts: list[_Entries] = []
    for number, band in enumerate(keys):
        bucket, documents = _sorted_keys(band[order], np.arange(len(order)))
        parts.append(_shared(_Entries(bucket | (number << 32), documents)))
    return _Entries(np.concatenate([part.buckets for part in parts]), np.concatenate([part.documents for part in parts]))


def _shared(entries: _Entries) -> _Entries:
    """Without the entries that are alone in their bucket."""
    heads = entries.heads()
    alone = heads.copy()
    alone[:-1] &= heads[1:]
    return entries.where(~alone)


def spare(found: Found, subgroups: Sequence[str | None], scores: NDArray[np.float64]) -> None:
    """Keep the best document of each subgroup that lost all of its documents, at least one of them to this round's other subgroups. What
    resembles older shelves only is there already, and stays dropped. None: of no subgroup."""
    best: dict[str, int] = {}
    alive = {name for name, shelf in zip(subgroups, found.shelf, strict=False) if shelf == KEPT}
    for place, name in enumerate(subgroups):
        if name is None or name in alive or found.shelf[place] != OWN:
            continue
        if name not in best or scores[place] > scores[best[name]]:
            best[name] = place
    for place in best.values():
        found.shelf[place], found.document[place], found.jaccard[place] = KEPT, -1, 0.0


def reasons(
    found: Found, groups: Sequence[int] | I64, ids: Sequence[str], older: Sequence[Sequence[str]], real: int | None, kind: str, measure: str
) -> Iterator[str | None]:
    """Why each document is dropped, in order; None for those that stay. The reason names the one that stays: the records hold the clusters.

    groups: the group each document is of; older: the identifiers of each older shelf, and `real` the number of that of real rows."""
    for place in range(len(groups)):
        number, other = int(found.shelf[place]), int(found.document[place])
        if number == KEPT:
            yield None
            continue
        likeness = f"{measure} {found.jaccard[place]:.2f} with"
        if number == OWN:
            where = "group" if groups[place] == groups[other] else "round"
            yield f"{kind} in this {where}: {likeness} sample {ids[other]}"
        elif number == real:
            yield f"memorised: {likeness} real row {older[number][other]}"
        else:
            yield f"{kind} of an earlier round: {likeness} sample {older[number][other]}"
