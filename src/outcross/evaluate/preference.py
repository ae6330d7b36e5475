"""Evaluation by comparison: how often the model's answers are preferred to those of a fixed model, and how well a reward model orders
pairs that people have labelled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from outcross.errors import ConfigError
from outcross.estimates import at_equal_length
from outcross.evaluate.statistics import half_samples
from outcross.evaluate.undecided import refuse_undecided, why_undecided
from outcross.judgement import judgement_of
from outcross.stages import Context, Generator, Role, Stage, Values, Verifier, calls_of
from outcross.types import Completion, Example, Ground, Group, Measurement, Sample, Task, Turn

if TYPE_CHECKING:
    from outcross.evaluate.statistics import Floats, Subsets


@dataclass(frozen=True)
class Preference(Stage):
    """The probability that the judge prefers the model's answer to the one it is held against, per item: ½ is a tie.

    judge: one that compares with somebody from outside, such as `{use: pairwise_judge, against: {role: baseline}}` (a fixed model) or
        `against: reference` (the tasks' answers); it asks in both orders.
    statistic: `win_rate`, or `at_equal_length`: the probability where both answers are equally long, by a logistic regression on the
        logarithm of the ratio of their characters, read at ratio 1 (RLAIF, arXiv:2309.00267 appendix J; the idea of AlpacaEval's length-controlled
        win rate, arXiv:2404.04475, without its terms for model and instruction). Its replicates are half samples of the items, about the value.

    `margin` is a share. An answer that was cut off has lost, and counts as of equal length. An item whose answers all failed is left out; more than 5 % of such items raise `StageError`.
    """

    tasks: Iterable[Task]
    generator: Generator
    judge: Verifier
    statistic: Literal["win_rate", "at_equal_length"] = "win_rate"
    margin: float = 0.05
    label: str = ""
    replicates: int = 300
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("preference", self.statistic if self.statistic != "win_rate" else "", self.label)))

    @property
    def ground(self) -> Ground:
        return self.judge.ground

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.generator.roles, *self.judge.roles)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return Counter(self.generator.calls(tasks)) + Counter(calls_of(self.judge, tasks, getattr(self.generator, "n", 1)))

    def __call__(self, ctx: Context, /) -> Measurement:
        items: list[str] = []
        found: list[list[tuple[float, float]]] = []
        undecided: list[tuple[str, str]] = []
        for group in self.judge(ctx, self.generator(ctx, self.tasks)):
            items.append(group.task.id)
            found.append([judged for sample in group.samples if (judged := _judged(group, sample, self.judge)) is not None])
            if not found[-1]:
                undecided.append((group.task.id, why_undecided(group)))
        refuse_undecided(self.name, undecided, len(items))
        if self.statistic == "win_rate":
            known = {item: math.fsum(p for p, _ in rows) / len(rows) for item, rows in zip(items, found, strict=True) if rows}
            return Measurement(self.name, tuple(known), tuple(known.values()), unit="share")
        values = _at_equal_length(found, half_samples(items, self.replicates))
        # Half as many items make another estimate: only the spread of the halves speaks of all items.
        spread = values[1:] - values[1:].mean() + values[0]
        return Measurement(self.name, tuple(items), (float(values[0]),), tuple(map(float, spread)), unit="share at equal length")


def _judged(group: Group, sample: Sample, judge: Verifier) -> tuple[float, float] | None:
    """The probability that a sample is preferred, and the logarithm of its length by the other's; None without a verdict."""
    score = sample.scores[-1] if sample.scores and not sample.error else None
    if score is None or score.value is None:
        return None
    if not sample.turns[-1].completion.finished:  # nobody was asked about it, so that its opponent's length is not known
        return score.value, 0.0
    judgement = judgement_of(score)
    members = [judgement, *(member.judgement for member in judgement.panel)] if judgement is not None else []
    opponent = next((item.opponent for item in members if item is not None and item.opponent is not None), None)
    if opponent is None:
        raise ConfigError(
            f"preference: {getattr(judge, 'name', 'the judge')} compares answers to {group.task.id!r} with nobody from outside; "
            "use a pairwise_judge with `against: {role: baseline}` or `against: reference`"
        )
    return score.value, math.log(max(1, len(sample.text)) / max(1, opponent[1]))


def _at_equal_length(found: list[list[tuple[float, float]]], subsets: Subsets) -> Floats:
    import numpy as np

    owner = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
    p = np.array([value for rows in found for value, _ in rows])
    x = np.array([ratio for rows in found for _, ratio in rows])
    share = 1 / np.array([len(found[place]) for place in owner])  # each item counts once
    return np.array([at_equal_length(x[subset[owner]], p[subset[owner]], share[subset[owner]]) for subset in subsets])


@dataclass(frozen=True)
class PairAccuracy(Stage):
    """How often a model that gives values ranks the answer that people chose above the one they rejected, per pair; equal values are ½.

    pairs: held-out comparisons, real examples with `rejected`. role: whose values they are: a reward model's that a phase teaches.
    """

    pairs: Iterable[Example]
    role: Role = "reward"
    margin: float = 0.03
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"
    ground: ClassVar[Ground] = "exact"
    by_chance: ClassVar[float] = 0.5

    @property
    def name(self) -> str:
        return f"pair_accuracy_{self.label}" if self.label else "pair_accuracy"

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.role,)

    def __call__(self, ctx: Context, /) -> Measurement:
        model = ctx.model(self.role)
        if not isinstance(model, Values):
            raise ConfigError(
                f"{self.name}: the model of role {self.role!r} gives no values; use a reward model, such as `sequence_classifier`"
            )
        pairs = list(self.pairs)
        wrong = next((pair for pair in pairs if pair.rejected is None), None)
        if wrong is not None or not pairs:
            told = f"example {wrong.id} has no rejected answer" if wrong else "there is no pair"
            raise ConfigError(f"{self.name}: {told}; give comparisons, files with the columns prompt, chosen and rejected")
        turns = [Turn(pair.prompt, Completion(said)) for pair in pairs for said in (pair.completion, pair.rejected) if said is not None]
        values = [found[-1] for found in model.values(turns)]
        right = [0.5 if a == b else float(a > b) for a, b in zip(values[::2], values[1::2], strict=True)]
        return Measurement(self.name, tuple(pair.id for pair in pairs), tuple(right), unit="share")
