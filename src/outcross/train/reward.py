"""What a step of a reward model's training costs: one number per text, compared or regressed."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from outcross.errors import ConfigError, ModelError, did_you_mean
from outcross.train.encode import chunks
from outcross.train.forward import Text
from outcross.train.losses import bt, value
from outcross.train.read_off import ReadOff
from outcross.train.rows import Rows, check_told, text_of
from outcross.types import Completion, Example, Turn

REWARD_LOSSES = ("bt", "value")


class RewardCost:
    """The losses "bt" and "value" of a reward model's rows, a mean over the rows of a step."""

    def __init__(self, rows: Rows, read_off: ReadOff) -> None:
        self.rows, self.read_off = rows, read_off

    def ahead(self, model: Any, chosen: Sequence[int], micro_batch: int) -> Tensor:
        """Nothing."""
        return torch.zeros(())

    def of(self, model: Any, chosen: Sequence[int], step: Sequence[int], ahead: Tensor) -> Tensor:
        """What some rows of a step add to its loss."""
        pairs = [row for row in chosen if row in self.rows.others]
        found = self.read_off(model, [*(self.rows.text(row).ids for row in chosen), *(self.rows.others[row].ids for row in pairs)])
        summed = torch.zeros((), device=found.device)
        numbers = torch.tensor([(self.rows.targets[row], self.rows.weights[row]) for row in chosen], dtype=found.dtype, device=found.device)
        paired, single = ([index for index, row in enumerate(chosen) if (row in self.rows.others) is wanted] for wanted in (True, False))
        if paired:
            summed = summed + bt(found[paired], found[len(chosen) :], numbers[paired, 0], numbers[paired, 1])
        if single:
            summed = summed + value(found[single], numbers[single, 0], numbers[single, 1])
        return summed / len(step)


def encode_turns(examples: Iterable[Example], ids_of: Callable[[Turn], Sequence[int]], max_length: int) -> Rows:
    """Encode examples of "bt" and "value", in order; `ids_of` gives the whole text of a turn as the model reads it.

    A row of which an answer makes a text longer than `max_length` tokens is skipped and named, never cut, and so is a pair of equal answers,
    which has no gradient. Raises `ModelError` if nothing is
    left or an example lacks what its loss reads; `ConfigError` for another loss.
    """
    rows, longest = Rows(), 0
    for chunk in chunks(examples):
        for example in chunk:
            _check(example)
            own = ids_of(Turn(example.prompt, Completion(text_of(example, example.completion))))
            other = () if example.loss.name != "bt" else ids_of(Turn(example.prompt, Completion(text_of(example, example.rejected or ""))))
            length = max(len(own), len(other))
            longest = max(longest, length)
            equal = example.loss.name == "bt" and example.rejected == example.completion
            if equal or length > max_length:
                rows.skip(example, "equal" if equal else "long")
                continue
            if other:
                rows.others[len(rows)] = Text(array("i", other), 0)
            rows.add(example, [], list(own))
            rows.longest = max(rows.longest, length)
    check_told(rows, longest, max_length)
    return rows


def _check(example: Example) -> None:
    loss, target = example.loss, example.target
    if loss.name not in REWARD_LOSSES:
        raise ConfigError(
            f"example {example.id} has the loss {loss.name!r}, and a reward model learns by {' and '.join(REWARD_LOSSES)}; "
            f"{did_you_mean(loss.name, REWARD_LOSSES)}"
        )
    if isinstance(example.weight, tuple) or not math.isfinite(example.weight):
        raise ModelError(f"example {example.id} has the weight {example.weight}; a reward model takes one finite number per example")
    if loss.name == "bt":
        if example.rejected is None:
            raise ModelError(f"example {example.id} has the loss 'bt' and no rejected answer; pairs have two")
        if target is not None and not (isinstance(target, float | int) and 0 <= target <= 1):
            raise ModelError(
                f"example {example.id} has the target {target}; give the probability that the chosen answer is better, or none"
            )
    elif not (isinstance(target, float | int) and math.isfinite(target)):
        raise ModelError(f"example {example.id} has the loss 'value' and the target {target}; give a finite number")
