"""Judges over a real endpoint, the executor and its journal: log-probabilities where there are any, draws where there are none."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers import NoPast, group
from stub_server import Behaviour, Stub

from outcross.engine.budget import Budget, Meter
from outcross.engine.executor import Executor
from outcross.engine.journal import Journal
from outcross.judgement import Judgement, judgement_of
from outcross.models.http import http
from outcross.stages import Context
from outcross.types import Group, Score
from outcross.verify.judge_pairwise import PairwiseJudge
from outcross.verify.judge_pointwise import PointwiseJudge
from outcross.verify.judge_rubric import RubricJudge

GROUPS = [group("a", "bb", "ccc"), Group(group("d").task, group("d", "ee").samples)]


def judged(does: Behaviour, folder: Path, stage: Any, port: int = 0) -> tuple[list[Score], Stub]:
    folder.mkdir(exist_ok=True)
    with (
        Stub(does, port=port) as stub,
        closing(http(stub.url, "stub", key_env=None, retries=0, patience_s=1)) as model,
        closing(Journal(folder / "responses.db")) as journal,
    ):
        ctx = Context({"judge": model}, NoPast(folder), "phase/0000", 0, 0, Executor(journal, Meter(Budget(), journal)))
        found = [sample.scores[-1] for item in stage(ctx, GROUPS) for sample in item.samples]
    return found, stub


def read(score: Score) -> Judgement:
    found = judgement_of(score)
    assert found is not None
    return found


def test_letters_are_weighed_by_the_first_tokens_of_a_chat(tmp_path: Path) -> None:
    """The stub prefers A wherever it stands, spaces before it or not: ½ for every pair, and the place shows in its two orders."""
    scores, stub = judged(Behaviour(), tmp_path, PairwiseJudge())
    a, b = math.exp(-0.2) + math.exp(-3.0), math.exp(-2.5)
    assert {score.value for score in scores} == {0.5}
    pair = read(scores[0]).pairs[0]
    assert (pair.first, pair.second) == (pytest.approx(a / (a + b), abs=1e-6), pytest.approx(b / (a + b), abs=1e-6))
    assert sum(stub.asked.values()) == 1 + 2 * (3 + 1)


def test_whole_numbers_are_weighed_where_they_are_single_tokens_and_else_drawn(tmp_path: Path) -> None:
    scores, _ = judged(Behaviour(first={"7": math.log(0.5), "10": math.log(0.5)}), tmp_path / "whole", PointwiseJudge())
    assert read(scores[0]).by == "log-probabilities" and read(scores[0]).mean == pytest.approx(8.5, abs=1e-6)
    scores, _ = judged(Behaviour(first={"1": -0.1, "7": -2.0}, says=lambda prompt: "Rating: 9"), tmp_path / "digits", PointwiseJudge())
    assert read(scores[0]).by == "8 draws" and read(scores[0]).mean == 9.0


@pytest.mark.parametrize("n", [True, False])
def test_a_server_without_log_probabilities_is_asked_several_times(n: bool, tmp_path: Path) -> None:
    stage = PairwiseJudge()
    scores, stub = judged(Behaviour(log_probs=False, n=n, says=lambda prompt: "B"), tmp_path, stage)
    assert {score.value for score in scores} == {0.5} and {read(score).by for score in scores} == {"8 draws"}
    again, second = judged(Behaviour(log_probs=False, n=n, says=lambda prompt: "A"), tmp_path, stage, stub.port)
    assert again == scores, "from the journal"
    assert sum(second.asked.values()) == 1, "only what the server can do is found out again: a refusal is no answer to keep"


def test_a_server_that_fails_gives_errors_and_no_numbers(tmp_path: Path) -> None:
    scores, _ = judged(Behaviour(refuses="logprobs"), tmp_path, PointwiseJudge())
    assert {(score.verdict, score.value) for score in scores} == {("error", None)}


def test_a_rubric_is_answered_by_the_servers_own_schema(tmp_path: Path) -> None:
    scores, stub = judged(Behaviour(), tmp_path, RubricJudge())
    assert {score.verdict for score in scores} == {"error"}, "the stub writes 7 for every integer, and marks end at 5"
    assert any("response_format" in body for body in stub.bodies)
