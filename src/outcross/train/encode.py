"""Examples as token ids in compact columns, and the order in which the optimiser meets them."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np

from outcross.errors import ConfigError, ModelError
from outcross.train.forward import Text
from outcross.train.losses import loss_function
from outcross.types import Example, Prompt

log = logging.getLogger(__name__)
CHUNK = 2048  # examples encoded in one call of the tokenizer


class Encoder(Protocol):
    """Text to token ids, as the trained model will see it when it samples."""

    def prompts(self, prompts: Sequence[Prompt], /) -> list[list[int]]: ...
    def completions(self, texts: Sequence[str], /) -> list[list[int]]:
        """Ids of each text followed by the end token."""


@dataclass
class Rows:
    """Encoded examples: 4 bytes a token, plus identifiers. `skipped` names those longer than the limit."""

    ids: list[str] = field(default_factory=list)
    weights: list[float | tuple[float, ...]] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    depth: int = 0
    longest: int = 0
    _tokens: array[int] = field(default_factory=lambda: array("i"))
    _starts: array[int] = field(default_factory=lambda: array("i"))
    _ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, example: Example, prompt: list[int], completion: list[int]) -> None:
        """Append one example. Raises `ModelError` if its weights do not match its tokens."""
        weight = example.weight
        if isinstance(weight, tuple) and len(weight) != len(completion):
            raise ModelError(
                f"example {example.id} has {len(weight)} weights for {len(completion)} completion tokens (end token included); "
                "give one number, or one per token"
            )
        self.ids.append(example.id)
        self.weights.append(weight)
        self.losses.append(example.loss.name)
        self._tokens.extend(prompt)
        self._tokens.extend(completion)
        self._starts.append(len(prompt))
        self._ends.append(len(self._tokens))
        self.longest = max(self.longest, len(prompt) + len(completion))
        self.depth = max(self.depth, example.origin.depth)

    def length(self, row: int) -> int:
        """Tokens of a row, prompt and completion."""
        return self._ends[row + 1] - self._ends[row]

    def tokens(self, row: int) -> int:
        """Completion tokens of a row, end token included."""
        return self.length(row) - self._starts[row]

    def text(self, row: int) -> Text:
        """The token ids of a row."""
        return Text(self._tokens[self._ends[row] : self._ends[row + 1]], self._starts[row])


def encode(examples: Iterable[Example], encoder: Encoder, max_length: int) -> Rows:
    """Encode all examples, in order.

    One longer than `max_length` tokens is skipped and named, never cut: a cut answer teaches not to stop. Raises
    `ModelError` if nothing is left, or if a completion is not text; `ConfigError` for an unknown loss.
    """
    rows, longest = Rows(), 0
    for chunk in _chunks(examples):
        prompts = encoder.prompts([example.prompt for example in chunk])
        completions = encoder.completions([_completion(example) for example in chunk])
        for example, prompt, completion in zip(chunk, prompts, completions, strict=True):
            loss_function(example.loss.name)
            length = len(prompt) + len(completion)
            longest = max(longest, length)
            if length > max_length:
                rows.skipped.append(example.id)
            else:
                rows.add(example, prompt, completion)
    if not rows.ids and rows.skipped:
        raise ModelError(
            f"all {len(rows.skipped)} examples are longer than max_length = {max_length} tokens (the longest has {longest}); raise max_length"
        )
    if not rows.ids:
        raise ModelError("there is no example to learn from; check what the curators dropped and the mixture's budget")
    if rows.skipped:
        log.warning(
            "%d of %d examples are longer than %d tokens and are not learnt from (never cut: a cut answer teaches not to stop)",
            len(rows.skipped),
            len(rows) + len(rows.skipped),
            max_length,
        )
    return rows


def optimiser_steps(count: int, batch: int, epochs: float, seed: int) -> list[list[int]]:
    """Which rows each optimiser step sees: a fresh permutation of all `count` rows per epoch, cut into batches.

    The last batch of an epoch may be smaller; a fraction of an epoch takes that share of its permutation, at least one row.
    """
    if batch < 1 or epochs <= 0:
        raise ConfigError(f"a plan with batch {batch} and epochs {epochs} has no steps; both must be positive")
    rng = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), 0]))
    left = max(1, round(epochs * count))
    steps: list[list[int]] = []
    while left:
        order = rng.permutation(count)[:left].tolist()
        steps += [order[i : i + batch] for i in range(0, len(order), batch)]
        left -= len(order)
    return steps


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    iterator = iter(examples)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _completion(example: Example) -> str:
    if not isinstance(example.completion, str):
        raise ModelError(f"example {example.id} has a completion that is not text; a language model learns text only")
    return example.completion
