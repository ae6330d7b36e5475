"""Claims: how they are judged, and that every simulated one can be run."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from outcross.errors import ConfigError
from outcross.lab.claim import Claim, Estimate, difference, mean, zero_crossing
from outcross.lab.claims import CLAIMS, find

RUNNABLE = [claim for claim in CLAIMS if claim.measure]


def claim(estimate: Estimate, kind: str = "identity", published: float | None = None, tolerance: float = 0.02) -> Claim:
    return Claim("made-up", "a paper", "a table", published, kind, "what", lambda *_: estimate, tolerance)  # type: ignore[arg-type]


# ── judging ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("ours", "error", "verdict"),
    [(1.0, 0.001, "holds"), (1.015, 0.002, "holds"), (1.015, 0.004, "undecided"), (1.0, 0.02, "undecided"), (1.03, 0.004, "fails")],
)
def test_an_identity_holds_when_its_whole_interval_is_within_tolerance(ours: float, error: float, verdict: str) -> None:
    assert claim(Estimate(1.0, ours, error)).run().verdict == verdict
    assert claim(Estimate(-1.0, -ours, error)).run().verdict == verdict


def test_an_identity_must_meet_the_paper_too() -> None:
    found = Estimate(1.0, 1.0, 0.001)
    assert claim(found, published=1.01).run().verdict == "holds"
    assert claim(found, published=1.5).run().verdict == "fails"


@pytest.mark.parametrize(("ours", "verdict"), [(0.5, "holds"), (0.1, "undecided"), (-0.1, "undecided"), (-0.5, "fails")])
def test_a_direction_holds_when_its_whole_interval_is_above_zero(ours: float, verdict: str) -> None:
    assert claim(Estimate(None, ours, 0.1), "direction").run().verdict == verdict


def test_a_cited_claim_cannot_be_run() -> None:
    cited = next(claim for claim in CLAIMS if claim.kind == "cited")
    with pytest.raises(ConfigError, match=f"{cited.name} is cited only"):
        cited.run()


def test_an_interval_of_a_mean_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    results = [claim(mean(rng.standard_normal(50) + 3, 3.0)).run() for _ in range(2000)]
    covered = [abs(result.ours - 3) <= result.half_width for result in results]
    assert np.mean(covered) == pytest.approx(0.945, abs=0.015)


def test_the_error_of_a_crossing_and_of_a_difference_is_their_spread() -> None:
    rng = np.random.default_rng(1)

    def at(level: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return rng.normal(level, 1, 400)

    crossings = [zero_crossing((2.0, 3.0), at(0.6), at(-0.4), 2.6) for _ in range(1500)]
    assert np.mean([found.ours for found in crossings]) == pytest.approx(2.6, abs=0.005)
    assert np.mean([found.standard_error for found in crossings]) == pytest.approx(np.std([found.ours for found in crossings]), rel=0.08)
    gaps = [difference(at(0.6), at(-0.4)) for _ in range(1500)]
    assert np.mean([found.standard_error for found in gaps]) == pytest.approx(np.std([found.ours for found in gaps]), rel=0.08)


# ── the claims ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_claim_has_a_name_of_its_own_and_says_where_it_stands() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)
    for item in CLAIMS:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", item.name)
        assert item.paper and item.place and item.what
        assert (item.kind == "cited") == (item.measure is None)
        assert item.kind != "cited" or item.published is not None


@pytest.mark.parametrize("item", RUNNABLE, ids=[claim.name for claim in RUNNABLE])
def test_a_claim_does_not_fail_with_few_replicates_and_theory_meets_the_paper(item: Claim) -> None:
    few = dataclasses.replace(item, replicates=max(50, item.replicates // 50))
    result = few.run()
    assert result.verdict != "fails"
    assert np.isfinite([result.ours, result.standard_error]).all()
    if item.published is not None and result.theory is not None:
        assert result.theory == pytest.approx(item.published, rel=5e-3)
    if item.kind == "identity":
        assert result.theory is not None
        assert abs(result.ours - result.theory) <= 4 * result.standard_error + 0.01 * abs(result.theory)


def test_a_result_depends_on_the_seed_and_on_nothing_else() -> None:
    small = dataclasses.replace(find(["gaussian-variance"])[0], replicates=200)
    assert small.run() == small.run()
    assert small.run().ours != small.run(seed=1).ours
    assert small.run("small").standard_error < 0.5 * small.run().standard_error


def test_a_larger_scale_pools_estimates_of_the_same_size_and_repeats_nothing_exact() -> None:
    asked: list[int] = []

    def measure(replicates: int, rng: np.random.Generator) -> Estimate:
        asked.append(replicates)
        return Estimate(1.0, 1.0 + 0.01 * (-1) ** len(asked), 0.02)

    result = Claim("made-up", "a paper", "a table", None, "identity", "what", measure, replicates=7).run("small")
    assert asked == [7] * 10  # memory is that of toy scale
    assert (result.ours, result.standard_error) == (pytest.approx(1.0), pytest.approx(0.02 / 10**0.5))
    asked.clear()
    exact = Claim("made-up", "a paper", "a table", None, "identity", "what", lambda n, _: (asked.append(n), Estimate(1.0, 1.0, 0.0))[1])
    assert exact.run("full").verdict == "holds" and len(asked) == 1


def test_few_values_widen_the_interval() -> None:
    assert claim(Estimate(None, 0.5, 0.2), "direction").run().verdict == "holds"
    assert claim(Estimate(None, 0.5, 0.2, quantile=2.776), "direction").run().verdict == "undecided"  # t of 5 seeds
