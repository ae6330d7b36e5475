"""Judges that look at one answer: the score from 1 to 10, the rubric; and what a question to a judge can be answered with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers import context, failed, group, sample
from hypothesis import given
from hypothesis import strategies as st
from judges import saying, shown, weighing
from tiny_lm import teacher_forced, tiny

from outcross.errors import ConfigError
from outcross.judgement import Judgement, judgement_of
from outcross.models.categorical import Categorical
from outcross.models.scripted import Scripted
from outcross.text import prompt_text
from outcross.types import Completion, Group, Request, Response, Sampling, Score
from outcross.verify.judge_ask import Sampled, Way, named, of_log_probs, of_texts, way_of, weighed
from outcross.verify.judge_pointwise import SCALE, PointwiseJudge, RatedExample, mean_score, rescaled
from outcross.verify.judge_prompt import Instructions
from outcross.verify.judge_rubric import Criterion, RubricJudge


def judged(folder: Path, judge: Any, made: Group, stage: Any = None) -> list[Score]:
    (found,) = (stage or PointwiseJudge())(context(folder, {"judge": judge}), [made])
    return [item.scores[-1] for item in found.samples if item.scores]


def read(score: Score) -> Judgement:
    found = judgement_of(score)
    assert found is not None
    return found


# ── 1 to 10 ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_evenly_spread_numbers_give_the_middle_and_certainty_of_ten_the_top(tmp_path: Path) -> None:
    even = judged(tmp_path, Categorical(dict.fromkeys(SCALE, 1.0)), group("x"))[0]
    assert even.value == pytest.approx(0.5, abs=1e-6) and read(even).mean == pytest.approx(5.5, abs=1e-6)
    for number, value in (("10", 1.0), ("1", 0.0), ("7", 6 / 9)):
        one = judged(tmp_path, Categorical({name: float(name == number) for name in SCALE}), group("x"))[0]
        assert one.value == pytest.approx(value, abs=1e-6)
        assert one.verdict == ("pass" if value >= 0.5 else "fail")


@given(st.lists(st.floats(0.001, 1), min_size=10, max_size=10))
def test_the_mean_is_weighed_by_likelihoods_renormalised_over_the_ten(weights: list[float]) -> None:
    """Mass on other tokens does not count, so a common factor of the ten changes nothing."""
    for factor in (1.0, 0.01):
        found = of_log_probs(
            Response((Completion("", choice_log_probs=tuple(math.log(factor * item) for item in weights)),)), SCALE, nested=False
        )
        expected = sum((i + 1) * item for i, item in enumerate(weights)) / sum(weights)
        assert mean_score(found.probs) == pytest.approx(expected)
        assert rescaled(mean_score(found.probs)) == pytest.approx((expected - 1) / 9)


@given(st.lists(st.floats(0.01, 1), min_size=10, max_size=10), st.booleans())
def test_ten_is_a_sequence_and_not_one(weights: list[float], single: bool) -> None:
    """However a tokenizer writes "10", the same beliefs give the same mean: where it is "1" and "0", what the model gives "1" holds
    that of "10"."""
    total = sum(weights)
    probs = [item / total for item in weights]
    given_to_one = probs[0] if single else probs[0] + probs[9]
    values = (math.log(given_to_one), *map(math.log, probs[1:]))
    found = of_log_probs(Response((Completion("", choice_log_probs=values),)), SCALE, nested=not single)
    assert mean_score(found.probs) == pytest.approx(sum((i + 1) * item for i, item in enumerate(probs)))


def test_a_language_model_that_writes_ten_as_two_tokens_is_known_as_one(tmp_path: Path) -> None:
    """A real model with one token a character, held against teacher forcing: " 1" without what goes on as " 10"."""
    judge = tiny()
    ctx = context(tmp_path, {"judge": judge})
    way = way_of(ctx, "judge", SCALE)
    assert way == Way(weighs=True, nested=True)
    (found,) = ctx.run([weighed("judge", "2+2=", SCALE, way, Sampled(), 0)])
    start, *of_numbers = judge._tokens.texts(["2+2=", *(f" {number}" for number in SCALE)])
    mass = [math.exp(sum(teacher_forced(judge, start, ids))) for ids in of_numbers]
    mass[0] -= mass[9]
    assert found.probs == pytest.approx([item / sum(mass) for item in mass], rel=1e-4)


def test_a_server_that_weighs_single_tokens_is_asked_several_times_about_ten(tmp_path: Path) -> None:
    """Where "10" is more than one token the endpoint refuses to weigh it: the question that finds out comes first."""

    def answer(request: Request) -> Response:
        if request.choices:
            return Response(error="the choice '10' is more than one token here; use choices of one token, such as A and B")
        return Response(tuple(Completion(f"{7 + index % 2}/10") for index in range(request.n)))

    found = judged(tmp_path, Scripted(answer, name="one token"), group("x"))[0]
    assert read(found).by == "8 draws" and read(found).mean == 7.5


def test_a_passing_fault_is_an_error_and_does_not_change_the_estimator(tmp_path: Path) -> None:
    found = judged(tmp_path, Scripted(lambda request: Response(error="timed out after 300 s"), name="slow"), group("x", "y"))
    assert [(score.verdict, score.value) for score in found] == [("error", None)] * 2
    assert "timed out" in found[0].reason


def test_failed_and_cut_off_answers_are_not_shown_to_the_judge(tmp_path: Path) -> None:
    judge = weighing(lambda request: {"9": 1.0})
    made = group("x", failed(1), sample("cut", 2, finished=False), sample("", 3))
    found = judged(tmp_path, judge, made)
    assert [score.verdict for score in found] == ["pass", "fail", "pass"] and judge.requests == 3


def test_each_label_draws_its_principle_and_examples_come_first(tmp_path: Path) -> None:
    seen: list[Request] = []

    def probs(request: Request) -> dict[str, float]:
        seen.append(request)
        return {"5": 1.0}

    stage = PointwiseJudge(instructions=Instructions(principles=("be brief", "be kind")), examples=(RatedExample("2+2=", "5", 1),))
    scores = judged(tmp_path, weighing(probs), group(*map(str, range(40))), stage)
    drawn = [read(score).principle for score in scores]
    assert 8 < sum(drawn) < 32
    for request, place in zip(seen, drawn, strict=True):
        assert [item.role for item in request.prompt] == ["user", "assistant", "user"]  # type: ignore[union-attr]
        assert ("be brief", "be kind")[place] in request.prompt[-1].content and request.prompt[1].content == "1"  # type: ignore[union-attr]


# ── reading sampled answers ────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[("7", "7"), (" 10.", "10"), ("7/10", "7"), ("8 out of 10", "8"), ("Rating: **9**", "9"), ("<think>3? 4?</think>5", "5")],
        *[("1", "1"), ("10/10", "10"), ("7.5", None), ("7 or 8", None), ("11", None), ("", None)],
    ],
)
def test_numbers_are_read_when_there_is_one(text: str, number: str | None) -> None:
    assert named(text, SCALE) == number


@pytest.mark.parametrize(
    ("text", "letter"), [("A", "A"), ("(B)", "B"), ("Answer A is a better one", "A"), ("A or B", None), ("AB", None), ("a", None)]
)
def test_letters_are_read_when_there_is_one(text: str, letter: str | None) -> None:
    assert named(text, ("A", "B")) == letter


def test_half_of_the_answers_unreadable_are_too_many() -> None:
    texts = [Completion("A"), Completion("A"), Completion("?"), Completion("?")]
    assert "2 of 4" in of_texts(Response(tuple(texts)), ("A", "B"), 4).error
    assert of_texts(Response((*texts[:3], Completion("B"))), ("A", "B"), 4).probs == pytest.approx((2 / 3, 1 / 3))


# ── rubric ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
MARKS = {"correct": 5, "complete": 2, "clear": 4}


def marks(**more: int) -> str:
    return json.dumps({name: {"reason": f"because {name}", "mark": mark} for name, mark in {**MARKS, **more}.items()})


def test_a_rubric_is_the_weighted_mean_of_its_marks_with_reasons_on_the_record(tmp_path: Path) -> None:
    (found,) = judged(tmp_path, Scripted([marks()], name="rubric"), group("x"), RubricJudge())
    assert found.value == pytest.approx(((2 * 5 + 2 + 4) / 4 - 1) / 4) and found.verdict == "pass"
    assert dict(read(found).marks) == MARKS and read(found).reasons["clear"] == "because clear"
    stage = RubricJudge(criteria=(Criterion("complete", "All of it?"),))
    (low,) = judged(tmp_path, Scripted([json.dumps({"complete": {"reason": "", "mark": 2}})], name="one"), group("x"), stage)
    assert (low.verdict, low.value, low.reason) == ("fail", 0.25, "low marks for complete")


def test_a_rubric_answer_is_corrected_once_and_else_an_error(tmp_path: Path) -> None:
    def mending(request: Request) -> str:
        return marks() if "This answer is not valid" in prompt_text(request.prompt) else marks(correct=9)

    assert judged(tmp_path, Scripted(mending, name="mending"), group("x"), RubricJudge())[0].verdict == "pass"
    (found,) = judged(tmp_path, Scripted([marks(correct=9)], name="stubborn"), group("x"), RubricJudge())
    assert (found.verdict, found.value) == ("error", None) and "cannot be read" in found.reason
    (gone,) = judged(tmp_path, Scripted(lambda request: Response(error="overloaded"), name="gone"), group("x"), RubricJudge())
    assert gone.verdict == "error" and "overloaded" in gone.reason


def test_a_judge_that_keeps_schemas_is_given_the_schema_and_another_is_told_it(tmp_path: Path) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> str:
        asked.append(request)
        return marks() if request.schema is not None or shown(request) else "hello"

    judged(tmp_path, Scripted(answer, name="keeps"), group("x"), RubricJudge())
    assert asked[-1].schema is not None and "JSON schema" not in asked[-1].prompt[-1].content  # type: ignore[union-attr]
    assert asked[-1].sampling == Sampling(temperature=0.0, max_tokens=1024)
    judged(tmp_path, saying(lambda request, index: marks() if shown(request) else "hello"), group("x"), RubricJudge())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RubricJudge(criteria=()),
        lambda: RubricJudge(criteria=(Criterion("a", "?"), Criterion("a", "?"))),
        lambda: RubricJudge(criteria=(Criterion("a", "?", 0.0),)),
        lambda: PointwiseJudge(passes_at=6),
        lambda: PointwiseJudge(examples=(RatedExample("q", "a", 11),)),
    ],
)
def test_settings_out_of_range_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"rubric_judge|pointwise_judge"):
        wrong()
