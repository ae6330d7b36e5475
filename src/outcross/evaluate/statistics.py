"""What diversity probes compute, on a sample and on many half samples of its items at once.

`subsets` is boolean of shape (subsets, items): which items each one holds. Answers are given per item; an item without an
answer contributes nothing. Counts are sparse and one block of subsets is held at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from outcross.types import content_hash

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Subsets = npt.NDArray[np.bool_]

Answers = Sequence[Sequence[str]]
Tokenise = Callable[[str], list[str]]

BLOCK = 4_000_000  # numbers held at once


def half_samples(items: Sequence[str], replicates: int) -> Subsets:
    """All items in row 0, then `replicates` random halves of them, which depend on the items alone and so pair two models.

    The spread of a statistic over halves is its standard error on the whole (the delete-half jackknife: Shao & Wu, Annals of
    Statistics 17, 1989, 1176–1197). Drawing with replacement would repeat items, which a measure of repetition takes for
    collapse; for the entropy of many rare answers its error is too small by a third.
    """
    import numpy as np

    # The stream of RandomState is the one that no release of numpy changes.
    rng = np.random.RandomState(np.frombuffer(bytes.fromhex(content_hash("half samples", tuple(items))), dtype="<u4"))
    drawn = rng.random_sample((replicates, len(items)))
    halves = drawn < np.median(drawn, axis=1, keepdims=True)
    return np.concatenate([np.ones((1, len(items)), dtype=np.bool_), halves])


def entropy(answers: Answers, subsets: Subsets) -> Floats:
    """The plug-in entropy in nats of the answers pooled over the items of each subset.

    It grows with the number of answers. So the first answers of all items are pooled, then the second ones, and so on,
    and the entropies averaged, weighted by their numbers of answers: more answers per item are not called more diverse.
    """
    import numpy as np

    codes: dict[str, int] = {}
    table = np.full((len(answers), max([1, *map(len, answers)])), -1, dtype=np.int64)
    for row, given in enumerate(answers):
        table[row, : len(given)] = [codes.setdefault(text, len(codes)) for text in given]
    found: Floats = np.zeros(len(subsets))
    for index, subset in enumerate(subsets):
        for chosen in table[subset].T:
            counts = np.bincount(chosen[chosen >= 0])
            counts = counts[counts > 0]
            total = counts.sum()
            if total:
                found[index] += total * np.log(total) - (counts * np.log(counts)).sum()
    found /= np.maximum(subsets @ np.array([len(given) for given in answers]), 1)
    return found


def distinct(answers: Answers, subsets: Subsets, tokenise: Tokenise, tokens: int = 200) -> Floats:
    """The share of different n-grams expected among `tokens` drawn from the pooled answers, averaged over n = 1, 2, 3.

    Distinct-n (Li et al., arXiv:1510.03055) falls as texts get longer; a fixed number of draws from the pool compares
    models of any length, as rarefaction does in ecology (Hurlbert, Ecology 52, 1971).
    """
    import numpy as np

    found: Floats = np.zeros(len(subsets))
    for n in (1, 2, 3):
        counts = _matrix([[gram for text in given for gram in _ngrams(tokenise(text), n)] for given in answers])
        for rows, pooled in _pooled(counts, subsets):
            for row, grams in enumerate(pooled, rows.start):
                seen = np.bincount(grams.astype(np.int64))
                missed = (1 - np.arange(len(seen)) / max(float(grams.sum()), 1.0)) ** tokens
                found[row] += float(seen @ (1 - missed)) / tokens / 3
    return found


def self_overlap(answers: Answers, subsets: Subsets, tokenise: Tokenise) -> Floats:
    """How much the answers to one item share with those to another: the mean cosine of their n-gram counts over all pairs
    of different items, averaged over n = 1, 2, 3. From 0, nothing in common, to 1, always the same answer."""
    import numpy as np
    from scipy.sparse import diags_array

    given = np.array([len(texts) for texts in answers])
    owner = np.repeat(np.arange(len(answers)), given)
    found: Floats = np.zeros(len(subsets))
    answered = (subsets & (given > 0)).sum(axis=1)
    pairs = np.maximum(answered * (answered - 1), 1)
    for n in (1, 2, 3):
        counts = _matrix([_ngrams(tokenise(text), n) for texts in answers for text in texts])
        lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
        mean = _gather(owner, len(answers)) @ (diags_array(1 / (lengths * given[owner])) @ counts)
        own = np.asarray(mean.multiply(mean).sum(axis=1)).ravel()
        for rows, pooled in _pooled(mean, subsets):
            found[rows] += ((pooled**2).sum(axis=1) - subsets[rows] @ own) / pairs[rows] / 3
    return found


def _ngrams(tokens: list[str], n: int) -> list[Hashable]:
    """All n-grams of an answer, its end included: as many as tokens, so that short answers count for every n."""
    padded = [*(tokens or [""]), *[None] * (n - 1)]
    return [tuple(padded[i : i + n]) for i in range(len(padded) - n + 1)]


def _matrix(rows: Sequence[Sequence[Hashable]]) -> Any:
    """Counts as a sparse matrix, one row per sequence and one column per different entry."""
    import numpy as np
    from scipy.sparse import csr_array

    columns: dict[Hashable, int] = {}
    where = [columns.setdefault(entry, len(columns)) for row in rows for entry in row]
    start = np.cumsum([0, *map(len, rows)])
    counts = csr_array((np.ones(len(where)), where, start), shape=(len(rows), max(len(columns), 1)))
    counts.sum_duplicates()
    return counts


def _gather(owner: Integers, items: int) -> Any:
    """The sparse matrix that adds up the rows of each item."""
    import numpy as np
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))), shape=(items, len(owner)))


def _pooled(counts: Any, subsets: Subsets) -> Iterator[tuple[slice, Floats]]:
    """The summed counts of each subset, a block of subsets at a time: (rows, array of shape (rows, columns))."""
    step = max(1, BLOCK // max(counts.shape))
    columns = counts.T.tocsr()
    for start in range(0, len(subsets), step):
        rows = slice(start, min(start + step, len(subsets)))
        yield rows, (columns @ subsets[rows].T.astype(float)).T
