"""The experiments behind the claims: each gives a function of the number of replicates and a generator.

Sizes and rounds are the claims'. Every function below returns, beside what was found, the closed form of the same setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from outcross.lab import gaussian, groups, kernel, mixture, moments, multivariate, regression, resampling, verified
from outcross.lab.claim import Estimate, difference, mean, zero_crossing
from outcross.lab.gaussian import Normal, NormalLaw
from outcross.lab.kernel import KernelDensity
from outcross.lab.lineages import Floats, simulate
from outcross.lab.regimes import Accumulate, Fixed, Fresh, Regime, Replace, Subsample
from outcross.lab.resampling import Categorical

Rng = np.random.Generator
Measure = Callable[[int, Rng], Estimate]


def normal(
    theory: float | None, of: Callable[[NormalLaw], Floats], size: int, rounds: int, regime: Regime = Replace(), family: Normal = Normal()
) -> Measure:
    """The mean of `of` after `rounds` fits of `size` rows."""

    def measure(replicates: int, rng: Rng) -> Estimate:
        return mean(_last(family, regime, of, size, rounds, replicates, rng), theory)

    return measure


def _last(family: Normal, regime: Regime, of: Callable[[NormalLaw], Floats], size: int, rounds: int, replicates: int, rng: Rng) -> Floats:
    return simulate(family, regime, of, size=size, rounds=rounds, replicates=replicates, rng=rng)[:, -1]


def typical_variance(replicates: int, rng: Rng) -> Estimate:
    logs = mean(np.log(_last(Normal(), Replace(), gaussian.variance, 100, 11, replicates, rng)))
    ours = math.exp(logs.ours)
    return Estimate(gaussian.geometric_mean_variance(100, 11), ours, ours * logs.standard_error)


def absorbed(probabilities: Sequence[float], state: int) -> Measure:
    def measure(replicates: int, rng: Rng) -> Estimate:
        ends = resampling.absorbed_at(Categorical(tuple(probabilities)), 10, replicates, rng)
        return mean((ends == state).astype(float), resampling.absorption(probabilities, state))

    return measure


def vanished(replicates: int, rng: Rng) -> Estimate:
    rare = simulate(
        Categorical((5e-4, 1 - 5e-4)), Replace(), lambda law: law.shares[:, 0], size=1000, rounds=1, replicates=replicates, rng=rng
    )
    return mean((rare[:, 1] == 0).astype(float), resampling.vanishing(5e-4, 1000))


def repetition(replicates: int, rng: Rng) -> Estimate:
    law = resampling.power_law(50)
    found = simulate(Categorical(law), Replace(), resampling.sum_of_squares, size=200, rounds=20, replicates=replicates, rng=rng)
    return mean(found[:, -1], resampling.seddik(sum(p * p for p in law), 200, 20))


def mixture_variance(size: int, rounds: int) -> Measure:
    family = mixture.Mixture((0.5, 0.5), (-2.0, 2.0), (1.0, 1.0))

    def measure(replicates: int, rng: Rng) -> Estimate:
        found = simulate(family, Replace(), mixture.total_variance, size=size, rounds=rounds, replicates=replicates, rng=rng)
        return mean(found[:, -1], mixture.expected_total_variance(5.0, size, rounds))

    return measure


def vector_distance(replicates: int, rng: Rng) -> Estimate:
    found = simulate(multivariate.VectorNormal(3), Replace(), multivariate.wasserstein, size=300, rounds=3, replicates=replicates, rng=rng)
    return mean(found[:, -1], multivariate.wasserstein_first_order(300, 3, 3))


def kernel_spread(bandwidth: kernel.Bandwidth, regime: Replace | Accumulate) -> Measure:
    def measure(replicates: int, rng: Rng) -> Estimate:
        found = simulate(KernelDensity(bandwidth), regime, kernel.second_moment, size=50, rounds=20, replicates=replicates, rng=rng)
        return mean(found[:, -1], kernel.expected_second_moment(bandwidth, regime, size=50, rounds=20))

    return measure


def _errors(regime: Regime, replicates: int, rng: Rng) -> Floats:
    found = regression.squared_errors(regime, rows=111, dimensions=10, noise=1.0, rounds=10, replicates=replicates, rng=rng)
    return found[:, -1]


def regression_error(regime: Regime, theory: Callable[[int, int, float, int], float]) -> Measure:
    return lambda replicates, rng: mean(_errors(regime, replicates, rng), theory(111, 10, 1.0, 10))


def ordered(worse: Regime, better: Regime) -> Measure:
    return lambda replicates, rng: difference(_errors(worse, replicates, rng), _errors(better, replicates, rng))


def fixed_against_fresh(replicates: int, rng: Rng) -> Estimate:
    fixed, fresh = (_last(Normal(), regime, gaussian.wasserstein, 100, 50, replicates, rng) for regime in (Fixed(0.5), Fresh(0.5)))
    return difference(fixed, fresh)


def transition(keep_right: float, keep_wrong: float) -> Measure:
    threshold = verified.threshold(keep_right, keep_wrong)
    around = (threshold - 0.005, threshold + 0.005)  # close: further away the cosine is not linear in the share

    def measure(replicates: int, rng: Rng) -> Estimate:
        left, right = (
            verified.alignments(wrong, keep_right, keep_wrong, rows=500, dimensions=50, replicates=replicates, rng=rng) for wrong in around
        )
        return zero_crossing(around, left, right, threshold)

    return measure


def floor(replicates: int, rng: Rng) -> Estimate:
    found = regression.contaminated_errors(0.1, 1.0, rows=10_000, dimensions=5, noise=1.0, replicates=replicates, rng=rng)
    return mean(found, regression.strong_collapse(0.1, 1.0, 10_000, 5, 1.0))


def minority(replicates: int, rng: Rng) -> Estimate:
    found = groups.minority_shares(0.1, 0.8, Replace(), size=1_000_000, rounds=4, replicates=replicates, rng=rng)
    return mean(found[:, -1], groups.minority_share(0.1, 0.8, 4))


def two_groups(replicates: int, rng: Rng) -> Estimate:
    shares = groups.minority_shares(0.1, 1.0, Replace(), size=100, rounds=10, replicates=replicates, rng=rng)[:, -1]
    return mean(2 * shares * (1 - shares), groups.expected_heterozygosity(0.1, 100, 10))


def variance_under(regime: Replace | Accumulate | Subsample | Fresh | Fixed, size: int, rounds: int) -> Measure:
    """E σ² of the maximum likelihood Gaussian, against the exact recursion of `moments`."""
    family = Normal(unbiased=False)
    expected = moments.expected(family, regime, size=size, rounds=rounds).variance[-1]
    return normal(float(expected), gaussian.variance, size, rounds, regime, family)


def floored_minority(replicates: int, rng: Rng) -> Estimate:
    found = groups.minority_shares(0.1, 0.8, Fixed(0.7), size=1_000_000, rounds=4, replicates=replicates, rng=rng)
    return mean(found[:, -1], groups.floored_minority_share(0.1, 0.8, 0.7, 4))


def _worst(real: float, replicates: int, rng: Rng) -> Floats:
    return groups.worst_group_errors(0.1, 0.8, real, size=20_000, rounds=4, replicates=replicates, rng=rng)[:, -1]


def worst_group(replicates: int, rng: Rng) -> Estimate:
    return mean(_worst(0.0, replicates, rng), groups.expected_worst_group_error(0.1, 0.8, size=20_000, rounds=4))


def guarded_worst_group(replicates: int, rng: Rng) -> Estimate:
    return difference(_worst(0.0, replicates, rng), _worst(0.7, replicates, rng))


def error_of_mean(share: float, replicates: int, rng: Rng) -> Floats:
    """M μ² after 30 fits with this share of fresh real rows, M = 20: 1 is what real rows alone give, and 30 what none give."""
    return 20 * _last(Normal(), Fresh(share), lambda law: law.mean**2, 20, 1 if share == 1 else 30, replicates, rng)


def expected_error_of_mean(share: float) -> float:
    return float(20 * moments.expected(Normal(), Fresh(share), size=20, rounds=30).mean_square[-1])


def real_share(share: float) -> Measure:
    return lambda replicates, rng: mean(error_of_mean(share, replicates, rng), expected_error_of_mean(share))


def gains(first: tuple[float, float], second: tuple[float, float]) -> Measure:
    """By how much more the error falls from one share of real rows to another than between two other shares."""

    def measure(replicates: int, rng: Rng) -> Estimate:
        (a, b), (c, d) = ([mean(error_of_mean(share, replicates, rng)) for share in pair] for pair in (first, second))
        error = math.sqrt(sum(one.standard_error**2 for one in (a, b, c, d)))
        return Estimate(None, (a.ours - b.ours) - (c.ours - d.ours), error)

    return measure


def cardinality(replicates: int, rng: Rng) -> Estimate:
    """The fall of W₂² when the real rows double and their share stays, less that when their share doubles and their number stays."""
    few, many, purer = (
        mean(_last(Normal(), Fixed(share), gaussian.wasserstein, size, 30, replicates, rng))
        for share, size in ((0.1, 500), (0.1, 1000), (0.2, 250))
    )
    return Estimate(None, purer.ours - many.ours, math.hypot(purer.standard_error, many.standard_error), note=f"W₂² {few.ours:.3g} before")
