"""Whether an instruction that was found for a text leads back to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.text import words
from outcross.types import Canary, Ground, Group, Sample, Score, Task
from outcross.verify.each import UNFINISHED, with_score


@dataclass(frozen=True)
class Regenerated(Stage):
    """Passes a reversed instruction whose new answer shares enough with the text it was found for (`instruction_reversal` with
    `regenerate`; Phi-4, arXiv:2412.08905 §2.2, keeps code only so, without saying how it compares).

    The value is the Dice coefficient of the two texts' word n-grams, repeats counted, n no longer than the shorter text; at
    `threshold` or above it passes. Words in common show likeness, not truth: hence the ground *judged*. It abstains where nothing
    was regenerated.
    """

    threshold: float = 0.3
    n: int = 2
    ground: ClassVar[Ground] = "judged"

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or self.n < 1:
            raise ConfigError(f"regenerated: threshold is {self.threshold} and n {self.n}; allowed are 0 < threshold ≤ 1 and n ≥ 1")

    @property
    def canaries(self) -> tuple[Canary, ...]:
        task = Task("likeness", "Write a line about the sea.")
        text, other = "The sea is wide and grey this morning.", "My brother sells apples in town."
        return (
            Canary(task, ((text, text), (other, text)), ("pass", "fail")),
            Canary(Task("nothing regenerated", task.prompt), (text,), ("abstain",)),
        )

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        for group in groups:
            yield Group(group.task, tuple([item if item.error else with_score(item, self._score(item)) for item in group.samples]))

    def _score(self, sample: Sample) -> Score:
        name, version = self.name, self.version
        given = sample.turns[-1].completion
        if not given.finished:
            return Score(name, version, UNFINISHED[0], 0.0, UNFINISHED[1])
        again = sample.turns[-2].completion if len(sample.turns) > 1 and sample.turns[-2].prompt == sample.turns[-1].prompt else None
        if again is None or not isinstance(given.content, str) or not isinstance(again.content, str):
            return Score(name, version, "abstain", None, "nothing was regenerated from the instruction")
        if not again.finished:
            return Score(name, version, "fail", 0.0, "the new answer was cut off at the token limit")
        value = likeness(given.content, again.content, self.n)
        if value >= self.threshold:
            return Score(name, version, "pass", value)
        return Score(name, version, "fail", value, "the instruction does not lead back to the text", again.content[:200])


def likeness(one: str, other: str, n: int) -> float:
    """The Dice coefficient of two texts' word n-grams, between 0 and 1; of two texts without words, whether they are equal."""
    first, second = words(one), words(other)
    n = min(n, len(first), len(second))
    if not n:
        return float(one == other)
    grams = [Counter(zip(*(found[start:] for start in range(n)), strict=False)) for found in (first, second)]
    return 2 * (grams[0] & grams[1]).total() / (grams[0].total() + grams[1].total())
