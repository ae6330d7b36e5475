"""The Fréchet distance has the closed form of normal laws, and falls when answers become like real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import context
from pictures import rows
from scipy.linalg import sqrtm

from outcross.errors import ConfigError
from outcross.evaluate.fid import FrechetDistance, frechet
from outcross.generate.recorded import Recorded
from outcross.models.hashed_embedder import flat_embedder
from outcross.types import Example, Origin, Task


def whitened(count: int, width: int, seed: int) -> np.ndarray:  # type: ignore[type-arg]
    """Points whose mean is exactly 0 and whose unbiased covariance is exactly the identity."""
    points = np.random.default_rng(seed).standard_normal((count, width))
    points -= points.mean(axis=0)
    return points @ np.linalg.inv(np.linalg.cholesky(np.cov(points.T))).T


def test_the_distance_of_normal_laws_in_closed_form() -> None:
    base = whitened(200, 5, 0)
    scales, shift = np.array([2.0, 1.0, 0.5, 3.0, 0.0]), np.arange(5.0)
    assert frechet(base, base) == pytest.approx(0, abs=1e-9)
    # of N(0, I) and N(m, D²): |m|² + Σ (1 − d)², for any points with these moments
    assert frechet(base, whitened(333, 5, 1) * scales + shift) == pytest.approx(30 + ((1 - scales) ** 2).sum(), rel=1e-9)
    assert frechet(base * 3, base) == pytest.approx(5 * 4)


@pytest.mark.parametrize("count", [6, 40])
def test_it_is_the_textbook_formula_for_any_covariances(count: int) -> None:
    rng = np.random.default_rng(count)
    first, second = rng.standard_normal((count, 8)) @ rng.standard_normal((8, 8)), rng.standard_normal((50, 8)) + 1
    a, b = np.cov(first.T), np.cov(second.T)
    root = a @ b if count > 8 else a @ b + 0j
    expected = (
        ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a + b) - 2 * np.sqrt(np.linalg.eigvals(root).astype(complex)).real.sum()
    )
    assert frechet(first, second) == pytest.approx(float(expected), rel=1e-5)
    assert frechet(first, second) == pytest.approx(frechet(second, first))
    if count > 8:
        assert expected == pytest.approx(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real), rel=1e-6)


def measure(folder: Path, said: list[Example], reference: list[Example]) -> FrechetDistance:
    return FrechetDistance(tuple(Task(row.id, row.prompt) for row in said), Recorded(said), tuple(reference), replicates=60)


def test_a_lost_mode_is_far_and_real_data_is_near_with_a_usable_spread(tmp_path: Path) -> None:
    real = rows(120, seed=5)
    made = Origin("synthetic", source="model", depth=1)
    ctx = context(tmp_path, {"embedder": flat_embedder()})
    near = measure(tmp_path, rows(120, seed=6, what="said", origin=made), real)(ctx)
    far = measure(tmp_path, rows(120, seed=6, what="said", places=(0,), origin=made), real)(ctx)
    assert near.items == far.items and near.unit == far.unit == "squared distance" and not near.higher_is_better
    assert near.replicates is not None and far.replicates is not None
    assert np.mean(near.replicates) == pytest.approx(near.mean)
    paired = np.array(far.replicates) - np.array(near.replicates)
    assert far.mean > near.mean + 3 * float(paired.std())
    assert near == measure(tmp_path, rows(120, seed=6, what="said", origin=made), real)(ctx)


def test_too_few_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 4 items"):
        measure(tmp_path, rows(4), rows(4))(context(tmp_path, {"embedder": flat_embedder()}))
