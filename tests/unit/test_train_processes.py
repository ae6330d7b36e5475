"""Fits in two processes of this machine: the weights of one, the errors of one, and nothing left behind."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from test_train_team import MIXED
from tiny_lm import ALPHABET, LLAMA, SUMS, fit, tiny, weights

from outcross.errors import ModelError
from outcross.evaluate.real_loss import RealLoss
from outcross.models.sequence_classifier import classifier_from_config
from outcross.stages import EarlyStop, FitPlan
from outcross.train.machine import Lora, Machine
from outcross.types import Completion, Example, Loss, Turn

PLAN = FitPlan(lr=1e-3, epochs=2.0, batch=9)
LONG = FitPlan(lr=1e-3, epochs=5000.0, batch=2)


class Noted:
    """What a fit told; it is stopped after `last` steps."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.steps: list[tuple[int, tuple[str, ...]]] = []
        self.facts: list[Mapping[str, float]] = []

    def __call__(self, step: int, ids: Sequence[str], **facts: float) -> None:
        self.steps.append((step, tuple(ids)))
        self.facts.append(facts)
        if step + 1 == self.last:
            raise KeyboardInterrupt


def learn(model: Any, rows: Sequence[Example], noted: Noted, plan: FitPlan = PLAN) -> torch.Tensor:
    return weights(model.fit(rows, plan=plan, reference=tiny(seed=3), seed=1, seen=noted))


def workers(process: psutil.Process | None = None) -> list[psutil.Process]:
    """The processes of a fit that this process, or `process`, began."""
    found = (process or psutil.Process()).children(recursive=True)
    return [one for one in found if "outcross.train.worker" in one.cmdline()]


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Within 1e-5 of the largest weight."""
    return float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def same(found: Noted, expected: Noted) -> None:
    assert found.steps == expected.steps
    for mine, theirs in zip(found.facts, expected.facts, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_two_processes_learn_what_one_does_by_all_losses() -> None:
    alone, both = Noted(), Noted()
    expected = learn(tiny(micro_batch=4), MIXED, alone)
    found = learn(tiny(micro_batch=4, processes=2), MIXED, both)
    assert close(found, expected) and not close(expected, weights(tiny()))
    same(both, alone)
    assert not workers()


def test_adapters_too_and_a_fit_that_was_stopped_goes_on(tmp_path: Path) -> None:
    alone, stopped, both = Noted(), Noted(3), Noted()
    settings: dict[str, Any] = {"lora": Lora(r=4), "gradient_checkpointing": True}
    expected = tiny(**settings).fit(MIXED, plan=PLAN, reference=tiny(seed=3), seed=1, seen=alone)
    model = tiny(processes=2, checkpoint_seconds=0.0, **settings).keeping(tmp_path / "fit", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        learn(model, MIXED, stopped)
    kept = tmp_path / "fit" / "checkpoint.pt"
    assert not workers() and {path.name for path in kept.parent.iterdir()} <= {kept.name, "checkpoint.tmp"}
    checkpoint = torch.load(kept)
    checkpoint["facts"][0]["loss"] += 100.0  # what was told of a step that is not taken again
    torch.save(checkpoint, kept)
    found = model.fit(MIXED, plan=PLAN, reference=tiny(seed=3), seed=1, seen=both)
    assert both.facts[0]["loss"] == pytest.approx(alone.facts[0]["loss"] + 100.0, rel=1e-4)
    both.facts[0] = alone.facts[0]
    assert close(weights(found), weights(expected))
    same(both, alone)
    assert expected.adapter is not None and found.adapter is not None
    for name, tensor in expected.adapter.tensors.items():
        assert torch.allclose(found.adapter.tensors[name], tensor, atol=1e-6), name


def test_reward_models_too() -> None:
    rows = [
        Example(f"p{i}", f"{i}+{i}=", str(2 * i), Loss("bt"), rejected="1" * (1 + i % 3), target=0.6 + 0.1 * (i % 4)) for i in range(2, 8)
    ]
    rows += [Example(f"v{i}", f"{i}+1=", str(i), Loss("value"), target=i / 4) for i in range(5)]
    alone, both = Noted(), Noted()

    def made(processes: int) -> Any:
        machine = Machine(device="cpu", threads=1, processes=processes)
        return classifier_from_config(LLAMA, alphabet=ALPHABET, machine=machine, lora=Lora(r=4))

    plan = FitPlan(lr=1e-3, epochs=2.0, batch=4)
    expected, found = learn(made(1), rows, alone, plan), learn(made(2), rows, both, plan)
    assert close(found, expected) and not close(expected, weights(made(1)))
    same(both, alone)


def test_an_error_is_that_of_one_process() -> None:
    rows = [*SUMS, Example("bad", "1=", "2", weight=math.nan)]
    with pytest.raises(ModelError) as alone:
        fit(tiny(), rows, batch=1)
    with pytest.raises(ModelError) as both:
        fit(tiny(processes=2), rows, batch=1)  # in each step one process has no rows
    assert str(both.value) == str(alone.value)


def test_a_process_that_is_killed_ends_the_fit_with_a_word_about_it() -> None:
    def seen(step: int, ids: Sequence[str], **facts: float) -> None:
        if step == 0:
            workers()[0].kill()

    with pytest.raises(ModelError, match=r"process [01] of a fit ended with exit code -9; if memory ran out, lower processes"):
        tiny(processes=2).fit(SUMS, plan=LONG, reference=None, seed=0, seen=seen)
    assert not workers()


PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from test_train_processes import LONG, SUMS, tiny
tiny(processes=2).fit(SUMS, plan=LONG, reference=None, seed=0, seen=lambda step, ids, **facts: print(step, flush=True))
"""


