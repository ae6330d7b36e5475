"""Equality of numbers, however they are written."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Task
from outcross.verify.each import PASS, Finding, scored

_NUMBER = re.compile(
    r"""(?:(?<![0-9A-Za-z)])(?P<sign>[-+−]))?[$€£]?
    (?P<whole>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+|(?=\.[0-9]))
    (?:\.(?P<decimals>[0-9]+))?
    (?:[eE](?P<exponent>[-+]?[0-9]{1,3})(?![0-9]))?
    (?:\s?/\s?(?P<below>[0-9]+)(?![0-9]*[.,/][0-9]))?""",
    re.VERBOSE,
)
_LONGEST = 400  # characters; reading a number takes time quadratic in its digits


@dataclass(frozen=True)
class Number(Stage):
    """Passes an answer whose last number equals the last number of the task's reference answer.

    Signs, thousands commas, decimals, powers of ten ("1.2e3") and fractions ("3/4") are understood, and "$", "€" and "£" before a
    number are skipped; numbers are compared exactly, as fractions, within `tolerance`. A percent sign is not read. Nothing is evaluated.

    An answer that was cut off fails ("unfinished"). A task without a reference answer is abstained on; a reference without a
    number is an error.
    """

    tolerance: float = 0.0
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < float("inf"):
            raise ConfigError(f"number: tolerance is {self.tolerance}; it is a finite number, 0 or more")

    @property
    def canaries(self) -> tuple[Canary, ...]:
        task = Task("equal numbers", "How much is it?", "It is 1,200.50")
        wrong = f"It is {1201 + 2 * math.ceil(self.tolerance)}.5, or so"
        return (
            Canary(task, ("So it costs $1200.5 in all.", wrong, "none"), ("pass", "fail", "fail")),
            Canary(Task("no reference", "How much is it?"), ("1",), ("abstain",)),
            Canary(Task("reference without a number", "How much is it?", "much"), ("1",), ("error",)),
        )

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored(self, groups, self._judge)

    def _judge(self, task: Task, text: str) -> Finding:
        if task.answer is None:
            return "abstain", "the task has no reference answer", ""
        expected = last_number(task.answer)
        if expected is None:
            return "error", "the reference answer holds no number", task.answer
        said = last_number(text)
        if said is None:
            return "fail", "the answer holds no number", text[-200:]
        if said == expected or (self.tolerance and abs(said - expected) <= Fraction(self.tolerance)):
            return PASS
        return "fail", "differs from the reference number", str(said)


def last_number(text: str) -> Fraction | None:
    """The last number in a text, exactly; None when there is none, or it divides by zero or is longer than 400 characters."""
    found = deque(_NUMBER.finditer(text), maxlen=1)
    if not found or len(found[0].group()) > _LONGEST:
        return None
    sign, whole, decimals, exponent, below = found[0].group("sign", "whole", "decimals", "exponent", "below")
    digits = whole.replace(",", "") + (decimals or "")
    power = int(exponent or 0) - len(decimals or "")
    value = Fraction(int(digits)) * Fraction(10) ** power
    if below is not None:
        if int(below) == 0:
            return None
        value /= int(below)
    return -value if sign in ("-", "−") else value
