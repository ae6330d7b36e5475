"""The gate of rows: two independent samples, their bounds against published ones, and by simulation how often it is right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from outcross.errors import GuardError
from outcross.gate.rows.no_worse import NoWorse
from outcross.gate.rows.observe import Observe
from outcross.gate.rows.unpaired import estimate, gap, power, visible
from outcross.stages import Bounds
from outcross.types import Check, Comparison, Decision, Measurement

REPEATS = 1000
NO_LESS = Bounds(0.1)


def shares(values: Iterable[float], probe: str = "p", **more: Any) -> Measurement:
    found = tuple(map(float, values))
    return Measurement(probe, tuple(f"{probe}{i}" for i in range(len(found))), found, **{"unit": "share", **more})


def whole(value: float, error: float, items: int = 400, seed: int = 0, **more: Any) -> Measurement:
    """A statistic of a whole set: its value, and replicates that spread by `error`."""
    spread = np.random.default_rng(seed).standard_normal(400)
    spread = value + error * (spread - spread.mean()) / spread.std(ddof=1)
    return Measurement("p", tuple(map(str, range(items))), (value,), tuple(map(float, spread)), **{"unit": "share", **more})


def decide(
    candidate: Measurement,
    real: Measurement | None = None,
    release: Measurement | None = None,
    bounds: Bounds = NO_LESS,
    gate: Any = NoWorse(),
    number: int = 0,
    rounds: int = 1,
    left: float | None = None,
) -> Decision:
    sets = [{} if found is None else {"p": found} for found in (candidate, release, real)]
    made: Decision = gate(Comparison(sets[0], sets[1], sets[2], number, rounds, gate.alpha if left is None else left), {"p": bounds})
    return made


def only(decision: Decision) -> Check:
    (check,) = decision.checks
    return check


# ── bounds ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_two_shares_are_bounded_as_newcombe_bounds_them() -> None:
    """56 of 70 against 48 of 80: method 10 gives 0.0524 to 0.3339 (Newcombe, Statistics in Medicine 17, 1998, table II (a)).
    Ours is at least as wide, because each share has the wider of two bounds."""
    found = gap(shares([1] * 56 + [0] * 14), shares([1] * 48 + [0] * 32), 0.025)
    assert found.estimate == pytest.approx(0.2)
    assert 0.0524 - 0.015 < found.low <= 0.0524 and 0.3339 <= found.high < 0.3339 + 0.015


def test_shares_that_are_all_one_still_have_a_width() -> None:
    """No failure among n: the bound is about Wilson's, n / (n + z²)."""
    found = estimate(shares([1.0] * 100), 0.05)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(100 / (100 + 1.645**2), abs=0.002)
    assert gap(shares([1.0] * 100), shares([1.0] * 100), 0.05).low < -0.02


def test_means_are_bounded_as_welch_bounds_them() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(5, 1, 400), rng.normal(5.2, 2, 300)
    found = gap(shares(a, unit="doublings"), shares(b, unit="doublings"), 0.05)
    error = math.hypot(a.std(ddof=1) / 20, b.std(ddof=1) / math.sqrt(300))
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert found.low == pytest.approx(found.estimate - 1.645 * error, abs=0.01)
    assert found.high == pytest.approx(found.estimate + 1.645 * error, abs=0.01)


def test_replicates_of_two_sets_add_their_variances() -> None:
    found = gap(whole(0.8, 0.03), whole(0.9, 0.04, seed=1), 0.05)
    assert (found.estimate, found.error) == (pytest.approx(-0.1), pytest.approx(0.05, rel=0.01))
    assert found.low == pytest.approx(-0.1 - 1.65 * 0.05, abs=0.001)


def test_lower_is_better_turns_the_sign() -> None:
    better = gap(shares([0.1, 0.2] * 60, higher_is_better=False), shares([0.4, 0.5] * 60, higher_is_better=False), 0.05)
    assert better.estimate == pytest.approx(0.3) and better.low > 0.25


