"""Learning from feedback, small and with a known truth: python benchmarks/feedback.py [--seeds 10] [--methods rlhf rlaif …]

A transformer trained from scratch answers “372=” with a digit; the true reward of a digit is 1 − its distance to the largest one / 9. The start has
seen 220 answers written by a rule. People compare two draws of the start, by the true reward; the AI labeller is a trained model of stated accuracy (a toy
reward model that saw few of these comparisons), never the true reward plus noise. Every method goes through the real engine with its gate on and
draws as many answers. Printed: gain in true reward on held-out prompts, exact over the ten digits, with 95 % intervals over seeds, and two one-sided
tests of rlaif against rlhf within 10 % of RLHF's gain.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from scipy import stats

from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.evaluate.diversity import Diversity
from outcross.evaluate.real_loss import RealLoss
from outcross.gate.non_inferior import NonInferior
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.models.tabular_reward import TabularReward
from outcross.models.torch_lm import Machine, TorchLM, from_config
from outcross.recipe import Bench, Recipe
from outcross.recipes.d_rlaif import d_rlaif
from outcross.recipes.iterative_dpo import iterative_dpo
from outcross.recipes.rlaif import rlaif
from outcross.recipes.rlhf import rlhf
from outcross.recipes.sppo import sppo
from outcross.stages import Context, FitPlan, LogProbs, Role, Stage
from outcross.text import prompt_text
from outcross.types import Completion, Example, Ground, Loss, Measurement, Origin, Request, Response, Sampling, Task, Turn
from outcross.verify.judge_pairwise import PairwiseJudge
from outcross.verify.judge_pointwise import PointwiseJudge
from outcross.verify.judge_prompt import Instructions

DIGITS = tuple(map(str, range(10)))
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
}
ASK = Instructions(preamble="Which digit is nearer to the largest one?")
DRAW = Sampling(1.0, max_tokens=3)
PLAN = FitPlan(lr=5e-4, epochs=1.0, batch=64, schedule="constant", warmup=0.0)
REWARD_PLAN = FitPlan(lr=0.3, epochs=10.0, batch=32, schedule="constant", warmup=0.0)
PEOPLE = Origin("real", "attested", "rule", note="the script's author")
FENCE = re.compile(r"^<(task|answer|answer A|answer B) ([0-9a-f]{16})>\n(.*?)\n</\1 \2>$", re.MULTILINE | re.DOTALL)


def reward(prompt: str, said: str) -> float:
    """The truth, 0 to 1."""
    return 1 - abs(int(max(prompt.rstrip("="))) - int(said)) / 9 if said.isdigit() and len(said) == 1 else 0.0


def comparisons(prompts: Sequence[str], count: int, rng: random.Random, name: str) -> list[Example]:
    """Random pairs of digits of different true reward, the better one chosen."""
    made: list[Example] = []
    while len(made) < count:
        prompt, (a, b) = rng.choice(prompts), rng.sample(DIGITS, 2)
        if (gap := reward(prompt, a) - reward(prompt, b)) != 0:
            good, bad = (a, b) if gap > 0 else (b, a)
            made.append(Example(f"{name}{len(made)}", prompt, good, Loss("bt"), rejected=bad, origin=PEOPLE))
    return made


def drawn(model: TorchLM, prompts: Sequence[str], seed: int) -> list[Example]:
    """People's comparisons of two answers of the start to each prompt, as RLAIF's labeller is asked about; pairs of equal worth are none."""
    waiting = [(prompt, model.submit(Request(prompt, 2, DRAW, seed=seed * 100_000 + place))) for place, prompt in enumerate(prompts)]
    model.flush()
    made = []
    for prompt, future in waiting:
        a, b = (str(item.content) for item in future.result().completions)
        if gap := reward(prompt, a) - reward(prompt, b):
            good, bad = (a, b) if gap > 0 else (b, a)
            made.append(Example(f"people{prompt}", prompt, good, Loss("bt"), rejected=bad, origin=PEOPLE))
    return made


@dataclass(frozen=True)
class TrueReward(Stage):
    """The expected true reward of each held-out prompt, exact over the ten digits; all else is worth 0."""

    tasks: tuple[Task, ...]
    margin: float = 0.03
    kind: ClassVar[str] = "quality"
    ground: ClassVar[Ground] = "exact"
    roles: ClassVar[tuple[Role, ...]] = ("policy",)

    def __call__(self, ctx: Context, /) -> Measurement:
        model = ctx.model("policy")
        assert isinstance(model, LogProbs)
        return Measurement(self.name, tuple(task.id for task in self.tasks), tuple(values(model, [task.id for task in self.tasks])))


def values(model: LogProbs, prompts: Sequence[str]) -> list[float]:
    turns = [Turn(prompt, Completion(digit)) for prompt in prompts for digit in DIGITS]
    worth = [
        math.exp(found[0]) * reward(str(turn.prompt), str(turn.completion.content))
        for found, turn in zip(model.log_probs(turns), turns, strict=True)
    ]
    return [math.fsum(worth[i : i + 10]) for i in range(0, len(worth), 10)]


class World:
    """Prompts in four disjoint parts, the start, the labeller and its accuracy, all by one seed.

    digits: of a prompt. asked: how many prompts the methods train on. labelled: comparisons that the labeller learnt from, by `labeller_plan`.
    """

    def __init__(self, seed: int, *, digits: int = 3, asked: int = 300, labelled: int = 80, labeller_plan: FitPlan = REWARD_PLAN) -> None:
        rng = random.Random(seed)
        prompts = [f"{n:0{digits}d}=" for n in range(10**digits)]
        rng.shuffle(prompts)
        self.seed, self.asked, self.test, compared = seed, prompts[:asked], prompts[asked : asked + 300], prompts[asked + 520 :]
        self.tasks = tuple(Task(p, p, max(p.rstrip("="))) for p in self.asked)
        self.held_out = tuple(Task(p, p, max(p.rstrip("="))) for p in self.test)
        self.real = tuple(Example(f"real{p}", p, max(p.rstrip("=")), origin=PEOPLE) for p in prompts[asked + 300 : asked + 520])
        few = comparisons(compared, labelled, rng, "few")
        self.labeller = TabularReward(4).fit(few, plan=labeller_plan, reference=None, seed=seed, seen=lambda step, ids, **facts: None)
        self.accuracy = accuracy(self.labeller, comparisons(self.test, 2000, rng, "fresh"))
        self.judge = _judge(self.labeller)
        machine = Machine(device="cpu", threads=1)
        start = from_config(CONFIG, alphabet="0123456789=", seed=seed, machine=machine)
        plan = FitPlan(lr=3e-3, epochs=5.0, batch=32)
        self.start = start.fit(self.real, plan=plan, reference=None, seed=seed, seen=lambda step, ids, **facts: None)

    @cached_property
    def people(self) -> list[Example]:
        """People's comparisons of two draws of the start to each prompt."""
        return drawn(self.start, self.asked, self.seed)

    def bench(self) -> Bench:
        probes = (TrueReward(self.held_out), Diversity(self.held_out, Draw(1, DRAW), margin=0.5), RealLoss(self.real, 1.0))
        return Bench(self.tasks, self.held_out, self.real, probes, NonInferior())

    def value(self, model: TorchLM) -> float:
        """The mean true reward on the held-out prompts."""
        return statistics.fmean(values(model, self.test))