def test_nothing_is_left_of_a_fit_whose_process_is_killed() -> None:
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "0\n"
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(workers(psutil.Process(process.pid))) == 2
        process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_two_processes_stop_where_one_does_and_keep_the_same_weights() -> None:
    """A language model and a reward model, whose head learns beside the adapters: what is asked about is what is kept."""
    stop = EarlyStop(RealLoss(()), every=2, patience=2)
    pairs = [Example(f"p{i}", f"{i}+{i}=", str(2 * i), Loss("bt"), rejected=str(i)) for i in range(2, 8)]
    turns = [Turn(item.prompt, Completion(item.completion)) for item in SUMS]
    worth = {1: 1.0, 2: 3.0, 3: 2.0, 4: 2.5}

    def scores(model: Any) -> list[float]:
        return [value for row in (model.values if hasattr(model, "values") else model.log_probs)(turns) for value in row]

    def stopped(made: Any, rows: Sequence[Example]) -> tuple[torch.Tensor, list[list[float]], Noted, list[float]]:
        seen: list[list[float]] = []
        noted = Noted()

        def better(model: Any) -> float:
            seen.append(scores(model))
            return worth[len(seen)]

        plan = FitPlan(lr=1e-2, epochs=9.0, batch=4, schedule="constant", stop=stop)
        learnt = made.watched(better).fit(rows, plan=plan, reference=None, seed=1, seen=noted)
        return weights(learnt), seen, noted, scores(learnt)

    for make, rows in (
        (lambda processes: tiny(lora=Lora(r=4), processes=processes), SUMS),
        (
            lambda processes: classifier_from_config(
                LLAMA, alphabet=ALPHABET, machine=Machine(device="cpu", threads=1, processes=processes), lora=Lora(r=4)
            ),
            pairs,
        ),
    ):
        (expected, alone, one, _), (found, both, two, kept) = stopped(make(1), rows), stopped(make(2), rows)
        assert len(two.steps) == 8 and len(both) == 4
        same(two, one)
        for mine, theirs in zip(both, alone, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)
        assert kept == pytest.approx(both[1], abs=1e-4) and kept != pytest.approx(both[3], abs=1e-3)
        assert close(found, expected)


def test_what_a_look_raises_ends_the_processes() -> None:
    def better(model: Any) -> float:
        raise KeyboardInterrupt

    plan = FitPlan(lr=1e-3, epochs=5000.0, batch=2, stop=EarlyStop(RealLoss(()), every=1))
    with pytest.raises(KeyboardInterrupt):
        tiny(processes=2).watched(better).fit(SUMS, plan=plan, reference=None, seed=0, seen=Noted())
    assert not workers()
