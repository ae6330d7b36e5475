"""A small world for recipes that learn from feedback: say the last digit again, a policy that hardly can, a judge that sees who is nearer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from judges import shown, sigmoid, weighing
from toys import Says

from outcross.cli.verifier_check import check
from outcross.engine.loop import Options, run
from outcross.engine.proofs import Proof
from outcross.engine.store import RunDir
from outcross.evaluate.diversity import Diversity
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.models.tabular import Tabular
from outcross.models.tabular_reward import TabularReward
from outcross.recipe import Bench, Recipe
from outcross.stages import FitPlan, Model, Seen
from outcross.types import Example, Loss, Origin, Request, Task
from outcross.verify.exact import Exact

PAIRS = [(a, b) for a in range(24) for b in range(10)]
ATTESTED = Origin("real", "attested", "toy", note="the test's author")
ANSWERS = [str(n) for n in range(10)]
HELD_OUT = tuple(Task(f"{a}.{b}", f"{a}.{b}=", str(b)) for a, b in PAIRS if a % 3 == 0)
TASKS = tuple(Task(f"{a}.{b}", f"{a}.{b}=", str(b)) for a, b in PAIRS if a % 3 == 1)
SPARE = [(a, b) for a, b in PAIRS if a % 3 == 2]  # what people wrote of, and compared
REAL = tuple(Example(f"real-{a}-{b}", f"{a}.{b}=", str(b), origin=ATTESTED) for a, b in SPARE)
SLOW = FitPlan(lr=0.3, epochs=2, batch=16, schedule="constant")
REWARD = FitPlan(lr=5.0, epochs=30, batch=16, schedule="constant")


def compared(pairs: Sequence[tuple[int, int]], name: str) -> tuple[Example, ...]:
    """What people chose: the right digit above others."""
    made = []
    for a, b in pairs:
        for off in (1, 3, 6):
            fields: dict[str, Any] = {"rejected": str((b + off) % 10), "origin": ATTESTED}
            made.append(Example(f"{name}-{a}-{b}-{off}", f"{a}.{b}=", str(b), Loss("bt"), **fields))
    return tuple(made)


COMPARISONS = compared(SPARE, "people")
HELD_OUT_PAIRS = compared([(a, b) for a in range(24, 32) for b in range(10)], "test")


def nothing_seen(step: int, ids: Sequence[str], **facts: float) -> None: ...


def learnt(epochs: float = 1.0) -> Tabular:
    """A policy that has seen some of it, and is far from sure."""
    seen: Seen = nothing_seen
    plan = FitPlan(lr=0.3, epochs=epochs, batch=16, schedule="constant")
    return Tabular(ANSWERS, memory=0.2).fit(REAL, plan=plan, reference=None, seed=0, seen=seen)


def truth(task: str) -> int:
    return int(task.rstrip("=").split(".")[1])


def nearness(task: str, said: str) -> float:
    return -float(abs(truth(task) - int(said))) if said.isdigit() else -50.0


def probs(request: Request) -> dict[str, float]:
    """The nearer digit is the better one; alone, a score that falls with the distance."""
    seen = shown(request)
    if "answer" in seen:
        return {str(max(1, 10 + round(2 * nearness(seen["task"], seen["answer"])))): 1.0}
    p = sigmoid(2 * (nearness(seen["task"], seen["answer A"]) - nearness(seen["task"], seen["answer B"])))
    return {"A": p, "B": 1 - p}


def knowing() -> Scripted:
    return weighing(probs, "knows digits")


def bench(**more: Any) -> Bench:
    probes = (PassRate(HELD_OUT, Draw(n=8), Exact()), Diversity(HELD_OUT, Draw(n=2), replicates=20), RealLoss(REAL))
    return Bench(**{"tasks": TASKS, "held_out": HELD_OUT, "real": REAL, "probes": probes, "gate": Says("p"), **more})


def played(made: Recipe, root: Path, models: Mapping[str, Model] | None = None, seed: int = 1, **options: Any) -> RunDir:
    options = {"unsafe": True, **options}
    run(
        made,
        {"policy": learnt(), "judge": knowing(), "reward": TabularReward(), **(models or {})},
        root,
        seed=seed,
        options=Options(**options),
    )
    return RunDir(root)


def track(found: RunDir, probe: str) -> list[float]:
    """A probe's mean for the first model and for each candidate."""
    turns = [turn.record["measurements"][probe] for turn in found.rounds() if probe in turn.record["measurements"]]
    return [turns[0]["first"], *(item["candidate"] for item in turns)]


def proven(verifier: Any, models: Mapping[str, Model], policy: Model, folder: Path, said: Callable[[int], str] = str) -> Proof:
    """What `outcross verifier-check` finds of a verifier on labelled digits, two answers a task."""
    rows = []
    for a, b in PAIRS:
        for off in (0, 3):
            label = "wrong" if off else "right"
            rows.append({"task_id": f"{a}.{b}", "prompt": f"{a}.{b}=", "answer": said((b + off) % 10), "label": label, "model": policy.id})
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check(verifier, models, path)
