"""Feedback that says nothing: refused before anything is spent where that can be known, else counted by name and told. Never learnt from in silence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from feedback import COMPARISONS, HELD_OUT_PAIRS, bench, knowing, learnt
from helpers import group, score
from judges import known, saying, shown, weighing
from msgspec.structs import replace
from test_cli import out_of
from test_objectives_preference import judged, rows
from test_recipes_run_file import PLAN, written
from tiny_lm import SUMS, fit, tiny
from toys import FREE, REAL, phase, play, recipe

from outcross.engine.conserve import ErrorRule
from outcross.engine.guards import check_plan
from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.engine.unlearnt import unlearnt
from outcross.engine.watch import Silent
from outcross.errors import GuardError
from outcross.models.scripted import Scripted
from outcross.models.tabular import Tabular
from outcross.models.tabular_reward import TabularReward
from outcross.recipe import Mixture, Recipe
from outcross.recipes.constitutional import constitutional
from outcross.recipes.d_rlaif import d_rlaif
from outcross.recipes.iterative_dpo import iterative_dpo
from outcross.recipes.rlaif import rlaif
from outcross.recipes.rlhf import rlhf
from outcross.recipes.sppo import sppo
from outcross.report.record import read_round
from outcross.stages import FitPlan, Model, Seen
from outcross.train.objectives import Imitate, Prefer, Reinforce, WinRate
from outcross.types import Example, Loss, Request

FIVE = FitPlan(lr=0.3, epochs=1, batch=16, schedule="constant")


class Heard(Silent):
    """What a run said to whoever watches it."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str, /) -> None:
        self.notes.append(text)


def garbled() -> Scripted:
    """A judge that knows the obvious, and of anything else speaks of fruit."""

    def says(request: Request, index: int) -> str:
        answer = known(shown(request))
        return max(answer, key=lambda name: answer[name]) if answer else "banana"

    return saying(says, "garbled")


def even() -> Scripted:
    """A judge that finds all answers equally good."""
    return weighing(lambda request: {"A": 0.5, "B": 0.5} if "answer A" in shown(request) else {"5": 1.0}, "even")


def first(made: Recipe, judge: Model, root: Path, heard: Heard) -> RunDir:
    models = {"policy": learnt(), "judge": judge, "reward": TabularReward()}
    run(made, models, root, seed=1, options=Options(unsafe=True, errors=ErrorRule(1.0)), watch=heard)
    return RunDir(root)


def details(found: RunDir, stage: str, number: int = 0) -> dict[str, int]:
    return next(item["detail"] for item in found.rounds()[number].record["counts"] if item["stage"] == stage)


# ── one answer a task ──────────────────────────────────────────────────────────────────────────────────────────────────
ALONE: dict[str, Recipe] = {
    "sppo": sppo(bench(), n=1),
    "iterative_dpo": iterative_dpo(bench(), n=1),
    "d_rlaif": d_rlaif(bench(), n=1),
    "rlaif": rlaif(bench(), n=1),
    "rlhf": rlhf(bench(), comparisons=COMPARISONS, n=1),
    "constitutional": constitutional(bench(), n=1),
}
MODELS: dict[str, Model] = {"policy": learnt(), "judge": knowing(), "reward": TabularReward()}


@pytest.mark.parametrize("name", ALONE)
def test_one_answer_a_task_has_no_peers_and_is_refused_before_anything_is_spent(name: str) -> None:
    with pytest.raises(
        GuardError, match=r"draws n = 1 answer a task, and its objective \w+ compares the answers of a task.* draw 2 or more"
    ):
        check_plan(ALONE[name], MODELS, unsafe=True)


def test_one_answer_a_task_is_enough_where_it_is_compared_with_none_or_with_those_of_other_tasks() -> None:
    assert check_plan(d_rlaif(bench(), n=1, baseline="none"), MODELS, unsafe=True)
    assert Reinforce(peers="round").answers_needed == Reinforce(baseline="critic").answers_needed == 1
    assert Reinforce().answers_needed == Prefer().answers_needed == WinRate().answers_needed == 2
    assert not hasattr(Imitate(best_of=1), "answers_needed")