def accuracy(labeller: TabularReward, pairs: Sequence[Example]) -> float:
    """On how many pairs the labeller values the chosen answer above the rejected one."""
    values = [v[0] for v in labeller.values([Turn(e.prompt, Completion(t)) for e in pairs for t in (e.completion, e.rejected or "")])]
    return statistics.fmean(a > b for a, b in zip(values[::2], values[1::2], strict=True))


def _judge(labeller: TabularReward) -> Scripted:
    """The labeller behind the questions of judges: a sigmoid of the difference of two values; a score of 1 to 10 by one value."""

    def answer(request: Request) -> Response:
        seen = {name: text for name, _, text in FENCE.findall(prompt_text(request.prompt))}
        if not seen:
            probs = dict.fromkeys((choice.strip() for choice in request.choices), 0.1)
        elif "answer" in seen:
            (value,) = next(iter(labeller.values([Turn(seen["task"], Completion(seen["answer"]))])))
            mean = 1 + 9 / (1 + math.exp(-value / 2))
            low = min(9, int(mean))
            probs = {str(low): low + 1 - mean, str(low + 1): mean - low}
        else:
            a, b = (v[0] for v in labeller.values([Turn(seen["task"], Completion(seen[f"answer {x}"])) for x in "AB"]))
            p = 1 / (1 + math.exp(min(50.0, max(-50.0, b - a))))
            probs = {"A": p, "B": 1 - p}
        found = tuple(math.log(max(probs.get(choice.strip(), 0.0), 1e-30)) for choice in request.choices)
        return Response((Completion("", choice_log_probs=found),))

    return Scripted(answer, name="labeller")


