"""The simulations of the collapse laboratory against their closed forms, and against plain loops where there is none."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.errors import ConfigError
from outcross.lab import gaussian, groups, kernel, lineages, mixture, moments, multivariate, regression, resampling, verified
from outcross.lab.gaussian import Normal, NormalLaw
from outcross.lab.kernel import KernelDensity
from outcross.lab.lineages import Floats, simulate
from outcross.lab.mixture import Mixture
from outcross.lab.multivariate import VectorNormal
from outcross.lab.regimes import Accumulate, Fixed, Fresh, Grow, Regime, Replace, Subsample
from outcross.lab.resampling import Categorical

Kept = Replace | Accumulate | Subsample | Fresh | Fixed
KEPT: list[Kept] = [Replace(), Accumulate(), Subsample(), Fresh(0.3), Fixed(0.3)]
SKEWED = resampling.power_law(50)
TWO = Mixture((0.3, 0.7), (-2.0, 2.0), (1.0, 0.5))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def close(values: Floats, theory: float, precision: float) -> None:
    """The mean is within 3.5 standard errors of theory, and the standard error is small enough for that to mean something."""
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert error <= precision * abs(theory)
    assert abs(values.mean() - theory) <= 3.5 * error


def last(family: Any, regime: Regime, measure: Callable[[Any], Floats], size: int, rounds: int, replicates: int) -> Floats:
    return simulate(family, regime, measure, size=size, rounds=rounds, replicates=replicates, rng=rng())[:, -1]


def both(law: NormalLaw) -> Floats:
    return np.stack([law.mean**2, law.variance], axis=1)


# ── Gaussians ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_variance_of_draws_and_distance_grow_as_published() -> None:
    close(last(Normal(), Replace(), gaussian.second_moment, 100, 10, 10_000), 1.10, 0.006)
    close(last(Normal(), Replace(), gaussian.wasserstein, 100, 11, 10_000), gaussian.wasserstein_exact([100] * 11), 0.012)


def test_lineages_collapse_although_the_mean_variance_stays() -> None:
    variances = last(Normal(), Replace(), gaussian.variance, 10, 200, 2000)
    assert np.median(variances) < 1e-6
    assert np.log(variances).mean() == pytest.approx(math.log(gaussian.geometric_mean_variance(10, 200)), rel=0.02)


def test_growing_samples_are_as_long_as_they_say() -> None:
    sizes = [10 * i**2 for i in range(1, 6)]
    close(last(Normal(), Grow(2), gaussian.wasserstein, 10, 5, 10_000), gaussian.wasserstein_exact(sizes), 0.012)
    assert [Grow().size(7, number) for number in (1, 2, 3)] == [7, 14, 21]


@pytest.mark.parametrize("family", [Normal(), Normal(unbiased=False, bias=0.8)], ids=["unbiased", "biased"])
@pytest.mark.parametrize("regime", KEPT)
def test_every_regime_has_the_moments_of_the_recursion(regime: Kept, family: Normal) -> None:
    found = simulate(family, regime, both, size=10, rounds=8, replicates=10_000, rng=rng(1))
    expected = np.stack(moments.expected(family, regime, size=10, rounds=8), axis=1)
    errors = found[:, 1:].std(axis=0) / 100
    assert (np.abs(found[:, 1:].mean(axis=0) - expected[1:]) < 4 * errors).all()
    assert (errors < 0.04 * expected[1:]).all()


@pytest.mark.parametrize("regime", KEPT)
def test_vectors_have_the_variance_of_numbers_in_every_direction(regime: Kept) -> None:
    expected = moments.expected(Normal(unbiased=False), regime, size=15, rounds=5).variance[-1]
    close(last(VectorNormal(3, unbiased=False), regime, multivariate.total_variance, 15, 5, 2000), expected, 0.015)


def test_the_distance_of_vectors_is_that_of_their_means_and_covariances() -> None:
    expected = multivariate.wasserstein_first_order(300, 3, 3)
    close(last(VectorNormal(3), Replace(), multivariate.wasserstein, 300, 3, 4000), expected, 0.01)


def test_vectors_survive_total_collapse() -> None:
    assert np.isfinite(last(VectorNormal(4), Replace(), multivariate.wasserstein, 6, 200, 20)).all()


@given(st.integers(2, 20), st.integers(2, 20))
@settings(max_examples=25, deadline=None)
def test_the_summary_of_two_data_sets_is_that_of_their_union(first: int, second: int) -> None:
    flat, vectors = Normal(), VectorNormal(3)
    rows = rng(first).standard_normal((first + second, 4, 3)) + 5
    for family, data in ((flat, rows[:, :, 0]), (vectors, rows)):
        together = family.add(family.summarise(data[:first].copy()), family.summarise(data[first:].copy()))  # type: ignore[attr-defined]
        for added, whole in zip(together, family.summarise(data.copy()), strict=True):  # type: ignore[attr-defined]
            assert np.allclose(added, whole)


def test_fits_are_numpys_mean_and_covariance() -> None:
    rows = rng().standard_normal((30, 5, 3))
    law = VectorNormal(3, unbiased=False).fit(VectorNormal(3).summarise(rows.copy()), VectorNormal(3).real(5))
    assert np.allclose(law.mean[2], rows[:, 2].mean(axis=0))
    assert np.allclose(law.covariance[2], np.cov(rows[:, 2].T, bias=True))
    assert np.allclose(Normal().fit(Normal().summarise(rows[:, :, 0].copy()), Normal().real(5)).variance, rows[:, :, 0].var(axis=0, ddof=1))


# ── frequencies and groups ─────────────────────────────────────────────────────────────────────────────────────────────
def test_lineages_end_in_a_state_with_its_first_probability() -> None:
    ends = resampling.absorbed_at(Categorical((0.5, 0.3, 0.2)), 10, 20_000, rng())
    for state in range(3):
        close((ends == state).astype(float), resampling.absorption((0.5, 0.3, 0.2), state), 0.02)


def test_repetition_grows_as_published() -> None:
    expected = resampling.seddik(sum(p * p for p in SKEWED), 200, 20)
    assert expected == pytest.approx(0.168, rel=1e-3)
    close(last(Categorical(SKEWED), Replace(), resampling.sum_of_squares, 200, 20, 3000), expected, 0.007)


def test_a_rare_state_vanishes_at_once() -> None:
    rare = last(Categorical((5e-4, 1 - 5e-4)), Replace(), lambda law: law.shares[:, 0], 1000, 1, 20_000)
    close((rare == 0).astype(float), resampling.vanishing(5e-4, 1000), 0.01)


def test_frequencies_under_real_data_forget_less() -> None:
    def varied(regime: Regime) -> float:
        return float(last(Categorical(SKEWED), regime, resampling.heterozygosity, 50, 30, 500).mean())

    assert varied(Replace()) < varied(Subsample()) < varied(Accumulate())
    assert varied(Fixed(0.2)) < varied(Fresh(0.2)) < varied(Fresh(0.6))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6), st.data())
@settings(max_examples=50, deadline=None)
def test_a_subsample_of_counts_takes_no_more_than_there_is(pool: list[int], data: st.DataObject) -> None:
    parts = [np.array([pool, pool[::-1]]), np.array([pool, pool])]
    total = int(2 * sum(pool))
    size = data.draw(st.integers(0, total))
    taken = Categorical((0.5, 0.5)).subsample(parts, size, rng(size))
    assert (taken.sum(axis=1) == size).all()
    assert (taken >= 0).all() and (taken <= parts[0] + parts[1]).all()


def test_a_subsample_of_counts_is_hypergeometric() -> None:
    pool = np.repeat(np.array([[30, 50, 20]]), 20_000, axis=0)
    taken = Categorical((0.3, 0.5, 0.2)).subsample([pool], 40, rng())
    close(taken[:, 2].astype(float), 8, 0.002)
    assert taken[:, 2].var() == pytest.approx(40 * 0.2 * 0.8 * 60 / 99, rel=0.05)


def test_a_minority_shrinks_under_a_low_temperature() -> None:
    found = groups.minority_shares(0.1, 0.8, Replace(), size=100_000, rounds=4, replicates=2000, rng=rng())
    assert found[:, 0] == pytest.approx(0.1)
    for number in range(1, 5):
        assert found[:, number].mean() == pytest.approx(groups.minority_share(0.1, 0.8, number), rel=0.01)
    assert found[:, 4].mean() == pytest.approx(0.0047, rel=0.02)


def test_two_groups_stay_mixed_as_long_as_theory_says() -> None:
    shares = groups.minority_shares(0.1, 1, Replace(), size=50, rounds=10, replicates=10_000, rng=rng())[:, -1]
    close(2 * shares * (1 - shares), groups.expected_heterozygosity(0.1, 50, 10), 0.015)


def test_real_data_keep_a_minority_alive() -> None:
    kept, lost = (
        groups.minority_shares(0.1, 0.8, regime, size=1000, rounds=15, replicates=200, rng=rng())[:, -1].mean()
        for regime in (Fresh(0.5), Replace())
    )
    assert lost < 1e-4
    assert kept > 0.03


# ── kernels and mixtures ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("bandwidth", [0.3, "scott", "silverman"])
@pytest.mark.parametrize("regime", [Replace(), Accumulate()])
def test_kernel_densities_blur_as_theory_says(regime: Replace | Accumulate, bandwidth: kernel.Bandwidth) -> None:
    expected = kernel.expected_second_moment(bandwidth, regime, size=30, rounds=10)
    close(last(KernelDensity(bandwidth), regime, kernel.second_moment, 30, 10, 3000), expected, 0.015)


def test_kernel_subsamples_blur_less_than_replaced_ones_and_more_than_accumulated() -> None:
    replaced, subsampled, accumulated = (
        last(KernelDensity(0.3), regime, kernel.second_moment, 30, 20, 1000).mean() for regime in (Replace(), Subsample(), Accumulate())
    )
    assert replaced > subsampled + 0.5
    assert subsampled == pytest.approx(accumulated, rel=0.05)  # a subsample has the second moment of its pool


def test_mixtures_lose_variance_as_theory_says_however_they_overlap() -> None:
    for apart in (0.5, 2.0, 6.0):
        family = Mixture((0.3, 0.7), (-apart, apart), (1.0, 0.5))
        start = float(mixture.total_variance(family.real(1))[0])
        found = last(family, Replace(), mixture.total_variance, 30, 8, 2500)
        close(found, mixture.expected_total_variance(start, 30, 8), 0.02)


def test_a_step_keeps_the_moments_of_the_data_and_never_lowers_the_likelihood() -> None:
    rows = TWO.draw(TWO.real(6), 200, rng())
    law = mixture.Components(np.full((2, 6), 0.5), np.tile([[-0.5], [0.5]], 6), np.ones((2, 6)))
    likelihoods = []
    for _ in range(20):
        law = mixture._step(rows, law)
        mean = (law.weights * law.means).sum(axis=0)
        assert np.allclose(mean, rows.mean(axis=0)) and np.allclose(mixture.total_variance(law), rows.var(axis=0))
        density = (
            law.weights[:, None]
            / np.sqrt(law.variances[:, None])
            * np.exp(-((rows - law.means[:, None]) ** 2) / (2 * law.variances[:, None]))
        )
        likelihoods.append(np.log(density.sum(axis=0)).sum(axis=0))
    assert (np.diff(likelihoods, axis=0) > -1e-9).all()


def test_a_fit_finds_the_components_and_survives_their_death() -> None:
    rows = TWO.draw(TWO.real(3), 20_000, rng())
    law = Mixture((0.5, 0.5), (-1.0, 1.0), (1.0, 1.0), steps=60).fit(rows, Mixture((0.5, 0.5), (-1.0, 1.0), (1.0, 1.0)).real(3))
    for found, true in zip(law, TWO.real(3), strict=True):
        assert np.allclose(found, true, atol=0.06)
    assert np.isfinite(last(TWO, Replace(), mixture.total_variance, 5, 200, 50)).all()


# ── regression and verification ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("regime", "theory"), [(Replace(), regression.replaced), (Accumulate(), regression.accumulated), (Grow(), regression.grown)]
)
def test_regression_errors_are_the_published_ones(regime: Regime, theory: Callable[[int, int, float, int], float]) -> None:
    found = regression.squared_errors(regime, rows=111, dimensions=10, noise=1.0, rounds=10, replicates=1500, rng=rng())
    for number in (1, 2, 10):
        close(found[:, number - 1], theory(111, 10, 1.0, number), 0.015)


def plain_regression(regime: Regime, generator: np.random.Generator, rounds: int) -> float:
    """One lineage, as one would write it first: every data set stacked, numpy's least squares."""
    x, truth = generator.standard_normal((20, 3)), np.ones(3)
    weights, pool = truth, []
    real = x @ truth + generator.standard_normal(20)
    for _ in range(rounds):
        pool.append((x, x @ weights + generator.standard_normal(20)))
        rows, labels = pool[-1]
        if isinstance(regime, Subsample):
            rows, labels = (np.concatenate(parts) for parts in zip(*pool, strict=True))
            chosen = generator.permutation(len(rows))[:20]
            rows, labels = rows[chosen], labels[chosen]
        if isinstance(regime, Fresh | Fixed):
            fresh = x @ truth + generator.standard_normal(20)
            labels[: regime.real(20)] = (fresh if isinstance(regime, Fresh) else real)[: regime.real(20)]
        weights = np.linalg.lstsq(rows, labels)[0]
    return float(((weights - truth) ** 2).sum())