# ── judges ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["sppo", "iterative_dpo", "d_rlaif"])
def test_what_a_judge_did_not_judge_is_counted_told_and_not_learnt(name: str, tmp_path: Path) -> None:
    made, heard = {"sppo": sppo, "iterative_dpo": iterative_dpo, "d_rlaif": d_rlaif}[name](bench(), n=2, rounds=1, plan=FIVE), Heard()
    turn = first(made, garbled(), tmp_path, heard).rounds()[0]
    verify, learn = (next(item for item in turn.record["counts"] if item["stage"] == stage) for stage in ("verify", "learn"))
    assert turn.record["outcome"] == "nothing learnt" and turn.record["fits"] == {}
    assert learn["detail"] == {"examples": 0, "not judged": verify["detail"]["error"]} | (
        {"all of its task equal": learn["in"] - verify["detail"]["error"]} if learn["in"] > verify["detail"]["error"] else {}
    )
    broken, idle = heard.notes
    assert (
        f"could not judge {verify['detail']['error']:,} of {verify['in']:,} answers, which teach nothing" in broken and "banana" in broken
    )
    assert f"no example of {learn['in']:,} answers: " in idle and f"{verify['detail']['error']:,} not judged" in idle


@pytest.mark.parametrize("make", [sppo, iterative_dpo, d_rlaif])
def test_rewards_that_are_all_equal_teach_nothing_and_the_record_says_that_they_were(make: Any, tmp_path: Path) -> None:
    heard = Heard()
    found = first(make(bench(), n=3, rounds=1, plan=FIVE), even(), tmp_path, heard)
    learn = next(item for item in found.rounds()[0].record["counts"] if item["stage"] == "learn")
    assert found.rounds()[0].record["outcome"] == "nothing learnt"
    assert learn["detail"] == {"examples": 0, "all of its task equal": learn["in"]}
    assert heard.notes == [
        f"{make.__name__}/0000: learn {learn['name']}: no example of {learn['in']:,} answers: {learn['in']:,} all of its task equal"
    ]


def test_the_command_line_tells_why_a_round_learnt_nothing(tmp_path: Path) -> None:
    models = {"policy": {"use": "feedback:learnt"}, "judge": {"use": "test_feedback_bad_input:garbled"}}
    path = written(tmp_path, {"use": "sppo", "rounds": 1, "n": 2, "plan": PLAN}, models=models, errors={"share": 1.0})
    out_of("run", str(path), "--out", str(tmp_path / "run"), "-q")
    assert "not judged" in out_of("show", str(tmp_path / "run"), "0")


def test_an_unsafe_run_is_told_that_its_reward_model_does_not_beat_chance(tmp_path: Path) -> None:
    backwards = tuple(replace(pair, completion=pair.rejected, rejected=pair.completion) for pair in COMPARISONS)
    made, heard = rlhf(bench(), comparisons=backwards, held_out_pairs=HELD_OUT_PAIRS, rounds=1, n=2, plan=FIVE), Heard()
    first(made, knowing(), tmp_path, heard)
    (told,) = (note for note in heard.notes if "beat chance" in note)
    assert told.startswith("phase 'policy' would learn from reward_model") and told.endswith("; the run is `unsafe` and goes on")


def test_two_equal_answers_make_no_pair() -> None:
    """A judge is not asked about them, and their label of one half would be an example without a gradient."""
    table = [[0.5, 0.5, 0.9], [0.5, 0.5, 0.9], [0.1, 0.1, 0.5]]
    twins = judged(table)
    one, other, last = twins.samples
    same = group(one, replace(other, turns=one.turns), last)
    assert len(rows(Prefer(Loss("bt"), "all", labels="soft"), judged(table))) == 3
    found = rows(Prefer(Loss("bt"), "all", labels="soft"), same)
    assert len(found) == 2 and all(row.completion != row.rejected for row in found)
    apart = [replace(item, turns=one.turns, scores=(score("pass", value),)) for item, value in ((one, 0.9), (other, 0.1))]
    assert rows(Prefer(), group(*apart)) == []


