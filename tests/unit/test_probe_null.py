"""The null distribution and the spread of a difference, on closed forms."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from outcross.errors import ConfigError
from outcross.null import Null, null_distribution, null_spread
from outcross.types import Measurement


def mean_difference(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(a) / len(a) - sum(b) / len(b)


def test_the_null_of_a_difference_of_means_has_the_textbook_spread() -> None:
    rng = random.Random(1)
    real = [rng.gauss(3.0, 2.0) for _ in range(2000)]
    null = null_distribution(mean_difference, real, 100, draws=2000)
    truth = 2.0 * math.sqrt(2 / 100)
    assert null.sd == pytest.approx(truth, rel=0.08) and abs(null.mean) < 4 * truth / math.sqrt(2000)
    assert null.quantile(0.975) == pytest.approx(1.96 * truth, rel=0.12)
    assert null == null_distribution(mean_difference, real, 100, draws=2000) != null_distribution(mean_difference, real, 100, seed=1)


def entropy_difference(a: Sequence[str], b: Sequence[str]) -> float:
    return sum(sign * -sum(n / len(given) * math.log(n / len(given)) for n in Counter(given).values()) for sign, given in ((1, a), (-1, b)))


def test_the_null_of_entropies_has_the_delta_methods_spread() -> None:
    shares = {"a": 0.6, "b": 0.3, "c": 0.1}
    entropy = -sum(p * math.log(p) for p in shares.values())
    variance = sum(p * math.log(p) ** 2 for p in shares.values()) - entropy**2
    real = [name for name, p in shares.items() for _ in range(round(1000 * p))]
    null = null_distribution(entropy_difference, real, 400)
    assert null.sd == pytest.approx(math.sqrt(2 * variance / 400), rel=0.08)


def test_a_distance_is_not_zero_for_equal_populations_and_its_null_says_so() -> None:
    null = null_distribution(lambda a, b: abs(mean_difference(a, b)), [0.0, 1.0] * 50, 50)
    assert null.mean == pytest.approx(math.sqrt(2 / math.pi) * 0.5 * math.sqrt(2 / 50), rel=0.1) and null.quantile(0.0) >= 0


def test_quantiles_are_interpolated_and_bad_calls_are_refused() -> None:
    null = Null((0.0, 1.0, 2.0, 4.0))
    assert [null.quantile(share) for share in (0, 1 / 3, 0.5, 1)] == pytest.approx([0.0, 1.0, 1.5, 4.0])
    with pytest.raises(ValueError, match=r"quantile of 1\.5"):
        null.quantile(1.5)
    with pytest.raises(ConfigError, match="not 1, 5 and 1000"):
        null_distribution(mean_difference, [1.0], 5)


def test_the_spread_is_that_of_the_paired_difference() -> None:
    items = tuple(map(str, range(400)))
    rng = random.Random(2)
    shared = [rng.gauss(0, 5) for _ in items]
    one, two = (Measurement("p", items, tuple(value + rng.gauss(0, 1) for value in shared)) for _ in range(2))
    assert null_spread(one) == pytest.approx(math.sqrt(26 / 400), rel=0.1)
    assert null_spread(one, two) == pytest.approx(math.sqrt(2 / 400), rel=0.1), "what items have in common is no noise"
    reordered = Measurement("p", items[::-1], two.values[::-1])
    assert null_spread(one, reordered) == pytest.approx(null_spread(one, two))
    a, b = (Measurement("p", items, (0.0,), tuple(value + shift for value in shared)) for shift in (0, 3))
    assert null_spread(a, b) == pytest.approx(0, abs=1e-12) and null_spread(a) == pytest.approx(5, rel=0.1)


def test_what_is_not_paired_has_no_spread() -> None:
    a = Measurement("p", ("x", "y"), (0.0,), (0.1, 0.2))
    with pytest.raises(ValueError, match="not paired"):
        null_spread(a, Measurement("p", ("x", "z"), (0.0,), (0.1, 0.2)))
    with pytest.raises(ValueError, match="0 numbers"):
        null_spread(Measurement("p", ("x", "y"), (0.0, 1.0)), Measurement("p", ("u", "v"), (0.0, 1.0)))
