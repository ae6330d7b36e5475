"""Claims: how they are judged, that every one can be run, and what `outcross reproduce` prints."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from outcross.cli.main import app
from outcross.errors import ConfigError
from outcross.lab.claim import Claim, Estimate, difference, mean, zero_crossing
from outcross.lab.claims import CLAIMS, find

RUNNABLE = [claim for claim in CLAIMS if claim.measure]


def claim(estimate: Estimate, kind: str = "identity", published: float | None = None, tolerance: float = 0.02) -> Claim:
    return Claim("made-up", "a paper", "a table", published, kind, "what", lambda *_: estimate, tolerance)  # type: ignore[arg-type]


def call(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["reproduce", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


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


# ── the command ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_list_shows_every_claim_and_counts_each_kind() -> None:
    code, out, _ = call("--list")
    assert code == 0
    for item in CLAIMS:
        assert item.name in out and item.paper in out
    tally = out.splitlines()[-1]
    for kind in ("identity", "direction", "cited"):
        assert f"{kind} {sum(item.kind == kind for item in CLAIMS)}" in tally


def test_a_run_prints_theory_paper_ours_and_verdict() -> None:
    code, out, err = call("minority-temperature", "verification-weak", "kuhn-value")
    assert code == 0, err
    assert "1/3 minority-temperature" in err
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    _, kind, theory, ours, *_, verdict = lines["minority-temperature"]
    assert (kind, verdict) == ("identity", "holds")
    assert float(theory) == pytest.approx(0.00466, rel=1e-3) == float(ours)
    assert lines["verification-weak"][2:4] == ["0.75", "0.75"] and "±" in lines["verification-weak"]
    assert "(exact)" in lines["kuhn-value"]
    assert out.splitlines()[-1] == "identity: holds 3"


@pytest.mark.parametrize("words", [(), ("--list", "kuhn-value"), ("--list", "--all"), ("--all", "kuhn-value")])
def test_without_a_choice_nothing_is_run(words: tuple[str, ...]) -> None:
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert "--list shows all claims" in err


def test_an_unknown_claim_is_told_its_neighbour() -> None:
    code, _, err = call("gaussian-varience")
    assert code == 2
    assert "did you mean 'gaussian-variance'?" in err


def test_a_cited_claim_is_refused_by_name() -> None:
    code, _, err = call("opt-125m-fine-tuned")
    assert code == 2 and "is cited only" in err
