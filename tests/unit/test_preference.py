"""Evaluation by comparison: probes of win rates, at equal length too, of reward models on labelled pairs, and the two commands."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import context
from hypothesis import given
from hypothesis import strategies as st
from judges import biased, sigmoid
from test_cli import call, out_of

from outcross.errors import ConfigError
from outcross.estimates import at_equal_length, logistic
from outcross.evaluate.preference import PairAccuracy, Preference
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.stages import Stage
from outcross.types import Completion, Example, Loss, Response, Task
from outcross.verify.judge_pairwise import Baseline, PairwiseJudge

TASKS = tuple(Task(f"t{i}", f"Say {i}.", "reference") for i in range(60))
LONG = [f"word {'very ' * (i % 7)}{i}" for i in range(60)]


def measured(probe: Preference, answers: Sequence[str], judge: Any) -> Any:
    asked = {f"Say {i}.": text for i, text in enumerate(answers)}
    policy = Scripted(lambda request: said(asked[str(request.prompt)], request.n), name="policy")
    return probe(context(Path(), {"policy": policy, "judge": judge, "baseline": Scripted(["base answer"], name="base")}))


def said(text: str, n: int) -> Response:
    return Response((Completion(text),) * n)


# ── probes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("against", [Baseline(), "reference"])
def test_the_win_rate_is_the_mean_probability_over_both_orders(against: Any) -> None:
    judge = biased(lambda text: 1.0 if "word" in text else 0.0, 2.0)
    found = measured(Preference(TASKS, Draw(n=1), PairwiseJudge(against=against)), LONG, judge)
    assert found.probe == "preference" and found.unit == "share" and len(found.items) == 60
    assert found.mean == pytest.approx((sigmoid(1 + 2) + sigmoid(1 - 2)) / 2, abs=1e-6)


def test_what_length_alone_brings_is_taken_out() -> None:
    """A judge of length and nothing else: far above one half as it is, one half at equal length."""
    judge = biased(lambda text: 1.5 * math.log(len(text)), 0.0)
    raw = measured(Preference(TASKS, Draw(n=1), PairwiseJudge(against=Baseline())), LONG, judge)
    fair = measured(Preference(TASKS, Draw(n=1), PairwiseJudge(against=Baseline()), "at_equal_length"), LONG, judge)
    assert raw.mean > 0.6 and fair.values[0] == pytest.approx(0.5, abs=0.02)
    better = biased(lambda text: 1.5 * math.log(len(text)) + 0.8 * ("word" in text), 0.0)
    found = measured(Preference(TASKS, Draw(n=1), PairwiseJudge(against=Baseline()), "at_equal_length"), LONG, better)
    assert found.values[0] == pytest.approx(sigmoid(0.8), abs=0.03) and found.probe == "preference_at_equal_length"
    assert found.replicates is not None and len(found.replicates) == 300 and found.items == fair.items, "pairs with another model"
    assert np.mean(found.replicates) == pytest.approx(found.values[0])


def test_a_judge_that_compares_among_the_samples_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="with nobody from outside"):
        measured(Preference(TASKS[:3], Draw(n=2), PairwiseJudge()), ["a", "b", "c"], Scripted(["A"], name="none"))


@pytest.mark.parametrize("statistic", ["win_rate", "at_equal_length"])
def test_an_answer_that_was_cut_off_has_lost(statistic: Any) -> None:
    """Nobody is asked about it, so that there is no opponent on its record; its win rate is 0 and the others' stand."""
    policy = Scripted(
        lambda request: Response((Completion("whole", finished=not str(request.prompt).endswith(("0.", "5."))),)), name="policy"
    )
    models = {"policy": policy, "judge": Scripted(["A"], name="none"), "baseline": Scripted(["whole"], name="base")}
    found = Preference(TASKS, Draw(n=1), PairwiseJudge(against=Baseline()), statistic)(context(Path(), models))
    assert found.values[0] == pytest.approx(0.4, abs=0.01) if statistic != "win_rate" else found.mean == pytest.approx(48 / 60 * 0.5)


class Counting(Stage):
    """Gives an answer's length for its value."""

    id, depth = "counting", 0

    def values(self, turns: Any) -> Iterator[Sequence[float]]:
        return ([float(len(str(turn.completion.content)))] for turn in turns)

    def close(self) -> None:
        """Nothing is open."""


def test_a_reward_model_is_right_where_it_ranks_a_pair_as_people_did() -> None:
    said = [("long answer", "short"), ("no", "wrong and long"), ("same", "size")]
    pairs = [Example(str(i), "p", good, Loss("dpo", 0.1), rejected=bad) for i, (good, bad) in enumerate(said)]
    found = PairAccuracy(pairs)(context(Path(), {"reward": Counting()}))
    assert found.values == (1.0, 0.0, 0.5) and found.items == ("0", "1", "2")
    with pytest.raises(ConfigError, match="no rejected answer"):
        PairAccuracy([Example("x", "p", "a")])(context(Path(), {"reward": Counting()}))
    with pytest.raises(ConfigError, match="gives no values"):
        PairAccuracy(pairs)(context(Path(), {"reward": Scripted(["x"], name="none")}))


