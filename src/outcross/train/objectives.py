"""Objectives: what is learnt from a round's groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import ClassVar, Literal

import msgspec

from outcross.errors import ConfigError
from outcross.judgement import preferences
from outcross.stages import LATER, Context, Role, Stage, Values
from outcross.types import NLL, Completion, Example, Group, Loss, Origin, Sample, example_id


@dataclass(frozen=True)
class Imitate(Stage):
    """Learn to say what passed: one row under the loss "nll" per chosen sample.

    best_of: only the samples of highest value, this many a task (best-of-n, arXiv:2112.09332); equals in the order drawn.
    threshold: choose by value, at or above this number, instead of by the verdict *pass*.
    per_task: at most this many samples a task, the first drawn (ReST-EM takes ten, arXiv:2312.06585), so that easy tasks
        do not crowd out hard ones.
    require_verified: False also learns samples that no verifier looked at. Failed requests, errors and abstentions are never learnt.
    """

    best_of: int | None = None
    threshold: float | None = None
    per_task: int | None = None
    require_verified: bool = True

    def __post_init__(self) -> None:
        for name in ("best_of", "per_task"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ConfigError(f"imitate: {name} is {size}; take at least 1 sample a task, or None for no limit")
        if not self.require_verified and (self.best_of is not None or self.threshold is not None):
            raise ConfigError(
                "imitate: best_of and threshold choose by value, which unverified samples lack; leave out require_verified: false"
            )

    @property
    def uses_peers(self) -> bool:
        """Best-of compares the samples of a group."""
        return self.best_of is not None

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Example]:
        for group in groups:
            chosen = [sample for sample in group.samples if self._may_learn(sample)]
            if self.best_of is not None:
                chosen = sorted(chosen, key=_minus_value)[: self.best_of]
            for sample in chosen[: self.per_task]:
                yield example_of(sample, group.task.subgroup)

    def _may_learn(self, sample: Sample) -> bool:
        if sample.error or not sample.turns:
            return False
        verdict = sample.verdict
        if verdict is None:
            return not self.require_verified
        if self.threshold is None or verdict in ("error", "abstain"):
            return verdict == "pass"
        value = sample.value
        return value is not None and value >= self.threshold


@dataclass(frozen=True)
class Prefer(Stage):
    """Learn that one answer to a task is better than another: a row for each pair, the better answer as `completion`.

    loss: "dpo" or "ipo" teach a policy, "bt" a reward model.
    pairs: `best_worst` of each task by value; `all` pairs of different value; `one_token`: all pairs of answers of one token each, as a
        search for pivotal tokens makes them (Phi-4, arXiv:2412.08905 §4.3.1).
    margin: the least difference of the two values. Equal values make no pair, and equal answers none either, since they have no gradient.
    labels: `hard`: the better one is better. `soft`: the row's `target` is the probability with which `judge`, a verifier that compares,
        prefers it (RLAIF, arXiv:2309.00267 §2.1); pairs that it did not compare are left out, and which is better follows it alone.
    """

    loss: Loss = Loss("dpo", 0.1)
    pairs: Literal["best_worst", "all", "one_token"] = "best_worst"
    margin: float = 0.0
    labels: Literal["hard", "soft"] = "hard"
    judge: str = "pairwise_judge"
    uses_peers: ClassVar[bool] = True
    answers_needed: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.loss.name not in ("dpo", "ipo", "bt"):
            raise ConfigError(
                f"prefer: the loss is {self.loss.name!r}, which learns from no pairs; take dpo or ipo for a policy, bt for a reward model"
            )
        if self.labels == "soft" and self.loss.name != "bt":
            raise ConfigError(
                f"prefer: soft labels are learnt by the loss bt, and the loss is {self.loss.name!r}; take hard labels, or win_rate for a policy"
            )
        if self.margin < 0:
            raise ConfigError(f"prefer: margin is {self.margin:g}; give 0 or more")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Example]:
        for group in groups:
            known = preferences(group, self.judge) if self.labels == "soft" else {}
            for one, other in self._pairs(group):
                better, worse, target = self._ordered(one, other, known)
                if better is None or worse is None or better.content == worse.content:
                    continue
                if better.turns[-1].prompt == worse.turns[-1].prompt:
                    yield _pair(better, worse, self.loss, target, group.task.subgroup)

    def _pairs(self, group: Group) -> Iterable[tuple[Sample, Sample]]:
        rated = _rated(group)
        if self.pairs == "best_worst":
            return [_ends(rated)] if len(rated) > 1 else []
        if self.pairs == "one_token":
            rated = [sample for sample in rated if len(sample.turns[-1].completion.tokens) == 1]
        return combinations(rated, 2)

    def _ordered(
        self, one: Sample, other: Sample, known: Mapping[tuple[str, str], float]
    ) -> tuple[Sample, Sample, float | None] | tuple[None, None, None]:
        """The better one, the worse one and the label; nothing for a pair without a better one."""
        gap = _value(one) - _value(other)
        if self.labels == "hard":
            if not gap or abs(gap) < self.margin:
                return None, None, None
            return (one, other, None) if gap > 0 else (other, one, None)
        p = known.get((one.id, other.id))
        if p is None or abs(gap) < self.margin:
            return None, None, None
        return (one, other, p) if p >= 0.5 else (other, one, 1.0 - p)


@dataclass(frozen=True)
class WinRate(Stage):
    """Learn how often an answer wins against the policy: a row for each sample, its `target` the mean probability that it beats one of
    the task's K answers, itself among them at one half (SPPO, arXiv:2405.00675 §5.1). The K targets of a task average to one half.

    keep: the `best_worst` of each task, as in the paper, or `all`. Where all are equal there is nothing to learn.
    opponents: `judge`: the probabilities that a verifier which compares gave, of any form (a general preference); `values`: a sigmoid of the
        difference of two values (Bradley–Terry), for a reward model's. The released code of the paper does the latter with PairRM's ranks.
    judge: the verifier's name. A task of which a pair is missing is left out: a mean over fewer would favour whoever met the weaker ones.
    """

    loss: Loss = Loss("sppo", 1e-3)
    keep: Literal["best_worst", "all"] = "best_worst"
    opponents: Literal["judge", "values"] = "judge"
    judge: str = "pairwise_judge"
    uses_peers: ClassVar[bool] = True
    answers_needed: ClassVar[int] = 2

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Example]:
        for group in groups:
            samples = _rated(group)
            rates = self._rates(group, samples)
            if not rates or len(set(rates)) == 1:
                continue
            order = sorted(range(len(samples)), key=lambda place: -rates[place])
            for place in (order[0], order[-1]) if self.keep == "best_worst" else range(len(samples)):
                yield _targeted(samples[place], self.loss, rates[place], group.task.subgroup)

    def _rates(self, group: Group, samples: Sequence[Sample]) -> list[float]:
        """The mean win rate of each sample; nothing when a pair is missing."""
        if len(samples) < 2:
            return []
        if self.opponents == "values":
            return win_rates(lambda i, j: _sigmoid(_value(samples[i]) - _value(samples[j])), len(samples))
        known = preferences(group, self.judge)
        if any((one.id, other.id) not in known for one, other in combinations(samples, 2)):
            return []
        return win_rates(lambda i, j: known[samples[i].id, samples[j].id], len(samples))


def win_rates(beats: Callable[[int, int], float], size: int) -> list[float]:
    """The mean of `beats(i, k)` over all k of `size`, with ½ for k = i. Rounded to 12 decimals, so that equal ones are equal."""
    return [round(math.fsum(0.5 if i == k else beats(i, k) for k in range(size)) / size, 12) for i in range(size)]


@dataclass(frozen=True)
class Approve(Stage):
    """Learn from single verdicts: a row for each sample that passed (`target` 1) or failed (0), for the loss "kto" (arXiv:2402.01306)."""

    loss: Loss = Loss("kto", 0.1)
    uses_peers: ClassVar[bool] = False

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Example]:
        for group in groups:
            for sample in _rated(group):
                yield _targeted(sample, self.loss, float(sample.verdict == "pass"), group.task.subgroup)


@dataclass(frozen=True)
class Score(Stage):
    """Learn the value of an answer itself, by regression: a row for each sample, its `target` the value, for a value or reward head.

    at: what is read of it: the whole `answer`; or the `prompt` alone, before any answer, which is what a baseline may know
        (`Reinforce.baseline`, `prompt_critic`).
    """

    loss: Loss = Loss("value")
    at: Literal["answer", "prompt"] = field(default="answer", metadata=LATER)
    uses_peers: ClassVar[bool] = False

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Example]:
        for group in groups:
            for sample in _rated(group):
                row = _targeted(sample, self.loss, _value(sample), group.task.subgroup)
                yield row if self.at == "answer" else msgspec.structs.replace(row, completion="")


@dataclass(frozen=True)
class Reinforce(Stage):
    """Make an answer likelier by its advantage, which is the row's `weight`: its value above what others of its kind are worth
    (REINFORCE, Williams 1992; no division by a standard deviation, which would change what is optimised).

    baseline: `leave_one_out`: the mean of its peers without itself (RLOO, arXiv:2402.14740); `mean`: with itself (a group's mean, biased by
        1 − 1/n); `critic`: what the model of role `critic` says of each token (RLAIF, arXiv:2309.00267 A.3); `prompt_critic`: what it says
        of the prompt alone, learnt by `Score(at="prompt")`; `none`.
    peers: who shares a baseline: the samples of the same `task`; of the same `seat` of all tasks, for games; of the same `subgroup`, a
        kind of task; or the whole `round`.

    A sample without peers, and one whose advantage is 0, teaches nothing and is left out, as is one that was cut off; its value counts for its peers.
    """

    loss: Loss = Loss("pg")
    baseline: Literal["leave_one_out", "mean", "critic", "prompt_critic", "none"] = "leave_one_out"
    peers: Literal["task", "seat", "subgroup", "round"] = "task"

    @property
    def uses_peers(self) -> bool:
        return self.baseline in ("leave_one_out", "mean")

    @property
    def answers_needed(self) -> int:
        """Answers of one task, below which nothing can be learnt."""
        return 2 if self.uses_peers and self.peers == "task" else 1

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return ("critic",) if self.baseline in ("critic", "prompt_critic") else ()

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Example]:
        if self.roles:
            yield from self._by_critic(ctx, groups)
            return
        if self.peers == "task":
            yield from chain.from_iterable(self._against(self._sums([group]), group) for group in groups)
            return
        sums = self._sums(groups if self.uses_peers else ())
        for group in groups:
            yield from self._against(sums, group)

    def _sums(self, groups: Iterable[Group]) -> dict[str, tuple[float, int]]:
        """Values added up, and how many they are, by who shares a baseline."""
        sums: dict[str, tuple[float, int]] = {}
        for group in groups:
            for sample in _valued(group):
                total, count = sums.get(self._peer(group, sample), (0.0, 0))
                sums[self._peer(group, sample)] = (total + _value(sample), count + 1)
        return sums

    def _against(self, sums: Mapping[str, tuple[float, int]], group: Group) -> Iterator[Example]:
        for sample in _rated(group):
            advantage = self._advantage(_value(sample), *sums.get(self._peer(group, sample), (0.0, 0)))
            if advantage:
                yield _weighted(sample, self.loss, advantage, group.task.subgroup)

    def _peer(self, group: Group, sample: Sample) -> str:
        return {"task": group.task.id, "seat": sample.seat, "subgroup": group.task.subgroup or "", "round": ""}[self.peers]

    def _advantage(self, value: float, total: float, count: int) -> float:
        """Rounded to 12 decimals: peers of one value have none."""
        if self.baseline == "none":
            return value
        if count < 2:
            return 0.0
        centre = total / count if self.baseline == "mean" else (total - value) / (count - 1)
        return round(value - centre, 12)

    def _by_critic(self, ctx: Context, groups: Iterable[Group]) -> Iterator[Example]:
        critic = ctx.model("critic")
        if not isinstance(critic, Values):
            raise ConfigError("reinforce: the model of role 'critic' gives no values; use one with a value head, or another baseline")
        for group in groups:
            rated = _rated(group)
            before = self.baseline == "prompt_critic"
            turns = [
                msgspec.structs.replace(sample.turns[-1], completion=Completion("")) if before else sample.turns[-1] for sample in rated
            ]
            for sample, values in zip(rated, critic.values(turns), strict=True):
                if not before and len(values) == 1 < len(sample.turns[-1].completion.tokens):
                    raise ConfigError(
                        f"reinforce: the critic gives one number for an answer of {len(sample.turns[-1].completion.tokens)} tokens, which knows "
                        "the answer that it is to be a baseline of; take `baseline: prompt_critic`, or a model with a value for each token"
                    )
                advantages = tuple(_value(sample) - value for value in (values[-1:] if before else values))
                if any(advantages):
                    yield _weighted(sample, self.loss, advantages if len(advantages) > 1 else advantages[0], group.task.subgroup)


# ── rows ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _rated(group: Group) -> list[Sample]:
    """The whole answers that passed or failed and have a value: what broke, was abstained on or never looked at teaches nothing, and one that
    was cut off would teach an end that it never came to."""
    return [item for item in _valued(group) if item.turns[-1].completion.finished]


def _valued(group: Group) -> list[Sample]:
    """The same with answers that were cut off: they count where others are compared with them."""
    return [item for item in group.samples if item.turns and not item.error and item.verdict in ("pass", "fail") and item.value is not None]


def _value(sample: Sample) -> float:
    return sample.value or 0.0


def _ends(rated: Sequence[Sample]) -> tuple[Sample, Sample]:
    """The first of the best and the first of the worst."""
    return max(rated, key=_value), min(rated, key=_value)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))


def example_of(sample: Sample, subgroup: str | None) -> Example:
    """The row that teaches a sample's last answer."""
    turn, origin = sample.turns[-1], _origin(sample)
    completion = turn.completion.content
    return Example(example_id(turn.prompt, completion, NLL, origin), turn.prompt, completion, origin=origin, subgroup=subgroup)


