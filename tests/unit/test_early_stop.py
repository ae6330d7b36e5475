"""Fits that end early keep the weights that a probe liked best, learn as if nobody had looked, and never look where a gate looks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from test_cli import out_of
from test_trainer_progress import DROPS, Noted, Stop
from tiny_lm import SUMS, tiny, weights
from toys import HELD_OUT, REAL, TASKS, phase, play, recipe

import outcross
from outcross.errors import ConfigError, GuardError, ModelError
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.generate.draw import Draw
from outcross.models.sequence_classifier import sequence_classifier
from outcross.models.torch_lm import Lora, TorchLM
from outcross.recipe import Learn, Mixture
from outcross.report.learning import binned, learning_part
from outcross.report.record import read_round
from outcross.stages import EarlyStop, FitPlan, Model, StopsEarly
from outcross.train.objectives import Imitate
from outcross.types import Completion, Example, Loss, Turn
from outcross.verify.exact import Exact

UNSEEN = tuple(Example(f"u{i}", f"b{i}+1=", str(i + 1)) for i in range(3, 9))
STOP = EarlyStop(RealLoss(UNSEEN), every=2, patience=2)
PLAN = FitPlan(lr=1e-2, epochs=6.0, batch=4, schedule="constant", warmup=0.0, stop=STOP)  # twelve steps
MODELS: dict[str, Callable[[], TorchLM]] = {
    "full": lambda: tiny(DROPS, checkpoint_seconds=0.0),
    "low rank": lambda: tiny(lora=Lora(r=2, dropout=0.3), checkpoint_seconds=0.0),
}


class Says:
    """Worth what it says, look by look; keeps how each model scored text."""

    def __init__(self, *worth: float) -> None:
        self.worth, self.scored = list(worth), [[0.0]] * 0

    def __call__(self, model: Model) -> float:
        assert isinstance(model, TorchLM)
        self.scored.append(scored(model))
        return self.worth[len(self.scored) - 1]


def scored(model: TorchLM) -> list[float]:
    return [value for row in model.log_probs([Turn(item.prompt, Completion(item.completion)) for item in UNSEEN]) for value in row]


def learn(model: Any, noted: Noted | None = None, plan: FitPlan = PLAN, rows: Any = SUMS) -> Any:
    return model.fit(rows, plan=plan, reference=None, seed=5, seen=noted or Noted())


@pytest.mark.parametrize("name", MODELS)
def test_the_best_weights_are_kept_and_patience_ends_the_fit(name: str) -> None:
    model, says, noted = MODELS[name](), Says(1.0, 3.0, 2.0, 3.0, 9.0), Noted()
    assert isinstance(model, StopsEarly)
    learnt = learn(model.watched(says), noted)
    assert len(noted.told) == 8 and len(says.scored) == 4  # the second look was best; an equal is no better
    assert [facts.get("early_stop") for _, _, facts in noted.told] == [None, 1.0, None, 3.0, None, 2.0, None, 3.0]
    assert scored(learnt) == pytest.approx(says.scored[1], abs=1e-4)
    assert scored(learnt) != pytest.approx(says.scored[3], abs=1e-2)
    assert torch.equal(weights(model), weights(MODELS[name]()))


@pytest.mark.parametrize("name", MODELS)
def test_who_is_looked_at_learns_the_same(name: str) -> None:
    says = Says(*range(6))
    learnt = learn(MODELS[name]().watched(says))
    unwatched = learn(MODELS[name](), plan=FitPlan(lr=1e-2, epochs=6.0, batch=4, schedule="constant", warmup=0.0))
    assert torch.equal(weights(learnt), weights(unwatched)) and len(says.scored) == 6
    assert scored(learnt) == pytest.approx(says.scored[-1], abs=1e-4)


def test_the_last_step_is_looked_at_though_it_is_not_its_turn() -> None:
    noted = Noted()
    learn(tiny().watched(Says(1.0, 2.0, 3.0)), noted, FitPlan(lr=1e-2, epochs=6.0, batch=4, stop=EarlyStop(RealLoss(UNSEEN), every=5)))
    assert [step for step, _, facts in noted.told if "early_stop" in facts] == [4, 9, 11]


@pytest.mark.parametrize("last", [1, 5, 7])
@pytest.mark.parametrize("name", MODELS)
def test_a_fit_that_was_stopped_goes_on_to_the_same_choice(name: str, last: int, tmp_path: Path) -> None:
    worth = (1.0, 3.0, 2.0, 2.5)
    whole = Noted()
    expected = weights(learn(MODELS[name]().watched(Says(*worth)), whole))
    with pytest.raises(Stop):
        learn(MODELS[name]().watched(Says(*worth)).keeping(tmp_path / "fit", tmp_path), Noted(last))
    again, rest = Noted(), Says(*worth[(last - 1) // 2 :])
    found = learn(MODELS[name]().keeping(tmp_path / "fit", tmp_path).watched(rest), again)
    assert torch.equal(weights(found), expected) and again.told == whole.told
    assert len(rest.scored) == len(worth) - (last - 1) // 2  # none is looked at twice


def test_a_reward_model_stops_early_too(tmp_path: Path) -> None:
    tiny().save(tmp_path / "lm")
    pairs = [Example(f"b{i}", f"{i}+{i}=", str(2 * i), Loss("bt"), rejected=str(i + 1)) for i in range(8)]
    model = sequence_classifier(str(tmp_path / "lm"), new_head=True, machine=tiny().machine)
    values: list[list[float]] = []

    def better(found: Any) -> float:
        values.append([value for (value,) in found.values([Turn(item.prompt, Completion(item.completion)) for item in UNSEEN])])
        return -float(len(values))

    learnt = learn(model.watched(better), rows=pairs)
    turns = [Turn(item.prompt, Completion(item.completion)) for item in UNSEEN]
    assert len(values) == 3 and [value for (value,) in learnt.values(turns)] == pytest.approx(values[0], abs=1e-4)


def test_what_is_no_number_and_nobody_to_ask_are_refused() -> None:
    with pytest.raises(ModelError, match="found nan after optimiser step 1"):
        learn(tiny().watched(lambda model: math.nan))
    with pytest.raises(ConfigError, match=r"the probe real_loss, which a run measures; .* `model.watched"):
        learn(tiny())
    with pytest.raises(ConfigError, match="patience=0; allowed is 1 or more"):
        EarlyStop(RealLoss(UNSEEN), patience=0)


# ── in a run ───────────────────────────────────────────────────────────────────────────────────────────────────────────
FEW = tuple(Example(f"f{i}", f"{i}+c=", str(i), origin=REAL[0].origin) for i in range(3))


def overfitting(stop: EarlyStop | None, epochs: int = 40) -> Any:
    """Three rows, learnt by heart, by a model of an alphabet; what lies beside them gets worse from some step on."""
    learn = Learn(Imitate(), FitPlan(lr=1e-2, epochs=epochs, batch=3, schedule="constant", stop=stop))
    return recipe(
        phase(generate=None, verify=(), curate=(), learn={"policy": learn}, mix=Mixture(real_floor=1.0, budget=3), rounds=1),
        real=FEW,
    )


def test_a_run_keeps_what_unseen_rows_are_predicted_best_by(tmp_path: Path) -> None:
    run = play(overfitting(EarlyStop(RealLoss(UNSEEN, label="unseen"), every=1, patience=5)), tmp_path / "a", {"policy": tiny()})
    whole = play(overfitting(None), tmp_path / "b", {"policy": tiny()})
    (turn,) = run.rounds()
    fitted = turn.record["fits"]["policy"]
    looks = [-row["early_stop"] for row in losses(turn.folder)]
    best = min(looks)
    assert fitted["kept"] == looks.index(best) + 1 and fitted["steps"] == len(looks) == fitted["kept"] + 5 < 40
    kept, last = (-sum(scored(tiny().load(item.rounds()[0].folder / "model"))) for item in (run, whole))
    assert kept < last
    means = [sum(row) / len(row) for row in tiny().load(turn.folder / "model").log_probs(turns())]
    assert -sum(means) / len(means) == pytest.approx(best, abs=1e-4)


def turns() -> list[Turn]:
    return [Turn(item.prompt, Completion(item.completion)) for item in UNSEEN]


def losses(folder: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = pq.read_table(folder / "losses.parquet").to_pylist()
    return found


def test_equal_looks_draw_equally(tmp_path: Path) -> None:
    """A model that does not move is worth the same at each look, and the first of equals is kept."""
    frozen = Learn(Imitate(), FitPlan(lr=0.0, epochs=4, batch=3, stop=EarlyStop(PassRate(APART, Draw(n=3), Exact()), every=1, patience=2)))
    run = play(
        recipe(
            phase(
                verify=(),
                curate=(),
                learn={"policy": frozen},
                mix=Mixture(real_floor=1.0, budget=3, real_epochs=9),
                generate=None,
                rounds=1,
            )
        ),
        tmp_path,
        {"policy": tiny()},
    )
    (turn,) = run.rounds()
    assert turn.record["fits"]["policy"]["kept"] == 1 and turn.record["fits"]["policy"]["steps"] == 3
    assert len({row["early_stop"] for row in losses(turn.folder)}) == 1


APART = tuple(type(TASKS[0])(f"apart{i}", f"{i}+a=", str(i)) for i in range(4))


@pytest.mark.parametrize(
    ("probe", "error", "said"),
    [
        (PassRate(HELD_OUT[:2], Draw(), Exact(), label="s"), GuardError, "no gate may see them"),
        (RealLoss(REAL[:1], label="s"), GuardError, "the gate sees them too"),
        (PassRate(TASKS[:1], Draw(), Exact(), label="s"), GuardError, "is learnt from"),
        (PassRate((), Draw(), Exact(), label="s"), ConfigError, "has no items of its own"),
    ],
)
def test_looking_where_a_gate_looks_or_at_what_is_learnt_is_refused(probe: Any, error: Any, said: str, tmp_path: Path) -> None:
    plan = FitPlan(stop=EarlyStop(probe))
    with pytest.raises(error, match=said):
        play(recipe(phase(learn={"policy": Learn(Imitate(), plan)})), tmp_path, {"policy": tiny()})
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_looked_at_is_refused(tmp_path: Path) -> None:
    plan = FitPlan(stop=EarlyStop(PassRate(APART, Draw(), Exact(), label="s")))
    with pytest.raises(GuardError, match="its model Tabular cannot; leave `stop` out"):
        play(recipe(phase(learn={"policy": Learn(Imitate(), plan)})), tmp_path)


def test_the_record_tells_what_was_kept_and_the_bill_what_looks_cost(tmp_path: Path) -> None:
    stop = EarlyStop(PassRate(APART, Draw(n=3), Exact()), every=1, patience=9)
    run = play(overfitting(stop, epochs=4), tmp_path, {"policy": tiny()})
    bill, (turn,) = outcross.open(tmp_path).bill, run.rounds()
    assert bill is not None
    (others,) = [line for line in bill.lines if not line.roles]
    assert others.model == "3 models of no role, such as early stops look at"  # of four looks, one was kept and is the candidate
    assert others.requests == 3 * len(APART)
    kept = turn.record["fits"]["policy"]["kept"]
    said = " ".join(out_of("show", str(tmp_path), turn.label).split())
    assert f"policy was trained for 4 optimiser steps, and its weights after step {kept} kept" in said


def test_the_report_draws_the_loss_of_every_step_and_marks_the_kept_look(tmp_path: Path) -> None:
    stop = EarlyStop(RealLoss(UNSEEN, label="unseen"), every=3, patience=9)
    run = play(overfitting(stop, epochs=9), tmp_path, {"policy": tiny()})
    (turn,) = run.rounds()
    fit = read_round(turn).fits["policy"]
    page = "".join(map(str, learning_part(turn.folder, "policy", fit)))
    drawn = [int(step) for step in re.findall(r"step (\d+): ", page.partition("early stop")[0])]
    assert drawn == list(range(1, 10)) and page.count("<figure") == 2
    (kept,) = re.findall(r">kept (-[\d.]+)<", page)
    assert fit.kept is not None and float(kept) == pytest.approx(losses(turn.folder)[fit.kept - 1]["early_stop"], abs=5e-3)
    assert not list(learning_part(tmp_path, "policy", fit))  # a model that told nothing has no curve


def test_many_steps_are_drawn_by_medians() -> None:
    told = [(step, float(step % 2)) for step in range(1, 1001)]
    found = binned(told, 60)
    assert len(found) == 59 and found[0] == (17, 1.0) and found[-1][0] == 1000