def test_power_and_the_visible_difference_belong_together() -> None:
    assert power(visible(0.02, 0.05), 0.02, 0.05) == pytest.approx(0.8)
    assert power(visible(0.02, 0.01, 0.95), 0.02, 0.01) == pytest.approx(0.95)


# ── decisions ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_check_must_hold_and_the_reason_names_those_that_do_not() -> None:
    good, bad = whole(0.8, 0.01), whole(0.6, 0.01)
    assert decide(good, real=good, release=good).promote
    found = decide(good, real=whole(0.95, 0.01), release=bad)
    assert not found.promote and [(check.against, check.passed) for check in found.checks] == [("release", True), ("real", False)]
    assert found.reason == "refused: p 80.0% vs 95.0% of real data is off by 15.0 points, margin 10.0 points"
    assert decide(good, real=bad).promote, "better is no fault"


def test_a_margin_that_cannot_be_shown_refuses_and_says_how_little_was_seen() -> None:
    found = only(decide(whole(0.8, 0.06), real=whole(0.8, 0.06)))
    assert not found.passed and "a difference under 21.1 points cannot be seen" in found.note and found.power < 0.5


def test_of_lengths_too_much_is_as_bad_as_too_little() -> None:
    asked = Bounds(1.0, either_way=True)
    rng = np.random.default_rng(0)
    sets = {shift: shares(rng.normal(6 + shift, 1, 200), unit="doublings") for shift in (-2, -0.1, 0, 0.1, 2)}
    assert {shift: decide(found, real=sets[0], bounds=asked).promote for shift, found in sets.items()} == {
        -2: False,
        -0.1: True,
        0: True,
        0.1: True,
        2: False,
    }
    assert only(decide(sets[2], real=sets[0], bounds=asked)).estimate == pytest.approx(-2, abs=0.3)


def test_too_few_tasks_refuse_whatever_they_show() -> None:
    found = decide(whole(0.99, 0.001, items=99), real=whole(0.5, 0.001))
    assert not found.promote and "99 tasks, and at least 100 are asked for in each set" in found.reason
    assert decide(whole(0.99, 0.001, items=99), real=whole(0.5, 0.001), gate=NoWorse(minimum_items=50)).promote
    assert not decide(shares([1.0] * 99), bounds=Bounds(limit=0.5)).promote


def test_a_limit_that_is_reached_and_not_shown_to_be_is_not_said_to_be_missed() -> None:
    few = decide(shares([1.0] * 99), bounds=Bounds(limit=0.5)).reason
    assert "p 100.0% against the limit of 50.0% rests on too few tasks" in few
    unsure = decide(shares([1.0] * 98 + [0.0] * 2), bounds=Bounds(limit=0.95)).reason
    assert "p 98.0% against the limit of 95.0% is not shown to reach it" in unsure
    assert "p 98.0%, below the limit of 99.0%" in decide(shares([1.0] * 98 + [0.0] * 2), bounds=Bounds(limit=0.99)).reason
    assert "nan, below" not in decide(shares([]), bounds=Bounds(limit=0.5)).reason


def test_rounds_that_are_held_to_a_limit_alone_share_the_budget() -> None:
    """Each in turn takes an equal part of what is left, so that none after the first is tested more loosely."""
    rows, left, seen = shares([1.0] * 97 + [0.0] * 3), 0.05, []
    for number in range(5):
        made = decide(rows, bounds=Bounds(limit=0.95), number=number, rounds=5, left=left)
        seen.append(made.alpha_spent)
        left -= made.alpha_spent
    assert seen == pytest.approx([0.01] * 5)


def test_an_exact_limit_is_compared_as_it_is_and_another_by_its_lower_bound() -> None:
    rows = shares([1.0] * 98 + [0.0] * 2)
    assert decide(rows, bounds=Bounds(limit=0.98, exact=True)).promote
    assert not decide(rows, bounds=Bounds(limit=0.981, exact=True)).promote
    assert not decide(rows, bounds=Bounds(limit=0.95)).promote and decide(rows, bounds=Bounds(limit=0.92)).promote
    spent = decide(rows, bounds=Bounds(limit=0.9))
    assert (spent.alpha_spent, spent.gated) == (0.05, True)  # a bound may err
    assert decide(rows, bounds=Bounds(limit=0.9, exact=True)).alpha_spent == 0.0
    assert spent.reason.endswith("there is neither real data nor an earlier release to compare with")


