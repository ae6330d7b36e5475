"""Canaries, the stop rule on errors, and how long verifiers took: through real runs of the toy model."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from helpers import context
from judges import weighing
from toys import HELD_OUT, TASKS, model, outcomes, phase, play, recipe, record

from outcross.engine import canaries
from outcross.engine.budget import Meter
from outcross.engine.conserve import ErrorRule
from outcross.engine.past import Recorded
from outcross.engine.stopwatch import Stopwatch
from outcross.engine.store import RunDir, read_json
from outcross.engine.tables import rows_of
from outcross.errors import CanaryFailed, ConfigError, TooManyErrors
from outcross.evaluate.pass_rate import PassRate
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.stages import Ask, Context, Dialogue, Stage, Verifier, canaries_of
from outcross.types import Canary, Completion, Ground, Group, Request, Response, Sample, Score, Task
from outcross.verify.arithmetic import Number
from outcross.verify.code import Code
from outcross.verify.combine import AllOf, FirstDecisive, Retried, WeightedSum
from outcross.verify.each import Finding, scored, with_score
from outcross.verify.exact import Exact
from outcross.verify.function import Function
from outcross.verify.judge_pairwise import Baseline, PairwiseJudge
from outcross.verify.judge_pointwise import PointwiseJudge
from outcross.verify.judge_prompt import Instructions
from outcross.verify.judge_rubric import Criterion, RubricJudge
from outcross.verify.math import Math
from outcross.verify.reasoning_gym import ReasoningGymScorer
from outcross.verify.regenerated import Regenerated
from outcross.verify.reward_model import RewardModel
from outcross.verify.vote import Vote
from outcross.verify.with_canaries import WithCanaries

SUM = Task("two and two", "2+2=", "4")


@dataclass(frozen=True)
class Lenient(Stage):
    """A broken verifier: it passes everything."""

    canaries: ClassVar[tuple[Canary, ...]] = (Canary(SUM, ("4", "5"), ("pass", "fail")),)
    ground: ClassVar[Ground] = "exact"
    broken: bool = True

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored(self, groups, self._judge)

    def _judge(self, task: Task, text: str) -> Finding:
        right = self.broken or text == task.answer
        return ("pass", "", "") if right else ("fail", "differs", "")


@dataclass(frozen=True)
class Flaky(Stage):
    """Gives an error on answers whose last digit is in `digits`; its canaries err the first `times` times."""

    digits: str = ""
    seen: tuple[list[int], ...] = ()
    times: int = 0
    canaries: ClassVar[tuple[Canary, ...]] = (Canary(SUM, ("4", "5"), ("pass", "fail")),)
    ground: ClassVar[Ground] = "exact"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored(self, groups, self._judge)

    def _judge(self, task: Task, text: str) -> Finding:
        if task == SUM and not self.seen:
            return ("pass", "", "") if text == task.answer else ("fail", "differs", "")
        if task == SUM:
            self.seen[0].append(1)
            if len(self.seen[0]) <= self.times:
                return "error", "timeout", ""
        elif text[-1:] in self.digits:
            return "error", f"cannot read {'even' if int(text[-1]) % 2 == 0 else 'odd'} numbers", text
        return ("pass", "", "") if text == task.answer else ("fail", "differs", "")


# ── the verifiers that ship ────────────────────────────────────────────────────────────────────────────────────────────
SHIPPED: list[Verifier] = [
    Exact(),
    Exact(casefold=True, pattern=r"#### (.*)"),
    Exact(pattern="no usual form: (.*)"),
    Number(),
    Number(tolerance=0.5),
    Number(tolerance=1e300),
    Math(),
    Code(),
    Vote(),
    Vote(pattern=r"\\boxed\{(.*)\}", at_least=0.25, at_most=0.75),
    Vote(at_least=0.99, at_most=0.995, fewest=7),
    Vote(at_least=1.0),
    Regenerated(),
    Regenerated(threshold=1.0, n=1),
    ReasoningGymScorer(),
    ReasoningGymScorer(pattern=r"<answer>(.*)</answer>"),
]


@pytest.mark.parametrize("verifier", SHIPPED, ids=repr)
def test_every_shipped_verifier_judges_its_canaries_as_it_declares(verifier: Verifier, tmp_path: Path) -> None:
    (tried,) = canaries.check(context(tmp_path), (verifier,), "verify")
    assert (tried.verifier, tried.version) == (verifier.name, verifier.version)
    wanted = [verdict for canary in canaries_of(verifier) for verdict in canary.expected]
    assert (tried.gold, tried.bad) == (wanted.count("pass"), wanted.count("fail"))
    assert tried.gold + tried.bad + tried.other == len(wanted)
    if "no usual form" not in repr(verifier):
        assert tried.gold and (tried.bad or repr(verifier) == repr(Vote(at_least=1.0)))


def test_verifiers_inside_others_are_tried_by_themselves_and_once(tmp_path: Path) -> None:
    nested = FirstDecisive((Exact(), AllOf((Number(), Retried(Exact())))))
    found = canaries.check(context(tmp_path), (nested, Exact()), "verify")
    assert [item.verifier for item in found] == ["exact", "number"]


def reward(prompts: list[str], completions: list[str], answer: list[str]) -> list[float | None]:
    return [float(said == right) for said, right in zip(completions, answer, strict=True)]


def test_a_function_may_be_given_canaries_and_one_without_is_named(tmp_path: Path) -> None:
    known = (Canary(SUM, ("4", "5"), ("pass", "fail")),)
    assert canaries.without((Function(reward), Exact(), AllOf((Exact(), Function(reward))))) == ["reward"]
    (tried,) = canaries.check(context(tmp_path), (Function(reward, canaries=known),), "verify")
    assert (tried.gold, tried.bad, tried.other) == (1, 1, 0)
    wrong = Function(reward, canaries=(Canary(SUM, ("5",), ("pass",)),))
    with pytest.raises(CanaryFailed, match="'5' must be judged pass"):
        canaries.check(context(tmp_path), (wrong,), "verify")


def test_any_verifier_may_be_given_canaries_of_ones_own(tmp_path: Path) -> None:
    mine = Canary(Task("mine", "6*7=", "42"), ("it is 42", "it is 43"), ("pass", "fail"))
    given = WithCanaries(Number(), (mine,))
    assert [(item.gold, item.bad) for item in canaries.check(context(tmp_path), (given,), "verify")] == [(1, 1), (1, 2)]
    with pytest.raises(CanaryFailed, match=r"exact .* failed its canary 'mine'"):
        canaries.check(context(tmp_path), (WithCanaries(Exact(), (mine,)),), "verify")
    for wrong, told in (((), "canaries is empty"), ((mine, mine), "two canaries are called 'mine'")):
        with pytest.raises(ConfigError, match=told):
            WithCanaries(Exact(), wrong)


class Odd(Lenient):
    def canaries(self) -> tuple[Canary, ...]:  # type: ignore[override]
        return ()


def test_canaries_that_are_none_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"the canaries of odd are <bound method .*; they must be a list or tuple of outcross.Canary"):
        canaries_of(Odd())


def test_a_canary_has_one_verdict_an_answer() -> None:
    with pytest.raises(ValueError, match="has 2 answers and 1 expected verdicts"):
        Canary(SUM, ("4", "5"), ("pass",))


# ── in a run ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_canaries_are_on_the_record_of_every_round_and_of_the_start(tmp_path: Path) -> None:
    found = play(recipe(phase(verify=(AllOf((Exact(), Number())),))), tmp_path)
    for turn in found.rounds():
        told = turn.record["canaries"]
        assert [(item["before"], item["verifier"], item["gold"], item["bad"]) for item in told] == [
            ("verify", "exact", 1, 1),
            ("verify", "number", 1, 2),
            ("probe", "exact", 1, 1),
        ]
        assert set(turn.record["files"]) >= {"steps/generate.canaries.json", "measurements.canaries.json"}
    assert read_json(tmp_path / "start" / "measurements.canaries.json")[0]["verifier"] == "exact"
    again = play(recipe(phase(verify=(AllOf((Exact(), Number())),))), tmp_path / "again")
    assert record(again.root) == {name: data for name, data in record(tmp_path).items() if not name.startswith("again")}


def test_a_failed_canary_stops_the_run_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(CanaryFailed) as caught:
        play(recipe(phase(verify=(Exact(), AllOf((Lenient(),))))), tmp_path)
    told = str(caught.value)
    for part in (
        "the verifier lenient (version 1)",
        "'two and two'",
        "'5' must be judged fail (known bad)",
        "judged pass",
        "outcross selftest",
    ):
        assert part in told
    found = RunDir(tmp_path)
    assert found.rounds() == [] and not (tmp_path / "train/0000/groups.parquet").exists()
    done = play(recipe(phase(verify=(Exact(), AllOf((replace(Lenient(), broken=False),))))), tmp_path / "repaired")
    assert outcomes(done) == ["promoted", "promoted"]


def test_a_probe_is_tried_as_well(tmp_path: Path) -> None:
    probe = PassRate(HELD_OUT, Draw(n=1), Lenient(), label="lenient")
    plain = recipe().bench.probes
    with pytest.raises(CanaryFailed, match="lenient"):
        play(recipe(probes=(*plain, probe)), tmp_path)
    assert not (tmp_path / "start/measurements.parquet").exists()


def test_an_error_on_a_canary_is_asked_about_once_more(tmp_path: Path) -> None:
    (tried,) = canaries.check(context(tmp_path), (Flaky(seen=([],), times=1),), "verify")
    assert tried.gold == tried.bad == 1
    with pytest.raises(CanaryFailed, match=r"must be judged pass \(gold\), and it was judged error \(timeout\)"):
        canaries.check(context(tmp_path), (Flaky(seen=([],), times=9),), "verify")


@dataclass(frozen=True)
class Asks(Stage):
    """A judge in one word, by the model in the role `judge`."""

    roles: ClassVar[tuple[str, ...]] = ("judge",)
    canaries: ClassVar[tuple[Canary, ...]] = (Canary(SUM, ("4", "5"), ("pass", "fail")),)
    ground: ClassVar[Ground] = "judged"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple(ctx.run(self._judge(group.task, sample) for sample in group.samples)))

    def _judge(self, task: Task, sample: Sample) -> Dialogue[Sample]:
        said = yield Ask("judge", Request(f"{task.prompt}{sample.text}"))
        right = said.completions[0].content == "right"
        return with_score(sample, Score(self.name, self.version, "pass" if right else "fail", float(right)))


def test_a_judges_canaries_go_through_the_runs_journal_and_cost_nothing_twice(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        left, right = str(request.prompt).split("=")
        return "right" if str(sum(map(int, left.split("+")))) == right else "wrong"

    judge = Scripted(answer, name="honest")
    made = recipe(phase(verify=(Asks(),), rounds=1))
    found = play(made, tmp_path, {"policy": model(), "judge": judge}, unsafe=True)
    (tried, *_) = found.rounds()[0].record["canaries"]
    assert (tried["verifier"], tried["gold"], tried["bad"]) == ("asks", 1, 1)
    asked = judge.requests
    found.rounds()[0].record_path.unlink()
    (tmp_path / "train/0000/steps/generate.json").unlink()
    play(made, tmp_path, {"policy": model(), "judge": judge}, unsafe=True)
    assert judge.requests == asked, "canaries are tried again and answered by the journal"
    blind = Scripted(["right"], name="blind")
    with pytest.raises(CanaryFailed, match="the verifier asks "):
        play(made, tmp_path / "blind", {"policy": model(), "judge": blind}, unsafe=True)
    assert blind.requests == 2, "nothing but the canaries was asked"


# ── the stop rule ──────────────────────────────────────────────────────────────────────────────────────────────────────
def test_too_many_errors_stop_the_run_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    made = recipe(phase(verify=(Flaky("02468"),), rounds=1))
    rule = ErrorRule(share=0.2, after=40)
    with pytest.raises(TooManyErrors) as caught:
        play(made, tmp_path, errors=rule)
    told = str(caught.value)
    assert "verify flaky: " in told and "the run allows 20% after 40 answers" in told and "cannot read even numbers" in told
    answers = requests(tmp_path)
    assert answers and RunDir(tmp_path).rounds() == []
    found = play(made, tmp_path, errors=ErrorRule(share=1.0))
    assert len(found.rounds()) == 1
    (counted,) = [item for item in found.rounds()[0].record["counts"] if item["stage"] == "verify"]
    assert counted["failed"] == counted["detail"]["error"] > 0
    whole = play(made, tmp_path / "whole", errors=ErrorRule(share=1.0))
    assert record(whole.root) == {name: data for name, data in record(tmp_path).items() if not name.startswith("whole")}
    assert requests(tmp_path) == requests(tmp_path / "whole")


def requests(root: Path) -> int:
    from contextlib import closing

    from outcross.engine.budget import Budget
    from outcross.engine.journal import Journal

    with closing(Journal(root / "responses.db")) as journal:
        return Meter(Budget(), journal).requests


def test_few_errors_or_few_answers_stop_nothing(tmp_path: Path) -> None:
    made = recipe(phase(verify=(Flaky("02468"),), rounds=1))
    assert len(play(made, tmp_path / "share", errors=ErrorRule(share=0.99, after=1)).rounds()) == 1
    fewer = 6 * len(TASKS) + 1
    assert len(play(made, tmp_path / "after", errors=ErrorRule(share=0.0, after=fewer)).rounds()) == 1


# ── judges ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def always(probs: Mapping[str, float]) -> Scripted:
    """A judge that says the same of everything."""

    def answer(request: Request) -> Response:
        if not request.choices:
            return Response(
                (
                    Completion(
                        '{"correct": {"reason": "", "mark": 5}, "complete": {"reason": "", "mark": 5}, "clear": {"reason": "", "mark": 5}}'
                    ),
                )
            )
        return Response((Completion("", choice_log_probs=tuple(math.log(probs.get(item.strip(), 1e-9)) for item in request.choices)),))

    return Scripted(answer, name="always")


@pytest.mark.parametrize("verifier", [PairwiseJudge(), PairwiseJudge(against="reference"), PointwiseJudge(), RubricJudge()])
def test_a_judge_that_says_the_same_of_everything_stops_the_run(tmp_path: Path, verifier: Verifier) -> None:
    """It prefers the place that is shown first, or gives full marks to all."""
    with pytest.raises(CanaryFailed, match=f"{verifier.name}.*failed its canary 'a sum'"):
        play(
            recipe(phase(verify=(Exact(), verifier), learn={}, curate=(), rounds=1)),
            tmp_path,
            {"policy": model(), "judge": always({"A": 0.9, "B": 0.1, "10": 1.0})},
        )
    assert not list(tmp_path.rglob("groups.parquet")), "nothing was judged by it"


@pytest.mark.parametrize(
    "verifier", [PairwiseJudge(), PairwiseJudge(against="first"), PairwiseJudge(against="reference"), PointwiseJudge()]
)
def test_a_judge_that_knows_the_obvious_goes_on_and_the_record_says_so(tmp_path: Path, verifier: Verifier) -> None:
    knowing = weighing(lambda request: {"A": 0.5, "B": 0.5, "5": 1.0}, "knowing")
    found = play(recipe(phase(verify=(Exact(), verifier), learn={}, curate=(), rounds=1)), tmp_path, {"policy": model(), "judge": knowing})
    (tried,) = [item for item in canaries.recorded(found.rounds()[0]) if "judge" in item["verifier"] and item["before"] == "verify"]  # type: ignore[index]
    alone = getattr(verifier, "against", "") == "reference"
    assert (tried["gold"], tried["bad"]) == (0 if alone else 2, 2)  # type: ignore[index]


def test_a_judge_of_something_else_than_good_answers_has_the_canaries_that_its_user_declares() -> None:
    """What is obvious under other instructions, against a model's answer, or to a reward model, nobody else knows."""
    kind = Instructions(principles=("Prefer the kinder answer.",))
    free: list[Verifier] = [
        PairwiseJudge(instructions=kind),
        PairwiseJudge(against=Baseline()),
        PairwiseJudge(passes_at=0.0),
        PointwiseJudge(instructions=Instructions("Rate its length.")),
        RubricJudge(preamble="Be strict."),
        RubricJudge(criteria=(Criterion("kind", "Is it kind?"),)),
        RewardModel(),
    ]
    assert [canaries_of(item) for item in free] == [()] * len(free)
    own = (Canary(SUM, ("4", "5"), ("pass", "fail")),)
    assert canaries_of(RewardModel(canaries=own)) == canaries_of(WithCanaries(free[0], own)) == own


