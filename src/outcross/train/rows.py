"""Encoded examples in compact columns."""

from __future__ import annotations

import hashlib
import logging
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from outcross.errors import ModelError
from outcross.train.forward import Text
from outcross.types import Completion, Content, Example, Loss, Prompt

log = logging.getLogger(__name__)
SAID = {"long": "too long", "empty": "without an answer", "equal": "pairs of two equal answers"}


class Encoder(Protocol):
    """Text to token ids, as the trained model will see it when it samples."""

    def prompts(self, prompts: Sequence[Prompt], /) -> list[list[int]]: ...
    def completions(self, texts: Sequence[str], /) -> list[list[int]]:
        """Ids of each text followed by the end token."""

    def of_completion(self, completion: Completion, /) -> list[int]:
        """The ids that an answer was drawn as, where they read as its text."""


@dataclass
class Rows:
    """Encoded examples: 4 bytes a token, plus identifiers. `skipped` names those that are not learnt from."""

    ids: list[str] = field(default_factory=list)
    weights: list[float | tuple[float, ...]] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    targets: list[float] = field(default_factory=list)
    others: dict[int, Text] = field(default_factory=dict)  # rejected answers of pairs; for "kto" the prompt with another row's answer
    references: dict[int, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)  # of the row's tokens, and the other's
    old: dict[int, Sequence[float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)  # why they were: "long", "empty" or "equal"
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
        self.losses.append(example.loss)
        self.targets.append(example.target if isinstance(example.target, float | int) else 1.0 if example.loss.name == "bt" else 0.0)
        if example.loss.clip is not None:
            self.old[len(self.ids) - 1] = array("f", example.old_log_probs)
        self._tokens.extend(prompt)
        self._tokens.extend(completion)
        self._starts.append(len(prompt))
        self._ends.append(len(self._tokens))
        self.longest = max(self.longest, len(prompt) + len(completion))
        self.depth = max(self.depth, example.origin.depth)

    def digest(self) -> str:
        """Of everything that is learnt from these rows."""
        found = hashlib.blake2b(digest_size=16)
        for column in (self._tokens, self._starts, self._ends):
            found.update(column.tobytes())
        for told in (self.ids, self.weights, self.losses, self.targets, self.depth):
            found.update(repr(told).encode())
        for row, text in sorted(self.others.items()):
            found.update(array("q", [row, text.start, *text.ids]).tobytes())
        for numbers in (self.references, {row: (old,) for row, old in self.old.items()}):
            for row, parts in sorted(numbers.items()):
                for part in parts:
                    found.update(array("d", [row, len(part), *part]).tobytes())
        return found.hexdigest()

    def skip(self, example: Example, reason: str) -> None:
        """Leave an example out."""
        self.skipped.append(example.id)
        self.reasons[reason] += 1

    def told(self) -> dict[str, int]:
        """How many examples were left out, by reason."""
        return {SAID[reason]: count for reason, count in sorted(self.reasons.items())}

    def length(self, row: int) -> int:
        """Tokens of a row, prompt and completion."""
        return self._ends[row + 1] - self._ends[row]

    def tokens(self, row: int) -> int:
        """Completion tokens of a row, end token included."""
        return self.length(row) - self._starts[row]

    def text(self, row: int) -> Text:
        """The token ids of a row."""
        return Text(self._tokens[self._ends[row] : self._ends[row + 1]], self._starts[row])


def text_of(example: Example, said: Content) -> str:
    """An answer of an example, or `ModelError` where it is an array."""
    if not isinstance(said, str):
        raise ModelError(f"example {example.id} has a completion that is not text; a language model learns text only")
    return said


def check_told(rows: Rows, longest: int, max_length: int) -> None:
    """Say what was left out and what teaches little; raises `ModelError` when there is nothing to learn from. `longest`: of all, in tokens."""
    count = len(rows) + len(rows.skipped)
    said = {"long": f"longer than max_length = {max_length} tokens", "empty": "without an answer", "equal": "pairs of two equal answers"}
    if not rows.ids and len(rows.reasons) == 1 and rows.reasons["long"]:
        raise ModelError(
            f"all {count} examples are longer than max_length = {max_length} tokens (the longest has {longest}); raise max_length"
        )
    if not rows.ids:
        why = ": " + ", ".join(f"{number} {said[reason]}" for reason, number in rows.reasons.items()) if rows.reasons else ""
        raise ModelError(f"there is no example to learn from{why}; check what the curators dropped and the mixture's budget")
    if not any(any(weight) if isinstance(weight, tuple) else weight for weight in rows.weights):
        raise ModelError(
            f"all {len(rows)} examples have the weight 0, which teaches nothing; check the objective and the values it compares"
        )
    if rows.reasons["long"]:
        log.warning(
            "%d of %d examples are longer than %d tokens and are not learnt from (never cut: a cut answer teaches not to stop)",
            rows.reasons["long"],
            count,
            max_length,
        )
    for reason in ("empty", "equal"):
        if rows.reasons[reason]:
            log.warning("%d of %d examples are %s and are not learnt from", rows.reasons[reason], count, said[reason])
    _warn_of_equal_targets(rows)


def _warn_of_equal_targets(rows: Rows) -> None:
    """A judge that always says the same shows here, before hours are spent."""
    by_loss: dict[str, list[float]] = {}
    for loss, target in zip(rows.losses, rows.targets, strict=True):
        by_loss.setdefault(loss.name, []).append(target)
    for name in ("sppo", "kto", "bt", "value"):
        targets = by_loss.get(name, [])
        if len(targets) > 1 and len(set(targets)) == 1 and not (name == "bt" and targets[0] != 0.5):
            log.warning("all %d examples of the loss %r have the target %g: they cannot tell good from bad", len(targets), name, targets[0])
