"""The closed forms of the collapse laboratory: published values, and what they must agree on with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import binom, gaussian_kde

from outcross.lab import gaussian, groups, kernel, mixture, moments, multivariate, regression, resampling, rules, verified
from outcross.lab.gaussian import Normal
from outcross.lab.regimes import Accumulate, Fixed, Fresh, Replace, Subsample

KEPT = [Replace(), Accumulate(), Subsample(), Fresh(0.3), Fixed(0.3)]


@pytest.mark.parametrize(
    ("found", "published"),
    [
        (gaussian.variance_of_draws(100, 10), 1.10),
        (gaussian.wasserstein_first_order([100] * 11), 0.165),
        (regression.replaced(111, 10, 1.0, 10), 1.000),
        (regression.accumulated(111, 10, 1.0, 10), 0.1550),
        (gaussian.variance_accumulated(10, 30), 0.8462),
        (gaussian.variance_accumulated_limit(10), 0.8434),
        (verified.threshold(0.9, 0.3), 0.75),
        (verified.threshold(0.7, 0.05), 0.9333),
        (verified.threshold(1, 1), 0.5),
        (resampling.seddik(sum(p * p for p in resampling.power_law(50)), 200, 20), 0.1680),
        (resampling.vanishing(5e-4, 1000), 0.6065),
        (100 * groups.minority_share(0.1, 0.8, 4), 0.466),
        (regression.strong_collapse(0.01, 1, 10**12, 10, 1), 1e-4),
        (rules.visits_threshold(1), 2154),
        (rules.visits_threshold(2), 6840),
        (rules.best_difficulty_formula(), 0.2987),
    ],
)
def test_a_closed_form_gives_the_published_value(found: float, published: float) -> None:
    assert found == pytest.approx(published, rel=5e-4)


# ── Gaussians ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_exact_distance_tends_to_the_first_order_one_as_samples_grow() -> None:
    gaps = [abs(gaussian.wasserstein_exact([size] * 5) / gaussian.wasserstein_first_order([size] * 5) - 1) for size in (50, 500, 5000)]
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2] > 0


def test_the_distance_stays_bounded_only_if_samples_grow_faster_than_linearly() -> None:
    linear, square = ([gaussian.wasserstein_first_order([10 * i**power for i in range(1, n)]) for n in (10**3, 10**5)] for power in (1, 2))
    assert linear[1] - linear[0] == pytest.approx(0.15 * math.log(100), rel=1e-2)
    assert square[1] < 0.15 * math.pi**2 / 6 and square[1] - square[0] < 2e-4


def test_the_typical_variance_falls_while_the_mean_stays() -> None:
    replaced = moments.expected(Normal(), Replace(), size=100, rounds=40)
    assert np.allclose(replaced.variance, 1)
    assert gaussian.geometric_mean_variance(100, 40) < gaussian.geometric_mean_variance(100, 10) < 1


def test_in_one_dimension_the_distance_of_vectors_is_that_of_numbers() -> None:
    assert multivariate.wasserstein_first_order(100, 11, 1) == pytest.approx(gaussian.wasserstein_first_order([100] * 11))


def test_accumulating_tends_to_eulers_product() -> None:
    assert gaussian.variance_accumulated(7, 10**5) == pytest.approx(gaussian.variance_accumulated_limit(7), rel=1e-5)


def test_the_recursion_gives_the_formulas_where_there_are_any() -> None:
    likelihood = Normal(unbiased=False)
    assert np.allclose(moments.expected(Normal(), Replace(), size=20, rounds=9).mean_square, np.arange(10) / 20)
    replaced = moments.expected(likelihood, Replace(), size=20, rounds=9)
    assert np.allclose(replaced.variance, [gaussian.variance_maximum_likelihood(20, n) for n in range(10)])
    accumulated = moments.expected(likelihood, Accumulate(), size=10, rounds=30)
    assert np.allclose(accumulated.variance, [gaussian.variance_accumulated(10, n) for n in range(31)])
    biased = moments.expected(Normal(bias=0.9), Replace(), size=20, rounds=9)
    assert np.allclose(biased.variance[1:], [gaussian.variance_biased(0.9, n) for n in range(1, 10)])


@pytest.mark.parametrize("regime", KEPT)
def test_maximum_likelihood_keeps_the_second_moment_of_draws(regime: Replace | Accumulate | Subsample | Fresh | Fixed) -> None:
    found = moments.expected(Normal(unbiased=False), regime, size=12, rounds=8)
    assert np.allclose(found.mean_square + found.variance, 1)


@pytest.mark.parametrize("mixed", [Fresh, Fixed])
def test_a_share_of_nothing_is_replace_and_of_everything_never_drifts(mixed: type[Fresh] | type[Fixed]) -> None:
    nothing = moments.expected(Normal(), mixed(0), size=12, rounds=8)
    assert np.allclose(nothing, moments.expected(Normal(), Replace(), size=12, rounds=8))
    everything = moments.expected(Normal(), mixed(1), size=12, rounds=8)
    assert np.allclose(everything.variance, 1) and np.allclose(everything.mean_square[1:], 1 / 12)


def test_more_fresh_real_data_drifts_less_and_fixed_data_drift_more_than_fresh() -> None:
    def drift(regime: Fresh | Fixed) -> float:
        return float(moments.expected(Normal(), regime, size=20, rounds=30).mean_square[-1])

    assert drift(Fresh(0.1)) > drift(Fresh(0.3)) > drift(Fresh(0.7))
    assert drift(Fixed(0.3)) > drift(Fresh(0.3))


def test_a_mixture_spreads_as_one_gaussian_does() -> None:
    assert mixture.expected_total_variance(1, 30, 8) == pytest.approx(gaussian.variance_maximum_likelihood(30, 8))


# ── frequencies, kernels, regression ───────────────────────────────────────────────────────────────────────────────────
def test_two_groups_are_the_chain_with_two_states() -> None:
    start = 1 - 0.1**2 - 0.9**2
    assert groups.expected_heterozygosity(0.1, 50, 7) == pytest.approx(resampling.expected_heterozygosity(start, 50, 7))


def test_rounds_of_temperature_compose() -> None:
    once = groups.minority_share(0.1, 0.8, 1)
    assert groups.minority_share(once, 0.8, 3) == pytest.approx(groups.minority_share(0.1, 0.8, 4))
    assert resampling.tempered(np.array([0.1, 0.9]), 0.8)[0] == pytest.approx(once)
    assert groups.minority_share(0.1, 1, 50) == pytest.approx(0.1)


@pytest.mark.parametrize("rows", [10, 200])
def test_widths_are_those_of_scipy_and_scikit_learn(rows: int) -> None:
    reference = gaussian_kde(np.linspace(0, 1, rows))
    assert kernel.width("scott", rows) == pytest.approx(reference.scotts_factor())
    assert kernel.width("silverman", rows) == pytest.approx(reference.silverman_factor())


def test_kernels_blur_linearly_when_replaced_and_logarithmically_when_accumulated() -> None:
    assert kernel.expected_second_moment(0.3, Replace(), size=50, rounds=20) == pytest.approx(1 + 20 * 0.09)
    harmonic = sum(1 / i for i in range(1, 1001))
    accumulated = kernel.expected_second_moment(0.3, Accumulate(), size=50, rounds=1000)
    assert accumulated == pytest.approx(1 + 0.09 * harmonic)
    assert accumulated == pytest.approx(1 + 0.09 * (math.log(1000) + np.euler_gamma), rel=1e-4)
    assert kernel.expected_second_moment("scott", Replace(), size=32, rounds=4) == pytest.approx(1 + 4 * 32**-0.4)


def test_regression_errors_are_bounded_when_accumulated_and_logarithmic_when_grown() -> None:
    setting = (111, 10, 1.0)
    assert regression.accumulated(*setting, 10**5) < regression.one_fit(*setting) * math.pi**2 / 6
    growth = regression.grown(*setting, 1000) - regression.grown(*setting, 100)
    assert growth == pytest.approx(regression.one_fit(*setting) * math.log(10), rel=1e-2)
    assert regression.replaced(*setting, 1) == regression.accumulated(*setting, 1) == regression.one_fit(*setting)


# ── rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_visits_are_counted_as_the_formula_says() -> None:
    for samples in (1, 2, 3):
        assert rules.visits_at_samples(samples) == math.ceil(rules.visits_threshold(samples))


def test_the_proposers_pay_is_the_published_polynomial() -> None:
    rate = 0.37
    expected = sum(rules.proposer_reward(k, 8) * binom.pmf(k, 8, rate) for k in range(9))
    assert expected == pytest.approx((1 - rate) - 1.5 * (1 - rate) ** 8 - 0.5 * rate**8)
    assert rules.best_difficulty() == pytest.approx(rules.best_difficulty_formula(), abs=1e-4)


def test_kuhn_poker_is_worth_minus_one_eighteenth_by_linear_programming_too() -> None:
    payoff = rules._kuhn_payoffs()
    rows, columns = payoff.shape
    solved = linprog(
        np.r_[np.zeros(rows), -1],
        A_ub=np.c_[-payoff.T, np.ones(columns)],
        b_ub=np.zeros(columns),
        A_eq=[np.r_[np.ones(rows), 0]],
        b_eq=[1],
        bounds=[(0, None)] * rows + [(None, None)],
    )
    assert -solved.fun == pytest.approx(-1 / 18)
    assert rules.kuhn_value(4000) == pytest.approx(-1 / 18, rel=5e-3)