# ── durations ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_time_that_verifiers_took_is_in_the_metrics_and_nowhere_else(tmp_path: Path) -> None:
    found = play(recipe(phase(verify=(Exact(), Number()), rounds=1)), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (took,) = [line["verifiers"] for line in lines if line["step"] == "generate"]
    assert set(took) == {"exact", "number"} and all("verifiers" not in line for line in lines if line["step"] != "generate")
    for item in took.values():
        assert item["samples"] == 6 * len(TASKS) and item["seconds"] > 0
        assert item["seconds_per_sample"] == pytest.approx(item["seconds"] / item["samples"], abs=1e-6)
    assert "seconds" not in json.dumps(found.rounds()[0].record)


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_stopwatch_counts_neither_waiting_for_input_nor_idling(ahead: int) -> None:
    clock = Stopwatch()

    def source() -> Iterator[int]:
        for item in range(6):
            time.sleep(0.02)
            yield item

    def stage(items: Iterable[int]) -> Iterator[int]:
        held: list[int] = []
        for item in items:
            held.append(item)
            time.sleep(0.01)
            if len(held) == ahead:
                yield held.pop(0)
        yield from held

    for _ in clock.out(stage(clock.into(source()))):
        time.sleep(0.02)
    assert 0.06 <= clock.seconds < 0.11


def test_two_verifiers_of_one_name_are_counted_each(tmp_path: Path) -> None:
    found = play(recipe(phase(verify=(Exact(), Exact(casefold=True)), rounds=1)), tmp_path)
    counts = [item["in"] for item in found.rounds()[0].record["counts"] if item["stage"] == "verify"]
    assert counts == [6 * len(TASKS)] * 2


# ── errors are no numbers ──────────────────────────────────────────────────────────────────────────────────────────────
def test_an_error_is_a_number_nowhere_on_the_record(tmp_path: Path) -> None:
    """Not in the tables, not for later rounds, not among what is learnt, and not in a combination that asked for the weighted sum."""
    summed = WeightedSum((Flaky("02468"), Exact()), passes_at=0.4)
    found = play(recipe(phase(verify=(Flaky("02468"), summed), rounds=1)), tmp_path, errors=ErrorRule(share=1.0))
    turn = found.rounds()[0]
    rows = [row for name in ("groups", "drops") for row in rows_of(turn.folder / f"{name}.parquet")]
    erred = {row["id"] for row in rows if row["verdict"] == "error"}
    assert erred and all(row["value"] is None for row in rows if row["id"] in erred)
    for row in rows:
        for score in row["scores"]:
            assert (score["value"] is None) == (score["verdict"] == "error")
        assert len({score["verdict"] == "error" for score in row["scores"]}) == 1, "the sum takes no missing part for a zero"
    learnt = {parent for example in turn.examples() for parent in example.origin.parents}
    assert learnt and not learnt & erred
    past = Recorded(found, tuple(found.rounds()), (), tmp_path)
    assert all((item.value is None) == (item.verdict == "error") for task in TASKS for item in past.outcomes(task.id))
    with pytest.raises(ValueError, match="only pass and fail have a value"):
        Score("any", "1", "error", 0.0)
