"""How much of a text repeats itself.

The measures and limits are those of Gopher (Rae et al. 2021, arXiv:2112.11446, table A1), which kept a web page when every one of these
is under its limit:

    share of lines (and of paragraphs) that stand elsewhere in the text          0.30
    share of characters in such lines (paragraphs)                               0.20
    share of characters in the most frequent 2-, 3-, 4-gram                      0.20  0.18  0.16
    share of characters in repeated 5-, 6-, 7-, 8-, 9-, 10-grams                 0.15  0.14  0.13  0.12  0.11  0.10

It does not say how to count overlapping n-grams; as in datatrove, all of the most frequent n-gram's occurrences count, and a repeated n-gram
counts from its second occurrence on, the search going on behind it. The paper looks at pages, where these are shares of many occurrences. In a
text of 60 words a phrase said twice would be over the limit, so here n-grams count only when they make up 20 words or more. That
changes nothing for a text of 200 words or more, where the lowest limit is 20 words.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

_PARAGRAPHS = re.compile(r"\n\s*\n")
DUPLICATES = 0.30
CHARACTERS = 0.20
TOP = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
_WORDS = 20


@dataclass(frozen=True, slots=True)
class Repetition:
    """Shares between 0 and 1. `lines` and `paragraphs` count duplicates, `line_characters` and `paragraph_characters` their characters;
    `top` and `repeated` are by n: 2 to 4 and 5 to 10. `words` is the length of the text."""

    words: int
    lines: float
    line_characters: float
    paragraphs: float
    paragraph_characters: float
    top: tuple[float, ...]
    repeated: tuple[float, ...]

    def above(self) -> Iterator[tuple[str, float, float]]:
        """What is above its limit in table A1: name, value and limit, in the table's order."""
        whole = (
            ("duplicate lines", self.lines, DUPLICATES),
            ("duplicate paragraphs", self.paragraphs, DUPLICATES),
            ("characters in duplicate lines", self.line_characters, CHARACTERS),
            ("characters in duplicate paragraphs", self.paragraph_characters, CHARACTERS),
            *((f"characters in the top {n}-gram", value, TOP[n]) for n, value in zip(TOP, self.top, strict=True)),
            *((f"characters in repeated {n}-grams", value, REPEATED[n]) for n, value in zip(REPEATED, self.repeated, strict=True)),
        )
        return (one for one in whole if one[1] > one[2])


def repetition(text: str) -> Repetition:
    """All measures of one text. Words are what stands between white space. An empty text repeats nothing."""
    found = text.split()
    size = sum(map(len, found))
    lines, line_characters = _duplicates([line.strip() for line in text.splitlines() if line.strip()])
    paragraphs, paragraph_characters = _duplicates([part.strip() for part in _PARAGRAPHS.split(text) if part.strip()])
    top, repeated = _grams(found, size)
    return Repetition(len(found), lines, line_characters, paragraphs, paragraph_characters, top, repeated)


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of it after zlib at level 6: 1.5 to 3 for prose of some hundred words, above 5 for a text that goes round in
    circles, under 1 for a few words. It rises with the length, so that texts of one kind are compared. 0 for the empty text."""
    raw = text.encode(errors="surrogatepass")
    return len(raw) / len(zlib.compress(raw, 6)) if raw else 0.0


def _duplicates(parts: Sequence[str]) -> tuple[float, float]:
    """The share of parts that occurred before, and of their characters."""
    if len(parts) < 2:
        return 0.0, 0.0
    again = characters = 0
    seen: set[str] = set()
    for part in parts:
        if part in seen:
            again += 1
            characters += len(part)
        seen.add(part)
    return again / len(parts), characters / sum(map(len, parts))


def _grams(words: Sequence[str], size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Top shares for n of 2 to 4, shares of repeated n-grams for 5 to 10. What repeats no n-gram repeats no longer one."""
    top: list[float] = []
    for n in TOP:
        counted = Counter(_windows(words, n))
        times = max(counted.values(), default=0)
        most = max((sum(map(len, gram)) for gram, count in counted.items() if count == times), default=0) if times * n >= _WORDS else 0
        top.append(min(1.0, times * most / size) if times > 1 else 0.0)
        if times < 2:
            return _padded(top, TOP), _padded([], REPEATED)
    repeated: list[float] = []
    for n in REPEATED:
        grams, characters = _repeated(list(_windows(words, n)))
        repeated.append(characters / size if grams * n >= _WORDS else 0.0)
        if not grams:
            break
    return _padded(top, TOP), _padded(repeated, REPEATED)


def _windows(words: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[k:] for k in range(n)), strict=False)


def _padded(values: Sequence[float], lengths: Collection[int]) -> tuple[float, ...]:
    return (*values, *[0.0] * (len(lengths) - len(values)))


def _repeated(grams: Sequence[tuple[str, ...]]) -> tuple[int, int]:
    """N-grams that occurred before, and their characters; one is counted whole and the search goes on behind it."""
    if len(set(grams)) == len(grams):
        return 0, 0
    seen: set[tuple[str, ...]] = set()
    at = count = characters = 0
    while at < len(grams):
        gram = grams[at]
        if gram in seen:
            count += 1
            characters += sum(map(len, gram))
            at += len(gram)
        else:
            seen.add(gram)
            at += 1
    return count, characters
