"""Which passages of a text stand in test items: Phi-4's decontamination (arXiv:2412.08905, appendix B, algorithm 1).

    if any 13-gram of the text is among the items' 13-grams minus the allowed ones: CONTAMINATED
    overlap[t] = |7-grams of the text ∩ 7-grams of item t|
    r = max over t of overlap[t] / min(|7-grams of the text|, |7-grams of t|)
    r > info: CONTAMINATED if r ≥ contaminated, else PARTIAL; otherwise CLEAN

Words are lower-cased and punctuation is space. The paper gives no values for the two thresholds; those used are the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from outcross.curate.ngrams import I64, U64, Grams, Units, word_units
from outcross.errors import ConfigError
from outcross.text import words
from outcross.types import content_hash

LONG, SHORT = 13, 7
_FORMAT = "1"  # of saved indexes: raise it when words, hashes or tables change
_TEXTS = 2048
_SIEVE = 24  # log2 of the sieve's size in bytes


@dataclass(frozen=True)
class Overlap:
    """What one text shares with the items. `ratio` is r, of item `nearest` (-1: no shared 7-gram); `passage` is the first run of
    shared 13-grams, as words, and `item` where it stands (empty and -1 when there is none); `shared` are the distinct 7-grams shared
    with `nearest`, in the text's order."""

    ratio: float
    nearest: int
    passage: str
    item: int
    shared: tuple[str, ...]


NOTHING = Overlap(0.0, -1, "", -1, ())


@dataclass(frozen=True)
class _Tables:
    """long: known 13-grams in order, and `long_items`, an item of each; short: known 7-grams in order, and where each one's `items` begin
    (items_at); sizes: distinct 7-grams of each item."""

    long: U64
    long_items: I64
    short: U64
    items_at: I64
    items: I64
    sizes: I64


class OverlapIndex:
    """The n-grams of test items, ready for any number of texts.

    `long` and `short` are the 13 and 7 of the paper. `allowed`: passages whose 13-grams are no evidence (the paper allows 13-grams
    common in Wikipedia: option boilerplate and the like). An item or a text of fewer than `long` words also counts as shared when the two
    are equal word for word. Memory: about 40 bytes per word of the items, and a sieve of 16 MB.
    """

    def __init__(self, items: Iterable[str], *, long: int = LONG, short: int = SHORT, allowed: Iterable[str] = ()) -> None:
        self.long, self.short = long, short
        if not 1 <= short <= long:
            raise ConfigError(
                f"n-grams of {long} and {short} words; allowed are short ones of at least 1 word that are not longer than the long"
            )
        held = list(items)
        units = word_units(held)
        grams = _long_or_whole(units, long)
        fair = ~np.isin(grams.hashes, _long_or_whole(word_units(list(allowed)), long).hashes)
        known, places = np.unique(grams.hashes[fair], return_index=True)
        postings = _postings(units.grams(short))
        self._hold(_Tables(known, grams.texts[fair][places], *postings, np.bincount(postings[2], minlength=len(held))))

    @classmethod
    def kept(cls, folder: Path, items: Sequence[str], *, long: int = LONG, short: int = SHORT, allowed: Sequence[str] = ()) -> Self:
        """The index of these items from `folder`, where it is made when there is none: its name is a hash of all that it is made of."""
        path = folder / f"{content_hash(_FORMAT, long, short, items, allowed)}.npz"
        if not path.exists():
            made = cls(items, long=long, short=short, allowed=allowed)
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez(file, **{item.name: getattr(made._tables, item.name) for item in fields(_Tables)})
            partial.replace(path)
            return made
        found = cls((), long=long, short=short)
        with np.load(path) as arrays:
            found._hold(_Tables(**{item.name: arrays[item.name] for item in fields(_Tables)}))
        return found

    def _hold(self, tables: _Tables) -> None:
        self._tables = tables
        self._long, self._long_items = tables.long, tables.long_items
        self._short, self._items_at, self._items, self._sizes = tables.short, tables.items_at, tables.items, tables.sizes
        self._count = len(tables.sizes)
        self._sieve = _sieve(self._short)

    def __len__(self) -> int:
        return self._count

    def find(self, texts: Iterable[str]) -> Iterator[Overlap]:
        """What each text shares, in order. Streams, some thousand texts at a time."""
        batch: list[str] = []
        for text in texts:
            batch.append(text)
            if len(batch) == _TEXTS:
                yield from self.of(batch)
                batch = []
        yield from self.of(batch)

    def of(self, texts: Sequence[str]) -> list[Overlap]:
        """What each text shares; all texts at once."""
        units = word_units(texts)
        grams = units.grams(self.short)
        maybe = self._sieve[(grams.hashes >> np.uint64(64 - _SIEVE)).astype(np.intp)]
        hits = Grams(grams.hashes[maybe], grams.texts[maybe], grams.places[maybe])
        known = _among(hits.hashes, self._short)
        hits = Grams(hits.hashes[known], hits.texts[known], hits.places[known])
        found = [NOTHING] * len(texts)
        passages = self._passages(units, hits)
        ratios = self._ratios(units, grams, hits)
        for text in sorted(passages.keys() | ratios.keys()):
            spoken = words(texts[text])
            item, first, last = passages.get(text, (-1, 0, 0))
            ratio, nearest, places = ratios.get(text, (0.0, -1, ()))
            shared = dict.fromkeys(" ".join(spoken[place : place + self.short]) for place in places)
            found[text] = Overlap(ratio, nearest, " ".join(spoken[first:last]), item, tuple(shared))
        return found

    def _passages(self, units: Units, hits: Grams) -> dict[int, tuple[int, int, int]]:
        """For each text that holds one, the item and the words (from, to) of the first run of shared long n-grams. Only texts with a
        shared short n-gram, or of fewer than `long` words, can hold one."""
        chosen = np.unique(np.concatenate([hits.texts, np.flatnonzero(units.counts < self.long)]))
        part = _selected(units, chosen)
        grams = _long_or_whole(part, self.long)
        places = grams.places - part.starts[grams.texts]
        lengths = np.minimum(part.counts, self.long)[grams.texts]
        found: dict[int, tuple[int, int, int]] = {}
        for k in np.flatnonzero(_among(grams.hashes, self._long)):
            text, first, last = int(chosen[grams.texts[k]]), int(places[k]), int(places[k] + lengths[k])
            if text not in found:
                found[text] = (int(self._long_items[np.searchsorted(self._long, grams.hashes[k])]), first, last)
            elif last == found[text][2] + 1:
                found[text] = (*found[text][:2], last)
        return found

    def _ratios(self, units: Units, grams: Grams, hits: Grams) -> dict[int, tuple[float, int, I64]]:
        """For each text with a shared short n-gram: r, the item it is reached with, and the words at which that item's n-grams begin."""
        if not len(hits.texts):
            return {}
        first = _firsts(hits.texts, hits.hashes)
        texts, ranks = hits.texts[first], np.searchsorted(self._short, hits.hashes[first])
        lengths = self._items_at[ranks + 1] - self._items_at[ranks]
        items = self._items[np.arange(int(lengths.sum())) + np.repeat(self._items_at[ranks] - (np.cumsum(lengths) - lengths), lengths)]
        members, places = np.repeat(texts, lengths), np.repeat(hits.places[first], lengths)
        pairs, overlaps = np.unique(members * self._count + items, return_counts=True)
        of, item = np.divmod(pairs, self._count)
        ratios = overlaps / np.minimum(_distinct(grams, of), self._sizes[item])
        order = np.lexsort((item, -ratios, of))
        best = order[np.concatenate([[True], of[order][1:] != of[order][:-1]])]
        begins, ends = np.searchsorted(members, of[best]), np.searchsorted(members, of[best], "right")
        found = {}
        for k, begin, end in zip(best, begins, ends, strict=True):
            shared = np.sort(places[begin:end][items[begin:end] == item[k]]) - units.starts[of[k]]
            found[int(of[k])] = (float(ratios[k]), int(item[k]), shared)
        return found


