"""The pairwise judge: its algebra, which pairs it asks, and what it leaves on the record."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers import context, failed, group, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from judges import biased, saying, shown, sigmoid, weighing

from outcross.errors import ConfigError
from outcross.judgement import Judgement, judgement_of, preferences, written
from outcross.models.scripted import Scripted
from outcross.text import prompt_text
from outcross.types import Array, Completion, Group, Request, Response, Sampling, Score
from outcross.verify.judge_pairwise import Baseline, ComparedExample, PairwiseJudge, Reasoning, clamped
from outcross.verify.judge_prompt import Instructions

finite = st.floats(-6, 6, allow_nan=False)


def judged(folder: Path, judge: Any, made: Group, stage: PairwiseJudge | None = None, **models: Any) -> Group:
    (found,) = (stage or PairwiseJudge())(context(folder, {"judge": judge, **models}), [made])
    return found


def read(score: Score) -> Judgement:
    found = judgement_of(score)
    assert found is not None
    return found


# ── the algebra of two orders ──────────────────────────────────────────────────────────────────────────────────────────
@settings(max_examples=60, deadline=None)
@given(gap=finite, bias=finite)
def test_the_average_over_both_orders_has_the_closed_form_and_is_even_in_the_bias(tmp_path_factory: Any, gap: float, bias: float) -> None:
    """The mock labeler: ½[σ(d+b) + σ(d−b)]; ½ at no gap, and on the better side whatever the bias."""
    folder = tmp_path_factory.mktemp("run")
    quality = {"good": gap, "bad": 0.0}.__getitem__
    made = group("good", "bad")
    one, other = made.samples
    p = preferences(judged(folder, biased(quality, bias), made))[one.id, other.id]
    assert p == pytest.approx((sigmoid(gap + bias) + sigmoid(gap - bias)) / 2, abs=1e-6)
    assert p == pytest.approx(preferences(judged(folder, biased(quality, -bias), made))[one.id, other.id], abs=1e-6)
    level = preferences(judged(folder, biased({"good": 0.0, "bad": 0.0}.__getitem__, bias), made))[one.id, other.id]
    assert level == pytest.approx(0.5, abs=1e-6)
    assert (p - 0.5) * gap >= -1e-6


def test_a_value_is_the_mean_win_probability_and_the_record_holds_every_pair_without_loss(tmp_path: Path) -> None:
    quality = {"a": 0.0, "b": 1.0, "c": 3.0}
    found = judged(tmp_path, biased(quality.__getitem__, 0.7), group("a", "b", "c"))
    pairs = preferences(found)
    assert len(pairs) == 6
    for one, other in itertools.permutations(found.samples, 2):
        assert pairs[one.id, other.id] + pairs[other.id, one.id] == pytest.approx(1.0, abs=1e-12)
        gap = quality[one.text] - quality[other.text]
        assert pairs[one.id, other.id] == pytest.approx((sigmoid(gap + 0.7) + sigmoid(gap - 0.7)) / 2, abs=1e-6)
    for item in found.samples:
        mine = [pairs[item.id, other.id] for other in found.samples if other is not item]
        assert item.scores[-1].value == sum(mine) / 2, "the value is computed from the very numbers on the record"
        pair = read(item.scores[-1]).pairs[0]
        assert pair.p == pytest.approx((pair.first + pair.second) / 2, abs=1e-9)
        assert read(item.scores[-1]).by == "log-probabilities"
    assert [item.verdict for item in found.samples] == ["fail", "fail", "pass"]
    assert sum(item.value or 0 for item in found.samples) / 3 == pytest.approx(0.5, abs=1e-6)
    assert all(
        read(score) == judgement_of(Score("x", "1", "pass", 1.0, "", written(read(score)))) for s in found.samples for score in s.scores
    )


# ── clamping and reasons ───────────────────────────────────────────────────────────────────────────────────────────────
@given(p=st.floats(0, 1), low=st.floats(0, 0.5))
def test_clamping_is_idempotent_symmetric_and_keeps_the_preferred_side(p: float, low: float) -> None:
    bounds = (low, 1 - low)
    once = clamped(p, bounds)
    assert clamped(once, bounds) == once
    assert clamped(1 - p, bounds) == pytest.approx(1 - once, abs=1e-12)
    assert (once - 0.5) * (p - 0.5) >= 0


def test_reasons_are_asked_for_in_a_call_of_their_own_for_each_order_and_labels_are_clamped(tmp_path: Path) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        if request.choices:
            return Response(
                (Completion("", choice_log_probs=(-0.01, -5.0)),)
                if shown(request).get("answer A") == "x"
                else (Completion("", choice_log_probs=(-5.0, -0.01)),)
            )
        return Response((Completion(f"About {shown(request)['answer A']} first."),))

    found = judged(tmp_path, Scripted(answer, name="r"), group("x", "y"), PairwiseJudge(reasoning=Reasoning()))
    pair = read(found.samples[0].scores[-1]).pairs[0]
    assert pair.p == 0.6 and pair.first > 0.99 and pair.second > 0.99, "the label is clamped, and what the judge said is kept"
    assert found.samples[1].value == 0.4
    reasons = [item for item in asked if not item.choices]
    assert len(reasons) == 2 and all(item.sampling == Sampling(temperature=0.0, max_tokens=512) for item in reasons)
    verdicts = [item for item in asked if item.choices and shown(item)]
    assert sorted(item.prompt[-2].content for item in verdicts) == ["About x first.", "About y first."]  # type: ignore[union-attr]


def test_a_judge_that_gives_no_reasons_is_an_error(tmp_path: Path) -> None:
    found = judged(tmp_path, saying(lambda request, index: " "), group("x", "y"), PairwiseJudge(reasoning=Reasoning()))
    assert {item.verdict for item in found.samples} == {"error"}
    assert "no reasons" in found.samples[0].scores[-1].reason


@pytest.mark.parametrize("clamp", [(0.3, 0.6), (0.6, 0.4), (-0.1, 1.1)])
def test_bounds_that_would_favour_a_side_are_refused(clamp: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="same distance"):
        Reasoning(clamp=clamp)


# ── which pairs ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("against", "pairs", "degrees"), [("all", 10, {4}), (1, 5, {2}), (2, 10, {4}), (9, 10, {4}), ("first", 4, {1, 4})])
def test_each_sample_meets_those_it_is_to_be_compared_with(tmp_path: Path, against: Any, pairs: int, degrees: set[int]) -> None:
    judge = biased(len, 0.0)
    stage = PairwiseJudge(against=against)
    found = judged(tmp_path, judge, group("a", "bb", "ccc", "dddd", "eeeee"), stage)
    assert len(preferences(found)) == 2 * pairs
    assert {len(read(item.scores[-1]).pairs) for item in found.samples} == degrees
    assert judge.requests == 2 * pairs + 1 == stage.calls_for(1, 5)["judge"]


def test_equal_texts_are_even_without_asking_and_one_alone_is_abstained_on(tmp_path: Path) -> None:
    judge = biased(len, 2.0)
    made = Group(group().task, (sample("same", 0), sample("same", 1)))
    assert [item.value for item in judged(tmp_path, judge, made).samples] == [0.5, 0.5]
    assert judge.requests == 1
    alone = judged(tmp_path, judge, Group(made.task, (sample("one"), failed(1), sample("cut", 2, finished=False))))
    assert [item.verdict for item in alone.samples] == ["abstain", None, "fail"]
    assert alone.samples[2].scores[-1].reason.startswith("unfinished")


def test_the_reference_answer_and_a_baseline_are_opponents_from_outside(tmp_path: Path) -> None:
    made = group("a", "bbbbbb", answer="ccc")
    found = judged(tmp_path, biased(len, 0.0), made, PairwiseJudge(against="reference"))
    assert [round(item.value or 0, 4) for item in found.samples] == [round(sigmoid(-2), 4), round(sigmoid(3), 4)]
    assert read(found.samples[0].scores[-1]).opponent == ("reference", 3)
    assert judged(tmp_path, biased(len, 0.0), group("a", answer=None), PairwiseJudge(against="reference")).samples[0].verdict == "abstain"
    stage = PairwiseJudge(against=Baseline())
    found = judged(tmp_path, biased(len, 0.0), made, stage, baseline=Scripted(["dd"], name="base"))
    assert stage.roles == ("judge", "baseline") and stage.calls_for(3, 2) == {"judge": 13, "baseline": 3}
    assert [read(item.scores[-1]).opponent for item in found.samples] == [("scripted:base", 2)] * 2
    assert [pair.other for pair in read(found.samples[0].scores[-1]).pairs] == ["baseline"] and not preferences(found)
    lost = judged(tmp_path, biased(len, 0.0), made, stage, baseline=Scripted(lambda request: Response(error="gone"), name="gone"))
    assert {item.verdict for item in lost.samples} == {"error"} and "'baseline'" in lost.samples[0].scores[-1].reason
    half = Scripted(lambda request: Response((Completion("and th", finished=False),)), name="half")
    assert {item.verdict for item in judged(tmp_path, biased(len, 0.0), made, stage, baseline=half).samples} == {"error"}


# ── principles, examples, wording ──────────────────────────────────────────────────────────────────────────────────────
def test_a_principle_is_drawn_evenly_for_each_label_and_stands_on_the_record(tmp_path: Path) -> None:
    """χ² over 16 principles, as Constitutional AI draws them; both orders of a label have the same one."""
    asked: dict[tuple[str, ...], set[str]] = {}

    def probs(request: Request) -> dict[str, float]:
        seen = shown(request)
        line = next(line for line in prompt_text(request.prompt).splitlines() if line.startswith("Judge by this principle: "))
        asked.setdefault(tuple(sorted((seen["answer A"], seen["answer B"]))), set()).add(line)
        return {"A": 0.5, "B": 0.5}

    stage = PairwiseJudge(instructions=Instructions(principles=tuple(f"number {i}" for i in range(16))))
    made = group(*(f"answer {i}" for i in range(60)))
    found = judged(tmp_path, weighing(probs), made, stage)
    assert all(len(lines) == 1 for lines in asked.values())
    drawn = Counter(next(iter(lines)) for lines in asked.values())
    expected = len(asked) / 16
    assert len(asked) == 1770 and sum((drawn[f"Judge by this principle: number {i}"] - expected) ** 2 / expected for i in range(16)) < 37.7
    by_text = {item.id[:12]: item.text for item in found.samples}
    for item in found.samples[:3]:
        for pair in read(item.scores[-1]).pairs:
            (line,) = asked[tuple(sorted((item.text, by_text[pair.other])))]
            assert line == f"Judge by this principle: number {pair.principle}"


def test_worked_examples_come_first_each_with_its_own_principle(tmp_path: Path) -> None:
    seen: list[Request] = []

    def probs(request: Request) -> dict[str, float]:
        seen.append(request)
        return {"A": 0.9, "B": 0.1}

    example = ComparedExample("1+1=", "2", "3", "A", principle="be right", rationale="2 is right.")
    judged(tmp_path, weighing(probs), group("x", "y"), PairwiseJudge(examples=(example,)))
    prompt = seen[0].prompt
    assert isinstance(prompt, tuple) and [item.role for item in prompt] == ["user", "assistant", "user"]
    assert prompt[1].content == "A" and "be right" in str(prompt[0].content) and "be right" not in str(prompt[2].content)
    plain = PairwiseJudge(examples=(example,), instructions=Instructions(plain_text=True), reasoning=Reasoning())
    found = judged(tmp_path, weighing(probs), group("x", "y"), plain)
    asked = seen[-1]
    assert isinstance(asked.prompt, str) and asked.choices == (" A", " B")
    assert asked.prompt.count("Reasons: ") == 2 and "Reasons: 2 is right." in asked.prompt.partition("\n\n---\n\n")[0]
    assert asked.prompt.endswith("The better answer is answer") and "The better answer is answer A" in asked.prompt
    assert found.samples[0].verdict == "pass"


# ── without log-probabilities; errors ──────────────────────────────────────────────────────────────────────────────────
def test_a_judge_without_log_probabilities_is_sampled_and_the_record_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def says(request: Request, index: int) -> str:
        seen = shown(request)
        if index == 7:
            return "Both are fine."
        better = "A" if len(seen["answer A"]) > len(seen["answer B"]) else "B"
        return f"<think>A or B?</think>Answer {better}." if index < 6 else {"A": "B", "B": "A"}[better]

    judge = saying(says, "asked nowhere else")
    with caplog.at_level(logging.WARNING):
        found = judged(tmp_path, judge, group("long answer", "no"))
        judged(tmp_path, judge, group("long answer", "no"))
    assert found.samples[0].value == pytest.approx(6 / 7, abs=1e-6)
    assert read(found.samples[0].scores[-1]).by == "8 draws"
    assert sum("log-probabilities" in item.message for item in caplog.records) == 1, "said once"


def test_answers_that_cannot_be_read_are_an_error_and_never_a_number(tmp_path: Path) -> None:
    found = judged(tmp_path, saying(lambda request, index: "Hm." if index else "A"), group("x", "y"))
    assert [(item.verdict, item.value) for item in found.samples] == [("error", None)] * 2
    assert "1 of 8 name one of A, B" in found.samples[0].scores[-1].reason


def test_what_one_answer_makes_of_the_judge_leaves_the_others_judged(tmp_path: Path) -> None:
    """A refusal about one sample is that sample's error; the others are judged by the pairs that were answered."""

    def answer(request: Request) -> Response:
        if "refused" in shown(request).values():
            return Response(error="the request timed out")
        return Response((Completion("", choice_log_probs=(-0.1, -2.4)),))

    found = judged(tmp_path, Scripted(answer, name="refusing"), group("a", "b", "c", "refused"))
    assert [item.verdict for item in found.samples] == ["pass", "pass", "pass", "error"]
    assert [read(item.scores[-1]).unanswered for item in found.samples] == [1, 1, 1, 3]
    assert found.samples[3].scores[-1].value is None and "timed out" in found.samples[3].scores[-1].reason
    assert len(preferences(found)) == 6


def test_an_array_is_an_error_and_no_opponent(tmp_path: Path) -> None:
    made = group("a", "b")
    array = sample("", 2)
    turn = type(array.turns[0])("2+2=", Completion(Array("f4", (1,), b"0000")))
    found = judged(tmp_path, biased(len, 0.0), Group(made.task, (*made.samples, type(array)(array.id, (turn,), array.origin))))
    assert found.samples[2].verdict == "error" and len(preferences(found)) == 2


@pytest.mark.parametrize("wrong", [{"against": 0}, {"passes_at": 1.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="pairwise_judge"):
        PairwiseJudge(**wrong)
