"""What theory says of learning from feedback, through the engine on toys: games, bandits, revisions, and judges that judge themselves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from feedback import HELD_OUT, REAL, REWARD, bench, nearness, played, track
from judges import shown, sigmoid, weighing
from msgspec.structs import replace
from toys import Says

from outcross.engine.store import RunDir
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.preference import Preference
from outcross.generate.draw import Draw
from outcross.models.tabular import Tabular
from outcross.models.tabular_reward import TabularReward
from outcross.recipe import Mixture, Waived
from outcross.recipes.d_rlaif import d_rlaif
from outcross.recipes.rlaif import rlaif
from outcross.recipes.sppo import sppo
from outcross.report.read import summary
from outcross.stages import FitPlan, Model, Seen
from outcross.types import Completion, Example, Loss, Origin, Request, Response, Sampling, Task, Turn
from outcross.verify.exact import Exact
from outcross.verify.judge_pairwise import Baseline, PairwiseJudge
from outcross.verify.reward_model import RewardModel

MOVES = ("rock", "paper", "scissors")
BEATS = {("paper", "rock"), ("scissors", "paper"), ("rock", "scissors")}
ELSE = (Task("other", "something else", "rock"),)
FREE = Mixture("replace", Waived("a closed form"))


def nothing_seen(step: int, ids: Any, **facts: float) -> None: ...


def game(root: Path, made: Any, models: Mapping[str, Model], seed: int = 0) -> RunDir:
    return played(made, root, models, seed)


def one_task(rounds: int = 1) -> Any:
    """The same prompt in every round."""
    return bench(
        tasks=tuple(Task(f"throw {k}", "throw") for k in range(rounds)),
        held_out=ELSE,
        real=None,
        probes=(PassRate(ELSE, Draw(n=1), Exact()),),
        gate=Says("p"),
    )


def policy(share: Mapping[str, float], window: int = 0) -> Tabular:
    """A toy policy that throws these with these chances: real rows are fitted until it does."""
    made = Tabular(tuple(share), window=window)
    origin = Origin("real", "attested", "toy")
    rows = [Example(f"{name}", "throw", name, weight=weight * len(share), origin=origin) for name, weight in share.items()]
    seen: Seen = nothing_seen
    return made.fit(
        rows, plan=FitPlan(lr=0.3, epochs=400, batch=len(rows), schedule="constant", warmup=0.0), reference=None, seed=0, seen=seen
    )


def chances(model: Any, answers: Iterable[str] = MOVES) -> dict[str, float]:
    found = model.log_probs([Turn("throw", Completion(name)) for name in answers])
    return {name: math.exp(values[0]) for name, values in zip(answers, found, strict=True)}


def referee(request: Request) -> dict[str, float]:
    seen = shown(request)
    p = float((seen["answer A"], seen["answer B"]) in BEATS)
    return {"A": p, "B": 1 - p}


def after(found: RunDir, start: Tabular) -> list[dict[str, float]]:
    """The policy before the run and after each round."""
    return [chances(start), *(chances(start.load(turn.folder / "model")) for turn in found.rounds() if turn.promoted)]


# ── games ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
EXACT = FitPlan(lr=0.05, epochs=60, batch=8, schedule="constant", warmup=0.0)


def test_a_round_of_sppo_is_a_step_of_multiplicative_weights(tmp_path: Path) -> None:
    start = policy({"rock": 0.5, "paper": 0.3, "scissors": 0.2})
    made = sppo(one_task(), n=24, rounds=1, keep="all", beta=2.0, plan=EXACT, mix="paper")
    found = game(tmp_path, made, {"policy": start, "judge": weighing(referee)})
    (turn,) = found.rounds()
    targets = {str(example.completion): example.target for example in turn.examples()}
    drawn = Counter(sample.text for group in turn.groups() for sample in group.samples)
    for mine, p in targets.items():  # the mean over all 24, itself and its equals at one half
        met = sum(count * (0.5 if mine == other else float((mine, other) in BEATS)) for other, count in drawn.items()) / 24
        assert p == pytest.approx(met, abs=1e-9)
    before, now = after(found, start)
    weights = {name: before[name] * math.exp(targets[name] / 2.0) for name in MOVES}  # type: ignore[operator]
    step = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    assert max(abs(step[name] - before[name]) for name in MOVES) > 0.03
    assert now == pytest.approx(step, abs=0.006)


def test_the_time_average_of_a_circle_is_even_under_a_general_judge(tmp_path: Path) -> None:
    start = policy({"rock": 0.4, "paper": 0.33, "scissors": 0.27})
    made = sppo(one_task(22), n=32, rounds=22, keep="all", beta=1.0, plan=EXACT, mix="paper")
    path = after(game(tmp_path, made, {"policy": start, "judge": weighing(referee)}), start)
    average = {name: sum(item[name] for item in path) / len(path) for name in MOVES}
    furthest = max(abs(item[name] - 1 / 3) for item in path for name in MOVES)
    off = max(abs(share - 1 / 3) for share in average.values())
    assert off < 0.09 and furthest > 0.18 and off < furthest / 2


def test_no_bradley_terry_model_can_say_a_circle_and_its_player_stays_as_beatable_as_it_was(tmp_path: Path) -> None:
    origin = Origin("synthetic")
    rows = [Example(f"{a}>{b}", "throw", a, Loss("bt"), rejected=b, origin=origin) for a, b in sorted(BEATS)]
    reward = TabularReward(0).fit(rows, plan=FitPlan(lr=1.0, epochs=200, batch=3, warmup=0.0), reference=None, seed=0, seen=nothing_seen)
    values = [value for (value,) in reward.values([Turn("throw", Completion(name)) for name in MOVES])]
    assert max(values) - min(values) < 0.15  # the best that it can say is that all are alike
    start = policy({"rock": 0.5, "paper": 0.3, "scissors": 0.2})
    made = sppo(one_task(3), judge=RewardModel(), opponents="values", n=20, rounds=3, keep="all", beta=1.0, plan=EXACT, mix="paper")
    last = after(game(tmp_path, made, {"policy": start, "reward": reward}), start)[-1]
    loses_to = max(sum(share * (0.5 if a == b else float((a, b) in BEATS)) for b, share in last.items()) for a in MOVES)
    assert loses_to > 0.62  # paper wins 0.65 of its games against the first policy


# ── a bandit ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_direct_rlaif_ends_at_the_reference_tilted_by_reward(tmp_path: Path) -> None:
    """π ∝ π_ref exp((1 − β) r / β)."""
    beta, share = 0.4, {"left": 0.7, "right": 0.3}
    rated = {"left": "4", "right": "10"}  # r = 1/3 and 1
    judge = weighing(lambda request: {rated[shown(request)["answer"]]: 1.0}, "rates arms")
    start = policy(share)
    plan = FitPlan(lr=0.15, epochs=1, batch=64, schedule="constant", warmup=0.0)
    made = d_rlaif(one_task(), n=64, rounds=1, inner=40, beta=beta, plan=plan, mix="paper")
    found = game(tmp_path, made, {"policy": start, "judge": judge})
    odds = [
        math.log(now["right"] / now["left"])
        for k in range(20, 40)
        for now in [chances(start.load(found.rounds()[0].folder / f"inner_{k}" / "model"), share)]
    ]
    expected = math.log(0.3 / 0.7) + (1 - beta) * (1 - 1 / 3) / beta
    assert sum(odds) / len(odds) == pytest.approx(expected, abs=0.2)


# ── a model that judges itself ─────────────────────────────────────────────────────────────────────────────────────────
class Assistant(Tabular):
    """The toy policy, which also judges. Where it `checks` it sees who is right; else it goes by what it would say itself."""

    checks = False

    def submit(self, request: Request, /) -> Future[Response]:
        if not request.choices:
            return super().submit(request)
        judge = weighing(self._probs)
        future = judge.submit(request)
        judge.flush()
        return future

    def _probs(self, request: Request) -> dict[str, float]:
        seen = shown(request)
        a, b = (self._worth(seen["task"], seen[f"answer {letter}"]) for letter in "AB")
        return {"A": sigmoid(2 * (a - b)), "B": sigmoid(2 * (b - a))}

    def _worth(self, task: str, said: str) -> float:
        if self.checks:
            return nearness(task, said)
        return next(iter(self.log_probs([Turn(task, Completion(said))])))[0]

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Assistant:
        return self._own(super().fit(examples, plan=plan, reference=reference, seed=seed, seen=seen))

    def load(self, folder: Path, /) -> Assistant:
        return self._own(super().load(folder))

    def _own(self, made: Tabular) -> Assistant:
        made.__class__ = type(self)
        assert isinstance(made, Assistant)
        return made


class Checker(Assistant):
    """It checks better than it does."""

    checks = True


def muddled(kind: type[Assistant]) -> Assistant:
    """Of half of the digits it is rather sure of the wrong one, of the others it half knows the right one."""
    rows = [replace(row, completion=str((int(row.completion) + 1) % 10)) if int(row.completion) % 2 else row for row in REAL]  # type: ignore[arg-type]
    plan = FitPlan(lr=0.1, epochs=1, batch=16, schedule="constant")
    made = Tabular([str(n) for n in range(10)], memory=0.0).fit(rows, plan=plan, reference=None, seed=0, seen=nothing_seen)
    return kind._own(kind(), made)


def checker() -> Assistant:
    """For run files."""
    return muddled(Checker)


def test_judging_oneself_helps_where_judging_is_easier_than_doing_and_not_where_it_is_not(tmp_path: Path) -> None:
    """By the likeliest answer: being surer of what it says anyway would count as better by draws."""
    gains = {}
    likeliest = PassRate(HELD_OUT, Draw(1, Sampling(temperature=0.0)), Exact())
    for kind in (Checker, Assistant):
        both = muddled(kind)
        plan = FitPlan(lr=0.05, epochs=6, batch=8, schedule="constant")
        made = sppo(bench(probes=(likeliest,)), n=12, rounds=4, beta=0.1, plan=plan, mix="paper")
        found = played(made, tmp_path / kind.__name__, {"policy": both, "judge": both})
        rates = track(found, "pass_rate")
        gains[kind] = rates[-1] - rates[0]
    assert gains[Checker] > 0.05 and gains[Assistant] <= 0


# ── a judge that loves length ──────────────────────────────────────────────────────────────────────────────────────────
WORDY = [str(n) for n in range(10)] + [f"{n}{' and so on' * k}" for n in range(10) for k in (1, 2, 3)]


def test_a_judge_that_loves_length_is_caught_by_the_alarm_and_at_equal_length(tmp_path: Path) -> None:
    def longer(request: Request) -> dict[str, float]:
        seen = shown(request)
        if "answer" in seen:
            return {str(1 + 3 * min(3, len(seen["answer"]) // 10)): 1.0}
        p = sigmoid(2 * math.log(len(seen["answer A"]) / len(seen["answer B"])))
        return {"A": p, "B": 1 - p}

    start = Tabular(WORDY, memory=0.0).fit(REAL, plan=FitPlan(lr=0.05, epochs=1, batch=16), reference=None, seed=0, seen=nothing_seen)
    against = PairwiseJudge(against=Baseline())
    wins = tuple(Preference(HELD_OUT, Draw(n=1), against, statistic=name, margin=1.0) for name in ("win_rate", "at_equal_length"))  # type: ignore[arg-type]
    models = {"policy": start, "judge": weighing(longer, "length"), "baseline": start}
    plan = FitPlan(lr=1.0, epochs=2, batch=32, schedule="constant")

    def run(divergence: str, rounds: int) -> RunDir:
        world = bench(probes=(*bench().probes, *wins), divergence=divergence)
        return played(d_rlaif(world, rounds=rounds, n=8, plan=plan, mix="paper"), tmp_path / divergence, models)

    refused = run("refuse", 1).rounds()[0]
    assert refused.record["outcome"] == "refused" and any("reward up, check down" in line for line in refused.record["alarms"])
    found = run("warn", 3)
    assert all(turn.promoted and any("reward up, check down" in line for line in turn.record["alarms"]) for turn in found.rounds())
    raw, equal = track(found, "preference"), track(found, "preference_at_equal_length")
    assert raw[1] > raw[0] + 0.1 and abs(equal[1] - equal[0]) < (raw[1] - raw[0]) / 2
    told = [line for line in summary(found).headings if line.startswith("mostly length: preference ")]
    assert len(told) == 1 and "where answers are equally long" in told[0]


def test_a_reward_model_that_learnt_to_love_length_is_caught_in_the_phase_after_it(tmp_path: Path) -> None:
    """The alarm's ruler is the policy as its phase began, though the phase before it measured other probes."""

    def longer(request: Request) -> dict[str, float]:
        seen = shown(request)
        p = sigmoid(3 * math.log(len(seen["answer A"]) / len(seen["answer B"])))
        return {"A": p, "B": 1 - p}

    start = Tabular(WORDY, memory=0.0).fit(REAL, plan=FitPlan(lr=0.05, epochs=1, batch=16), reference=None, seed=0, seen=nothing_seen)
    made = rlaif(bench(divergence="refuse"), reward_plan=REWARD, rounds=3, n=8, plan=FitPlan(lr=0.1, epochs=2, batch=32), mix="paper")
    found = played(made, tmp_path, {"policy": start, "judge": weighing(longer, "length")})
    label, first, *later = found.rounds()
    assert label.phase == "reward" and label.promoted and first.promoted
    assert any("reward up, check down" in line and "pass_rate" in line for turn in later for line in turn.record["alarms"])
