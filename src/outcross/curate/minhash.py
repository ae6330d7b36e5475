"""Shingle sets of documents, their MinHash band keys, and the exact Jaccard similarity of pairs.

MinHash (Broder, 1997) with banding (Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*, §3.4) only proposes pairs; `similarity`
decides on the sets themselves. A shingle is kept as 51 bits of its hash: within a pair of 1,000-word documents two different shingles
agree with a chance of 1 in 10^9.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outcross.curate.ngrams import I64, SYMBOLS, U64, char_units, word_units

Shingles = Literal["word", "char"]
U32 = NDArray[np.uint32]

_BITS = 51
_PAIRS = 1 << 12  # sides of pairs compared at once: with the shingle they fill 64 bits
_CHUNK = 4096  # shingles signed at once: the matrix of permuted hashes stays in the cache
_MISSED = 0.005  # share of pairs at the threshold that may share no band
_BANDS = 20
_HAIR = 1e-12  # so that 4/5 reaches a threshold of 0.8


@dataclass(frozen=True)
class Sets:
    """Shingle sets of documents with two sides: what was answered and what was asked.

    values: uint64 (shingles,): document after document, the answer's shingles and then the prompt's, each ascending;
    sizes: int64 (documents, 2): distinct shingles of answer and prompt.
    """

    values: U64
    sizes: I64

    @property
    def starts(self) -> I64:
        """Where each document's values start; int64 (documents + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes.sum(axis=1))])


@dataclass(frozen=True)
class Bands:
    """How many bands of how many MinHash values: two documents of similarity s share one with chance 1 - (1 - s^rows)^bands."""

    count: int
    rows: int

    @staticmethod
    def at(threshold: float) -> Bands:
        """The most selective bands that miss at most 1 in 200 pairs at the threshold, at most 20 of them, or as many as one row needs."""
        for rows in range(32, 0, -1):
            hit = min(threshold**rows, 1 - 1e-9)
            count = math.ceil(math.log(_MISSED) / math.log1p(-hit))
            if count <= _BANDS or rows == 1:
                return Bands(max(count, 1), rows)
        raise AssertionError("unreachable: one row is always tried")


def shingled(answers: Sequence[str], prompts: Sequence[str], shingles: Shingles, n: int) -> Sets:
    """The sets of documents. A side of fewer than `n` words or characters is one shingle; an empty one has none.

    At most 4,096 documents a call.
    """
    if len(answers) > _PAIRS:
        raise ValueError(f"{len(answers)} documents at once; at most {_PAIRS} are numbered in one call, pass them in parts")
    sides = [text for pair in zip(answers, prompts, strict=True) for text in pair]
    units = word_units(sides, SYMBOLS) if shingles == "word" else char_units(sides)
    long, short = units.grams(n), units.short(n)
    texts = np.concatenate([long.texts, short.texts]).astype(np.uint64)
    hashes = np.concatenate([long.hashes, short.hashes])
    marked = np.sort((texts << np.uint64(_BITS)) | (hashes >> np.uint64(64 - _BITS)))
    distinct = marked[np.concatenate([[True], marked[1:] != marked[:-1]])] if len(marked) else marked
    sizes = np.bincount((distinct >> np.uint64(_BITS)).astype(np.int64), minlength=len(sides))
    return Sets(distinct & np.uint64(2**_BITS - 1), sizes.reshape(-1, 2))


