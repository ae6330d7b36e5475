"""Confidence sequences: their error rate at the worst time, closed forms, their width, and acceptance sampling with them."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import beta, betabinom, binom, hypergeom

from outcross.sequential import Acceptance, Interval, clopper_pearson, confidence_sequence, log_evidence

RUNS, ALPHA = 10_000, 0.05
ALLOWED = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)  # three standard errors of the simulation


def evidence_table(draws: int, rate: float, size: int | None = None) -> np.ndarray:
    """log evidence against `rate` by number of draws and of errors; shape (draws + 1, draws + 1)."""
    found = np.full((draws + 1, draws + 1), -np.inf)
    for seen in range(draws + 1):
        for errors in range(seen + 1):
            found[seen, errors] = log_evidence(errors, seen, rate, size=size)
    return found


def worst(paths: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The most evidence that each path of 0s and 1s ever shows."""
    errors = np.concatenate([np.zeros((len(paths), 1), int), paths.cumsum(axis=1)], axis=1)
    return table[np.arange(errors.shape[1]), errors].max(axis=1)


# ── the error rate, for one who looks after every draw and stops at the worst moment ───────────────────────────────────
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.5])
def test_the_true_rate_is_ever_ruled_out_in_at_most_alpha_of_ten_thousand_sequences(rate: float) -> None:
    paths = (np.random.default_rng(1).random((RUNS, 300)) < rate).astype(int)
    missed = (worst(paths, evidence_table(300, rate)) >= -math.log(ALPHA)).mean()
    assert 0 < missed <= ALLOWED


@pytest.mark.parametrize(("wrong", "size"), [(4, 100), (60, 200), (0, 150)])
def test_so_it_is_without_replacement_to_the_last_row_of_the_batch(wrong: int, size: int) -> None:
    batch = np.array([1] * wrong + [0] * (size - wrong))
    paths = np.random.default_rng(2).permuted(np.tile(batch, (RUNS, 1)), axis=1)
    missed = (worst(paths, evidence_table(size, wrong / size, size)) >= -math.log(ALPHA)).mean()
    assert missed <= ALLOWED


def test_an_interval_of_a_fixed_size_does_not_hold_when_one_looks_after_every_draw() -> None:
    paths = (np.random.default_rng(3).random((1000, 300)) < 0.3).astype(int).cumsum(axis=1)
    covers = np.array(
        [[low <= 0.3 <= high for low, high in (clopper_pearson(k, n) for k in range(n + 1))] + [True] * (300 - n) for n in range(1, 301)]
    )
    assert (~covers[np.arange(300), paths]).any(axis=1).mean() > 3 * ALPHA


@pytest.mark.parametrize(("rate", "wrongly"), [(0.06, "accept"), (0.10, "accept"), (0.05, "reject"), (0.02, "reject")])
def test_a_batch_is_wrongly_accepted_or_rejected_in_at_most_alpha_of_ten_thousand_samplings(rate: float, wrongly: str) -> None:
    size, limit = 300, 0.05
    sampling, wrong = Acceptance(limit, ALPHA), round(rate * size)
    decided = {
        (seen, errors): sampling.look(errors, seen, size).decision
        for seen in range(0, size + 1, 3)
        for errors in range(min(seen, wrong) + 1)
    }
    batch = np.array([1] * wrong + [0] * (size - wrong))
    mistaken = 0
    for path in np.random.default_rng(4).permuted(np.tile(batch, (RUNS, 1)), axis=1).cumsum(axis=1):
        decision = next((told for seen in range(3, size + 1, 3) if (told := decided[seen, int(path[seen - 1])]) != "go on"), "go on")
        mistaken += decision == wrongly
    assert mistaken / RUNS <= ALLOWED


# ── closed forms ───────────────────────────────────────────────────────────────────────────────────────────────────────
@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.01, 0.99))
def test_the_mixture_is_the_integral_of_the_likelihood_over_the_prior(errors: int, right: int, rate: float) -> None:
    def likelihood(q: float) -> float:
        return float(q**errors * (1 - q) ** right)

    mixed = quad(lambda q: likelihood(q) * beta.pdf(q, 1, 1), 0, 1, epsabs=0)[0]
    assert log_evidence(errors, errors + right, rate, prior=((1, 1, 1),)) == pytest.approx(
        math.log(mixed) - math.log(likelihood(rate)), rel=1e-6, abs=1e-9
    )


