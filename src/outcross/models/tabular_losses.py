"""How the toy policy's losses change with the log-probability of an answer.

Each loss of a row depends on the model through log π(completion) and, for pairs, log π(rejected) alone, so that two numbers tell its
gradient: the derivatives by both. The definitions are those of `outcross.train.losses`; an answer is one token here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from outcross.errors import ModelError, did_you_mean
from outcross.models.local import Floats
from outcross.stages import LogProbs, Model
from outcross.types import Completion, Content, Example, Loss, Turn

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Rows of one loss, a number each: log-probabilities of `chosen` and `rejected` answers now and under the reference, and `old` ones under
    the policy that drew them (NaN: not known)."""

    chosen: Floats
    rejected: Floats
    reference_chosen: Floats
    reference_rejected: Floats
    old: Floats
    target: Floats
    weight: Floats


Slopes = tuple[Floats, Floats]


def nll(rows: Rows, loss: Loss) -> Slopes:
    """L = −w log π(y)."""
    return -rows.weight, np.zeros(len(rows.weight))


def pg(rows: Rows, loss: Loss) -> Slopes:
    """The score function of E[(1 − β) A − β log π/π_ref], whose maximum is that of reward less divergence (arXiv:2309.00267 A.3); with `clip`
    the ratio to the policy that drew the answer is held within 1 ± clip (arXiv:1707.06347 equation 7). The form "trl" has the divergence
    in the loss (arXiv:2402.03300 equation 4)."""
    beta = loss.beta or 0.0
    if loss.form == "trl" and beta:  # the slope of β (π_ref/π − log π_ref/π − 1) is β (1 − π_ref/π)
        slope, none = pg(rows, Loss("pg", clip=loss.clip))
        return slope + beta * (1 - np.exp(rows.reference_chosen - rows.chosen)), none
    gain = rows.weight if not beta else (1 - beta) * rows.weight - beta * (rows.chosen - rows.reference_chosen)
    ratio = np.exp(rows.chosen - np.where(np.isnan(rows.old), rows.chosen, rows.old))
    if loss.clip is not None:
        ratio = np.where((gain > 0) & (ratio > 1 + loss.clip) | (gain < 0) & (ratio < 1 - loss.clip), 0.0, ratio)
    else:
        ratio = np.ones(len(ratio))
    return -gain * ratio, np.zeros(len(gain))


def dpo(rows: Rows, loss: Loss) -> Slopes:
    """L = −log σ(β h), h = log π/π_ref (chosen) − log π/π_ref (rejected) (arXiv:2305.18290 equation 7)."""
    beta = 0.1 if loss.beta is None else loss.beta
    slope = -beta * rows.weight / (1 + np.exp(np.clip(beta * _margin(rows), -500, 500)))
    return slope, -slope


def ipo(rows: Rows, loss: Loss) -> Slopes:
    """L = (h − 1/(2β))² (arXiv:2310.12036 equation 17)."""
    beta = 0.1 if loss.beta is None else loss.beta
    slope = 2 * rows.weight * (_margin(rows) - 1 / (2 * beta))
    return slope, -slope


def sppo(rows: Rows, loss: Loss) -> Slopes:
    """L = (log π/π_ref − (P − ½)/β)² (arXiv:2405.00675 equation 4.4)."""
    beta = 1e-3 if loss.beta is None else loss.beta
    target = np.sign(rows.target - 0.5) / 2 + 0.5 if loss.form == "trl" else rows.target
    slope = 2 * rows.weight * (rows.chosen - rows.reference_chosen - (target - 0.5) / beta)
    return slope, np.zeros(len(slope))


def _margin(rows: Rows) -> Floats:
    return (rows.chosen - rows.reference_chosen) - (rows.rejected - rows.reference_rejected)


SLOPES: Mapping[str, Callable[[Rows, Loss], Slopes]] = MappingProxyType({"nll": nll, "pg": pg, "dpo": dpo, "ipo": ipo, "sppo": sppo})
_PAIRED = frozenset({"dpo", "ipo"})
_REFERRING = frozenset({"dpo", "ipo", "sppo"})


