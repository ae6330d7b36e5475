"""What selection will do: the formulas of Feng et al., exact tests against scipy's, and loops that turn out as was foretold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from outcross.breakeven import Forecast, Labelled, Tally, counted, forecast
from outcross.lab.verified import accuracy, alignments, threshold
from outcross.sequential import clopper_pearson


def found(right_kept: int, right: int, wrong_kept: int, wrong: int) -> Labelled:
    return Labelled(Tally(right_kept, right - right_kept), Tally(wrong_kept, wrong - wrong_kept))


# ── numbers ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("phi", "psi", "published"), [(0.9, 0.3, 0.75), (0.7, 0.05, 0.933), (1.0, 1.0, 0.5)])
def test_break_even_is_that_of_the_paper(phi: float, psi: float, published: float) -> None:
    says = forecast(found(round(1000 * phi), 1000, round(1000 * psi), 1000))
    assert says.break_even.estimate == pytest.approx(published, abs=5e-4) == pytest.approx(threshold(phi, psi), abs=5e-4)
    assert says.break_even.low < says.break_even.estimate < says.break_even.high


def test_purities_are_bayes_rule_and_below_break_even_is_below_one_half() -> None:
    says = forecast(found(90, 100, 30, 300))
    p, phi, psi = 0.75, 0.9, 0.1
    assert says.wrong.estimate == p and says.before.estimate == 0.25
    assert says.after.estimate == pytest.approx((1 - p) * phi / ((1 - p) * phi + p * psi)) == pytest.approx(0.75)
    assert (says.after.estimate > 0.5) == (p < says.break_even.estimate)
    assert (says.wrong.low, says.wrong.high) == clopper_pearson(300, 400, 0.05 / 3)  # three intervals that hold together
    assert (says.after.low, says.after.high) == clopper_pearson(90, 120, 0.05)


def test_the_verdict_rests_on_the_two_exact_tests() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        right, wrong = (int(item) for item in rng.integers(1, 80, 2))
        kept, let_in = int(rng.integers(0, right + 1)), int(rng.integers(0, wrong + 1))
        says = forecast(found(kept, right, let_in, wrong))
        table = [[kept, right - kept], [let_in, wrong - let_in]]
        fewer = binomtest(let_in, kept + let_in, 0.5, "less").pvalue if kept + let_in else 1.0
        assert says.below == (fewer <= 0.05)
        assert says.purer == (fisher_exact(table, "greater").pvalue <= 0.05)
        seen.add(says.says)
        if says.says == "hurts":
            more = binomtest(let_in, kept + let_in, 0.5, "greater").pvalue
            assert more <= 0.025 or fisher_exact(table, "less").pvalue <= 0.025
    assert seen == {"helps", "hurts", "cannot be shown"}


def test_errors_are_in_no_rate_and_an_abstention_is_not_kept() -> None:
    labelled = counted([(True, "pass"), (True, "abstain"), (True, "error"), (False, "fail"), (False, "error"), (False, "pass")])
    assert labelled == Labelled(Tally(1, 0, 1, 1), Tally(1, 1, 0, 1))
    says = forecast(labelled)
    assert (says.keeps_right.estimate, says.keeps_wrong.estimate, says.wrong.estimate) == (0.5, 0.5, 0.5)


def test_without_labels_of_one_sort_or_without_a_kept_answer_nothing_is_shown() -> None:
    for labelled in (found(0, 0, 3, 9), found(0, 20, 0, 20), Labelled()):
        says = forecast(labelled)
        assert says.says == "cannot be shown" and not says.below and not says.purer
    assert math.isnan(forecast(found(0, 0, 3, 9)).keeps_right.estimate)


def test_a_useless_verifier_is_said_to_help_in_at_most_alpha_of_all_checks() -> None:
    """φ = ψ on answers of which most are right, so that the other condition always holds."""
    rng = np.random.default_rng(1)
    wrong = rng.binomial(200, 0.2, 4000)
    says = [forecast(found(int(rng.binomial(200 - w, 0.6)), int(200 - w), int(rng.binomial(w, 0.6)), int(w))).says for w in wrong]
    assert np.mean([item == "helps" for item in says]) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_as_many_more_labels_as_it_says_decide_four_times_of_five() -> None:
    phi, psi, p = 0.7, 0.45, 0.4
    more = forecast(found(21, 30, 9, 20)).more
    assert more is not None
    rng, size = np.random.default_rng(2), 50 + more
    wrong = rng.binomial(size, p, 1000)
    helps = [
        forecast(found(int(rng.binomial(size - w, phi)), int(size - w), int(rng.binomial(w, psi)), int(w))).says == "helps" for w in wrong
    ]
    assert 0.7 < np.mean(helps) < 0.92
    assert (
        forecast(found(25, 50, 25, 50)).more is forecast(found(30, 30, 20, 20)).more is None
    )  # no number of labels shows a difference that is not there


# ── loops on either side of break-even ─────────────────────────────────────────────────────────────────────────────────
def labelled_by(phi: float, psi: float, p: float, size: int, rng: np.random.Generator) -> Forecast:
    wrong = int(rng.binomial(size, p))
    return forecast(found(int(rng.binomial(size - wrong, phi)), size - wrong, int(rng.binomial(wrong, psi)), wrong))


def played(phi: float, psi: float, p: float, rng: np.random.Generator, rounds: int = 4) -> float:
    """The share of wrong labels after a few rounds of labelling, selecting and learning (the linear classifier of the paper, d = 10)."""
    for _ in range(rounds):
        p = 1 - float(accuracy(alignments(p, phi, psi, rows=6000, dimensions=10, replicates=1, rng=rng))[0])
    return p


def test_forty_loops_on_either_side_of_break_even_turn_out_as_foretold() -> None:
    rng = np.random.default_rng(2024)
    foretold = []
    for number in range(40):
        phi = rng.uniform(0.5, 0.95)
        psi = phi * rng.uniform(0.3, 0.8)
        below = number % 2 == 0
        edge = threshold(phi, psi)
        p = edge - rng.uniform(0.08, 0.25) if below else min(0.95, edge + rng.uniform(0.08, 0.25))
        says = labelled_by(phi, psi, p, 400, rng).says
        helped = played(phi, psi, p, rng) < 0.5  # the learner follows the right answers: the theorem's two sides
        assert helped == below, "the simulated loop itself must follow the theory"
        foretold.append(says == ("helps" if helped else "hurts"))
    print(f"\nforetold rightly: {sum(foretold)} of 40 loops")
    assert sum(foretold) >= 36
