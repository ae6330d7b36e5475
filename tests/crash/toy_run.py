"""A small guarded run on the toy model: the subject of the kill test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from outcross.curate.dedup import Dedup
from outcross.engine.loop import Options, run
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.generate.draw import Draw
from outcross.models.tabular import Tabular
from outcross.recipe import Bench, Learn, Mixture, Phase, Recipe
from outcross.stages import FitPlan
from outcross.train.objectives import Imitate
from outcross.types import Comparison, Decision, Example, Origin, Task
from outcross.verify.exact import Exact


@dataclass(frozen=True)
class EveryOther:
    """Refuses every second round, so that the kill test meets refusals as well as promotions."""

    name: str = "every_other"
    alpha: float = 0.0

    def __call__(self, comparison: Comparison, margins: object, /) -> Decision:
        return Decision(comparison.round % 2 == 0, f"round {comparison.round}", self.name, gated=False)


def sums(kept_aside: bool) -> tuple[Task, ...]:
    pairs = [(a, b) for a in range(7) for b in range(7) if ((a * 5 + b) % 4 == 0) == kept_aside]
    return tuple(Task(f"{a}+{b}", f"{a}+{b}=", str(a + b)) for a, b in pairs)


def recipe() -> Recipe:
    origin = Origin("real", "attested", "toy", note="the test's author")
    real = tuple(Example(f"real-{i}", f"{i}-1=", str(i - 1), origin=origin) for i in range(1, 9))
    held_out = sums(kept_aside=True)
    bench = Bench(sums(kept_aside=False), held_out, real, (PassRate(held_out, Draw(n=2), Exact()), RealLoss(real)), EveryOther())
    learn = {"policy": Learn(Imitate(), FitPlan(lr=0.5, epochs=2, batch=16))}
    return Recipe("kill", "", bench, (Phase("train", Draw(n=8), learn, (Exact(),), (Dedup(),), mix=Mixture(real_epochs=50), rounds=3),))


def start(folder: Path, keep_models: Literal["champion", "all"] = "champion") -> None:
    """Run, or go on with, the toy run in `folder`."""
    model = Tabular([str(i) for i in range(15)])
    run(recipe(), {"policy": model}, folder, seed=3, options=Options(keep_models=keep_models))
