"""Judging by comparison: which of two answers is better, asked in both orders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.errors import ConfigError
from outcross.judgement import DECIMALS, Compared, Judgement, keys, written
from outcross.stages import Ask, Context, Dialogue, Role, Stage
from outcross.text import prompt_text
from outcross.types import Canary, Ground, Group, Request, Response, Sample, Sampling, Score
from outcross.verify.each import with_score
from outcross.verify.judge_ask import Sampled, Way, Weighed, can_be_judged, in_order, nonce_of, not_judged, way_of, weighed
from outcross.verify.judge_canaries import obvious
from outcross.verify.judge_prompt import Answered, Instructions, Question, body_of, explanation_of, neutral, prompt_of

LETTERS = ("A", "B")
USUAL = 4  # answers a task that `calls` reckons with
_PREAMBLE = "Below are a task and two answers to it, A and B. Decide which of the two answers the task better."
_EXPLAIN = "Explain in a few sentences what is right and wrong with each of the two answers. Do not name the better one yet."
_ENDING = "Which answer is better? Reply with the letter A or the letter B alone."
_CUE = "The better answer is answer"


@dataclass(frozen=True)
class ComparedExample:
    """A worked example: a task, two answers and which is better. rationale: reasons, for judges that reason first."""

    task: str
    a: str
    b: str
    better: Literal["A", "B"]
    principle: str = ""
    rationale: str = ""


@dataclass(frozen=True)
class Reasoning:
    """Chain of thought as two calls: reasons first, then the verdict after them (RLAIF, arXiv:2309.00267 §2.1). The reasons commit the
    judge, so that its probabilities lie near 0 and 1; they are clamped (Constitutional AI, arXiv:2212.08073 §4.3). `clamp`: 0 and 1 leave
    them as they are."""

    sampling: Sampling = Sampling(temperature=0.0, max_tokens=512)
    clamp: tuple[float, float] = (0.4, 0.6)

    def __post_init__(self) -> None:
        low, high = self.clamp
        if not 0 <= low <= 0.5 or abs(low + high - 1) > 1e-9:
            raise ConfigError(f"reasoning: clamp is {list(self.clamp)}; give two numbers with the same distance from ½, such as [0.4, 0.6]")


@dataclass(frozen=True)
class Baseline:
    """Whom every sample is compared with: one answer to the task by a role of its own."""

    role: Role = "baseline"
    sampling: Sampling = Sampling()


def clamped(p: float, bounds: tuple[float, float]) -> float:
    """`p` moved to the nearer of two bounds around ½ where it lies beyond: idempotent, and the preferred side stays the preferred one."""
    return min(max(p, bounds[0]), bounds[1])


@dataclass(frozen=True)
class _Pair:
    """A sample of the group by its place, and whom it meets: another by its place, or somebody from outside."""

    one: int
    other: int | None
    principle: int


@dataclass(frozen=True)
class PairwiseJudge(Stage):
    """Passes a sample that a judging model prefers to the other samples of its task (AI feedback, arXiv:2309.00267 §2.1).

    A pair is asked in both orders and averaged in candidate space, P(A≻B) = ½ [p₁(A,B) + p₂(B,A)], which is even in the judge's
    preference for a place and ½ where there is nothing else. p is the softmax of the log-probabilities of "A" and "B"; a judge without
    log-probabilities is asked `sampled.n` times and the evidence says so. A sample's value is its mean win probability over its pairs;
    `passes_at` or more passes. Every pair's probability stands in the evidence: `outcross.judgement.preferences` reads them.

    against: `all` other samples; a number k: with the k that follow it in a ring drawn at random, so that each sample is in 2k pairs;
        `first`: the first sample of the group; `reference`: the task's reference answer; or `{role: baseline}`: an answer by that role.
    instructions: preamble, principles of which each label draws one, plain text for base models.
    examples: shown before each question. reasoning: reasons first, in a call of their own.

    Equal texts are ½ without asking. What the judge could not be asked about, or answered unreadably, is no number: a sample of whose
    pairs half or more lack an answer is an error, and one without a pair is abstained on. Texts of samples stand behind a fence.
    """

    role: Role = "judge"
    against: Literal["all", "first", "reference"] | int | Baseline = "all"
    passes_at: float = 0.5
    instructions: Instructions = Instructions()
    examples: tuple[ComparedExample, ...] = ()
    reasoning: Reasoning | None = None
    sampled: Sampled = Sampled()
    ground: ClassVar[Ground] = "judged"
    uses_peers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.against, int) and self.against < 1:
            raise ConfigError(f"pairwise_judge: against is {self.against}; compare each sample with at least 1 other")
        if not 0 <= self.passes_at <= 1:
            raise ConfigError(f"pairwise_judge: passes_at is {self.passes_at}; it is a probability, 0 to 1")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((self.role, *([self.against.role] if isinstance(self.against, Baseline) else []))))

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """Obvious ones. None for instructions of one's own, under which others may be obvious (`with_canaries`), against a role whose answer is
        not known, and where every sample passes."""
        if not self.instructions.usual or isinstance(self.against, Baseline) or self.passes_at == 0:
            return ()
        return obvious(alone=self.against == "reference")

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        """For groups of four samples; see `calls_for`."""
        return self.calls_for(tasks, USUAL)

    def calls_for(self, tasks: int, samples: int, /) -> Mapping[Role, int]:
        """At most what groups of so many samples cost, with the one question that finds out what the judge can do."""
        pairs = samples * (samples - 1) // 2
        if isinstance(self.against, int):
            pairs = min(pairs, samples * self.against)
        elif self.against != "all":
            pairs = samples - 1 if self.against == "first" else samples
        found = {self.role: 1 + tasks * pairs * 2 * (2 if self.reasoning else 1)}
        if isinstance(self.against, Baseline):
            found[self.against.role] = found.get(self.against.role, 0) + tasks
        return found

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        way = way_of(ctx, self.role, LETTERS)

        def asked(group: Group) -> list[Dialogue[tuple[Weighed, tuple[str, int] | None]]]:
            pairs = self._pairs(ctx, group)
            return [self._dialogue(ctx, group, pair, way, order) for pair in pairs for order in (0, 1) if not _equal(group, pair)]

        yield from in_order(ctx, groups, asked, lambda group, said: self._joined(ctx, group, said))

    # ── which pairs ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _pairs(self, ctx: Context, group: Group) -> list[_Pair]:
        """The pairs of a group, each once, with the principle that its label draws."""
        places = [place for place, sample in enumerate(group.samples) if can_be_judged(sample)]
        rng = ctx.rng("judge principle", self.role, group.task.id)
        principles = len(self.instructions.principles)
        return [_Pair(one, other, rng.randrange(principles) if principles else -1) for one, other in self._meetings(ctx, group, places)]

    def _meetings(self, ctx: Context, group: Group, places: Sequence[int]) -> list[tuple[int, int | None]]:
        if isinstance(self.against, Baseline):
            return [(place, None) for place in places]
        if self.against == "reference":
            return [(place, None) for place in places] if group.task.answer is not None else []
        if self.against == "first":
            return [(place, places[0]) for place in places[1:]]
        reach = len(places) if self.against == "all" else int(self.against)
        ring = list(places)
        ctx.rng("judge ring", self.role, group.task.id).shuffle(ring)
        size = len(ring)
        met = {frozenset((ring[at], ring[(at + step) % size])) for at in range(size) for step in range(1, min(reach, size - 1) + 1)}
        return sorted((min(pair), max(pair)) for pair in met)

    # ── one question ───────────────────────────────────────────────────────────────────────────────────────────────────
    def _dialogue(self, ctx: Context, group: Group, pair: _Pair, way: Way, order: int) -> Dialogue[tuple[Weighed, tuple[str, int] | None]]:
        """The probability that the first shown is better, with the pair shown in this order (1: the other one first); and, of an answer
        from outside, its source and length."""
        task = group.task
        outside: tuple[str, int] | None = None
        other = group.samples[pair.other].text if pair.other is not None else task.answer or ""
        if pair.other is None and isinstance(self.against, Baseline):
            request = Request(task.prompt, 1, self.against.sampling, seed=ctx.seed_of("judge baseline", task.id))
            answer: Response = yield Ask(self.against.role, request)
            why = answer.error or ("" if answer.completions and answer.completions[0].finished else "it was cut off or did not come")
            if why or not isinstance(answer.completions[0].content, str):
                return Weighed(error=f"there is no answer of {self.against.role!r} to compare with: {why or 'it is no text'}"), None
            other = answer.completions[0].content
        if pair.other is None:
            outside = (ctx.model(self.against.role).id if isinstance(self.against, Baseline) else "reference", len(other))
        shown = (group.samples[pair.one].text, other)
        names = (group.samples[pair.one].id, group.samples[pair.other].id if pair.other is not None else "")
        key = (self.role, task.id, *names, order)
        nonce = nonce_of(ctx, *key)
        a, b = shown if order == 0 else shown[::-1]
        question = self._question(prompt_text(task.prompt), a, b, self._principle_text(pair.principle), nonce)
        found = yield from self._answer(question, nonce, way, ctx.seed_of("judge", *key))
        return found, outside

    def _answer(self, question: Question, nonce: str, way: Way, seed: int) -> Dialogue[Weighed]:
        plain = self.instructions.plain_text
        examples = [self._example(item, nonce) for item in self.examples]
        rationale: str | None = None
        if self.reasoning is not None:
            request = Request(explanation_of(question, examples, plain_text=plain), 1, self.reasoning.sampling, seed=seed)
            said: Response = yield Ask(self.role, request)
            rationale = neutral(str(said.completions[0].content).strip(), nonce) if said.completions else ""  # it may quote what it read
            if not rationale:
                return Weighed(error=f"the judge gave no reasons: {said.error or 'they are empty'}")
        prompt = prompt_of(question, examples, rationale, plain_text=plain)
        return (yield from weighed(self.role, prompt, LETTERS, way, self.sampled, seed))

    def _question(self, task: str, a: str, b: str, principle: str, nonce: str) -> Question:
        parts = (("task", task), ("answer A", a), ("answer B", b))
        return Question(body_of(self.instructions.preamble or _PREAMBLE, principle, parts, nonce), _ENDING, _CUE, _EXPLAIN)

    def _principle_text(self, place: int) -> str:
        return self.instructions.principles[place] if place >= 0 else ""

    def _example(self, item: ComparedExample, nonce: str) -> Answered:
        rationale = item.rationale if self.reasoning is not None else ""
        return Answered(self._question(item.task, item.a, item.b, item.principle, nonce), item.better, rationale)

    # ── the verdict ────────────────────────────────────────────────────────────────────────────────────────────────────
    def _joined(self, ctx: Context, group: Group, said: Sequence[tuple[Weighed, tuple[str, int] | None]]) -> Group:
        judge, names = ctx.model(self.role).id, keys(group.samples)
        pairs: dict[int, list[Compared]] = {}
        failed: dict[int, list[str]] = {}
        outside: dict[int, tuple[str, int]] = {}
        by = ""
        answers = iter(said)
        for pair in self._pairs(ctx, group):
            half = (Weighed((0.5, 0.5)), None)
            (one, source), (two, _) = (half, half) if _equal(group, pair) else (next(answers), next(answers))
            if source is not None:
                outside[pair.one] = source
            if one.error or two.error:
                for place in (pair.one, *([pair.other] if pair.other is not None else [])):
                    failed.setdefault(place, []).append(one.error or two.error)
                continue
            by = by or one.by
            first, second = round(one.probs[0], DECIMALS), round(1 - two.probs[0], DECIMALS)
            self._note(pairs, group, pair, names, first, second)
        samples = []
        for place, sample in enumerate(group.samples):
            lost, mine = failed.get(place, []), tuple(pairs.get(place, ()))
            judgement = Judgement(self.role, judge, by, mine, len(lost), opponent=outside.get(place))
            samples.append(sample if sample.error else with_score(sample, self._score(sample, judgement, lost)))
        return Group(group.task, tuple(samples))

    def _note(
        self, pairs: dict[int, list[Compared]], group: Group, pair: _Pair, names: Mapping[str, str], first: float, second: float
    ) -> None:
        """The pair on both sides' records, so that each can be read alone."""
        bounds = self.reasoning.clamp if self.reasoning is not None else (0.0, 1.0)
        p = round(clamped((first + second) / 2, bounds), DECIMALS + 1)  # a half of six decimals has seven
        if pair.other is None:
            name = "baseline" if isinstance(self.against, Baseline) else "reference"
            pairs.setdefault(pair.one, []).append(Compared(name, p, first, second, pair.principle))
            return
        one, other = names[group.samples[pair.one].id], names[group.samples[pair.other].id]
        pairs.setdefault(pair.one, []).append(Compared(other, p, first, second, pair.principle))
        mirrored = [round(1 - value, DECIMALS + 1) for value in (p, second, first)]
        pairs.setdefault(pair.other, []).append(Compared(one, mirrored[0], mirrored[1], mirrored[2], pair.principle))

    def _score(self, sample: Sample, judgement: Judgement, failed: Sequence[str]) -> Score:
        name, version = self.name, self.version
        if not can_be_judged(sample):
            return not_judged(self, sample)
        if failed and len(failed) >= len(judgement.pairs):
            return Score(name, version, "error", None, failed[0][:200], written(judgement))
        if not judgement.pairs:
            return Score(name, version, "abstain", None, "there is no other answer to compare with")
        value = sum(pair.p for pair in judgement.pairs) / len(judgement.pairs)
        if value >= self.passes_at:
            return Score(name, version, "pass", value, "", written(judgement))
        return Score(name, version, "fail", value, "the others are preferred", written(judgement))


def _equal(group: Group, pair: _Pair) -> bool:
    """Whether a pair's texts are the same: nobody needs to be asked."""
    return pair.other is not None and group.samples[pair.one].text == group.samples[pair.other].text
