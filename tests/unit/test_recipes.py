"""Every recipe at toy scale through the real engine, on models that truly learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.errors import ConfigError, GuardError
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.gate.observe import Observe
from outcross.gate.open import Open
from outcross.generate.draw import Draw
from outcross.models.categorical import Categorical
from outcross.models.tabular import Tabular
from outcross.recipe import Bench, Mixture, Recipe, Waived, fingerprint
from outcross.recipes.collapse import collapse
from outcross.recipes.expert_iteration import expert_iteration
from outcross.recipes.real_only import real_only
from outcross.stages import Context, FitPlan, LogProbs, Stage
from outcross.tasks.answers import Answers
from outcross.tasks.arithmetic import Arithmetic, ArithmeticReal
from outcross.types import Completion, Example, Ground, Measurement, Origin, Task, Turn
from outcross.verify.exact import Exact

PLAN = FitPlan(lr=2.0, epochs=2, batch=32, schedule="constant")
REAL = ArithmeticReal(2, n=600)
HELD_OUT = Arithmetic(2, n=300, split="held_out")


def arithmetic_bench() -> Bench:
    probes = (PassRate(HELD_OUT, Draw(n=1), Exact()), RealLoss(Answers(HELD_OUT)))
    return Bench(Arithmetic(2, n=800), HELD_OUT, REAL, probes, Open())


def taught() -> Tabular:
    plan = FitPlan(lr=2.0, epochs=8, batch=32, schedule="constant")
    return Tabular().fit(REAL, plan=plan, reference=None, seed=0, seen=lambda step, ids, **facts: None)


def means(root: Path, probe: str) -> list[float]:
    """A probe's mean for the first model and after each round."""
    found = [one.record["measurements"][probe] for one in RunDir(root).rounds()]
    return [found[0]["first"], *(one["candidate"] for one in found)]


def test_expert_iteration_learns_from_its_own_verified_answers(tmp_path: Path) -> None:
    recipe = expert_iteration(arithmetic_bench(), verify=(Exact(),), n=4, rounds=2, plan=PLAN, mix=Mixture(real_floor=0.3))
    run(recipe, {"policy": taught()}, tmp_path / "guarded", seed=1)
    run(real_only(arithmetic_bench(), budget=1200, rounds=2, plan=PLAN), {"policy": taught()}, tmp_path / "control", seed=1)
    guarded, control = means(tmp_path / "guarded", "pass_rate"), means(tmp_path / "control", "pass_rate")
    assert guarded[0] == control[0] and guarded[-1] > max(guarded[0], control[-1]) + 0.02


def test_real_only_sees_its_budget_of_real_rows_and_nothing_else(tmp_path: Path) -> None:
    run(real_only(arithmetic_bench(), budget=700, rounds=2, plan=PLAN), {"policy": taught()}, tmp_path, seed=1)
    for one in RunDir(tmp_path).rounds():
        mixture = one.record["mixtures"]["policy"]
        assert (mixture["real"], mixture["new"], mixture["history"]) == (700, 0, 0)
        assert one.record["fits"]["policy"]["depth"] == 0


@dataclass(frozen=True)
class Alive(Stage):
    """How many symbols the policy can still say."""

    symbols: tuple[str, ...]
    margin: float = 1.0
    label: str = ""
    kind: ClassVar[Literal["diversity"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, /) -> Measurement:
        model = ctx.model("policy")
        assert isinstance(model, LogProbs)
        log_probs = [values[0] for values in model.log_probs(Turn("say", Completion(symbol)) for symbol in self.symbols)]
        return Measurement(self.name, self.symbols, tuple(float(value > -20) for value in log_probs))


SYMBOLS = tuple(f"s{index}" for index in range(40))


def symbols_bench() -> Bench:
    real = tuple(Example(f"r{i}", "say", symbol, origin=Origin("real", "attested", "made up")) for i, symbol in enumerate(SYMBOLS))
    held_out = (Task("held", "say it"),)
    return Bench((Task("t", "say one"),), held_out, real, (Alive(SYMBOLS),), Open())


@pytest.mark.parametrize("history", ["replace", "accumulate", "subsample"])
def test_collapse_loses_symbols_for_good_when_history_is_replaced(
    history: Literal["replace", "accumulate", "subsample"], tmp_path: Path
) -> None:
    recipe = collapse(symbols_bench(), history=history, n=40, rounds=8)
    result = run(recipe, {"policy": Categorical(dict.fromkeys(SYMBOLS, 1.0))}, tmp_path, seed=2, options=Options(unsafe=True))
    assert result.promoted == 8
    alive = means(tmp_path, "alive")
    if history == "replace":
        assert alive == sorted(alive, reverse=True) and alive[-1] < 0.35
    else:
        # the whole pool holds every symbol of the real data; 40 draws from it show 1 − 1/e of them at best
        assert alive[-1] == 1.0 if history == "accumulate" else 0.45 < alive[-1] < 0.75


def test_collapse_is_ungated_says_why_it_has_no_floor_and_needs_unsafe_to_replace(tmp_path: Path) -> None:
    recipe = collapse(symbols_bench())
    (phase,) = recipe.phases
    assert phase.gate == Observe() and isinstance(phase.mix.floor, Waived) and phase.mix.floor.reason and phase.verify == ()
    with pytest.raises(GuardError, match="unsafe: true"):
        run(recipe, {"policy": Categorical({"a": 1})}, tmp_path)
    given = Mixture("accumulate", Waived("an arm"), budget=7)
    assert collapse(symbols_bench(), mix=given).phases[0].mix == given


def test_expert_iteration_without_a_verifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="no verifier"):
        expert_iteration(arithmetic_bench(), verify=())


def recipes() -> dict[str, Recipe]:
    bench = arithmetic_bench()
    return {
        "expert_iteration": expert_iteration(bench, verify=(Exact(),)),
        "other_rounds": expert_iteration(bench, verify=(Exact(),), rounds=4),
        "collapse": collapse(bench),
        "accumulate": collapse(bench, history="accumulate"),
        "real_only": real_only(bench, budget=10),
    }


def test_recipes_have_fingerprints_that_follow_their_settings() -> None:
    first, again = ({name: fingerprint(recipe) for name, recipe in recipes().items()} for _ in range(2))
    assert first == again and len(set(first.values())) == len(first)
