"""A linear classifier on synthetic labels that a verifier has filtered (Feng, Dohmatob et al., arXiv:2406.07515).

x ~ N(0, I_d), the right label is the sign of x·w*. A synthetic label is wrong with probability p; the verifier keeps a right one with
probability φ and a wrong one with probability ψ. The classifier is ridge regression on the kept rows.
"""

from __future__ import annotations

import math

import numpy as np

from outcross.lab.lineages import Floats, blocks

RIDGE = 1e-3  # times the number of rows


def alignments(
    wrong: float, keep_right: float, keep_wrong: float, *, rows: int, dimensions: int, replicates: int, rng: np.random.Generator
) -> Floats:
    """The cosine between the classifier and the truth: shape (replicates,). Its accuracy on new data is 1 − arccos(cosine)/π."""
    found = []
    for block in blocks(replicates, rows * dimensions):
        x = rng.standard_normal((block, rows, dimensions))
        labels = np.sign(x[:, :, 0])  # w* is the first axis
        mistaken = rng.random((block, rows)) < wrong
        kept = rng.random((block, rows)) < np.where(mistaken, keep_wrong, keep_right)
        signed = np.where(mistaken, -labels, labels) * kept
        gram = np.matmul((x * kept[:, :, None]).swapaxes(1, 2), x)
        gram[:, np.arange(dimensions), np.arange(dimensions)] += RIDGE * rows
        weights = np.linalg.solve(gram, np.matmul(x.swapaxes(1, 2), signed[:, :, None]))[:, :, 0]
        found.append(weights[:, 0] / np.linalg.norm(weights, axis=1))
    return np.concatenate(found)


def accuracy(alignment: Floats) -> Floats:
    """The share of new rows that a classifier of this cosine with the truth labels rightly."""
    return 1 - np.arccos(np.clip(alignment, -1, 1)) / math.pi


def threshold(keep_right: float, keep_wrong: float) -> float:
    """p* = 1/(1 + ψ/φ): below it, with data without end, the classifier is always right; above it, always wrong (Theorem 1)."""
    return 1 / (1 + keep_wrong / keep_right)
