"""Statistics of the words of pooled texts that depend on how much text there is, and so are compared at equal amounts only."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Subsets = npt.NDArray[np.bool_]

STEEPEST = 20.0  # the exponent given to a text of one word, whose likelihood has no maximum
ORDERS = 4  # BLEU's longest n-grams
FLOOR = 0.1  # matches that an order without one counts for (Chen & Cherry, WMT 2014, method 1)


def type_token_curve(counts: Integers, sizes: Sequence[int]) -> Floats:
    """How many different words are expected among each of `sizes` tokens drawn without replacement from a text whose words occur `counts`
    times (rarefaction: Hurlbert, Ecology 52, 1971). Sizes beyond the text find all of its words."""
    import numpy as np
    from scipy.special import gammaln

    total = int(counts.sum())
    seen = np.bincount(counts)
    times = np.flatnonzero(seen)
    times = times[times > 0]
    found = np.zeros(len(sizes))
    for place, size in enumerate(sizes):
        size = min(size, total)
        left = total - times
        log = gammaln(left + 1) - gammaln(np.maximum(left - size, 0) + 1) - gammaln(total + 1) + gammaln(total - size + 1)
        found[place] = seen[times] @ (1 - np.where(left >= size, np.exp(log), 0.0))
    return found


def zipf_exponent(counts: Integers, ranks: int | None = None) -> float:
    """The exponent s of Zipf's law p(r) ∝ r^−s over `ranks` ranks (None: as many as there are words), by maximum likelihood; from 0, all
    words alike, to 20. A line through log frequency over log rank is biased (Clauset, Shalizi & Newman, SIAM Review 51, 2009)."""
    import numpy as np
    from scipy.optimize import brentq

    ordered = np.sort(counts[counts > 0])[::-1].astype(np.float64)
    logs = np.log(np.arange(1, max(ranks or 0, len(ordered), 2) + 1))
    mean = float(ordered @ logs[: len(ordered)]) / max(float(ordered.sum()), 1.0)

    def gap(exponent: float) -> float:
        weights = np.exp(-exponent * logs)
        return float(weights @ logs / weights.sum()) - mean

    if gap(0.0) <= 0:
        return 0.0
    return float(brentq(gap, 0.0, STEEPEST, xtol=1e-9)) if gap(STEEPEST) < 0 else STEEPEST


def thinned(counts: Integers, size: int, rng: np.random.RandomState) -> Integers:
    """Counts of a random part of the text, of `size` tokens on average; all of it when it has no more."""
    total = int(counts.sum())
    return counts if total <= size else rng.binomial(counts, size / total).astype(counts.dtype)


def compression(text: bytes) -> float:
    """The compressed size of a text over its size (DEFLATE): lower is more repetitive. It falls with the size, from above 1 for few bytes."""
    return len(zlib.compress(text, 6)) / max(1, len(text))


class SelfBleu:
    """Self-BLEU of any subsets of texts: the mean sentence BLEU-4 of each with all others as references (Zhu et al., arXiv:1802.01886); from 0,
    nothing in common, to 1, all alike. It grows with the number of texts: compare equal numbers.

    As sacrebleu's with `effective_order` and floor smoothing of 0.1: a short text has as many orders as it has words. Memory: the n-grams.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        import numpy as np

        self.lengths = np.array([len(text) for text in texts], dtype=np.int64)
        self._orders = [_Entries(texts, n) for n in range(1, ORDERS + 1)]

    def __call__(self, subset: npt.NDArray[np.bool_]) -> float:
        """Of the texts in `subset`, boolean of shape (texts,); 0 for fewer than two."""
        import numpy as np

        chosen = subset & (self.lengths > 0)
        if chosen.sum() < 2:
            return 0.0
        logs, used, any_match = np.zeros(len(chosen)), np.zeros(len(chosen)), np.zeros(len(chosen), bool)
        for n, entries in enumerate(self._orders, 1):
            matches, total = entries.matches(chosen), np.maximum(self.lengths - n + 1, 0)
            has = total > 0
            logs[has] += np.log(np.where(matches > 0, matches, FLOOR)[has] / total[has])
            used += has
            any_match |= matches > 0
        bleu = np.where(any_match, np.exp(logs / np.maximum(used, 1)), 0.0) * self._brevity(chosen)
        return float(bleu[chosen].mean())

    def _brevity(self, chosen: npt.NDArray[np.bool_]) -> Floats:
        """The penalty by the length of the reference that is closest in length, the shorter of two."""
        import numpy as np

        places = np.flatnonzero(chosen)
        places = places[np.argsort(self.lengths[places], kind="stable")]
        sizes = self.lengths[places].astype(np.float64)
        below = np.concatenate([[-np.inf], sizes[:-1]])
        above = np.concatenate([sizes[1:], [np.inf]])
        closest = np.where(sizes - below <= above - sizes, below, above)
        found = np.ones(len(chosen))
        found[places] = np.exp(np.minimum(0.0, 1 - closest / sizes))
        return found


class _Entries:
    """How often each n-gram stands in each text, sorted so that the text with most of an n-gram comes first."""

    def __init__(self, texts: Sequence[Sequence[str]], n: int) -> None:
        import numpy as np

        codes: dict[Hashable, int] = {}
        grams = [codes.setdefault(tuple(text[i : i + n]), len(codes)) for text in texts for i in range(len(text) - n + 1)]
        owner = np.repeat(np.arange(len(texts)), [max(0, len(text) - n + 1) for text in texts])
        pairs, count = np.unique(np.stack([np.array(grams, dtype=np.int64), owner]), axis=1, return_counts=True)
        order = np.lexsort((-count, pairs[0]))
        self._gram, self._text, self._count = pairs[0][order], pairs[1][order], count[order]
        self._texts = len(texts)

    def matches(self, chosen: npt.NDArray[np.bool_]) -> Floats:
        """For each text the n-grams it shares with another chosen one, each as often as in the one that has it most often."""
        import numpy as np

        kept = chosen[self._text]
        gram, text, count = self._gram[kept], self._text[kept], self._count[kept]
        if not len(gram):
            return np.zeros(self._texts)
        starts = np.flatnonzero(np.concatenate([[True], gram[1:] != gram[:-1]]))
        sizes = np.diff(np.append(starts, len(gram)))
        others = np.repeat(count[starts], sizes)
        others[starts] = np.where(sizes > 1, count[np.minimum(starts + 1, len(count) - 1)], 0)
        found: Floats = np.bincount(text, np.minimum(count, others), minlength=self._texts).astype(np.float64)
        return found


class Pooled:
    """Words of texts by item, to be counted over subsets of the items."""

    def __init__(self, texts: Sequence[Sequence[str]], codes: dict[str, int]) -> None:
        """`codes` numbers the words and grows; hand in the same for all texts that are compared."""
        import numpy as np

        self._codes = np.array([codes.setdefault(word, len(codes)) for text in texts for word in text], dtype=np.int64)
        self._owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])

    def counts(self, subset: Any) -> Integers:
        """How often each word that occurs stands in the texts of `subset`."""
        import numpy as np

        found = np.bincount(self._codes[subset[self._owner]])
        return found[found > 0]
