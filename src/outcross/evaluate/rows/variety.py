"""Statistics of how varied texts are, as one value per text whose mean is the statistic.

The values are jackknife pseudo-values: N times the statistic less N − 1 times the one without this text (Tukey; Efron & Tibshirani, "An Introduction
to the Bootstrap", 1993, chapter 11). Their mean is the statistic, and tests for means apply to it, those for skewed values too: texts that
repeat each other are a few low values among many high ones. Memory: the n-grams of all texts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

Tokens = Sequence[Sequence[str]]
DRAWN = 50  # texts: few enough for small sets, many enough to meet what comes again


def distinct(texts: Tokens, drawn: int = DRAWN) -> Floats:
    """The share of different n-grams expected among those of `drawn` of the texts, averaged over n = 1, 2, 3.

    The draw is without replacement and of whole texts (sample-based rarefaction: Hurlbert, Ecology 52, 1971; Gotelli & Colwell, Ecology Letters
    4, 2001), so that its expectation is the same in a set of any size above `drawn`, and texts that come again count in full.
    """
    import numpy as np

    size = len(texts)
    if size < 2:
        return np.ones(size)
    drawn = min(drawn, size - 1)
    lengths = np.array([max(1, len(text)) for text in texts], dtype=np.float64)
    whole, without = 0.0, np.zeros(size)
    for n in (1, 2, 3):
        present = _counts(texts, n)
        present.data[:] = 1.0
        holders = np.asarray(present.sum(axis=0)).ravel().astype(np.int64)
        whole += float(_met(size, drawn)[holders].sum()) / 3
        fewer = _met(size - 1, drawn)
        now, then = fewer[np.minimum(holders, size - 1)], fewer[holders - 1]
        without += (now.sum() - present @ (now - then)) / 3
    whole /= drawn * lengths.mean()
    without /= drawn * (lengths.sum() - lengths) / (size - 1)
    return _pseudo(whole, without)


def dissimilarity(texts: Tokens) -> Floats:
    """One minus the mean cosine of the n-gram counts of two texts, averaged over n = 1, 2, 3: from 0, all the same, to 1, nothing in common."""
    import numpy as np
    from scipy.sparse import diags_array

    size = len(texts)
    if size < 3:
        return np.ones(size)
    shared = np.zeros(size)
    for n in (1, 2, 3):
        counts = _counts(texts, n)
        squared = np.asarray(counts.multiply(counts).sum(axis=1)).ravel()
        unit = diags_array(1 / np.sqrt(squared)) @ counts
        shared += (unit @ np.asarray(unit.sum(axis=0)).ravel() - 1) / 3
    whole = 1 - float(shared.sum()) / (size * (size - 1))
    return _pseudo(whole, 1 - (shared.sum() - 2 * shared) / ((size - 1) * (size - 2)))


def _pseudo(whole: float, without: Floats) -> Floats:
    found: Floats = len(without) * whole - (len(without) - 1) * without
    return found


def _met(size: int, drawn: int) -> Floats:
    """The chance that `drawn` of `size` texts hold at least one of d marked ones, for d from 0 to `size`."""
    import numpy as np
    from scipy.special import gammaln

    left = size - np.arange(size + 1)
    log = gammaln(left + 1) - gammaln(np.maximum(left - drawn, 0) + 1) - gammaln(size + 1) + gammaln(size - drawn + 1)
    found: Floats = 1 - np.where(left >= drawn, np.exp(log), 0.0)
    return found


def _counts(texts: Tokens, n: int) -> Any:
    """How often each n-gram stands in each text, as a sparse matrix. The end of a text counts, so that it has as many n-grams as words."""
    import numpy as np
    from scipy.sparse import csr_array

    columns: dict[Hashable, int] = {}
    where: list[int] = []
    start = [0]
    for text in texts:
        padded: list[str | None] = [*(text or [""]), *[None] * (n - 1)]
        where += [columns.setdefault(tuple(padded[i : i + n]), len(columns)) for i in range(len(padded) - n + 1)]
        start.append(len(where))
    counts = csr_array((np.ones(len(where)), where, start), shape=(len(texts), len(columns)))
    counts.sum_duplicates()
    return counts