@pytest.mark.parametrize("regime", [Subsample(), Fresh(0.4), Fixed(0.4)])
def test_regression_in_other_regimes_is_that_of_a_plain_loop(regime: Regime) -> None:
    generator = rng(3)
    plain = np.array([plain_regression(regime, generator, 5) for _ in range(1500)])
    ours = regression.squared_errors(regime, rows=20, dimensions=3, noise=1.0, rounds=5, replicates=6000, rng=rng())[:, -1]
    error = math.hypot(plain.std() / math.sqrt(len(plain)), ours.std() / math.sqrt(len(ours)))
    assert error < 0.05 * plain.mean()
    assert abs(plain.mean() - ours.mean()) < 3.5 * error


def test_a_share_of_wrong_rows_leaves_a_floor_that_more_rows_do_not_remove() -> None:
    def errors(rows: int) -> Floats:
        return regression.contaminated_errors(0.2, 1.0, rows=rows, dimensions=4, noise=1.0, replicates=300, rng=rng())

    close(errors(5000), regression.strong_collapse(0.2, 1.0, 5000, 4, 1.0), 0.02)
    assert errors(5000).mean() > 0.039 and errors(500).mean() < 0.055


@pytest.mark.parametrize(("keep_right", "keep_wrong"), [(0.9, 0.3), (0.7, 0.05), (1.0, 1.0)])
def test_a_verified_classifier_turns_over_at_the_threshold(keep_right: float, keep_wrong: float) -> None:
    def accuracy(wrong: float, rows: int) -> float:
        found = verified.alignments(wrong, keep_right, keep_wrong, rows=rows, dimensions=20, replicates=100, rng=rng())
        return float(verified.accuracy(found).mean())

    below, above = (verified.threshold(keep_right, keep_wrong) + step for step in (-0.06, 0.06))
    assert accuracy(below, 100) < accuracy(below, 3000)
    assert accuracy(below, 3000) > 0.65 and accuracy(above, 3000) < 0.35