@dataclass(frozen=True)
class Lessons:
    """What is learnt from each of N examples: the numbers of its `chosen` and `rejected` answers, the place of its loss among `losses`, and
    its numbers, as in `Rows`, without the log-probabilities under the model that learns."""

    losses: tuple[Loss, ...]
    kinds: Ints
    chosen: Ints
    rejected: Ints
    reference_chosen: Floats
    reference_rejected: Floats
    old: Floats
    target: Floats
    weight: Floats


class Collected:
    """Lessons in the making."""

    def __init__(self) -> None:
        self._losses: dict[Loss, int] = {}
        self._rows: list[tuple[int, int, int, float, float, float]] = []
        self._turns: list[tuple[int, bool, Turn]] = []

    def add(self, example: Example, number: Callable[[Content], int]) -> None:
        """One example; `number` gives an answer's. Raises `ModelError`."""
        loss = example.loss
        if loss.name not in SLOPES:
            raise ModelError(f"tabular cannot learn by the loss {loss.name!r} (example {example.id}); {did_you_mean(loss.name, SLOPES)}")
        if loss.name in _PAIRED and example.rejected is None:
            raise ModelError(f"example {example.id} has the loss {loss.name!r} and no rejected answer; pairs have both")
        if loss.name == "sppo" and example.target is None:
            raise ModelError(f"example {example.id} has the loss 'sppo' and no target; it is a win rate, between 0 and 1")
        row = len(self._rows)
        rejected = example.rejected if loss.name in _PAIRED else None
        if loss.name in _REFERRING or (loss.name == "pg" and loss.beta):
            for said, first in ((example.completion, True), *(((rejected, False),) if rejected is not None else ())):
                self._turns.append((row, first, Turn(example.prompt, Completion(said))))
        numbers = (_one(example, example.weight, "weights"), _one(example, 0.0 if example.target is None else example.target, "targets"))
        old = example.old_log_probs[0] if len(example.old_log_probs) == 1 else math.nan
        kind = self._losses.setdefault(loss, len(self._losses))
        self._rows.append((kind, number(example.completion), -1 if rejected is None else number(rejected), *numbers, old))

    def lessons(self, reference: Model | None) -> Lessons:
        """All of them, with what the reference thinks of their answers. Raises `ModelError` when one is needed and there is none."""
        table = np.array(self._rows, dtype=np.float64).reshape(-1, 6)
        refer = np.zeros((len(table), 2))
        if self._turns:
            if not isinstance(reference, LogProbs):
                raise ModelError(
                    "a loss of this fit looks at a reference model; say `reference: first` or `champion` where the role learns"
                )
            found = reference.log_probs([turn for _, _, turn in self._turns])
            for (row, first, _), values in zip(self._turns, found, strict=True):
                refer[row, 0 if first else 1] = math.fsum(values)
        kinds, chosen, rejected = (table[:, column].astype(np.int64) for column in range(3))
        return Lessons(tuple(self._losses), kinds, chosen, rejected, refer[:, 0], refer[:, 1], table[:, 5], table[:, 4], table[:, 3])


def gradient(log_probs: Floats, lessons: Lessons, rows: Ints) -> Floats:
    """The slope (B, V) of the mean loss of some rows by the logits, given their log-probabilities (B, V) of all answers."""
    batch = np.arange(len(rows))
    chosen, rejected = lessons.chosen[rows], lessons.rejected[rows]
    now, other = log_probs[batch, chosen], np.where(rejected < 0, 0.0, log_probs[batch, rejected])
    by_chosen, by_rejected = np.zeros(len(rows)), np.zeros(len(rows))
    for kind, loss in enumerate(lessons.losses):
        here = lessons.kinds[rows] == kind
        if here.any():
            at = rows[here]
            facts = (lessons.reference_chosen[at], lessons.reference_rejected[at], lessons.old[at], lessons.target[at], lessons.weight[at])
            by_chosen[here], by_rejected[here] = SLOPES[loss.name](Rows(now[here], other[here], *facts), loss)
    slope: Floats = -np.exp(log_probs) * (by_chosen + by_rejected)[:, None]
    slope[batch, chosen] += by_chosen
    paired = rejected >= 0
    slope[batch[paired], rejected[paired]] += by_rejected[paired]
    return slope / len(rows)


def _one(example: Example, value: float | tuple[float, ...], what: str) -> float:
    if isinstance(value, tuple):
        if len(value) != 1:
            raise ModelError(f"example {example.id} has {len(value)} {what}; a tabular answer is one token and takes one")
        return value[0]
    return value
