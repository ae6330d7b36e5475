"""Hashed n-grams of many texts at once, in numpy: what near duplicates and contamination are looked up by.

A batch of texts becomes one row of 64-bit *units* (words or characters); an n-gram is a polynomial over n units, mixed. Two different
n-grams agree with a chance of 2^-64 or so. Nothing is folded but case, white space and the separators named here: digits are content.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from outcross.text import normalise

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_PROSE_MARKS = ".,;:!?\"'()[]{}"
_BASE, _STEP, _LENGTH = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F  # odd, so that each has an inverse modulo 2^64
_SEGMENT = 1 << 17  # bytes hashed at once: the arrays stay in the cache
_SPACE = 32


@dataclass(frozen=True)
class Alphabet:
    """What a word is made of: `pattern` finds the words of a lower-cased text, `separators` are the ASCII characters outside of words."""

    pattern: str
    separators: frozenset[str]

    def table(self) -> bytes:
        """For `bytes.translate`: lower case, and a space for each separator; bytes of other scripts stay as they are."""
        return _table(self)

    def plain(self, text: str) -> bytes:
        """The text as bytes that `table` can split as `pattern` would."""
        if text.isascii():
            return text.encode()
        return " ".join(re.findall(self.pattern, text.lower())).encode("utf-8", "surrogatepass")


_BLANK = frozenset(chr(i) for i in range(128) if chr(i).isspace())
WORDS = Alphabet(r"\w+", frozenset(chr(i) for i in range(128) if not (chr(i).isalnum() or chr(i) == "_")))
"""Words as `outcross.text.words` finds them: punctuation is space (Phi-4's decontamination)."""
SYMBOLS = Alphabet(rf"[^\s{re.escape(_PROSE_MARKS)}…“”„‘’«»–—]+", _BLANK | frozenset(_PROSE_MARKS))
"""Words with the signs that carry meaning in maths and code: `3-4` and `3+4` differ, prose punctuation is space."""


@dataclass(frozen=True)
class Units:
    """Words or characters of texts, one text after the other. hashes: uint64 (units,); starts: int64 (texts + 1,)."""

    hashes: U64
    starts: I64

    @property
    def counts(self) -> I64:
        """Units of each text."""
        return np.diff(self.starts)

    def grams(self, n: int) -> Grams:
        """All n-grams inside one text, in order."""
        texts = np.repeat(np.arange(len(self.starts) - 1), self.counts)
        if len(texts) < n:
            return Grams(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
        first = texts[: len(texts) - n + 1]
        places = np.flatnonzero(first == texts[n - 1 :])
        return Grams(_mixed(_folded(self.hashes, n)[places]), first[places], places)

    def short(self, n: int) -> Grams:
        """One gram for each text of 1 to n - 1 units, over all of it: such texts agree only when they are equal."""
        counts, found = self.counts, [self.grams(len(self.hashes) + 1)]
        for size in range(1, n):
            texts = np.flatnonzero(counts == size)
            if len(texts):
                places = self.starts[texts]
                hashes = np.full(len(texts), size * _LENGTH % 2**64, np.uint64)
                for k in range(size):
                    hashes = hashes * np.uint64(_STEP) + self.hashes[places + k]
                found.append(Grams(_mixed(hashes), texts, places))
        return Grams(*(np.concatenate([getattr(item, name) for item in found]) for name in ("hashes", "texts", "places")))


@dataclass(frozen=True)
class Grams:
    """n-grams. hashes: uint64 (grams,); texts: int64, the text of each; places: int64, its first unit in `Units.hashes`."""

    hashes: U64
    texts: I64
    places: I64


def word_units(texts: Sequence[str], alphabet: Alphabet = WORDS) -> Units:
    """The words of each text as hashes. Memory: about 30 bytes per word and one copy of the texts."""
    plain = [alphabet.plain(text) for text in texts]
    buffer = b" ".join([b"", *plain, b""]).translate(alphabet.table())
    places, hashes = _hashed_words(np.frombuffer(buffer, np.uint8))
    offsets = np.cumsum([0, *(len(item) + 1 for item in plain)])
    return Units(hashes, np.searchsorted(places, offsets))


def char_units(texts: Sequence[str]) -> Units:
    """The characters of each text, case folded and with runs of white space as one space, as hashes."""
    plain = [normalise(text) for text in texts]
    points = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), np.uint32)
    return Units(_mixed(points.astype(np.uint64) + np.uint64(1)), np.cumsum([0, *map(len, plain)]))


def _hashed_words(data: NDArray[np.uint8]) -> tuple[I64, U64]:
    """Where each word starts, and its hash. `data` begins and ends with a space; it is cut into segments at spaces."""
    spaces = data == _SPACE
    places: list[I64] = [np.zeros(0, np.int64)]
    hashes: list[U64] = [np.zeros(0, np.uint64)]
    begin = 0
    while begin < len(data) - 1:
        end = min(begin + _SEGMENT, len(data) - 1)
        while not spaces[end]:
            ahead = spaces[end : end + _SEGMENT]
            end += int(ahead.argmax()) if ahead.any() else len(ahead)
        blank = spaces[begin : end + 1]
        edges = np.flatnonzero(blank[1:] != blank[:-1]) + 1
        firsts, lasts = edges[0::2], edges[1::2]
        powers, inverses = _powers(1 << (end - begin).bit_length())
        sums = np.cumsum(data[begin : end + 1] * powers[: end + 1 - begin])
        lengths = (lasts - firsts).astype(np.uint64)
        hashes.append(_mixed((sums[lasts - 1] - sums[firsts - 1]) * inverses[firsts] + lengths * np.uint64(_LENGTH)))
        places.append(firsts + begin)
        begin = end
    return np.concatenate(places), np.concatenate(hashes)


def _folded(units: U64, n: int) -> U64:
    """The polynomial over n units from each place on, by doubling: log n passes."""
    found, size = units, 1
    for bit in f"{n:b}"[1:]:
        found = found[:-size] * np.uint64(pow(_STEP, size, 2**64)) + found[size:]
        size *= 2
        if bit == "1":
            found = found[:-1] * np.uint64(_STEP) + units[size:]
            size += 1
    return found


def _mixed(values: U64) -> U64:
    """The finaliser of SplitMix64: every bit of the input reaches every bit of the output, one to one."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=4)
def _powers(size: int) -> tuple[U64, U64]:
    """Powers of the base and of its inverse modulo 2^64, from 0 to `size`."""

    def powers(base: int) -> U64:
        steps = np.full(size + 1, base, np.uint64)
        steps[0] = 1
        return np.cumprod(steps)

    return powers(_BASE), powers(pow(_BASE, -1, 2**64))


@lru_cache(maxsize=4)
def _table(alphabet: Alphabet) -> bytes:
    return bytes(_SPACE if chr(i) in alphabet.separators else ord(chr(i).lower()) if i < 128 else i for i in range(256))