# ── the machinery ──────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("family", [Normal(bias=0.5), VectorNormal(2, bias=0.5)], ids=["numbers", "vectors"])
def test_the_first_data_are_real_whatever_the_sampling_bias(family: Any) -> None:
    rows = family.draw(family.real(50), 2000, rng())
    assert rows.var() == pytest.approx(1, rel=0.02)


def test_the_first_frequencies_are_real_whatever_the_temperature() -> None:
    counts = Categorical((0.1, 0.9), temperature=0.5).draw(Categorical((0.1, 0.9), temperature=0.5).real(100), 1000, rng())
    assert counts[:, 0].mean() == pytest.approx(100, rel=0.03)


def test_the_same_generator_gives_the_same_lineages() -> None:
    first, again = (simulate(Normal(), Subsample(), both, size=5, rounds=3, replicates=50, rng=rng(7)) for _ in range(2))
    assert (first == again).all()
    assert first.shape == (50, 4, 2)


def test_rows_are_subsampled_without_replacement_and_evenly() -> None:
    rows = np.repeat(np.arange(12.0)[:, None], 6000, axis=1)
    chosen = np.sort(lineages.subsample_rows(rows, 4, rng()), axis=0)
    assert (np.diff(chosen, axis=0) > 0).all()
    shares = np.bincount(chosen.astype(int).ravel(), minlength=12) / chosen.size
    assert shares == pytest.approx(np.full(12, 1 / 12), rel=0.08)


