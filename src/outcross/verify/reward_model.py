"""Judging by a trained reward model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.errors import ConfigError
from outcross.stages import Context, Role, Stage, Values
from outcross.types import Canary, Ground, Group, Sample, Score
from outcross.verify.each import UNFINISHED, with_score

WINDOW = 256  # answers held, and offered to the model, at once
_RELATIVE = ("none", "z", "rank")
_OVER = ("last", "mean", "min")


@dataclass(frozen=True)
class RewardModel(Stage):
    """Scores an answer by what the model of role `reward` says its last turn is worth; `passes_at` or more passes.

    over: the number of a model that values every token: that of the last token, their mean, or the least (a process reward).
    relative: the value as it is ("none"), or within the task's answers: "z", standard deviations above their mean (0 when all are equal),
        or "rank", the share of the others that are worth less, ties counting half. Fewer than two answers are then abstained on.

    canaries: answers whose verdicts are known, tried before every batch. Only the model's user knows what is obvious to it.

    A number that is not finite is an error. Answers that were cut off are not shown to the model: they fail, with the least value
    of their task's answers and no more than `passes_at`, for no number of a reward's scale means "nothing".
    """

    passes_at: float = 0.0
    relative: Literal["none", "z", "rank"] = "none"
    over: Literal["last", "mean", "min"] = "last"
    canaries: tuple[Canary, ...] = ()
    ground: ClassVar[Ground] = "trained"
    roles: ClassVar[tuple[Role, ...]] = ("reward",)

    def __post_init__(self) -> None:
        for name, value, allowed in (("relative", self.relative, _RELATIVE), ("over", self.over, _OVER)):
            if value not in allowed:
                raise ConfigError(f"reward_model: {name} is {value!r}; allowed: {', '.join(allowed)}")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        model = ctx.model("reward")
        if not isinstance(model, Values):
            raise ConfigError(
                "the model of role 'reward' gives no values; use a reward model, for example `{use: sequence_classifier, path: FOLDER}`"
            )
        version = f"{self.version}(reward@{model.id})"  # so that a recall can tell one reward model from the next
        held: list[Group] = []
        for group in groups:
            held.append(group)
            if sum(len(item.samples) for item in held) >= WINDOW:
                yield from self._judged(version, model, held)
                held = []
        yield from self._judged(version, model, held)

    def _judged(self, version: str, model: Values, groups: Sequence[Group]) -> Iterator[Group]:
        turns = [sample.turns[-1] for group in groups for sample in group.samples if _can_be_judged(sample)]
        found = iter(model.values(turns))
        for group in groups:
            raw = {sample.id: self._reduced(next(found)) for sample in group.samples if _can_be_judged(sample)}
            finite = [value for value in raw.values() if math.isfinite(value)]
            yield Group(
                group.task,
                tuple(
                    sample if sample.error else with_score(sample, self._score(version, sample, raw.get(sample.id), finite))
                    for sample in group.samples
                ),
            )

    def _reduced(self, values: Sequence[float]) -> float:
        if not values:
            return math.nan
        return {"last": lambda: values[-1], "mean": lambda: sum(values) / len(values), "min": lambda: min(values)}[self.over]()

    def _score(self, version: str, sample: Sample, raw: float | None, group: Sequence[float]) -> Score:
        if raw is None:
            if not isinstance(sample.content, str):
                return Score(self.name, version, "error", None, "the answer is an array, not text")
            return Score(self.name, version, "fail", min([self.passes_at, *self._values(group)]), UNFINISHED[1])
        if not math.isfinite(raw):
            return Score(self.name, version, "error", None, "the reward model gave no finite number")
        if self.relative != "none" and len(group) < 2:
            return Score(self.name, version, "abstain", None, "there is no other answer to compare with", f"reward {raw:.6g}")
        (value,) = self._values(group, (raw,))
        evidence = "" if self.relative == "none" else f"reward {raw:.6g}"
        return Score(self.name, version, "pass" if value >= self.passes_at else "fail", value, "", evidence)

    def _values(self, among: Sequence[float], of: Sequence[float] | None = None) -> list[float]:
        if self.relative == "none" or len(among) < 2:
            return list(among if of is None else of)
        relative = z_score if self.relative == "z" else rank
        return [relative(value, among) for value in (among if of is None else of)]


def z_score(value: float, among: Sequence[float]) -> float:
    """Standard deviations (of a population) above the mean of `among`; 0 when all are equal."""
    mean = math.fsum(among) / len(among)
    deviation = math.sqrt(math.fsum((item - mean) ** 2 for item in among) / len(among))
    return (value - mean) / deviation if deviation else 0.0


def rank(value: float, among: Sequence[float]) -> float:
    """The share of the others in `among`, which holds `value`, that are less; ties count half."""
    less, equal = sum(item < value for item in among), sum(item == value for item in among) - 1
    return (less + equal / 2) / (len(among) - 1)


def _can_be_judged(sample: Sample) -> bool:
    return not sample.error and isinstance(sample.content, str) and sample.turns[-1].completion.finished
