"""Judging by the checkpoint that is taught (`judge: policy`): python benchmarks/feedback_self.py [--seeds 5] [--first 0]

Two tasks for one transformer from scratch, which learns to answer from 120 rows and to compare from 4,000 of people's comparisons, by the
same weights. max: “372=” is answered by the largest digit, and “372:7,3>” by the letter of the right one: judging is easier than doing.
sum: the last digit of the sum of the three, of which it learns neither: judging is no easier. `d_rlaif` for three rounds, rewarded by the
share of its other answers that an answer beats; the judge is the champion of each round, and the gate is on. Printed: how often the model
answers and judges rightly before and after, and the gain in the probability of the right answer on held-out prompts, exact.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
from feedback import ASK, CONFIG, DIGITS, FENCE, PEOPLE, told

from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.evaluate.diversity import Diversity
from outcross.evaluate.real_loss import RealLoss
from outcross.gate.non_inferior import NonInferior
from outcross.generate.draw import Draw
from outcross.models.torch_lm import Machine, TorchLM, from_config
from outcross.recipe import Bench
from outcross.recipes.d_rlaif import d_rlaif
from outcross.stages import Context, FitPlan, Role, Stage
from outcross.text import prompt_text
from outcross.types import Completion, Example, Ground, Measurement, Request, Response, Sampling, Task, Turn
from outcross.verify.judge_pairwise import PairwiseJudge

RIGHT: Mapping[str, Callable[[str], str]] = {"max": max, "sum": lambda number: str(sum(map(int, number)) % 10)}
DOING, JUDGING, KEPT = 120, 4000, 200
SPEAK = Sampling(1.0, max_tokens=3)
START = FitPlan(lr=2e-3, epochs=4.0, batch=32)
PLAN = FitPlan(lr=5e-4, epochs=1.0, batch=64, schedule="constant", warmup=0.0)


class Assistant(TorchLM):
    """A language model that is asked to compare in a form as short as it is small; its own weights answer."""

    def submit(self, request: Request, /) -> Future[Response]:
        if not request.choices:
            return super().submit(request)
        seen = {name: text for name, _, text in FENCE.findall(prompt_text(request.prompt))}
        asked = short(seen["task"], seen["answer A"], seen["answer B"]) if seen else "000:0,1>"
        return super().submit(msgspec.structs.replace(request, prompt=asked, choices=("A", "B")))


def short(prompt: str, a: str, b: str) -> str:
    return f"{prompt.rstrip('=')}:{a},{b}>"


@dataclass(frozen=True)
class Does(Stage):
    """The probability of the right answer to each held-out prompt."""

    tasks: tuple[Task, ...]
    margin: float = 0.03
    kind: ClassVar[Literal["quality"]] = "quality"
    ground: ClassVar[Ground] = "exact"
    roles: ClassVar[tuple[Role, ...]] = ("policy",)

    def __call__(self, ctx: Context, /) -> Measurement:
        return Measurement(self.name, tuple(task.id for task in self.tasks), tuple(doing(ctx.model("policy"), self.tasks)))


def doing(model: Any, tasks: Sequence[Task]) -> list[float]:
    return [math.exp(math.fsum(found)) for found in model.log_probs([Turn(task.prompt, Completion(str(task.answer))) for task in tasks])]


def judging(model: TorchLM, tasks: Sequence[Task], seed: int) -> float:
    """How often the model finds the right one of a right and a wrong digit, asked in both orders and averaged."""
    rng, turns = random.Random(seed), []
    for task in tasks:
        right = str(task.answer)
        wrong = rng.choice([digit for digit in DIGITS if digit != right])
        turns += [Turn(short(task.id, *pair), Completion(letter)) for pair in ((right, wrong), (wrong, right)) for letter in "AB"]
    found = [math.fsum(item) for item in model.log_probs(turns)]
    margins = [found[i] - found[i + 1] + found[i + 3] - found[i + 2] for i in range(0, len(found), 4)]
    return statistics.fmean(margin > 0 for margin in margins)


@dataclass(frozen=True)
class Played:
    does: tuple[float, ...]  # of the champion, from the start on
    judges: tuple[float, float]  # at the start and at the end
    promoted: int


def trial(kind: str, seed: int, rounds: int) -> Played:
    rng, right = random.Random(seed), RIGHT[kind]
    numbers = [f"{n:03d}" for n in range(1000)]
    rng.shuffle(numbers)
    tasks, held = (tuple(Task(f"{n}=", f"{n}=", right(n)) for n in part) for part in (numbers[:300], numbers[300:600]))
    written = [Example(f"does{n}", f"{n}=", right(n), origin=PEOPLE) for n in numbers[600 : 600 + DOING]]
    compared = []
    for place in range(JUDGING):
        number, letter = rng.choice(numbers[600:]), rng.choice("AB")
        wrong = rng.choice([digit for digit in DIGITS if digit != right(number)])
        pair = (right(number), wrong) if letter == "A" else (wrong, right(number))
        compared.append(Example(f"judges{place}", short(number, *pair), letter, origin=PEOPLE))
    model = from_config(CONFIG, alphabet="0123456789=:,>AB", seed=seed, machine=Machine(device="cpu", threads=1))
    model.__class__ = Assistant
    start = model.fit([*written, *compared], plan=START, reference=None, seed=seed, seen=lambda step, ids, **facts: None)
    real = (*written, *compared[:KEPT])
    made = d_rlaif(
        Bench(tasks, held, real, (Does(held), RealLoss(real, 1.0), Diversity(held, Draw(1, SPEAK), margin=1.0)), NonInferior()),
        judge=PairwiseJudge(instructions=ASK),
        n=4,
        rounds=rounds,
        temperature=1.0,
        max_tokens=3,
        plan=PLAN,
    )
    with tempfile.TemporaryDirectory() as folder:
        run(made, {"policy": start, "judge": start}, Path(folder) / "run", seed=seed, options=Options(unsafe=True))
        champion, does = start, [statistics.fmean(doing(start, held))]
        for turn in RunDir(Path(folder) / "run").rounds():
            champion = start.load(turn.folder / "model") if turn.promoted else champion
            does.append(statistics.fmean(doing(champion, held)))
        promoted = sum(turn.promoted for turn in RunDir(Path(folder) / "run").rounds())
    return Played(tuple(does), (judging(start, held, seed), judging(champion, held, seed)), promoted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", default=list(RIGHT))
    given = parser.parse_args()
    for kind in given.kinds:
        found = []
        for seed in range(given.first, given.first + given.seeds):
            began = time.monotonic()
            found.append(trial(kind, seed, given.rounds))
            does, judges = " ".join(f"{value:.3f}" for value in found[-1].does), " → ".join(f"{value:.1%}" for value in found[-1].judges)
            print(f"{kind}, seed {seed}, {time.monotonic() - began:.0f} s: right {does}; judges rightly {judges}", flush=True)
        if given.seeds > 1:
            judges = " → ".join(f"{statistics.fmean(each):.1%}" for each in zip(*(row.judges for row in found), strict=True))
            does = " ".join(f"{statistics.fmean(each):.3f}" for each in zip(*(row.does for row in found), strict=True))
            gain = told([row.does[-1] - row.does[0] for row in found])
            print(
                f"{kind}: right {does}; gain {gain}; judges {judges}; promoted {sum(row.promoted for row in found)} of {len(found) * given.rounds}"
            )


if __name__ == "__main__":
    main()