@given(st.integers(1, 10**6), st.integers(1, 10**7))
def test_blocks_add_up_and_stay_small(replicates: int, floats: int) -> None:
    made = list(lineages.blocks(min(replicates, 2000), floats))
    assert sum(made) == min(replicates, 2000)
    assert all(block == 1 or block * floats <= lineages.BLOCK for block in made)


def test_memory_does_not_grow_with_replicates() -> None:
    def peak(replicates: int) -> float:
        tracemalloc.start()
        simulate(Normal(), Replace(), gaussian.variance, size=1000, rounds=2, replicates=replicates, rng=rng())
        measured = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return measured / 2**20

    assert peak(200) < 3
    assert peak(4000) < 3  # all draws of one round together would take 30


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(share: float) -> None:
    with pytest.raises(ConfigError, match=f"share is {share}; it must lie between 0 and 1"):
        Fresh(share)


def test_too_little_to_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="size 1, rounds 3, replicates 2: needed are at least 2, 1 and 1"):
        simulate(Normal(), Replace(), both, size=1, rounds=3, replicates=2, rng=rng())
    with pytest.raises(ConfigError, match=r"11 rows for 10 dimensions; .* from dimensions \+ 2 = 12"):
        regression.squared_errors(Replace(), rows=11, dimensions=10, noise=1, rounds=1, replicates=1, rng=rng())


