"""Judging by a score from 1 to 10, read off the probabilities of the ten numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from outcross.errors import ConfigError
from outcross.judgement import DECIMALS, Judgement, written
from outcross.stages import Context, Dialogue, Role, Stage
from outcross.text import prompt_text
from outcross.types import Canary, Ground, Group, Sample, Score
from outcross.verify.each import with_score
from outcross.verify.judge_ask import Sampled, Way, Weighed, can_be_judged, in_order, nonce_of, not_judged, way_of, weighed
from outcross.verify.judge_canaries import obvious
from outcross.verify.judge_pairwise import USUAL
from outcross.verify.judge_prompt import Answered, Instructions, Question, body_of, prompt_of

SCALE = tuple(map(str, range(1, 11)))
_PREAMBLE = (
    "You are an expert who rates answers. Below are a task and an answer to it. Rate how good the answer is from 1 to 10, "
    "where 1 is awful and 10 is perfect."
)
_ENDING = "How good is the answer, from 1 to 10? Reply with the number alone."
_CUE = "Rating from 1 to 10:"


@dataclass(frozen=True)
class RatedExample:
    """A worked example: a task, an answer and its score."""

    task: str
    answer: str
    score: int
    principle: str = ""


def mean_score(probs: Sequence[float]) -> float:
    """The mean of 1 … 10 by their probabilities (direct RLAIF, arXiv:2309.00267 v3 §2.2.2 and appendix D)."""
    return sum((place + 1) * p for place, p in enumerate(probs))


def rescaled(mean: float) -> float:
    """1 … 10 as 0 … 1. Direct RLAIF's reward in −1 … 1 is twice this minus 1."""
    return (mean - 1) / 9


@dataclass(frozen=True)
class PointwiseJudge(Stage):
    """Passes an answer by the score from 1 to 10 that a judging model gives it: the mean of the ten numbers by their likelihoods,
    renormalised over the ten (direct RLAIF, arXiv:2309.00267).

    The value is (mean − 1) / 9: evenly spread numbers give ½, certainty of "10" gives 1, of "1" 0; `passes_at` or more passes. "10" is
    scored as the whole text; where a tokenizer writes it as "1" and "0", its likelihood is taken off that of "1". A judge without
    log-probabilities, or an endpoint that weighs single tokens where "10" is several, is asked `sampled.n` times and the evidence says so.

    instructions: preamble, principles of which each label draws one, plain text for base models. examples: shown before each question.

    An answer of the judge that is missing or unreadable is an error. Texts of samples stand behind a fence.
    """

    role: Role = "judge"
    passes_at: float = 0.5
    instructions: Instructions = Instructions()
    examples: tuple[RatedExample, ...] = ()
    sampled: Sampled = Sampled()
    ground: ClassVar[Ground] = "judged"

    def __post_init__(self) -> None:
        if not 0 <= self.passes_at <= 1:
            raise ConfigError(f"pointwise_judge: passes_at is {self.passes_at}; it is a value, 0 to 1: (score − 1) / 9")
        wrong = [item.score for item in self.examples if not 1 <= item.score <= 10]
        if wrong:
            raise ConfigError(f"pointwise_judge: an example has the score {wrong[0]}; scores are 1 to 10")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.role,)

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """Obvious ones. None for instructions of one's own, under which others may be obvious (`with_canaries`), and where every sample passes."""
        return obvious() if self.instructions.usual and self.passes_at > 0 else ()

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        """For groups of four samples; see `calls_for`."""
        return self.calls_for(tasks, USUAL)

    def calls_for(self, tasks: int, samples: int, /) -> Mapping[Role, int]:
        """At most what groups of so many samples cost, with the one question that finds out what the judge can do."""
        return {self.role: 1 + tasks * samples}

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        way = way_of(ctx, self.role, SCALE)

        def asked(group: Group) -> list[Dialogue[tuple[Weighed, int]]]:
            return [self._dialogue(ctx, group, sample, way) for sample in group.samples if can_be_judged(sample)]

        yield from in_order(ctx, groups, asked, lambda group, said: self._joined(ctx, group, said))

    def _dialogue(self, ctx: Context, group: Group, sample: Sample, way: Way) -> Dialogue[tuple[Weighed, int]]:
        key = (self.role, group.task.id, sample.id)
        nonce = nonce_of(ctx, *key)
        principles = self.instructions.principles
        place = ctx.rng("judge principle", *key).randrange(len(principles)) if principles else -1
        question = self._question(prompt_text(group.task.prompt), sample.text, principles[place] if principles else "", nonce)
        examples = [Answered(self._question(item.task, item.answer, item.principle, nonce), str(item.score)) for item in self.examples]
        prompt = prompt_of(question, examples, None, plain_text=self.instructions.plain_text)
        found = yield from weighed(self.role, prompt, SCALE, way, self.sampled, ctx.seed_of("judge", *key))
        return found, place

    def _question(self, task: str, answer: str, principle: str, nonce: str) -> Question:
        body = body_of(self.instructions.preamble or _PREAMBLE, principle, (("task", task), ("answer", answer)), nonce)
        return Question(body, _ENDING, _CUE)

    def _joined(self, ctx: Context, group: Group, said: Sequence[tuple[Weighed, int]]) -> Group:
        judge, answers = ctx.model(self.role).id, iter(said)
        samples = []
        for sample in group.samples:
            found = next(answers) if can_be_judged(sample) else None
            samples.append(sample if sample.error else with_score(sample, self._score(sample, found, judge)))
        return Group(group.task, tuple(samples))

    def _score(self, sample: Sample, found: tuple[Weighed, int] | None, judge: str) -> Score:
        name, version = self.name, self.version
        if found is None:
            return not_judged(self, sample)
        answer, principle = found
        if answer.error:
            return Score(name, version, "error", None, answer.error[:200], written(Judgement(self.role, judge, principle=principle)))
        mean = round(mean_score(answer.probs), DECIMALS)
        value = rescaled(mean)
        evidence = written(Judgement(self.role, judge, answer.by, mean=mean, principle=principle))
        passed = value >= self.passes_at
        return Score(name, version, "pass" if passed else "fail", value, "" if passed else "the score is too low", evidence)
