"""SPPO against iterative DPO at equal length, and a judge that loves length: python benchmarks/feedback_length.py game|hacked [--seeds 5]
[--first 0]

The world of benchmarks/feedback.py (in the game with prompts of four digits) where an answer is a digit and up to six dots, “7..”. A dot
costs 0.05 of the true reward.

game: people prefer A to B with the probability σ(8 · difference in nearness + 0.3 · difference in dots): they like length a little, as
  judges do. The AI labeller is a trained model that saw 4,000 such comparisons. `sppo` and `iterative_dpo` draw as many answers from the
  same prompts. Printed: win rate against the start by people, raw and at equal length (`evaluate/preference`), round by round.
hacked: the judge's preference is for dots (log-odds 2 a dot, 1 for nearness), and it scores answers for `d_rlaif` or compares them for
  `iterative_dpo`. Two gates: one whose margin on the true reward is wide (0.5), so that the alarm must catch it, and a narrow one (0.03).
  Printed: in which round the divergence alarm and the gate caught it, whether the report warns of length, win rates by that judge.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from feedback import ASK, CONFIG, FENCE, PEOPLE, reward, told

from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir, read_measurements
from outcross.evaluate.diversity import Diversity
from outcross.evaluate.preference import Preference
from outcross.evaluate.real_loss import RealLoss
from outcross.gate.non_inferior import NonInferior
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.models.tabular_reward import TabularReward
from outcross.models.torch_lm import Machine, TorchLM, from_config
from outcross.recipe import Bench, Recipe
from outcross.recipes.d_rlaif import d_rlaif
from outcross.recipes.iterative_dpo import iterative_dpo
from outcross.recipes.sppo import sppo
from outcross.report.read import summary
from outcross.stages import Context, FitPlan, Role, Stage
from outcross.text import prompt_text
from outcross.types import Completion, Example, Ground, Loss, Measurement, Request, Response, Sampling, Task, Turn
from outcross.verify.judge_pairwise import Baseline, PairwiseJudge
from outcross.verify.judge_pointwise import PointwiseJudge

MOST, COST = 6, 0.05  # dots, and what one costs
SAID = re.compile(r"\d\.*")
SPEAK = Sampling(1.0, max_tokens=MOST + 2)
ANSWERS = tuple(f"{digit}{'.' * dots}" for digit in range(10) for dots in range(MOST + 1))
LABELS = FitPlan(lr=2.0, epochs=8.0, batch=32, schedule="constant", warmup=0.0)
PLANS = {
    "sppo": FitPlan(lr=5e-4, epochs=2.0, batch=32, schedule="constant", warmup=0.0),
    "iterative_dpo": FitPlan(lr=2e-4, epochs=4.0, batch=32, schedule="constant", warmup=0.0),
}
BETAS = {
    "sppo": 0.1,
    "iterative_dpo": 0.1,
}  # chosen with the plans on seed 1000; at the paper's 1e-3 every rate that was tried did harm or nothing
HACKS = (("d_rlaif", 0.5, 3), ("d_rlaif", 0.03, 1), ("iterative_dpo", 0.5, 3))
HACK = FitPlan(lr=5e-4, epochs=1.0, batch=64, schedule="constant", warmup=0.0)


def near(prompt: str, said: str) -> float:
    return reward(prompt, said[0]) if SAID.fullmatch(said) else 0.0


def worth(prompt: str, said: str) -> float:
    """The truth: nearness less the cost of dots."""
    return max(0.0, near(prompt, said) - COST * said.count("."))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-min(50.0, max(-50.0, x))))


def people_like(prompt: str, a: str, b: str) -> float:
    return sigmoid(8 * (near(prompt, a) - near(prompt, b)) + 0.3 * (a.count(".") - b.count(".")))


def hacked_likes(prompt: str, a: str, b: str) -> float:
    return sigmoid(near(prompt, a) - near(prompt, b) + 2 * (a.count(".") - b.count(".")))


def judging(likes: Callable[[str, str, str], float], name: str) -> Scripted:
    """A preference behind the questions of a judge that compares."""

    def answer(request: Request) -> Response:
        seen = {name: text for name, _, text in FENCE.findall(prompt_text(request.prompt))}
        p = likes(seen["task"], seen["answer A"], seen["answer B"]) if "answer A" in seen else 0.5
        probs = {"A": p, "B": 1 - p}
        return Response((Completion("", choice_log_probs=tuple(math.log(max(probs[c.strip()], 1e-30)) for c in request.choices)),))

    return Scripted(answer, name=name)


@dataclass(frozen=True)
class TrueReward(Stage):
    """The expected true reward of each held-out prompt, exact over all answers."""

    tasks: tuple[Task, ...]
    margin: float = 0.03
    kind: ClassVar[Literal["quality"]] = "quality"
    ground: ClassVar[Ground] = "exact"
    roles: ClassVar[tuple[Role, ...]] = ("policy",)

    def __call__(self, ctx: Context, /) -> Measurement:
        model: Any = ctx.model("policy")
        turns = [Turn(task.id, Completion(said)) for task in self.tasks for said in ANSWERS]
        sums = [math.exp(math.fsum(found)) for found in model.log_probs(turns)]
        worths = [p * worth(str(turn.prompt), str(turn.completion.content)) for p, turn in zip(sums, turns, strict=True)]
        each = tuple(math.fsum(worths[i : i + len(ANSWERS)]) for i in range(0, len(worths), len(ANSWERS)))
        return Measurement(self.name, tuple(task.id for task in self.tasks), each)


class World:
    """The start, and a labeller that learnt from people's comparisons, by one seed. asked, wrote: prompts to train on, and rows of people."""

    def __init__(self, seed: int, *, digits: int = 3, asked: int = 300, wrote: int = 220) -> None:
        rng = random.Random(seed)
        prompts = [f"{n:0{digits}d}=" for n in range(10**digits)]
        rng.shuffle(prompts)
        self.seed = seed
        asked_of, held = prompts[-asked:], prompts[300:500]
        self.tasks, self.held_out = (tuple(Task(p, p, max(p[:-1])) for p in part) for part in (asked_of, held))
        written = [(p, max(p[:-1]) + "." * rng.choice((0, 0, 0, 1, 1, 2))) for p in prompts[500 : 500 + wrote]]
        self.real = tuple(Example(f"real{p}", p, said, origin=PEOPLE) for p, said in written)
        compared = self._comparisons(prompts[:300] + prompts[500 + wrote : -asked][:500], 4000, rng)
        self.labeller = TabularReward(4).fit(compared, plan=LABELS, reference=None, seed=seed, seen=lambda step, ids, **facts: None)
        fresh = [(p, *rng.sample(ANSWERS, 2)) for p in rng.choices(prompts[300:500], k=1000)]
        right = [(people_like(*row) > 0.5) == (self.likes(*row) > 0.5) for row in fresh]
        self.accuracy = statistics.fmean(right)
        start = from_config(CONFIG, alphabet="0123456789=.", seed=seed, machine=Machine(device="cpu", threads=1))
        plan = FitPlan(lr=3e-3, epochs=5.0, batch=32)
        self.start: TorchLM = start.fit(self.real, plan=plan, reference=None, seed=seed, seen=lambda step, ids, **facts: None)

    def _comparisons(self, prompts: Sequence[str], count: int, rng: random.Random) -> list[Example]:
        made = []
        for number in range(count):
            prompt, (a, b) = rng.choice(prompts), rng.sample(ANSWERS, 2)
            good, bad = (a, b) if rng.random() < people_like(prompt, a, b) else (b, a)
            made.append(Example(f"c{number}", prompt, good, Loss("bt"), rejected=bad, origin=PEOPLE))
        return made

    def likes(self, prompt: str, a: str, b: str) -> float:
        one, other = (v[0] for v in self.labeller.values([Turn(prompt, Completion(said)) for said in (a, b)]))
        return sigmoid(one - other)

    def bench(self, umpire: str, margin: float) -> Bench:
        judge = PairwiseJudge(umpire, Baseline("baseline", SPEAK), instructions=ASK)
        rates = tuple(
            Preference(self.held_out, Draw(1, SPEAK), judge, statistic, 0.3, replicates=100)
            for statistic in ("win_rate", "at_equal_length")
        )
        probes = (TrueReward(self.held_out, margin), RealLoss(self.real, 2.0), Diversity(self.held_out, Draw(1, SPEAK), margin=3.0), *rates)
        return Bench(self.tasks, self.held_out, self.real, probes, NonInferior())