def band_keys(sets: Sets, bands: Bands) -> U32:
    """uint32 (bands, documents): equal in a band when all its MinHash values are. A document without shingles has key 0."""
    signatures = _signatures(sets, bands.count * bands.rows)
    mixers = _multipliers(bands.count * bands.rows + 1)[1:].astype(np.uint64).reshape(bands.count, bands.rows, 1)
    sums = (signatures.reshape(bands.count, bands.rows, -1) * (mixers << np.uint64(16) | np.uint64(1))).sum(axis=1, dtype=np.uint64)
    sums = (sums ^ (sums >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    keys: U32 = (sums >> np.uint64(32)).astype(np.uint32)
    keys[:, sets.sizes.sum(axis=1) == 0] = 0
    return keys


def _signatures(sets: Sets, hashes: int) -> U32:
    """MinHash values, uint32 (hashes, documents). Multiplying by an odd number permutes the 32-bit numbers."""
    starts, filled = sets.starts, np.flatnonzero(sets.sizes.sum(axis=1))
    found = np.full((hashes, len(sets.sizes)), 2**32 - 1, np.uint32)
    if not len(filled):
        return found
    asked = np.repeat(np.tile([0, 0x9E3779B9], len(sets.sizes)), sets.sizes.ravel())
    folded = (sets.values ^ (sets.values >> np.uint64(27))).astype(np.uint32) ^ asked.astype(np.uint32)
    begins, by = starts[filled], _multipliers(hashes)[:, None]
    for begin in range(0, len(folded), _CHUNK):
        part = folded[begin : begin + _CHUNK]
        first = int(np.searchsorted(begins, begin, "right")) - 1
        last = int(np.searchsorted(begins, begin + len(part)))
        places = np.maximum(begins[first:last] - begin, 0)
        least = np.minimum.reduceat(by * part, places, axis=1)
        where = filled[first:last]
        found[:, where] = np.minimum(found[:, where], least)
    return found


@lru_cache(maxsize=8)
def _multipliers(count: int) -> U32:
    """Odd 32-bit numbers, always the same."""
    drawn: U32 = np.random.Generator(np.random.PCG64(20240602)).integers(0, 2**32, count, np.uint32)
    return drawn | np.uint32(1)


@dataclass(frozen=True)
class Side:
    """Documents that pairs refer to by number. values: uint64 (shingles,), which may be a memory map; starts: int64 (documents + 1,);
    sizes: int64 (documents, 2)."""

    values: U64
    starts: I64
    sizes: I64


def similarity(left: Side, these: I64, right: Side, those: I64, threshold: float) -> NDArray[np.float64]:
    """The exact Jaccard similarity of each pair (these[i], those[i]), over answer and prompt together; 0 where it, or that of
    the answers alone, is below the threshold."""
    found = np.zeros(len(these))
    a, b = left.sizes[these], right.sizes[those]
    whole_a, whole_b = a.sum(axis=1), b.sum(axis=1)
    enough = threshold - _HAIR
    hopeful = (_smaller_over_larger(a[:, 0], b[:, 0]) >= enough) & (_smaller_over_larger(whole_a, whole_b) >= enough)
    pairs = np.flatnonzero(hopeful)
    answers = _shared(left, these[pairs], right, those[pairs], 0)
    near = _jaccard(answers, a[pairs, 0], b[pairs, 0]) >= enough
    pairs, answers = pairs[near], answers[near]
    whole = answers + _shared(left, these[pairs], right, those[pairs], 1)
    jaccard = _jaccard(whole, whole_a[pairs], whole_b[pairs])
    found[pairs] = np.where(jaccard >= enough, jaccard, 0)
    return found


def _jaccard(shared: I64, a: I64, b: I64) -> NDArray[np.float64]:
    """Shared over united; 0 for two empty sets."""
    return np.asarray(shared / np.maximum(a + b - shared, 1))


def _smaller_over_larger(a: I64, b: I64) -> NDArray[np.float64]:
    return np.asarray(np.minimum(a, b) / np.maximum(np.maximum(a, b), 1))


def _shared(left: Side, these: I64, right: Side, those: I64, side: int) -> I64:
    """How many shingles of one side each pair shares."""
    found = np.zeros(len(these), np.int64)
    lengths_a, lengths_b = left.sizes[these, side], right.sizes[those, side]
    ends = np.cumsum(lengths_a + lengths_b)
    begin = 0
    while begin < len(these):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, min(begin + _PAIRS, int(np.searchsorted(ends, done + (1 << 19)))))
        part = slice(begin, end)
        marked = np.concatenate([_marked(left, these[part], side), _marked(right, those[part], side)])
        marked.sort()
        both = marked[1:][marked[1:] == marked[:-1]] >> np.uint64(_BITS)
        found[part] = np.bincount(both.astype(np.int64), minlength=end - begin)
        begin = end
    return found


def _marked(documents: Side, these: I64, side: int) -> U64:
    """The values of one side of documents, each with the number of its pair above it."""
    lengths = documents.sizes[these, side]
    begins = documents.starts[these] + (documents.sizes[these, 0] if side else 0)
    pairs = np.repeat(np.arange(len(these)), lengths)
    places = np.arange(int(lengths.sum())) + np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)
    found: U64 = (pairs.astype(np.uint64) << np.uint64(_BITS)) | documents.values[places]
    return found
