"""How varied a set is and how much of real text it covers, held against real text of equal length.

Every figure is of exactly `tokens` words. Real rows are split at random into three disjoint parts A, B and C of that many, again and again,
and as many words D are drawn from the set. What D shows is held against what B and C show, with A as the reference where a figure has one;
what B and C differ by is what a second real sample would show. A difference counts when it leaves that null, at a level shared by all figures
(Bonferroni): the chance that one of two real samples is called worse is at most `LEVEL`. The spread of B against C is the spread of two samples of
`tokens` words, and D and the real parts are averaged over many draws, so the interval is too wide rather than too narrow.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outcross.audit.findings import Statistic
from outcross.text import words

I64 = NDArray[np.int64]

LEVEL = 0.05  # of all figures together
DRAWS = 24
TOKENS = 60_000  # words a part at most: more make it slower and little surer
LEAST = 1_000  # words a part that a comparison needs
ROWS = 20  # rows a part that a comparison needs
_COMMON = 0.9  # the commonest words, which hold this share of the reference
_FIRST, _LAST = 10, 1000  # ranks on which Zipf's law is read
_ENDS = tuple(".!?…\"”’'）)]}。！？»*`:;")


@dataclass(frozen=True)
class Part:
    """Words as numbers, the row each is of, and whether each row ends as a text does. size: how many different words there are at all."""

    tokens: I64
    rows: I64
    ends: NDArray[np.bool_]
    size: int

    def counts(self) -> I64:
        found: I64 = np.bincount(self.tokens, minlength=self.size)
        return found

    def grams(self, n: int) -> I64:
        """n-grams inside rows, hashed; in order."""
        inside = self.rows[: len(self.rows) - n + 1] == self.rows[n - 1 :]
        found = np.zeros(len(self.tokens) - n + 1, np.int64)
        for k in range(n):
            found = found * 1_000_003 + self.tokens[k : len(self.tokens) - n + 1 + k]
        grams: I64 = found[inside]
        return grams

    def lengths(self) -> I64:
        found: I64 = np.bincount(self.rows - self.rows[0])
        return found


class _Texts:
    """Texts as one row of word numbers, from which parts are drawn row by row."""

    def __init__(self, texts: Sequence[str], vocabulary: dict[str, int]) -> None:
        spoken = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(text)] for text in texts]
        filled = [(said, text) for said, text in zip(spoken, texts, strict=True) if said]
        self._vocabulary = vocabulary
        self._said = [np.array(said, np.int64) for said, _ in filled]
        self._ends = np.array([text.rstrip().endswith(_ENDS) for _, text in filled], np.bool_)
        self.total = sum(map(len, self._said))
        self.rows = len(self._said)

    def renumbered(self, ranks: I64) -> None:
        """Each word gets another number."""
        self._said = [ranks[said] for said in self._said]

    def parts(self, rng: np.random.Generator, tokens: int, count: int) -> list[Part]:
        """`count` disjoint parts of exactly `tokens` words, of rows in random order; a row that ends a part is cut there."""
        order = rng.permutation(self.rows)
        lengths = np.array([len(self._said[row]) for row in order])
        last = int(np.searchsorted(np.cumsum(lengths), tokens * count)) + 1
        order, lengths = order[:last], lengths[:last]
        said, rows = np.concatenate([self._said[row] for row in order]), np.repeat(np.arange(len(order)), lengths)
        found = []
        for start in range(0, tokens * count, tokens):
            mine = rows[start : start + tokens]
            ends = self._ends[order[mine[0] : mine[-1] + 1]]
            found.append(Part(said[start : start + tokens], mine, ends, len(self._vocabulary)))
        return found


# ── figures: of a part, and of a reference ─────────────────────────────────────────────────────────────────────────────
def vocabulary(part: Part, _: Part) -> float:
    """Different words."""
    return float((part.counts() > 0).sum())


def phrases(part: Part, _: Part) -> float:
    """Different word pairs, as a share of all."""
    grams = part.grams(2)
    return len(_times(grams)) / max(len(grams), 1)


def entropy(part: Part, _: Part) -> float:
    """Plug-in entropy of the words, in nats."""
    counts = part.counts()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def rare_words(part: Part, reference: Part) -> float:
    """Share of words outside the commonest that make up nine tenths of the reference."""
    counts = reference.counts()
    order = np.argsort(-counts, kind="stable")
    common = order[: int(np.searchsorted(np.cumsum(counts[order]), _COMMON * counts.sum())) + 1]
    return 1 - float(part.counts()[common].sum()) / len(part.tokens)


def coverage(part: Part, reference: Part) -> float:
    """Share of the reference's word pairs that the part also has."""
    grams = reference.grams(2)
    known = np.sort(part.grams(2))
    if not len(grams) or not len(known):
        return 0.0
    return float((known[np.minimum(np.searchsorted(known, grams), len(known) - 1)] == grams).mean())


def likeness(part: Part, reference: Part) -> float:
    """Share of the part's word pairs that the reference also has."""
    return coverage(reference, part)


