"""Examples as token ids in compact columns, and the order in which the optimiser meets them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from outcross.errors import ConfigError, ModelError
from outcross.stages import Model
from outcross.train.forward import Text
from outcross.train.losses import PAIRED, TARGETED, check_policy_loss
from outcross.train.refer import Referee
from outcross.train.rows import Encoder, Rows, check_told, text_of
from outcross.train.scores import Scores
from outcross.types import Completion, Content, Example

CHUNK = 2048  # examples encoded in one call of the tokenizer


def encode(
    examples: Iterable[Example], encoder: Encoder, max_length: int, reference: Model | None = None, scores: Scores | None = None
) -> Rows:
    """Encode all examples, in order, with what `reference` thinks of those whose loss compares with it: asked once, 4 bytes a token kept.
    What `scores` holds of it is not asked at all.

    One longer than `max_length` tokens is skipped and named, never cut: a cut answer teaches not to stop. One of "nll" without an
    answer is skipped too, which would teach to say nothing, and a pair of equal answers, which has no gradient. Raises `ModelError` if nothing is left, or if a completion is not text;
    `ConfigError` for an unknown loss.
    """
    rows, longest, referee = Rows(), 0, Referee(encoder, max_length, reference, scores)
    for chunk in chunks(examples):
        prompts = encoder.prompts([example.prompt for example in chunk])
        completions = encoder.completions([text_of(example, example.completion) for example in chunk])
        rejected = encoder.completions([text_of(example, _rejected(example)) for example in chunk])
        kept: list[tuple[int, Example]] = []
        for example, prompt, completion, other in zip(chunk, prompts, completions, rejected, strict=True):
            if example.tokens:
                completion = _drawn(example, encoder)
            _check(example, len(completion))
            length = len(prompt) + max(len(completion), len(other) if example.loss.name in PAIRED else 0)
            longest = max(longest, length)
            if reason := _left_out(example, length, max_length):
                rows.skip(example, reason)
                continue
            kept.append((len(rows), example))
            rows.add(example, prompt, completion)
            if example.loss.name in PAIRED:
                rows.others[len(rows) - 1] = Text(array("i", [*prompt, *other]), len(prompt))
                rows.longest = max(rows.longest, length)
        referee.ask(rows, kept)
    referee.finish()
    check_told(rows, longest, max_length)
    return rows


def optimiser_steps(count: int, batch: int, epochs: float, seed: int, *, shuffle: bool = True) -> list[list[int]]:
    """Which rows each optimiser step sees: a fresh permutation of all `count` rows per epoch, or their own order, cut into batches.

    The last batch of an epoch may be smaller; a fraction of an epoch takes that share of its permutation, at least one row.
    """
    if batch < 1 or epochs <= 0:
        raise ConfigError(f"a plan with batch {batch} and epochs {epochs} has no steps; both must be positive")
    rng = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), 0]))
    left = max(1, round(epochs * count))
    steps: list[list[int]] = []
    while left:
        order = (rng.permutation(count) if shuffle else np.arange(count))[:left].tolist()
        steps += [order[i : i + batch] for i in range(0, len(order), batch)]
        left -= len(order)
    return steps


def chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """As many at once as the tokenizer takes."""
    iterator = iter(examples)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _left_out(example: Example, length: int, max_length: int) -> str:
    """Why an example is not learnt from; empty when it is."""
    if example.loss.name == "nll" and not example.completion:
        return "empty"
    if example.loss.name in PAIRED and example.rejected == example.completion:
        return "equal"
    return "long" if length > max_length else ""


def _check(example: Example, tokens: int) -> None:
    """Raises `ConfigError` for a loss that cannot be, `ModelError` for an example that lacks what its loss reads."""
    loss = example.loss
    check_policy_loss(loss)
    if loss.name in PAIRED and example.rejected is None:
        raise ModelError(f"example {example.id} has the loss {loss.name!r} and no rejected answer; pairs have two")
    if loss.name in TARGETED and not (isinstance(example.target, float | int) and 0 <= example.target <= 1):
        raise ModelError(f"example {example.id} has the loss {loss.name!r} and the target {example.target}; give a number from 0 to 1")
    if not all(map(math.isfinite, example.weight if isinstance(example.weight, tuple) else (example.weight,))):
        raise ModelError(f"example {example.id} has the weight {example.weight!r:.80}; give finite numbers")
    if loss.name not in ("nll", "pg") and isinstance(example.weight, tuple):
        raise ModelError(f"example {example.id} has a weight per token; the loss {loss.name!r} takes one per example")
    if loss.clip is not None and len(example.old_log_probs) != tokens:
        raise ModelError(
            f"example {example.id} has {len(example.old_log_probs)} old_log_probs for {tokens} completion tokens (end token included); "
            "clipping needs one per token: leave clip out, or keep to finished answers"
        )


def _drawn(example: Example, encoder: Encoder) -> list[int]:
    """The tokens that an answer was drawn as: the last may be one of a stop string, and others may not be those of its text. Raises `ModelError`."""
    found = encoder.of_completion(Completion(text_of(example, example.completion), example.tokens))
    if tuple(found) != example.tokens:
        raise ModelError(
            f"example {example.id} was drawn as {len(example.tokens)} tokens that do not read as its text here; numbers by token (clip, or a critic's) "
            "need answers that the model which learns has drawn"
        )
    return found


def _rejected(example: Example) -> Content:
    return example.rejected if example.loss.name in PAIRED and example.rejected is not None else ""