def test_nothing_to_compare_with_and_no_limit_is_called_ungated() -> None:
    found = decide(whole(0.8, 0.01))
    assert found.promote and not found.gated and found.reason.startswith("ungated")


def test_a_probe_is_compared_with_what_it_says_alone() -> None:
    found = decide(whole(0.8, 0.01), real=whole(1.0, 0.01), release=whole(0.8, 0.01), bounds=Bounds(0.1, against=("release",)))
    assert found.promote and only(found).against == "release"


def test_alpha_is_split_over_rounds_and_refused_rounds_spend_it_too() -> None:
    good = whole(0.8, 0.01)
    spent = [decide(good, real=good, number=n, rounds=4, left=0.05 * (4 - n) / 4).alpha_spent for n in range(4)]
    assert spent == pytest.approx([0.0125] * 4)
    assert decide(whole(0.2, 0.01), real=good, rounds=4).alpha_spent == pytest.approx(0.0125)
    assert not decide(good, real=good, left=0.0).promote


def test_observe_releases_and_says_what_the_gate_would_have_done() -> None:
    found = decide(whole(0.2, 0.01), real=whole(0.8, 0.01), gate=Observe())
    assert found.promote and not found.gated and found.alpha_spent == 0 and Observe().alpha == 0
    assert found.reason.startswith("ungated; the gate would have refused: p 20.0% vs 80.0% of real data")


@pytest.mark.parametrize(
    ("candidate", "real"),
    [
        (whole(0.8, 0.01), shares([0.8] * 200)),
        (shares([0.8] * 200), shares([0.8] * 200, unit="")),
        (shares([math.nan] * 200), shares([0.8] * 200)),
        (shares([1.2] * 200), shares([0.8] * 200)),
    ],
)
def test_measurements_that_are_not_alike_or_no_numbers_are_refused(candidate: Measurement, real: Measurement) -> None:
    with pytest.raises(GuardError):
        decide(candidate, real=real)


# ── by simulation ──────────────────────────────────────────────────────────────────────────────────────────────────────
def released(rng: np.random.Generator, off: float, tasks: int = 300) -> float:
    """How often a round is released whose process passes `off` less often than the one before, 2 answers a task, margin 0.1."""
    hits = 0
    for _ in range(REPEATS):
        mine, theirs = (shares(rng.binomial(2, 0.8 - drop, tasks) / 2) for drop in (off, 0.0))
        hits += decide(mine, release=theirs).promote
    return hits / REPEATS


def test_a_process_that_is_worse_by_the_margin_is_released_no_more_often_than_alpha() -> None:
    """1,000 pairs of sets at the edge: alpha 0.05, three standard errors of the simulation 0.021."""
    assert released(np.random.default_rng(0), 0.1) <= 0.05 + 0.021


def test_an_equal_process_is_released_as_often_as_the_power_says() -> None:
    rng = np.random.default_rng(1)
    told = [only(decide(*(shares(rng.binomial(2, 0.8, 300) / 2) for _ in range(2)))).power for _ in range(50)]
    assert released(rng, 0.0) == pytest.approx(np.mean(told), abs=0.03)
    assert np.mean(told) > 0.95


@pytest.mark.parametrize(("shift", "least", "most"), [(1.0, 0.0, 0.071), (-1.0, 0.0, 0.071), (0.0, 0.97, 1.0)])
def test_lengths_are_told_apart_on_both_sides(shift: float, least: float, most: float) -> None:
    rng, hits = np.random.default_rng(2), 0
    for _ in range(REPEATS):
        mine, theirs = (shares(rng.normal(6 + off, 1.5, 150), unit="doublings") for off in (shift, 0.0))
        hits += decide(mine, real=theirs, bounds=Bounds(1.0, either_way=True)).promote
    assert least <= hits / REPEATS <= most
