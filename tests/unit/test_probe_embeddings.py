"""Vendi, coverage, density, precision, recall and MAUVE against closed forms, their authors' packages and plain re-computation."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prdc import compute_prdc
from scipy import stats
from sklearn.metrics import pairwise_distances
from vendi_score import vendi as vendi_package

from outcross.evaluate import mauve, neighbours, vendi
from outcross.evaluate.statistics import half_samples
from outcross.evaluate.vectors import about_the_value, four_fifths
from outcross.text import words

MEASURES = (neighbours.precision, neighbours.recall, neighbours.density, neighbours.coverage)


def whole(points: int) -> np.ndarray:
    return np.ones((1, points), dtype=bool)


def normal(size: int, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(size, width))


def measured(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    return {measure.__name__: float(measure(real, fake, k, whole(len(real)), whole(len(fake)))[0]) for measure in MEASURES}


# ── neighbours ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("reals", "fakes", "k", "shift"), [(200, 150, 5, 0.3), (120, 300, 3, 1.0), (60, 60, 1, 0.0), (50, 80, 20, 3.0)])
def test_all_four_are_those_of_the_authors_package(reals: int, fakes: int, k: int, shift: float) -> None:
    real, fake = normal(reals), normal(fakes, seed=1) * (1 + shift / 4) + shift / 4
    assert measured(real, fake, k) == pytest.approx({name: float(value) for name, value in compute_prdc(real, fake, k).items()}, abs=1e-12)


@pytest.mark.parametrize(("reals", "fakes", "k"), [(40, 40, 5), (60, 25, 3), (20, 100, 2)])
def test_coverage_and_density_of_equal_laws_have_their_expectations(reals: int, fakes: int, k: int) -> None:
    rng = np.random.default_rng(2)
    found = [measured(rng.normal(size=(reals, 3)), rng.normal(size=(fakes, 3)), k) for _ in range(300)]
    covered, dense = ([one[name] for one in found] for name in ("coverage", "density"))
    assert np.mean(covered) == pytest.approx(neighbours.expected_coverage(reals, fakes, k), abs=4 * np.std(covered) / math.sqrt(300))
    assert np.mean(dense) == pytest.approx(1.0, abs=4 * np.std(dense) / math.sqrt(300))


def test_the_expected_coverage_is_that_of_drawing_neighbours() -> None:
    assert neighbours.expected_coverage(10_000, 10_000, 5) == pytest.approx(1 - 2**-5, abs=1e-3)
    for real, fake, k in [(30, 20, 4), (5, 9, 1), (100, 3, 7)]:
        urn = stats.hypergeom(real + fake - 1, fake, k)  # k of all others, of which so many are fake
        assert neighbours.expected_coverage(real, fake, k) == pytest.approx(1 - urn.pmf(0))
    assert neighbours.expected_coverage(5, 1, 5) == 1.0


def test_the_expected_precision_is_what_another_sample_has() -> None:
    rng = np.random.default_rng(3)
    seen, expected = [], []
    for _ in range(60):
        real = rng.standard_t(3, size=(80, 4))
        found = measured(real, rng.standard_t(3, size=(80, 4)))
        seen.append((found["precision"] + found["recall"]) / 2)
        expected.append(neighbours.expected_precision(real, 5))
    assert np.mean(seen) == pytest.approx(np.mean(expected), abs=0.02) and 0.5 < np.mean(seen) < 0.95


def test_the_expected_density_is_one_without_ties_and_what_another_sample_has_with_them() -> None:
    assert neighbours.expected_density(normal(90), 7) == pytest.approx(1.0)
    rng = np.random.default_rng(7)
    real, other = (rng.integers(0, 30, size=(400, 1)).astype(float) for _ in range(2))
    assert (
        neighbours.expected_density(real, 5) == pytest.approx(measured(real, other)["density"], rel=0.05)
        and measured(real, other)["density"] > 2
    )


def test_lost_modes_lower_coverage_and_recall_and_noise_density_and_precision() -> None:
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(10, 8)) * 6

    def law(modes: int, noise: float = 1.0) -> dict[str, float]:
        return measured(real, centres[rng.integers(0, modes, 500)] + rng.normal(size=(500, 8)) * noise)

    real = centres[rng.integers(0, 10, 500)] + rng.normal(size=(500, 8))
    same, dropped, noisy = law(10), law(5), law(10, 1.6)
    for name in ("coverage", "recall"):
        assert dropped[name] < 0.65 * same[name]
    for name in ("density", "precision"):
        assert dropped[name] > 0.9 * same[name] and noisy[name] < 0.6 * same[name]
    assert noisy["recall"] > same["recall"] - 0.05


def test_an_outlier_among_real_points_moves_precision_more_than_density() -> None:
    """Naeem et al., section 2: the ball of one outlier holds everything."""
    real, fake = normal(200, 4), normal(200, 4, seed=1) + 5
    apart, held = measured(real, fake), measured(np.concatenate([real, np.full((1, 4), 12.0)]), fake)
    assert held["precision"] - apart["precision"] > 0.5 and held["density"] - apart["density"] < 0.25


def test_copies_of_real_points_cover_them_even_where_these_come_many_times() -> None:
    real = np.repeat(normal(6), 20, axis=0)
    assert measured(real, real[::20]) == pytest.approx({"precision": 1, "recall": 1, "density": 4, "coverage": 1})
    assert measured(real, real[::20] + 1)["coverage"] == 0


def test_subsets_are_the_statistics_of_the_hits_inside_them() -> None:
    real, fake = normal(60, 3), normal(50, 3, seed=1) * 1.3
    on_real, on_fake = half_samples([f"r{i}" for i in range(60)], 7), half_samples([f"f{i}" for i in range(50)], 7)
    distances, reach = pairwise_distances(real, fake), np.sort(pairwise_distances(real), axis=1)[:, 4]
    near, around_fake = distances <= reach[:, None], distances <= np.sort(pairwise_distances(fake), axis=1)[None, :, 4]
    for row, (r, f) in enumerate(zip(on_real, on_fake, strict=True)):
        inside = near[np.ix_(r, f)]
        expected = [
            inside.any(axis=0).mean(),
            around_fake[np.ix_(r, f)].any(axis=1).mean(),
            inside.mean() * 60 / 4,
            inside.any(axis=1).mean(),
        ]
        assert [float(measure(real, fake, 4, on_real, on_fake)[row]) for measure in MEASURES] == pytest.approx(expected, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.floats(0.01, 100), st.floats(-5, 5))
def test_order_scale_and_place_do_not_matter(seed: int, k: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    real, fake = rng.normal(size=(30, 3)), rng.normal(size=(20, 3)) * 1.2
    moved = measured(rng.permutation(real) * scale + shift * scale, rng.permutation(fake) * scale + shift * scale, k)
    assert moved == pytest.approx(measured(real, fake, k), abs=0.04)  # a tie within rounding may fall either way


def test_four_fifths_depend_on_the_items_alone_and_are_pinned() -> None:
    items = [f"task {number}" for number in range(103)]
    subsets = four_fifths(items, 50)
    assert subsets[0].all() and set(subsets[1:].sum(axis=1)) == {83} and np.array_equal(subsets, four_fifths(items, 50))
    assert not np.array_equal(subsets, four_fifths(items[::-1], 50))
    assert np.flatnonzero(~four_fifths(["a", "b", "c", "d", "e", "f"], 3))[:3].tolist() == [8, 16, 21]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("scale", [1.2, 0.7])
def test_twice_the_spread_of_four_fifths_is_the_standard_error_or_more(measure: object, scale: float) -> None:
    rng = np.random.default_rng(5)
    values, spreads = [], []
    parts = four_fifths([f"r{i}" for i in range(150)], 50), four_fifths([f"f{i}" for i in range(150)], 50)
    for _ in range(50):
        found = measure(rng.normal(size=(150, 8)), rng.normal(size=(150, 8)) * scale, 5, *parts)  # type: ignore[operator]
        values.append(found[0])
        spreads.append(np.var(about_the_value(found, stretch=2.0), ddof=1))
    error = np.std(values, ddof=1)
    assert error < 0.012 or 0.85 < math.sqrt(np.mean(spreads)) / error < 2.2


def test_distances_are_held_a_block_at_a_time() -> None:
    real, fake = normal(3000, 4), normal(3000, 4, seed=1)
    tracemalloc.start()
    neighbours.coverage(real, fake, 5, whole(3000), whole(3000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 3 * neighbours.BLOCK < 3000 * 3000 * 16


# ── Vendi ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_k_equal_clusters_are_k_in_effect(k: int, order: float) -> None:
    clusters = np.repeat(np.eye(k), 12 // k, axis=0)
    assert vendi.vendi_score(clusters @ clusters.T, order) == pytest.approx(k)
    assert vendi.of_vectors(np.hstack([clusters * 7, np.zeros((len(clusters), 40))]), whole(len(clusters)), order)[0] == pytest.approx(
        math.log(k)
    )


def test_unequal_clusters_are_the_exponential_of_their_entropy() -> None:
    clusters = np.eye(4)[[0] * 10 + [1] * 5 + [2] * 4 + [3]]
    assert math.log(vendi.vendi_score(clusters @ clusters.T)) == pytest.approx(stats.entropy([10, 5, 4, 1]))
    assert vendi.vendi_score(clusters @ clusters.T, 2) == pytest.approx(400 / (100 + 25 + 16 + 1))


@pytest.mark.filterwarnings("ignore:Please import `csr_matrix`:DeprecationWarning")  # the package's own
@pytest.mark.parametrize("order", [1, 2, 5])
def test_scores_are_those_of_the_authors_package(order: int) -> None:
    rows = np.abs(normal(40, 6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = vendi_package.score_K(unit @ unit.T, q=order)
    assert vendi.vendi_score(unit @ unit.T, order) == pytest.approx(expected)
    assert math.exp(vendi.of_vectors(rows, whole(40), order)[0]) == pytest.approx(expected)
    assert math.exp(vendi.of_vectors(rows[:4], whole(4), order)[0]) == pytest.approx(
        vendi_package.score_K((unit @ unit.T)[:4, :4], q=order)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 15), st.sampled_from([0.5, 1.0, 3.0]))
def test_a_score_lies_between_one_and_n_and_knows_neither_order_nor_length_nor_doubling(seed: int, size: int, order: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, 5))
    found = vendi.of_vectors(rows, whole(size), order)[0]
    assert -1e-9 <= found <= math.log(min(size, 5)) + 1e-9
    changed = rng.permutation(np.concatenate([rows, rows])) * rng.uniform(0.1, 9, size=(2 * size, 1))
    assert vendi.of_vectors(changed, whole(2 * size), order)[0] == pytest.approx(found, abs=1e-5)


def test_subsets_of_vectors_and_of_similarities_are_scored_alone() -> None:
    rows = normal(20, 4)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    subsets = half_samples([str(i) for i in range(20)], 5)
    alone = [math.log(vendi.vendi_score(unit[subset] @ unit[subset].T)) for subset in subsets]
    assert vendi.of_vectors(rows, subsets) == pytest.approx(alone) and vendi.of_similarity(unit @ unit.T, subsets) == pytest.approx(alone)


def test_texts_are_as_alike_as_their_n_grams() -> None:
    texts = ["a b c", "A  b, c!", "a b d", "x y", ""]
    found = vendi.ngram_similarity(texts)
    assert np.diag(found) == pytest.approx(1) and found[0, 1] == pytest.approx(1) and found[0, 3] == pytest.approx(0)
    grams = [[*zip(*([*words(text), *"$" * (n - 1)][i:] for i in range(n)))] for n in (1, 2, 3) for text in texts[:3:2]]
    pairs = list(zip(grams[::2], grams[1::2], strict=True))
    assert found[0, 2] == pytest.approx(np.mean([len(set(a) & set(b)) / 3 for a, b in pairs]))


# ── MAUVE ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def by_hand(p: tuple[float, ...], q: tuple[float, ...]) -> float:
    """The area by rectangles and triangles, term by term."""
    points = [(1.0, 0.0)]
    for step in range(25):
        w = 1e-6 + (1 - 2e-6) * step / 24
        r = [w * a + (1 - w) * b for a, b in zip(p, q, strict=True)]
        loss = [sum(a * math.log(a / c) for a, c in zip(law, r, strict=True) if a) for law in (q, p)]
        points.append((math.exp(-5 * loss[0]), math.exp(-5 * loss[1])))
    points.append((0.0, 1.0))
    return sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


@pytest.mark.parametrize(
    ("p", "q"), [((0.5, 0.5), (0.9, 0.1)), ((1.0, 0.0), (0.5, 0.5)), ((0.2, 0.3, 0.5), (0.5, 0.3, 0.2)), ((1.0, 0.0), (0.0, 1.0))]
)
def test_the_area_of_small_laws_is_the_one_summed_by_hand(p: tuple[float, ...], q: tuple[float, ...]) -> None:
    both = np.array([p, q]), np.array([q, p])
    assert mauve.area(*both) == pytest.approx([by_hand(p, q)] * 2)


def test_the_area_is_the_authors_packages() -> None:
    """Figures of mauve-text 0.4.0 for these histograms; it is not installed here because it needs faiss."""
    p, q = np.array([[0.5, 0.3, 0.1, 0.1, 0], [0.7, 0.1, 0.1, 0.05, 0.05]]), np.array([[0.2] * 5, [0.6, 0.2, 0.1, 0.1, 0]])
    assert mauve.area(p, q) == pytest.approx([0.5638172524151654, 0.9383862151225983], abs=1e-12)


def test_a_law_is_itself_and_nothing_like_one_without_a_cell_in_common() -> None:
    p = np.full((1, 5), 0.2)
    assert mauve.area(p, p)[0] == pytest.approx(1.0)
    assert mauve.area(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))[0] < 0.01


def score(real: np.ndarray, fake: np.ndarray, buckets: int) -> float:
    cells = mauve.quantised(real, fake, buckets)
    p, q = mauve.histograms(cells[: len(real)], whole(len(real)), buckets), mauve.histograms(cells[len(real) :], whole(len(fake)), buckets)
    return float(mauve.area(p, q)[0])


def test_a_sample_of_the_same_law_is_near_one_and_falls_as_modes_are_lost_and_noise_grows() -> None:
    rng = np.random.default_rng(6)
    centres = rng.normal(size=(8, 8)) * 3

    def law(modes: int, noise: float = 1.0) -> np.ndarray:
        return centres[rng.integers(0, modes, 800)] + rng.normal(size=(800, 8)) * noise

    real = law(8)
    same, fewer, one, noisy = (score(real, fake, 40) for fake in (law(8), law(5), law(1), law(8, 4.0)))
    assert same > 0.95 and fewer < 0.8 and one < 0.25 * fewer and noisy < 0.7 * same
    assert score(real, real[::-1], 40) == pytest.approx(1.0)


def test_cells_are_found_where_there_are_fewer_points_than_cells_and_are_always_the_same() -> None:
    points = np.repeat(np.eye(3), 5, axis=0)
    cells = mauve.quantised(points, points, 7)
    assert np.array_equal(cells, mauve.quantised(points, points, 7))
    assert len({tuple(cells[index : index + 5]) for index in range(0, 30, 5)}) == 3 and score(points, points, 7) == pytest.approx(1.0)