# ── what is counted ────────────────────────────────────────────────────────────────────────────────────────────────────
def test_why_answers_taught_nothing() -> None:
    def row(task: str, name: str, verdict: str | None, value: float | None, *, finished: bool = True, error: str = "") -> dict[str, Any]:
        return {"id": name, "task_id": task, "verdict": verdict, "value": value, "finished": finished, "error": error}

    table = [
        row("a", "1", "pass", 1.0),
        row("a", "2", "fail", 0.0),
        row("a", "3", "pass", 1.0, finished=False),
        row("a", "4", None, None, error="timed out"),
        row("b", "5", "pass", 0.5),
        row("b", "6", "pass", 0.5),
        row("c", "7", "fail", 0.5),
        row("c", "8", "abstain", None),
    ]
    found = unlearnt(table, {hash("1")}, compared=True)
    assert found == {"not chosen": 1, "cut off": 1, "all of its task equal": 2, "no other of its task judged": 1, "not judged": 1}
    found = unlearnt(table, {hash("1"), hash("5"), hash("6")}, compared=False)
    assert found == {"did not pass": 2, "cut off": 1, "not judged": 1}


def test_empty_answers_are_counted(tmp_path: Path) -> None:
    made = recipe(phase(rounds=1, learn={}, mix=FREE, curate=()))
    found = play(made, tmp_path, {"policy": Scripted(["", " \n", "1"])})
    detail, told = details(found, "generate"), found.rounds()[0].record["counts"][0]
    empty = sum(not item.text.strip() for one in found.rounds()[0].groups() for item in one.samples)
    assert 0 < detail["empty answer"] == empty < told["kept"] == told["in"]


# ── what is too long to learn ──────────────────────────────────────────────────────────────────────────────────────────
class Picky(Tabular):
    """The toy model, which learns no answer of more than two characters."""

    skipped: tuple[str, ...] = ()
    left_out: dict[str, int]

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Picky:
        given = list(examples)
        made = self._own(
            super().fit([row for row in given if len(row.completion) < 3], plan=plan, reference=reference, seed=seed, seen=seen)
        )
        made.skipped = tuple(row.id for row in given if len(row.completion) > 2)
        made.left_out = {"too long": len(made.skipped)}
        return made

    def load(self, folder: Path, /) -> Picky:
        return self._own(super().load(folder))

    @staticmethod
    def _own(made: Tabular) -> Picky:
        made.__class__ = Picky
        assert isinstance(made, Picky)
        return made


def picky() -> dict[str, Model]:
    return {"policy": Picky([str(i) for i in range(13)])}


LONG = tuple(replace(row, completion="123456789") if index % 2 else row for index, row in enumerate(REAL))


def test_a_floor_holds_for_what_the_optimiser_saw_and_not_for_what_was_too_long_for_it(tmp_path: Path) -> None:
    made = recipe(phase(rounds=1, mix=Mixture(real_floor=0.5, real_epochs=50)), real=LONG)
    with pytest.raises(
        GuardError, match=r"not learnt from \(\d+ too long\), and real data make up .* of the others, where the floor is 50%"
    ):
        play(made, tmp_path / "run", picky())
    assert not RunDir(tmp_path / "run").rounds()
    with pytest.raises(GuardError, match="Raise the plan's max_length"):  # and again when it goes on
        play(made, tmp_path / "run", picky())
    everything = tuple(replace(row, completion="123456789") for row in REAL)
    with pytest.raises(GuardError, match="where the floor is an anchor of real data"):
        play(recipe(phase(rounds=1, mix=Mixture(floor="anchor")), real=everything), tmp_path / "anchor", picky())


def test_what_was_left_out_stands_on_the_record_by_reason_with_the_share_of_the_rest(tmp_path: Path) -> None:
    found = play(recipe(phase(rounds=1, mix=Mixture(floor="anchor", anchor=0.3)), real=LONG), tmp_path, picky())
    fitted = found.rounds()[0].record["fits"]["policy"]
    assert fitted["left_out"] == {"too long": fitted["skipped"]} and fitted["skipped"] > 0
    planned = found.rounds()[0].record["mixtures"]["policy"]["real_share"]
    assert 0 < fitted["real_share"]["records"] < planned["records"]
    told = read_round(found.rounds()[0]).fits["policy"].unlearnt
    assert told.startswith(f"not learnt from: {fitted['skipped']} too long; real among the others: ") and told in out_of(
        "show", str(tmp_path), "0"
    )


def test_a_language_model_says_why_it_left_examples_out() -> None:
    rows = [*SUMS, Example("huge", "1=", "2" * 80), Example("none", "1=", ""), Example("none too", "2=", "")]
    assert fit(tiny(), rows, epochs=1.0).left_out == {"too long": 1, "without an answer": 2}
    assert fit(tiny(), SUMS, epochs=1.0).left_out == {}
