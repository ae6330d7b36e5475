"""A small run that trains a real transformer: the subject of the kill test of `torch_lm`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from outcross.engine import loop
from outcross.engine.executor import Executor
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.gate.open import Open
from outcross.generate.draw import Draw
from outcross.models.torch_lm import Machine, from_config, torch_lm
from outcross.recipe import Bench, Mixture, Recipe
from outcross.recipes.expert_iteration import expert_iteration
from outcross.stages import FitPlan
from outcross.types import Example, Origin, Sampling, Task
from outcross.verify.exact import Exact

CPU = Machine(device="cpu", threads=1, checkpoint_seconds=0.0)  # a checkpoint after every step
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
WINDOW = 6  # dialogues at once, so that a round is several waves and a kill can fall between two
ROUNDS = 2


def sums(kept_aside: bool) -> tuple[Task, ...]:
    pairs = [(a, b) for a in range(5) for b in range(5) if ((a * 5 + b) % 4 == 0) == kept_aside]
    return tuple(Task(f"{a}+{b}", f"{a}+{b}=", str(a + b)) for a, b in pairs)


def real_rows() -> tuple[Example, ...]:
    origin = Origin("real", "attested", "toy", note="the test's author")
    return tuple(Example(f"real-{i}", f"{i}-1=", str(i - 1), origin=origin) for i in range(1, 9))


def make_first(folder: Path) -> None:
    """Save the model that every run starts from: it knows what an answer looks like, and few sums."""
    model = from_config(CONFIG, alphabet="0123456789+-=", machine=CPU)
    plan = FitPlan(lr=1e-2, epochs=12, batch=8)
    model.fit(real_rows(), plan=plan, reference=None, seed=0, seen=lambda step, ids, **facts: None).save(folder)


def recipe() -> Recipe:
    held_out, real = sums(kept_aside=True), real_rows()
    short = Sampling(max_tokens=3)
    bench = Bench(sums(kept_aside=False), held_out, real, (PassRate(held_out, Draw(2, short), Exact()), RealLoss(real)), Open())
    plan = FitPlan(lr=1e-3, epochs=1, batch=8)
    return expert_iteration(bench, verify=(Exact(),), n=6, rounds=ROUNDS, max_tokens=3, plan=plan, mix=Mixture(real_epochs=20))


def start(first: Path, folder: Path) -> None:
    """Run, or go on with, the run in `folder`."""
    loop.Executor = partial(Executor, window=WINDOW)  # type: ignore[misc,assignment]
    loop.run(recipe(), {"policy": torch_lm(str(first), machine=CPU)}, folder, seed=3)