def said_once(part: Part, _: Part) -> float:
    """Share of 4-grams that stand nowhere else in the part."""
    grams = part.grams(4)
    return float((_times(grams) == 1).sum()) / max(len(grams), 1)


def _times(grams: I64) -> I64:
    """How often each different one occurs."""
    ordered = np.sort(grams)
    first = np.flatnonzero(np.concatenate([np.ones(min(len(grams), 1), np.bool_), ordered[1:] != ordered[:-1]]))
    return np.diff(np.append(first, len(grams)))


def zipf(part: Part, _: Part) -> float:
    """Slope of log frequency over log rank, ranks 10 to 1,000: −1 for Zipf's law, steeper when few words do all the work."""
    counts = np.sort(part.counts())[::-1][_FIRST - 1 : _LAST]
    counts = counts[counts > 0]
    if len(counts) < 2:
        return 0.0
    return float(np.polyfit(np.log(np.arange(_FIRST, _FIRST + len(counts))), np.log(counts), 1)[0])


def compressed(part: Part, _: Part) -> float:
    """Bytes a word after zlib, the words as numbers."""
    return len(zlib.compress(part.tokens.astype(np.uint32).tobytes(), 1)) / len(part.tokens)


def length(part: Part, _: Part) -> float:
    """Words a row."""
    return float(part.lengths().mean())


def length_spread(part: Part, _: Part) -> float:
    """Standard deviation of the logarithm of the words a row."""
    return float(np.log(np.maximum(part.lengths(), 1)).std())


def cut_off(part: Part, _: Part) -> float:
    """Share of rows whose answer does not end as a sentence, list or formula does."""
    return 1 - float(part.ends.mean())


Figure = Callable[[Part, Part], float]
FIGURES: dict[str, tuple[Figure, Literal["lower", "higher", "either"]]] = {
    "coverage of real word pairs": (coverage, "lower"),
    "word pairs that real text has": (likeness, "lower"),
    "different words": (vocabulary, "lower"),
    "different word pairs": (phrases, "lower"),
    "entropy of words (nats)": (entropy, "lower"),
    "rare words": (rare_words, "lower"),
    "Zipf slope": (zipf, "either"),
    "4-grams said once": (said_once, "lower"),
    "bytes a word, compressed": (compressed, "lower"),
    "words a row": (length, "either"),
    "spread of lengths (log)": (length_spread, "either"),
    "answers that stop in the middle": (cut_off, "higher"),
}


def against_real(texts: Sequence[str], real: Sequence[str], seed: int = 0) -> tuple[tuple[Statistic, ...], int, str]:
    """The figures with their intervals, the words each rests on, and why there are none (empty when there are)."""
    known: dict[str, int] = {}
    mine, theirs = _Texts(texts, known), _Texts(real, known)
    # Numbers by first appearance would tell whose word it is: ties between ranks, and compression, must not know.
    ranks: I64 = np.empty(len(known), np.int64)
    ranks[[known[word] for word in sorted(known)]] = np.arange(len(known))
    mine.renumbered(ranks)
    theirs.renumbered(ranks)
    tokens = int(min(mine.total, theirs.total / 3, TOKENS))
    rows = min(tokens / max(mine.total, 1) * mine.rows, tokens / max(theirs.total, 1) * theirs.rows)
    if tokens < LEAST or rows < ROWS:
        need = f"{LEAST:,} words in {ROWS} rows from the set and three times that from the real data"
        return (
            (),
            tokens,
            f"diversity against real: {need} are needed; there are {mine.total:,} in {mine.rows:,} and {theirs.total:,} in {theirs.rows:,}",
        )
    rng = np.random.default_rng(seed)
    values = np.array([_draw(mine, theirs, rng, tokens) for _ in range(DRAWS)])  # (draws, parts, figures)
    return tuple(statistics(values, {name: worse for name, (_, worse) in FIGURES.items()})), tokens, ""


def _draw(mine: _Texts, theirs: _Texts, rng: np.random.Generator, tokens: int) -> list[list[float]]:
    reference, second, third = theirs.parts(rng, tokens, 3)
    own = mine.parts(rng, tokens, 1)[0]
    return [[figure(one, reference) for figure, _ in FIGURES.values()] for one in (own, second, third)]


def statistics(values: NDArray[np.float64], figures: Mapping[str, Literal["lower", "higher", "either"]]) -> list[Statistic]:
    """Values of shape (draws, 3, figures), of the set and two real parts, as figures with their intervals and nulls; the level is shared."""
    from scipy.special import stdtrit

    own, real = values[:, 0], values[:, 1:].mean(axis=1)
    spread = np.sqrt((np.square(values[:, 1] - values[:, 2])).mean(axis=0))
    reach = float(stdtrit(DRAWS - 1, 1 - LEVEL / len(figures) / 2)) * spread
    difference = (own - real).mean(axis=0)
    found = []
    for k, (name, worse) in enumerate(figures.items()):
        at, null = float(difference[k]), float(reach[k])
        found.append(Statistic(name, float(own[:, k].mean()), float(real[:, k].mean()), at, at - null, at + null, null, worse))
    return found
