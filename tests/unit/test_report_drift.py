"""What was learnt by generation depth and how verifiers drift: the figures of the report against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import FOUR, Builder

from outcross.engine.store import RunDir, write_json
from outcross.report.depth_part import by_depth, depth_part, depth_words, mean_depth
from outcross.report.drift_part import drift_part, passes
from outcross.report.element import join
from outcross.report.read import read_run
from outcross.report.record import Mixed, Part


def mixed(*parts: Part) -> Mixed:
    return Mixed(sum(part.records for part in parts), sum(part.tokens for part in parts), {}, "rows", parts=parts)


REAL = Part("real", "attested", tokens=60.0)
FIRST, THIRD = (Part("synthetic", depth=depth, tokens=tokens) for depth, tokens in ((1, 30.0), (3, 10.0)))


def test_the_mean_depth_weighs_tokens() -> None:
    found = mixed(THIRD, REAL, FIRST)
    assert by_depth(found) == {0: 60.0, 1: 30.0, 3: 10.0}
    assert mean_depth(found) == pytest.approx(0.6)
    assert depth_words(found).replace("\u00a0", " ") == "0: 60.0 %, 1: 30.0 %, 3: 10.0 %"


@pytest.mark.parametrize("part", [Part("unknown", tokens=100.0), Part("real", "none", tokens=100.0)])
def test_what_is_not_known_to_be_real_is_not_depth_zero(part: Part) -> None:
    assert by_depth(mixed(FIRST, part)) == {1: 30.0, None: 100.0}
    assert mean_depth(mixed(FIRST, part)) == 1.0 and mean_depth(mixed(part)) is None
    assert "not known: 76.9" in depth_words(mixed(FIRST, part))


def page(run: RunDir, part: str) -> str:
    reading = read_run(run)
    return str(join(list(depth_part(reading, 10) if part == "depth" else drift_part(reading, 10)))).replace("\u00a0", " ")


def test_every_mixture_has_its_bar_and_its_row(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run", FOUR).write()
    text = page(run, "depth")
    for item in read_run(run).rounds:
        for found in item.mixtures.values():
            assert depth_words(found).replace("\u00a0", " ") in text
    assert "depth 0" in text and "depth 1" in text and "depth 2" not in text


def test_pass_shares_are_those_of_the_counts_and_the_reward_has_its_interval(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run", FOUR).write()
    for turn, mean in zip(run.rounds(), (0.5, 0.6, 0.6, 0.8), strict=True):
        write_json(turn.record_path, {**turn.record, "reward": {"mean": mean, "error": 0.03, "tasks": 6}})
    run = RunDir(run.root)
    text = page(run, "drift")
    for turn, item in zip(run.rounds(), read_run(run).rounds, strict=True):
        (detail,) = (count["detail"] for count in turn.record["counts"] if count["stage"] == "verify")
        assert passes(item) == {"exact": (detail["pass"], detail["pass"] + detail["fail"])}
        assert f"{100 * detail['pass'] / (detail['pass'] + detail['fail']):.1f} % of " in text
    assert "0.500 [0.441, 0.559]" in text  # ± 1.96 × 0.03
    assert "+0.300 [+0.217, +0.383]" in text  # ± 1.96 × 0.03 × √2


def test_a_run_that_learnt_or_verified_nothing_has_no_such_section(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run", ()).write()
    assert page(run, "depth") == page(run, "drift") == ""