def _postings(grams: Grams) -> tuple[U64, I64, I64]:
    """Distinct n-grams in order, where each one's items begin, and the items (each once per n-gram)."""
    first = _firsts(grams.hashes, grams.texts)
    distinct, begins = np.unique(grams.hashes[first], return_index=True)
    return distinct, np.append(begins, len(first)), grams.texts[first]


def _firsts(major: NDArray[Any], minor: NDArray[Any]) -> I64:
    """Where each distinct pair (major, minor) first stands, in the order of the pairs."""
    order = np.lexsort((minor, major))
    a, b = major[order], minor[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    return order[new]


def _long_or_whole(units: Units, n: int) -> Grams:
    """All n-grams; a text of fewer than n words is one gram."""
    long, whole = units.grams(n), units.short(n)
    return Grams(*(np.concatenate([getattr(long, name), getattr(whole, name)]) for name in ("hashes", "texts", "places")))


def _distinct(grams: Grams, of: I64) -> I64:
    """How many distinct n-grams each text of `of` has (ascending, with repeats)."""
    texts, back = np.unique(of, return_inverse=True)
    begins, ends = np.searchsorted(grams.texts, texts), np.searchsorted(grams.texts, texts, "right")
    counts = [len(np.unique(grams.hashes[begin:end])) for begin, end in zip(begins, ends, strict=True)]
    return np.array(counts, np.int64)[back]


def _selected(units: Units, texts: I64) -> Units:
    """The units of some of the texts."""
    counts = units.counts[texts]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    places = np.arange(int(starts[-1])) + np.repeat(units.starts[texts] - starts[:-1], counts)
    return Units(units.hashes[places], starts)


def _among(hashes: U64, known: U64) -> NDArray[np.bool_]:
    """Which hashes are among the sorted ones."""
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.asarray(known[places] == hashes)


def _sieve(hashes: U64) -> NDArray[np.bool_]:
    """By the leading bits of a hash, whether a known one begins so: most unknown ones are refused by one look-up."""
    found = np.zeros(1 << _SIEVE, np.bool_)
    found[(hashes >> np.uint64(64 - _SIEVE)).astype(np.intp)] = True
    return found
