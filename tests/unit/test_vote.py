"""Plurality votes: what counts as the same answer, ties, and the band of agreement that Phi-4 keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import context, failed, group, sample
from hypothesis import given
from hypothesis import strategies as st

from outcross.errors import ConfigError
from outcross.types import Sample
from outcross.verify.vote import Vote, normalised


def judged(stage: Vote, *answers: str | Sample) -> list[tuple[str, float | None, str]]:
    (found,) = stage(context(Path()), [group(*answers)])
    return [(item.scores[-1].verdict, item.scores[-1].value, item.scores[-1].reason) for item in found.samples if not item.error]


def test_the_plurality_answer_passes_and_values_are_shares() -> None:
    found = judged(Vote(), "7", "7", "8", "7")
    assert found == [("pass", 0.75, ""), ("pass", 0.75, ""), ("fail", 0.25, "not the plurality answer"), ("pass", 0.75, "")]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (("1", "1", "1", "1"), "too much agreement"),
        (("1", "2", "3", "4"), "a tie"),
        (("1", "1", "2", "2"), "a tie"),
        (("1", "1", "2", "3", "4", "5"), "too little agreement"),
        (("1", "1"), "fewer than 3 votes"),
    ],
)
def test_tasks_outside_the_band_are_abstained_on_with_the_reason(answers: tuple[str, ...], why: str) -> None:
    assert {(verdict, value, reason) for verdict, value, reason in judged(Vote(at_most=0.9), *answers)} == {("abstain", None, why)}


def test_equal_answers_written_differently_are_one() -> None:
    found = judged(Vote(), "1,200", "$1200$", "1200.0", "1200.", "\\boxed{1200}", "1201")
    assert [verdict for verdict, _, _ in found] == ["pass"] * 5 + ["fail"]
    assert [verdict for verdict, _, _ in judged(Vote(), "Paris.", " paris", "ＰＡＲＩＳ", "Rome")] == ["pass"] * 3 + ["fail"]


def test_a_pattern_finds_the_answer_and_what_has_none_has_no_vote() -> None:
    found = judged(Vote(pattern=r"#### (\d+)"), "so #### 5", "#### 4 no, #### 5", "no idea", "#### 5", "#### 6")
    assert found[2] == ("fail", 0.0, "nothing in the answer matches the pattern")
    assert [value for _, value, _ in found] == [0.75, 0.75, 0.0, 0.75, 0.25]


def test_cut_off_answers_and_failed_requests_have_no_vote() -> None:
    found = judged(Vote(), "5", "5", "5", sample("6", 3, finished=False), failed(4))
    assert [verdict for verdict, _, _ in found] == ["pass", "pass", "pass", "fail"]
    assert found[0][1] == 1.0
    assert found[3][2].startswith("unfinished")


@given(st.lists(st.sampled_from(["1", "2", "3"]), min_size=3, max_size=12), st.randoms())
def test_the_order_of_samples_does_not_matter(answers: list[str], chance: Any) -> None:
    shuffled = list(answers)
    chance.shuffle(shuffled)
    pairs = [sorted(zip(given, judged(Vote(), *given), strict=True)) for given in (answers, shuffled)]
    assert pairs[0] == pairs[1]


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


def test_bad_bands_are_refused() -> None:
    for wrong in ({"at_least": 0.9, "at_most": 0.5}, {"fewest": 1}, {"pattern": "("}):
        with pytest.raises(ConfigError):
            Vote(**wrong)