def _origin(sample: Sample, *others: Sample) -> Origin:
    """A sample's own, with what else the row was made of as further parents."""
    made = sample.origin
    verifiers = tuple(dict.fromkeys(name for item in (sample, *others) for name in item.origin.verifiers))
    depth = max(item.origin.depth for item in (sample, *others))
    return Origin(made.kind, made.proof, made.source, depth, made.round, tuple(item.id for item in (sample, *others)), verifiers, made.note)


def _pair(better: Sample, worse: Sample, loss: Loss, target: float | None, subgroup: str | None) -> Example:
    prompt, chosen, rejected, origin = better.turns[-1].prompt, better.content, worse.content, _origin(better, worse)
    identifier = example_id(prompt, chosen, loss, origin, rejected, target)
    return Example(identifier, prompt, chosen, loss, rejected=rejected, target=target, origin=origin, subgroup=subgroup)


def _targeted(sample: Sample, loss: Loss, target: float, subgroup: str | None) -> Example:
    prompt, completion, origin = sample.turns[-1].prompt, sample.content, _origin(sample)
    identifier = example_id(prompt, completion, loss, origin, target)
    return Example(identifier, prompt, completion, loss, target=target, origin=origin, subgroup=subgroup)


def _weighted(sample: Sample, loss: Loss, weight: float | tuple[float, ...], subgroup: str | None) -> Example:
    """With the log-probabilities under which it was drawn, where they are known: what clipping compares with. Where numbers belong to tokens, they are those of
    the drawn ones."""
    turn, origin = sample.turns[-1], _origin(sample)
    completion = turn.completion
    identifier = example_id(turn.prompt, completion.content, loss, origin, weight)
    old = tuple(completion.log_probs)
    drawn = tuple(completion.tokens) if loss.clip is not None or isinstance(weight, tuple) else ()
    return Example(
        identifier, turn.prompt, completion.content, loss, weight, old_log_probs=old, origin=origin, subgroup=subgroup, tokens=drawn
    )


def _minus_value(sample: Sample) -> float:
    return -(sample.value or 0.0)