def recipe(method: str, world: World, rounds: int) -> Recipe:
    """Each method with as many answers a round: 4 a prompt, or as many by rounds over parts of the prompts."""
    bench, pair, point = world.bench(), PairwiseJudge(instructions=ASK), PointwiseJudge(instructions=ASK)
    if method == "rlhf":
        return rlhf(bench, comparisons=world.people, draw=DRAW, n=4, rounds=rounds, reward_plan=REWARD_PLAN, plan=PLAN)
    if method == "rlaif":
        return rlaif(bench, judge=pair, draw=DRAW, n=4, rounds=rounds, reward_plan=REWARD_PLAN, plan=PLAN)
    if method == "d_rlaif":
        return d_rlaif(bench, judge=point, n=4, rounds=rounds, temperature=1.0, max_tokens=3, plan=PLAN)
    kind = {"sppo": sppo, "iterative_dpo": iterative_dpo}[method]
    more: dict[str, Any] = {"beta": 0.5} if method == "sppo" else {"beta": 0.1}
    return kind(bench, judge=pair, n=5, rounds=rounds, temperature=1.0, max_tokens=3, plan=PLAN, **more)


def trial(method: str, seed: int, rounds: int) -> tuple[list[float], float, int, int, float]:
    """True reward at the start and after each promoted state of the policy's rounds; the labeller's accuracy; promoted rounds; seconds."""
    world, began = World(seed), time.monotonic()
    models = {"policy": world.start, "judge": world.judge, "reward": TabularReward(4)}
    with tempfile.TemporaryDirectory() as folder:
        run(recipe(method, world, rounds), models, Path(folder) / "run", seed=seed, options=Options(unsafe=True))
        turns = [turn for turn in RunDir(Path(folder) / "run").rounds() if turn.phase != "reward"]
        track = [world.value(world.start)]
        for turn in turns:
            track.append(world.value(world.start.load(turn.folder / "model")) if turn.promoted else track[-1])
        promoted = sum(turn.promoted for turn in turns)
    return track, world.accuracy, promoted, len(turns), time.monotonic() - began


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    mean = statistics.fmean(values)
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def told(values: Sequence[float], level: float = 0.95) -> str:
    mean, low, high = interval(values, level)
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def equivalence(ones: Sequence[float], others: Sequence[float], share: float = 0.1) -> str:
    """Two one-sided tests, paired, within this share of the mean of the others, with their power where there is no difference."""
    margin, differences = share * statistics.fmean(others), [a - b for a, b in zip(ones, others, strict=True)]
    _, low, high = interval(differences, 0.9)
    verdict = "equivalent" if -margin < low and high < margin else "not shown to be equivalent"
    spread = statistics.stdev(differences) / math.sqrt(len(differences))
    t = float(stats.t.ppf(0.95, len(differences) - 1))
    power = max(0.0, 2 * float(stats.norm.cdf(margin / spread - t)) - 1)
    return (
        f"two one-sided tests within ±{margin:.4f}: {verdict} (90 % interval {low:+.4f} to {high:+.4f}); power at no difference {power:.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--methods", nargs="*", default=["rlhf", "rlaif", "d_rlaif", "sppo", "iterative_dpo"])
    given = parser.parse_args()
    gains: dict[str, list[float]] = {}
    for method in given.methods:
        found = [trial(method, seed, given.rounds) for seed in range(1, given.seeds + 1)]
        gains[method] = [track[-1] - track[0] for track, *_ in found]
        steps = [statistics.fmean(track[i] for track, *_ in found) for i in range(len(found[0][0]))]
        print(
            f"{method}: gain {told(gains[method])}; by round {' '.join(f'{value:.3f}' for value in steps)}; promoted "
            f"{sum(item[2] for item in found)} of {sum(item[3] for item in found)}; labeller right on {statistics.fmean(item[1] for item in found):.1%} "
            f"of pairs; {statistics.median(item[4] for item in found):.0f} s a run",
            flush=True,
        )
    for one, other in (("rlaif", "rlhf"), ("d_rlaif", "rlaif"), ("sppo", "iterative_dpo")):
        if one in gains and other in gains:
            print(
                f"{one} − {other}: {told([a - b for a, b in zip(gains[one], gains[other], strict=True)])}, paired over {given.seeds} seeds"
            )
    if {"rlaif", "rlhf"} <= gains.keys():
        print(equivalence(gains["rlaif"], gains["rlhf"]))


if __name__ == "__main__":
    main()
