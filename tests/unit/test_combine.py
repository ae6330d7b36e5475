"""Combinations of verifiers: their tables of verdicts, what later parts get to see, and streaming."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from helpers import context, failed, group, sample

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Ground, Group, Score, Verdict
from outcross.verify.combine import AllOf, AnyOf, FirstDecisive, Majority, Retried, Unanimous, WeightedSum
from outcross.verify.each import Finding, scored
from outcross.verify.exact import Exact

SEEN: Counter[tuple[str, str]] = Counter()
WORDS: dict[str, Verdict] = {"p": "pass", "f": "fail", "e": "error", "a": "abstain"}


@dataclass(frozen=True)
class Says(Stage):
    """Reads its verdict off the letter at `place` of the answer; `name` counts what it was asked."""

    place: int
    label: str = "says"
    ground: Ground = "exact"
    roles: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        return f"{self.label}_{self.place}"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        def judge(task: object, text: str) -> Finding:
            SEEN[self.name, text] += 1
            return WORDS[text[self.place]], "its reason", "its evidence"

        return scored(self, groups, judge)


def found(stage: Any, *answers: str, folder: Path = Path()) -> list[Score]:
    (judged,) = stage(context(folder), [group(*answers)])
    return [item.scores[-1] for item in judged.samples]


def table(stage: Any) -> dict[str, str]:
    answers = ["".join(letters) for letters in itertools.product("pfea", repeat=2)]
    return {answer: score.verdict[0] for answer, score in zip(answers, found(stage, *answers), strict=True)}


TWO = (Says(0), Says(1))


def test_all_of_is_the_strictest_verdict() -> None:
    order = "feap"
    assert table(AllOf(TWO)) == {a + b: min(a, b, key=order.index) for a in "pfea" for b in "pfea"}


def test_any_of_passes_with_one_and_never_reads_an_error_as_a_fail() -> None:
    order = "peaf"
    assert table(AnyOf(TWO)) == {a + b: min(a, b, key=order.index) for a in "pfea" for b in "pfea"}


def test_unanimous_abstains_on_disagreement() -> None:
    expected = {a + b: "e" if "e" in (a, b) else a if a == b else "a" for a in "pfea" for b in "pfea"}
    assert table(Unanimous(TWO)) == expected
    assert found(Unanimous(TWO), "pf")[0].reason == "the verifiers disagree"


def test_first_decisive_goes_on_until_somebody_knows() -> None:
    assert table(FirstDecisive(TWO)) == {a + b: a if a in "pf" else b for a in "pfea" for b in "pfea"}


def test_later_parts_see_only_what_is_open(tmp_path: Path) -> None:
    stage = FirstDecisive((Says(0, "cheap"), Says(1, "dear")))
    SEEN.clear()
    found(stage, "pf", "fp", "ap", "ef", "pp")
    assert {text for name, text in SEEN if name == "dear_1"} == {"ap", "ef"}
    assert SEEN["cheap_0", "pf"] == 1


def test_majority_needs_more_than_half_of_all_parts() -> None:
    stage = Majority((Says(0), Says(1), Says(2)))
    answers = ["".join(letters) for letters in itertools.product("pfea", repeat=3)]
    for answer, score in zip(answers, found(stage, *answers), strict=True):
        passed, fell, errors = (answer.count(letter) for letter in "pfe")
        if passed >= 2 or fell >= 2:
            assert score.verdict == ("pass" if passed >= 2 else "fail")
            assert score.value == passed / 3
        else:
            assert score.verdict == ("error" if errors and max(passed, fell) + errors >= 2 else "abstain")
            assert score.value is None


def test_a_weighted_sum_of_values_and_no_zero_for_a_part_that_is_silent() -> None:
    stage = WeightedSum(TWO, weights=(3.0, 1.0), passes_at=0.75)
    scores = dict(zip(("pf", "fp", "pp", "pe", "ap"), found(stage, "pf", "fp", "pp", "pe", "ap")))
    assert (scores["pf"].verdict, scores["pf"].value) == ("pass", 0.75)
    assert (scores["fp"].verdict, scores["fp"].value) == ("fail", 0.25)
    assert scores["pp"].value == 1.0
    assert (scores["pe"].verdict, scores["pe"].value) == ("error", None)
    assert (scores["ap"].verdict, scores["ap"].value) == ("abstain", None)


def test_one_score_is_left_with_what_each_part_said_and_its_version() -> None:
    earlier = Score("earlier", "1", "pass", 1.0)
    (judged,) = AllOf(TWO)(context(Path()), [group(sample("pf", scores=(earlier,)), failed(1))])
    first, last = judged.samples
    assert first.scores[0] == earlier and len(first.scores) == 2
    assert first.scores[1].version == "1(says_0@1,says_1@1)"
    assert first.scores[1].evidence == "says_0 pass 1; says_1 fail 0: its evidence"
    assert first.scores[1].reason == "says_1: its reason"
    assert last.error and not last.scores


def test_the_ground_is_the_weakest_of_the_parts() -> None:
    assert AllOf((Says(0, ground="kernel"), Says(1, ground="judged"))).ground == "judged"
    assert AnyOf((Says(0, ground="executed"), Says(1, ground="exact"))).ground == "exact"


def test_combinations_nest() -> None:
    stage = FirstDecisive((Unanimous(TWO), Says(2, "person", "human")))
    scores = found(stage, "ppf", "pfp", "pff", "ffp")
    assert [score.verdict for score in scores] == ["pass", "pass", "fail", "fail"]
    assert stage.ground == "human"
    assert "unanimous@1(says_0@1,says_1@1)" in stage.version


@dataclass(frozen=True)
class Flaky(Stage):
    """Gives an error until it has been asked about an answer as often as the answer's number says."""

    ground: ClassVar[Ground] = "judged"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        def judge(task: object, text: str) -> Finding:
            SEEN["flaky", text] += 1
            return ("pass" if SEEN["flaky", text] > int(text) else "error"), "busy", ""

        return scored(self, groups, judge)


def test_errors_are_tried_again_and_nothing_else() -> None:
    SEEN.clear()
    scores = found(Retried(Flaky(), times=2), "0", "1", "2", "3")
    assert [score.verdict for score in scores] == ["pass", "pass", "pass", "error"]
    assert [SEEN["flaky", text] for text in "0123"] == [1, 2, 3, 3]
    assert scores[2].verifier == "flaky" and scores[2].evidence.startswith("asked 3 times")


@pytest.mark.parametrize("stage", [FirstDecisive((Exact(), Exact(casefold=True))), Retried(Exact()), AllOf((Exact(),))])
def test_decided_groups_do_not_wait_for_open_ones(stage: Any, tmp_path: Path) -> None:
    pulled = 0

    def groups() -> Iterator[Group]:
        nonlocal pulled
        for _ in range(1000):
            pulled += 1
            yield group("4", "5")

    next(iter(stage(context(tmp_path), groups())))
    assert pulled < 5


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: AllOf(()), "all_of: verifiers is empty"),
        (lambda: WeightedSum(TWO, weights=(1.0,)), "weights are (1.0,) for 2 verifiers"),
        (lambda: WeightedSum(TWO, weights=(0.0, 0.0)), "not all 0"),
        (lambda: Retried(Exact(), times=0), "times is 0"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert says in str(error.value)