def test_vectors_are_drawn_with_the_laws_covariance_and_subsampled_whole() -> None:
    covariance = np.array([[2.0, 0.9], [0.9, 0.5]])
    law = multivariate.VectorLaw(np.array([[1.0, -1.0]]), covariance[None])
    rows = VectorNormal(2).draw(law, 200_000, rng())[:, 0]
    assert np.allclose(rows.mean(axis=0), [1, -1], atol=0.02)
    assert np.allclose(np.cov(rows.T), covariance, atol=0.02)
    pool = [np.stack([np.arange(6.0), np.arange(6.0) + 100], axis=1)[:, None].repeat(3, axis=1) + 10 * part for part in range(2)]
    taken = VectorNormal(2).subsample(pool, 5, rng())
    assert taken.shape == (5, 3, 2) and (taken[..., 1] - taken[..., 0] == 100).all()
    assert (np.diff(np.sort(taken[..., 0], axis=0), axis=0) > 0).all()


def test_kernels_are_drawn_around_their_centres() -> None:
    law = kernel.Kernels(np.array([[-10.0], [10.0], [10.0], [10.0]]), 0.5)
    rows = KernelDensity(0.5).draw(law, 40_000, rng())[:, 0]
    assert (rows > 0).mean() == pytest.approx(0.75, abs=0.01)
    assert rows[rows < 0].std() == pytest.approx(0.5, rel=0.03)
    assert kernel.second_moment(law)[0] == pytest.approx(np.square(rows).mean(), rel=0.01)


def test_a_perfect_verifier_leaves_only_right_labels_and_a_reversed_one_only_wrong() -> None:
    right, wrong = (
        verified.alignments(0.5, *kept, rows=2000, dimensions=5, replicates=20, rng=rng()).mean() for kept in ((1.0, 0.0), (0.0, 1.0))
    )
    assert right > 0.98 and wrong < -0.98
    assert verified.accuracy(np.array([1.0, 0.0, -1.0])) == pytest.approx([1, 0.5, 0])
