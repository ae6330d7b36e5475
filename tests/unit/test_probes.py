"""Probes on a model that answers and scores for real, up to the gate."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from outcross.errors import ConfigError, StageError
from outcross.evaluate.diversity import Diversity
from outcross.evaluate.pass_rate import PassRate
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.statistics import entropy, half_samples
from outcross.gate.non_inferior import NonInferior
from outcross.recipe import fingerprint
from outcross.stages import Ask, Context, Dialogue, Model, Probe, Stage, T
from outcross.text import prompt_text
from outcross.types import (
    SYNTHETIC,
    Comparison,
    Completion,
    Example,
    Ground,
    Group,
    Measurement,
    Outcome,
    Request,
    Response,
    Review,
    Sample,
    Score,
    Task,
    Turn,
    sample_id,
)


@dataclass(frozen=True)
class Voter:
    """Answers each question with the right word with chance `right`, else with a word of `habit`."""

    right: float
    habit: Mapping[str, float]
    fails: frozenset[str] = frozenset()
    depth: int = 0

    @property
    def id(self) -> str:
        return fingerprint((self.right, dict(self.habit), self.fails))

    def close(self) -> None: ...
    def flush(self) -> None: ...

    def submit(self, request: Request, /) -> Future[Response]:
        rng, answer = random.Random(request.seed), Future[Response]()
        question = prompt_text(request.prompt)
        if question in self.fails:
            answer.set_result(Response(error="the endpoint timed out"))
            return answer
        said = [question.split()[-1] if rng.random() < self.right else rng.choices(*zip(*self.habit.items()))[0] for _ in range(request.n)]
        answer.set_result(Response(tuple(map(Completion, said))))
        return answer

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        for turn in turns:
            said = str(turn.completion.content)
            chance = self.right * (said == prompt_text(turn.prompt).split()[-1]) + (1 - self.right) * self.habit.get(said, 0.0)
            yield [math.log(chance) if chance else -math.inf, math.log(0.5)]


@dataclass(frozen=True)
class Ask2(Stage):
    n: int = 2
    roles: ClassVar[tuple[str, ...]] = ("policy",)

    def calls(self, tasks: int, /) -> Mapping[str, int]:
        return {"policy": tasks}

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        def dialogue(task: Task) -> Dialogue[Group]:
            response = yield Ask("policy", Request(task.prompt, self.n, seed=ctx.seed_of("draw", task.id)))
            if response.error:
                return Group(task, (Sample(sample_id(task.id, 0, (), SYNTHETIC), (), SYNTHETIC, error=response.error),))
            turns = [(Turn(task.prompt, completion),) for completion in response.completions]
            return Group(task, tuple(Sample(sample_id(task.id, i, turn, SYNTHETIC), turn, SYNTHETIC) for i, turn in enumerate(turns)))

        return ctx.run(dialogue(task) for task in tasks)


@dataclass(frozen=True)
class Equal(Stage):
    """Abstains on the words in `unsure`."""

    unsure: tuple[str, ...] = ()
    ground: ClassVar[Ground] = "exact"
    roles: ClassVar[tuple[str, ...]] = ("policy", "judge")

    def calls(self, tasks: int, /) -> Mapping[str, int]:
        return {"policy": tasks, "judge": 1}

    def score(self, task: Task, sample: Sample) -> Score:
        if sample.text in self.unsure:
            return Score("equal", "1", "abstain", reason=f"{sample.text!r} is unclear")
        return Score("equal", "1", "pass" if sample.text == task.answer else "fail")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(
                group.task,
                tuple(
                    s if s.error else Sample(s.id, s.turns, s.origin, s.seat, (*s.scores, self.score(group.task, s))) for s in group.samples
                ),
            )


class NoPast:
    real: Iterable[Example] = ()

    def groups(self, phase: str | None = None, /) -> Iterator[Group]:
        return iter(())

    def outcomes(self, task_id: str, /) -> Sequence[Outcome]:
        return ()

    def reviews(self) -> Sequence[Review]:
        return ()

    def state(self, stage: str, /) -> Path:
        raise AssertionError("probes have no state")


class OneByOne:
    def __call__(self, ctx: Context, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]:
        for dialogue in dialogues:
            ask = next(dialogue)
            try:
                while True:
                    asked = ctx.model(ask.role).submit(ask.request)  # type: ignore[attr-defined]
                    ask = dialogue.send(asked.result())
            except StopIteration as stop:
                yield stop.value


def context(policy: Model) -> Context:
    return Context({"policy": policy}, NoPast(), "probe", 0, 7, OneByOne())


WORDS = {"yes": 0.5, "no": 0.5}


def votes(count: int) -> tuple[Task, ...]:
    """The prompt ends in its answer, so that the toy model can know it."""
    return tuple(Task(f"t{i}", f"question {i} {('yes', 'no')[i % 2]}", ("yes", "no")[i % 2]) for i in range(count))


@dataclass(frozen=True)
class Bad:
    """Scores with what it is told."""

    scores: tuple[tuple[float, ...], ...]
    id: str = "bad"
    depth: int = 0
    seen: list[Turn] = field(default_factory=list)

    def close(self) -> None: ...

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        self.seen.extend(turns)
        return iter(self.scores)


def test_pass_rate_is_the_share_of_decided_samples_that_pass() -> None:
    tasks = votes(400)
    found = PassRate(tasks, Ask2(4), Equal())(context(Voter(0.6, WORDS)))
    assert found.items == tuple(task.id for task in tasks) and found.unit == "share"
    assert set(found.values) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert found.mean == pytest.approx(0.6 + 0.4 * 0.5, abs=0.04)
    assert PassRate(tasks, Ask2(4), Equal())(context(Voter(0.6, WORDS))) == found
    unsure = PassRate(tasks, Ask2(16), Equal(unsure=("maybe",)))(context(Voter(0.5, {"maybe": 0.9, "other": 0.1})))
    assert unsure.mean == pytest.approx(0.5 / 0.55, abs=0.02)


def test_pass_rate_leaves_out_few_undecided_items_and_refuses_many() -> None:
    tasks = votes(100)
    few = Voter(1.0, WORDS, frozenset(str(task.prompt) for task in tasks[:5]))
    found = PassRate(tasks, Ask2(), Equal())(context(few))
    assert found.items == tuple(task.id for task in tasks[5:]) and found.mean == 1.0
    many = Voter(1.0, WORDS, frozenset(str(task.prompt) for task in tasks[:6]))
    with pytest.raises(StageError, match=r"could not measure 6 of 100 items; at most 5%.*'t0': the endpoint timed out"):
        PassRate(tasks, Ask2(), Equal())(context(many))
    with pytest.raises(StageError, match="'yes' is unclear"):
        PassRate(tasks, Ask2(), Equal(unsure=("yes",)))(context(Voter(1.0, WORDS)))
    with pytest.raises(StageError, match="no items"):
        PassRate((), Ask2(), Equal())(context(few))


def test_probes_declare_what_the_engine_asks_of_a_stage() -> None:
    tasks = votes(2)
    probes: list[Probe] = [
        PassRate(tasks, Ask2(), Equal(), label="votes"),
        RealLoss(()),
        Diversity(tasks, Ask2()),
        Diversity(tasks, Ask2(), "distinct", label="x"),
    ]
    assert [probe.name for probe in probes] == ["pass_rate_votes", "real_loss", "diversity_entropy", "diversity_distinct_x"]
    assert [probe.kind for probe in probes] == ["quality", "fit", "diversity", "diversity"]
    assert {probe.ground for probe in probes} == {"exact"}
    assert [probe.roles for probe in probes] == [("policy", "judge"), ("policy",), ("policy",), ("policy",)]
    assert dict(probes[0].calls(10)) == {"policy": 20, "judge": 1} and dict(probes[2].calls(10)) == {"policy": 10}
    assert len({fingerprint(probe) for probe in probes}) == 4


def test_real_loss_is_the_mean_negative_log_likelihood_per_token() -> None:
    real = [Example(f"e{i}", task.prompt, task.answer or "") for i, task in enumerate(votes(4))]
    found = RealLoss(real)(context(Voter(0.6, WORDS)))
    assert found.values == pytest.approx([-(math.log(0.8) + math.log(0.5)) / 2] * 4)
    assert found.items == ("e0", "e1", "e2", "e3") and not found.higher_is_better and found.unit == "nats per token"
    impossible = RealLoss([Example("x", "say no", "never")])(context(Voter(0.6, WORDS)))
    assert impossible.values == pytest.approx([(100 - math.log(0.5)) / 2])


@pytest.mark.parametrize(
    ("scores", "message"), [(((-1.0,),), "scored 1 of 2"), (((-1.0,), ()), "first 'e1'"), (((math.nan,), (-1.0,)), "first 'e0'")]
)
def test_real_loss_names_what_a_model_failed_to_score(scores: tuple[tuple[float, ...], ...], message: str) -> None:
    real = (Example("e0", "a", "b"), Example("e1", "c", "d"))
    model = Bad(scores)
    with pytest.raises(StageError, match=message):
        RealLoss(real)(context(model))
    assert [turn.completion.content for turn in model.seen] == ["b", "d"]
    with pytest.raises(StageError, match="no items"):
        RealLoss(())(context(Bad(())))

    class Silent:
        id, depth = "silent", 0

        def close(self) -> None: ...

    with pytest.raises(ConfigError, match="'silent' does not give"):
        RealLoss(real)(context(Silent()))


@pytest.mark.parametrize("statistic", ["entropy", "distinct", "self_overlap"])
def test_diversity_is_zero_for_the_real_answers_and_falls_with_collapse(statistic: str) -> None:
    tasks = tuple(Task(f"t{i}", f"say word{i % 40}", f"word{i % 40}") for i in range(400))
    probe = Diversity(tasks, Ask2(), statistic)  # type: ignore[arg-type]
    habits = {"word0": 0.5, "word1": 0.5}
    right, half, collapsed = (probe(context(Voter(share, habits))) for share in (1.0, 0.5, 0.0))
    assert right.values[0] == pytest.approx(0.0, abs=1e-12)
    assert right.values[0] > half.values[0] > collapsed.values[0]
    assert half.replicates is not None and len(half.replicates) == 300 and half.items == tuple(task.id for task in tasks)
    assert sum(half.replicates) / 300 == pytest.approx(half.values[0])  # halves speak of the spread alone
    if statistic == "entropy":
        assert collapsed.values[0] == pytest.approx(math.log(2) - math.log(40), abs=0.01)


def test_diversity_takes_real_answers_from_examples_and_compares_what_it_is_told() -> None:
    tasks = tuple(Task(f"t{i}", f"say {i % 4}") for i in range(40))
    real = [Example(f"e{i}", "p", f"So: {i % 4}") for i in range(50)]
    policy = context(Voter(1.0, {"0": 1.0}))
    found = Diversity(tasks, Ask2(), reference=real, answer=last_word)(policy)
    assert found.values[0] == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ConfigError, match="compares 40 answers with real ones and has 0; give its tasks answers"):
        Diversity(tasks, Ask2())(policy)
    with pytest.raises(ConfigError, match="has 39"):
        Diversity(tasks, Ask2(), reference=real[:39])(policy)
    with pytest.raises(StageError, match="could not measure"):
        Diversity(tasks, Ask2(), reference=real)(context(Voter(1.0, {}, frozenset(str(task.prompt) for task in tasks[:3]))))


def last_word(text: str) -> str:
    return text.rsplit(maxsplit=1)[-1]


def measured(policy: Voter, probes: Sequence[Probe]) -> dict[str, Measurement]:
    return {probe.name: probe(context(policy)) for probe in probes}


def test_a_policy_that_collapses_to_one_answer_is_refused_though_its_pass_rate_hardly_falls() -> None:
    tasks = votes(2000)
    probes = [PassRate(tasks, Ask2(4), Equal(), margin=0.1), Diversity(tasks, Ask2(4))]
    margins = {probe.name: probe.margin for probe in probes}
    guess = Voter(0.12, WORDS)
    champion, collapsed, unchanged = (measured(policy, probes) for policy in (guess, Voter(0.0, {"yes": 1.0}), Voter(0.14, WORDS)))
    assert champion["pass_rate"].mean == pytest.approx(0.56, abs=0.02) and collapsed["pass_rate"].mean == 0.5
    refused = NonInferior()(Comparison(collapsed, champion, champion, 0, 1, 0.05), margins)
    assert [(check.probe, check.passed) for check in refused.checks if check.against == "champion"] == [
        ("pass_rate", True),
        ("diversity_entropy", False),
    ]
    assert not refused.promote and "diversity_entropy -0.693 vs" in refused.reason
    assert NonInferior()(Comparison(unchanged, champion, champion, 0, 1, 0.05), margins).promote


def shaped(entropy: float) -> list[float]:
    """Shares of 20 answers, falling as a power law, with this entropy in nats."""
    low, high = 0.0, 6.0
    for _ in range(50):
        power = (low + high) / 2
        shares = [(k + 1) ** -power for k in range(20)]
        shares = [share / sum(shares) for share in shares]
        found = -sum(share * math.log(share) for share in shares)
        low, high = (power, high) if found > entropy else (low, power)
    return shares


@pytest.mark.parametrize("champion", [2.2, 2.5, 2.7])
def test_the_gate_keeps_alpha_on_entropy_also_where_the_champion_is_as_diverse_as_real(champion: float) -> None:
    """The candidate's entropy is exactly the margin below the lower of the champion's and the real answers', 2.5 nats."""
    margin, alpha, lineages, items = 0.15, 0.05, 400, 300
    shares = [shaped(value) for value in (min(champion, 2.5) - margin, champion, 2.5)]
    subsets = half_samples([str(number) for number in range(items)], 100)
    rng, wrong = random.Random(8), 0
    for _ in range(lineages):
        candidate, held, real = (entropy([[str(k)] for k in rng.choices(range(20), part, k=items)], subsets) for part in shares)
        found = []
        for over in (candidate - real, held - real):
            spread = over[1:] - over[1:].mean() + over[0]
            found.append(Measurement("e", tuple(map(str, range(items))), (over[0],), tuple(spread), unit="nats over real"))
        mine, theirs = ({"e": measurement} for measurement in found)
        wrong += NonInferior()(Comparison(mine, theirs, theirs, 0, 1, alpha), {"e": margin}).promote
    assert wrong / lineages <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / lineages)