@dataclass(frozen=True)
class Played:
    raw: tuple[float, ...]  # win rate by the umpire against the start, of the champion after each round
    equal: tuple[float, ...]
    truth: tuple[float, ...]
    promoted: int
    alarms: tuple[int, ...]  # rounds with a divergence alarm, from 1
    refused: tuple[int, ...]
    warned: bool  # the report says "mostly length"
    accuracy: float


def play(recipe: Recipe, world: World, judge: Scripted, umpire: Scripted) -> Played:
    models = {"policy": world.start, "judge": judge, "umpire": umpire, "baseline": copy.copy(world.start)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "run"
        run(recipe, models, root, seed=world.seed, options=Options(unsafe=True))
        held, turns = read_measurements(RunDir(root).start / "measurements.parquet"), list(RunDir(root).rounds())
        tracks = [[_value(held, name)] for name in ("preference", "preference_at_equal_length", "true_reward")]
        for turn in turns:
            held = turn.measurements() if turn.promoted else held
            for track, name in zip(tracks, ("preference", "preference_at_equal_length", "true_reward"), strict=True):
                track.append(_value(held, name))
        alarms = tuple(place for place, turn in enumerate(turns, 1) if turn.record.get("alarms"))
        refused = tuple(place for place, turn in enumerate(turns, 1) if not turn.promoted)
        warned = any("mostly length" in heading for heading in summary(RunDir(root)).headings)
    return Played(*map(tuple, tracks), len(turns) - len(refused), alarms, refused, warned, world.accuracy)


def _value(found: Any, name: str) -> float:
    probe = next(item for item in found.values() if item.probe == name)
    return statistics.fmean(probe.values)


def game(seed: int, method: str, rounds: int, plan: FitPlan, beta: float) -> Played:
    world, kind = World(seed, digits=4, asked=600), {"sppo": sppo, "iterative_dpo": iterative_dpo}[method]
    made = kind(
        world.bench("umpire", 0.05), judge=PairwiseJudge(instructions=ASK), rounds=rounds, beta=beta, max_tokens=SPEAK.max_tokens, plan=plan
    )
    return play(made, world, judging(world.likes, "labeller"), judging(people_like, "people"))


def scoring() -> Scripted:
    """A judge that scores answers by their dots: σ(dots − 3 + nearness) of the way from 1 to 10."""

    def answer(request: Request) -> Response:
        seen = {name: text for name, _, text in FENCE.findall(prompt_text(request.prompt))}
        said = seen.get("answer", "")
        mean = 1 + 9 * sigmoid(said.count(".") - 3 + near(seen["task"], said)) if seen else 5.5
        low = min(9, int(mean))
        probs = {str(low): low + 1 - mean, str(low + 1): mean - low}
        return Response((Completion("", choice_log_probs=tuple(math.log(max(probs.get(c.strip(), 0.0), 1e-30)) for c in request.choices)),))

    return Scripted(answer, name="scores by length")


def hacked(seed: int, method: str, margin: float, rounds: int) -> Played:
    """Direct RLAIF by the scores of a judge that loves length, or iterative DPO by its comparisons. The win rates of a task's answers among
    each other average to ½ whatever the policy does; there the probe that asks the same judge tells the divergence alarm of the rise."""
    world = World(seed)
    bench, size = world.bench("umpire", margin), SPEAK.max_tokens
    likes = judging(hacked_likes, "lover of length")
    if method == "d_rlaif":
        made = d_rlaif(bench, judge=PointwiseJudge(instructions=ASK), n=4, rounds=rounds, temperature=1.0, max_tokens=size, plan=HACK)
        return play(made, world, scoring(), likes)
    made = iterative_dpo(bench, judge=PairwiseJudge(instructions=ASK), rounds=rounds, max_tokens=size, plan=PLANS[method])
    return play(made, world, likes, likes)


def _track(rows: Sequence[tuple[float, ...]]) -> str:
    return " ".join(f"{statistics.fmean(step):.3f}" for step in zip(*rows, strict=True))


def tell(name: str, found: Sequence[Played]) -> None:
    for what, rows in (
        ("raw", [row.raw for row in found]),
        ("at equal length", [row.equal for row in found]),
        ("truth", [row.truth for row in found]),
    ):
        gains = [row[-1] - row[0] for row in rows]
        print(f"{name}, {what}: {_track(rows)}; change {told(gains) if len(gains) > 1 else f'{gains[0]:+.4f}'}", flush=True)
    print(
        f"{name}: promoted {sum(row.promoted for row in found)} of {len(found) * (len(found[0].raw) - 1)}; first alarm in round "
        f"{[row.alarms[0] if row.alarms else None for row in found]}; first refusal in {[row.refused[0] if row.refused else None for row in found]}; "
        f"warned of length in {sum(row.warned for row in found)} of {len(found)}; labeller right on {statistics.fmean(row.accuracy for row in found):.1%}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("game", "hacked"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(PLANS))
    parser.add_argument("--lr", type=float, default=None, help="to calibrate, on seeds that are not scored")
    parser.add_argument("--epochs", type=float, default=None)
    parser.add_argument("--beta", type=float, default=None)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    found: dict[str, list[Played]] = {}
    if given.what == "hacked":
        for method, margin, rounds in HACKS:
            tell(f"{method}, margin {margin}", [hacked(seed, method, margin, rounds) for seed in seeds])
        return
    for method in given.methods:
        plan, began = PLANS[method], time.monotonic()
        plan = replace(plan, lr=given.lr or plan.lr, epochs=given.epochs or plan.epochs)
        found[method] = [game(seed, method, given.rounds, plan, given.beta or BETAS[method]) for seed in seeds]
        tell(f"{method} (lr {plan.lr:g}, {plan.epochs:g} epochs, beta {given.beta or BETAS[method]:g})", found[method])
        print(f"{(time.monotonic() - began) / len(seeds):.0f} s a run", flush=True)
    if len(found) == 2 and given.seeds > 1:
        for what in ("equal", "raw", "truth"):
            pairs = zip(found["sppo"], found["iterative_dpo"], strict=True)
            print(f"sppo − iterative_dpo, {what}: {told([getattr(a, what)[-1] - getattr(b, what)[-1] for a, b in pairs])}")
        for method, rows in found.items():
            steps = [told([row.equal[i + 1] - row.equal[i] for row in rows]) for i in range(given.rounds)]
            print(f"{method}, change at equal length by round: {'; '.join(steps)}")


if __name__ == "__main__":
    main()