# ── the regression ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_weak_prior_leaves_many_rows_as_they_are_and_answers_where_the_fit_has_none() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    p = 1 / (1 + np.exp(-(0.3 + 0.9 * x)))
    exact = logistic(list(x), list(p), [str(i) for i in range(2000)])
    assert exact is not None and at_equal_length(x, p, np.ones(2000)) == pytest.approx(exact.at_zero.mean, abs=1e-3)
    assert at_equal_length(np.zeros(50), np.full(50, 0.8), np.ones(50)) == pytest.approx(0.8, abs=1e-3)
    separated = at_equal_length(np.array([-1.0, -0.5, 0.5, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]), np.ones(4))
    assert separated == pytest.approx(0.5, abs=1e-6)
    assert at_equal_length(np.zeros(0), np.zeros(0), np.zeros(0)) == 0.5


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(0, 1)), min_size=1, max_size=30))
def test_turning_a_and_b_round_turns_the_estimate_round(rows: list[tuple[float, float]]) -> None:
    x, p = (np.array(column) for column in zip(*rows, strict=True))
    one, other = at_equal_length(x, p, np.ones(len(x))), at_equal_length(-x, 1 - p, np.ones(len(x)))
    assert one + other == pytest.approx(1, abs=1e-4) and 0 <= one <= 1


# ── the commands ───────────────────────────────────────────────────────────────────────────────────────────────────────
JUDGE = """
import math
from judges import biased

def likes_length():
    return biased(lambda text: math.log(len(text)), 1.0)
"""
RUN = """
recipe: dataset
models:
  policy: {use: scripted, answers: [x]}
  judge: {use: "my_judge:likes_length"}
bench:
  tasks: {use: arithmetic, digits: 1, n: 4}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_judge", None)
    (tmp_path / "my_judge.py").write_text(JUDGE)
    (tmp_path / "run.yaml").write_text(RUN)
    for name, size in (("long", 4), ("short", 2)):
        rows = [{"instruction": f"Say {i}.", "output": f"{'word ' * (size + i % 3)}{i}", "generator": name} for i in range(30)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    pairs = [
        {"prompt": f"Say {i}.", "chosen": "fine " * (1 + i % 4), "rejected": "bad", "subgroup": ["even", "odd"][i % 2]} for i in range(40)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    return tmp_path


def test_prefer_tells_raw_and_length_controlled_and_writes_what_alpaca_eval_reads(here: Path) -> None:
    code, out, err = call("prefer", "long.json", "short.json", "--run", "run.yaml", "--out", "annotations.json")
    assert code == 0 and "long.json against short.json: 30 prompts" in out and "most of the gain is length" in out + err
    (line,) = json.loads(out_of("prefer", "long.json", "short.json", "--run", "run.yaml", "--json"))
    assert line["preferred"]["mean"] > 0.55 and line["at_equal_length"]["mean"] == pytest.approx(0.5, abs=0.02) and line["errors"] == 0
    rows = json.loads((here / "annotations.json").read_text())
    assert len(rows) == 30 and rows[0]["generator_2"] == "long" and rows[0]["output_1"].startswith("word")
    assert sum(row["preference"] - 1 for row in rows) / 30 == pytest.approx(line["preferred"]["mean"], abs=1e-6)
    (turned,) = json.loads(out_of("prefer", "short.json", "long.json", "--run", "run.yaml", "--json"))
    assert turned["preferred"]["mean"] == pytest.approx(1 - line["preferred"]["mean"], abs=1e-6)


def test_judge_check_tells_agreement_by_group(here: Path) -> None:
    found = json.loads(out_of("judge-check", "pairs.jsonl", "--run", "run.yaml", "--json"))
    assert [item["name"] for item in found] == ["all", "even", "odd"] and [item["preferred"]["items"] for item in found] == [40, 20, 20]
    assert found[0]["preferred"]["mean"] > 0.5 and found[0]["turned"]["mean"] > 0
    out = out_of("judge-check", "pairs.jsonl", "--run", "run.yaml", "--limit", "6")
    assert "pairs.jsonl: 6 pairs" in out and "agrees with people" in out


def test_what_cannot_be_compared_is_refused_by_name(here: Path) -> None:
    (here / "other.json").write_text(json.dumps([{"instruction": "Sing.", "output": "la"}]))
    code, _, err = call("prefer", "long.json", "other.json", "--run", "run.yaml")
    assert code == 2 and "no prompt in common" in err
    code, _, err = call("judge-check", "long.json", "--run", "run.yaml")
    assert code == 2 and "chosen" in err


def test_a_group_without_a_verdict_does_not_cost_the_others_theirs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from outcross.cli import prefer

    asked = prefer._compared

    def silent_on_odd(*given: Any) -> list[Any]:
        return [(group, None if group.task.subgroup == "odd" else found) for group, found in asked(*given)]

    monkeypatch.setattr(prefer, "_compared", silent_on_odd)
    code, out, err = call("judge-check", "pairs.jsonl", "--run", "run.yaml")
    assert code == 0 and "even" in out and "odd" not in out and "no verdict on any pair of odd" in err


def test_where_annotations_go_is_checked_before_the_judge_is_asked(here: Path) -> None:
    code, _, err = call("prefer", "long.json", "long.json", "--run", "run.yaml", "--out", "nowhere/found.json")
    assert code == 2 and "a folder that there is" in err