@given(st.integers(1, 60), st.data())
def test_without_replacement_it_is_prior_over_posterior(size: int, data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, size))
    errors = data.draw(st.integers(0, seen))
    counts = np.arange(size + 1)
    prior = betabinom.pmf(counts, size, 0.5, 0.5)
    posterior = prior * hypergeom.pmf(errors, size, counts, seen)
    posterior /= posterior.sum()
    for count in data.draw(st.lists(st.integers(0, size), min_size=1, max_size=5)):
        found = log_evidence(errors, seen, count / size, size=size)
        assert found == pytest.approx(math.log(prior[count] / posterior[count]), abs=1e-7) if posterior[count] > 0 else found == math.inf


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_bounds_are_where_the_evidence_reaches_its_bar(errors: int, right: int) -> None:
    low, high = confidence_sequence(errors, errors + right)
    assert 0 <= low <= (errors / (errors + right) if errors + right else 0.5) <= high <= 1
    for bound in {low, high} - {0.0, 1.0}:
        assert log_evidence(errors, errors + right, bound) == pytest.approx(-math.log(ALPHA), abs=1e-6)
    assert (low == 0) == (errors == 0) and (high == 1) == (right == 0)


@given(st.integers(1, 80), st.data())
def test_the_bounds_of_a_finite_batch_are_the_counts_that_are_not_ruled_out(size: int, data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, size))
    errors = data.draw(st.integers(0, seen))
    left = [count for count in range(size + 1) if log_evidence(errors, seen, count / size, size=size) < -math.log(ALPHA)]
    assert confidence_sequence(errors, seen, size=size) == Interval(left[0] / size, left[-1] / size)


def test_a_batch_that_was_seen_whole_is_known() -> None:
    assert confidence_sequence(3, 50, size=50) == Interval(0.06, 0.06)
    assert confidence_sequence(3, 50, size=10**9) == pytest.approx(confidence_sequence(3, 50), abs=1e-4)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 errors among 4 draws cannot be"):
        confidence_sequence(5, 4)
    with pytest.raises(ValueError, match="1 errors among 4 draws of 3"):
        confidence_sequence(1, 4, size=3)


# ── width ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("errors", "seen"), [(0, 100), (5, 100), (50, 500), (300, 1000)])
def test_the_price_of_looking_at_any_time_is_less_than_twice_the_width(errors: int, seen: int) -> None:
    fixed, any_time = clopper_pearson(errors, seen), confidence_sequence(errors, seen)
    assert any_time.low <= fixed.low and fixed.high <= any_time.high
    assert any_time.high - any_time.low < 2 * (fixed.high - fixed.low)


@given(st.integers(1, 60), st.data())
def test_clopper_pearson_has_its_tails(of: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, of))
    low, high = clopper_pearson(count, of, 0.1)
    assert (low == 0 and count == 0) or binom.sf(count - 1, of, low) == pytest.approx(0.05)
    assert (high == 1 and count == of) or binom.cdf(count, of, high) == pytest.approx(0.05)


# ── acceptance ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_clean_draws_accept_after_as_many_as_were_foretold() -> None:
    sampling = Acceptance()
    for size, expected in ((None, 74), (1000, 70), (100, 45), (20, 16)):
        found = sampling.look(0, 0, size)
        assert found.decision == "go on" and found.more == expected
        assert sampling.look(0, expected, size).decision == "accept"
        assert sampling.look(0, expected - 1, size).decision == "go on"


def test_errors_reject_and_no_number_of_draws_can_save_a_batch_with_too_many() -> None:
    sampling = Acceptance(0.05)
    assert sampling.look(9, 30).decision == "reject"
    assert sampling.look(6, 20, 100).decision == "reject"  # at least 6 of 100
    assert sampling.look(2, 5, 30).more is None  # 2 of 30 are more than the limit, whatever follows


@given(st.integers(0, 200), st.data())
def test_what_is_still_missing_is_enough_and_one_less_is_not(seen: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, min(seen, 5)))
    size = data.draw(st.none() | st.integers(seen + 1, 500))
    found = Acceptance().look(errors, seen, size)
    if found.decision == "go on" and found.more is not None:
        assert Acceptance().look(errors, seen + found.more, size).decision == "accept"
        assert found.more == 1 or Acceptance().look(errors, seen + found.more - 1, size).decision != "accept"


def test_evidence_shrinks_the_interval_of_a_good_batch() -> None:
    highs = [Acceptance().look(0, seen).interval.high for seen in range(0, 100, 10)]
    assert all(later < earlier for earlier, later in pairwise(highs))
