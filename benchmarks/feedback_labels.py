"""RLAIF against RLHF where only the labels differ: python benchmarks/feedback_labels.py [--seeds 5] [--first 0] [--pairs 1000]

The world of benchmarks/feedback.py with prompts of four digits. For each seed RLAIF draws two answers of the start to every prompt; people
label the *same pairs* by the true reward, so that both reward models see the same prompts, answers and as many comparisons. The AI labeller
is a trained model: a weak one, which saw 80 comparisons, and a strong one, which saw 6,000; it is asked in both orders and its labels are
soft. Printed: gains in true reward, the labellers' accuracy on random pairs and on the pairs asked about, two one-sided tests within 10 %
of RLHF's gain, with their power.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from feedback import ASK, DRAW, PEOPLE, PLAN, REWARD_PLAN, World, accuracy, equivalence, interval, reward, told

from outcross.engine.loop import Options, run
from outcross.engine.store import RoundDir, RunDir
from outcross.models.tabular_reward import TabularReward
from outcross.recipe import Recipe
from outcross.recipes.rlaif import rlaif
from outcross.recipes.rlhf import rlhf
from outcross.select import Sample
from outcross.stages import FitPlan
from outcross.types import Example, Loss
from outcross.verify.judge_pairwise import PairwiseJudge

LABELLER_PLAN = FitPlan(lr=2.0, epochs=10.0, batch=32, schedule="constant", warmup=0.0)
LABELLERS = {"weak": 80, "strong": 6000}
TASKS = 300  # a round of the policy


@dataclass(frozen=True)
class Told:
    gain: float
    track: tuple[float, ...]
    promoted: int
    rounds: int
    accuracy: float  # of the labels on random pairs
    on_asked: float  # of the labels on the pairs asked about
    pairs: int


def trained(recipe: Recipe, world: World, folder: Path) -> tuple[RoundDir, list[float], int]:
    """The round of the reward model; true reward at the start and after each round of the policy; promoted rounds."""
    label, policy = recipe.phases
    models = {"policy": world.start, "judge": world.judge, "reward": TabularReward(4)}
    made = replace(recipe, phases=(label, replace(policy, tasks=Sample(TASKS))))
    run(made, models, folder, seed=world.seed, options=Options(unsafe=True))
    first, *turns = RunDir(folder).rounds()
    track = [world.value(world.start)]
    for turn in turns:
        track.append(world.value(world.start.load(turn.folder / "model")) if turn.promoted else track[-1])
    return first, track, sum(turn.promoted for turn in turns)


def same_pairs(turn: RoundDir) -> list[Example]:
    """The pairs of a round, labelled by people: the true reward. Of a pair of equal worth there is nothing to say."""
    made = []
    for group in turn.groups():
        prompt, said = str(group.task.prompt), [sample.text for sample in group.samples]
        if len(said) == 2 and (gap := reward(prompt, said[0]) - reward(prompt, said[1])):
            good, bad = said if gap > 0 else said[::-1]
            made.append(Example(f"people{prompt}", prompt, good, Loss("bt"), rejected=bad, origin=PEOPLE))
    return made


def trial(seed: int, pairs: int, rounds: int) -> dict[str, Told]:
    found: dict[str, Told] = {}
    people: list[Example] = []
    for name, labelled in LABELLERS.items():
        world = World(seed, digits=4, asked=pairs, labelled=labelled, labeller_plan=LABELLER_PLAN)
        made = rlaif(
            world.bench(), judge=PairwiseJudge(instructions=ASK), draw=DRAW, n=4, rounds=rounds, reward_plan=REWARD_PLAN, plan=PLAN
        )
        with tempfile.TemporaryDirectory() as folder:
            turn, track, promoted = trained(made, world, Path(folder) / "run")
            people = same_pairs(turn)
        right = accuracy(world.labeller, people)
        found[f"rlaif, {name} labeller"] = Told(track[-1] - track[0], tuple(track), promoted, rounds, world.accuracy, right, len(people))
    made = rlhf(world.bench(), comparisons=people, draw=DRAW, n=4, rounds=rounds, reward_plan=REWARD_PLAN, plan=PLAN)
    with tempfile.TemporaryDirectory() as folder:
        _, track, promoted = trained(made, world, Path(folder) / "run")
    return found | {"rlhf": Told(track[-1] - track[0], tuple(track), promoted, rounds, 1.0, 1.0, len(people))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=1000)
    given = parser.parse_args()
    found: list[dict[str, Told]] = []
    for seed in range(given.first, given.first + given.seeds):
        began = time.monotonic()
        found.append(trial(seed, given.pairs, given.rounds))
        each = "; ".join(f"{name} {' '.join(f'{value:.3f}' for value in row.track)}" for name, row in found[-1].items())
        print(f"seed {seed}, {time.monotonic() - began:.0f} s: {each}", flush=True)
    if given.seeds < 2:
        return
    gains = {name: [each[name].gain for each in found] for name in found[0]}
    for name, values in gains.items():
        rows = [each[name] for each in found]
        print(
            f"{name}: gain {told(values)}; promoted {sum(row.promoted for row in rows)} of {sum(row.rounds for row in rows)}; labels right on "
            f"{statistics.fmean(row.accuracy for row in rows):.1%} of random pairs, {statistics.fmean(row.on_asked for row in rows):.1%} of those asked"
            f" about ({statistics.fmean(row.pairs for row in rows):.0f} that differ in worth, of {given.pairs})"
        )
    for name in list(gains)[:-1]:
        differences = [a - b for a, b in zip(gains[name], gains["rlhf"], strict=True)]
        share = interval(differences)[0] / statistics.fmean(gains["rlhf"])
        print(f"{name} − rlhf: {told(differences)}, {share:+.0%} of its gain; {equivalence(gains[name], gains['rlhf'])}")


if __name__ == "__main__":
    main()
