"""Equality of mathematical answers, by math-verify in processes that can be thrown away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from typing import ClassVar

from outcross.errors import ConfigError, MissingExtra
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Task
from outcross.verify.ahead import known
from outcross.verify.each import PASS, Finding
from outcross.verify.workers import Job, Workers, scored_by_workers

_WRAPPED = re.compile(r"\\boxed\{([^{}]{1,40}|\\[dt]?frac\{[0-9]{1,8}\}\{[0-9]{1,8}\})\}")
_PLAIN = re.compile(r"(-?)(?:(0|[1-9][0-9]{0,8})|([1-9][0-9]{0,2}(?:,[0-9]{3}){1,2}))(?:\.([0-9]{1,5}))?")
_RATIO = re.compile(r"(-?)\\[dt]?frac\{([0-9]{1,8})\}\{([0-9]{1,8})\}")
_NEAR = Fraction(1, 10_000)  # math-verify rounds to six decimals; what lies this close is left to it
_LONGEST = 50_000  # characters of an answer
_SHORT = 60  # characters of an answer that may be a plain number


@dataclass(frozen=True)
class Math(Stage):
    r"""Passes an answer that is mathematically equal to the task's reference answer, as math-verify reads both.

    Verdicts are those of math-verify 0.9 with its default settings. It reads the last or the boxed expression of a text, LaTeX only
    between dollar signs or in `\boxed{}`; a reference may also be LaTeX without them. Answers that are nothing but a number or a
    simple fraction are decided here, in microseconds and to the same verdict; the rest goes to worker processes in batches.

    What math-verify lets through is let through here, on purpose, since a verdict that differs from the field's standard would have to
    be explained in every comparison: "x = 5" equals 5; an equation whose right side matches may be answered by that side; 50 % equals
    both 50 and 0.5; values that agree after rounding to six decimals are equal; a sign followed by a space is dropped ("- 5" is 5);
    "1e5" is read as 1; and the order matters (reference first), so that swapping the two can change the verdict. Ask for answers in
    `\boxed{}`, or use `number` where these matter.

    seconds: of CPU time an answer (at most ten times as long on the clock); beyond them its worker is killed and the verdict is the *error* "timeout", never a fail.
    memory_mb: address space of a worker beyond its start; above it the verdict is the *error* "out of memory".

    An answer of more than 50,000 characters fails, and so does one that was cut off. A task without a reference answer is abstained
    on; a reference that cannot be read is an *error*. Needs the extra `math`.
    """

    seconds: float = 5.0
    memory_mb: int = 1024
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 3600:
            raise ConfigError(f"math: seconds is {self.seconds}; it is more than 0 and at most 3600")
        if self.memory_mb < 512:
            raise ConfigError(f"math: memory_mb is {self.memory_mb}; math-verify itself needs 512")

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """Numbers, which are decided here, and expressions, which a worker decides."""
        return (
            Canary(Task("equal numbers", "1/2 = ?", "0.5"), (r"\boxed{\frac{1}{2}}", "0.25"), ("pass", "fail")),
            Canary(
                Task("equal expressions", "(x+1)^2 = ?", "$x^2+2x+1$"), ("$(x+1)^2$", "$(x+2)^2$", "who knows"), ("pass", "fail", "fail")
            ),
            Canary(Task("no reference", "1/2 = ?"), ("0.5",), ("abstain",)),
        )

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        """Raises `MissingExtra`, before anything is read, when math-verify is not installed."""
        if find_spec("math_verify") is None:
            raise MissingExtra("math-verify", "math", "the verifier `math`")
        return scored_by_workers(self, groups, Job("math_worker", self.memory_mb * 2**20, self.seconds), _ask)


def _ask(workers: Workers, task: Task, text: str) -> Future[Finding]:
    if task.answer is None:
        return known(("abstain", "the task has no reference answer", ""))
    if len(text) > _LONGEST:
        return known(("fail", "the answer is too long", f"{len(text)} characters"))
    finding = at_once(task.answer, text)
    return known(finding) if finding else workers.submit(task.answer, text)


def at_once(gold: str, answer: str) -> Finding | None:
    """The verdict on two plain numbers; None unless both are, and are either the same or clearly different."""
    expected = plain_number(gold)
    if expected is None:
        return None
    said = plain_number(answer)
    if said is None:
        return None
    if said == expected:
        return PASS
    return ("fail", "differs from the reference answer", str(said)) if abs(said - expected) > _NEAR else None


@lru_cache(maxsize=1024)
def plain_number(text: str) -> Fraction | None:
    r"""The value of a text that is nothing but a number, "-1,234.5", "$7$", "\boxed{7}" or "\frac{1}{2}"; None for anything else.

    At most nine digits before the point and five after it, so that no rounding of math-verify's comes into play.
    """
    if len(text) > _SHORT:
        return None
    bare = text.strip(" \n")
    text = bare[1:-1] if len(bare) > 2 and bare[0] == bare[-1] == "$" else bare
    if boxed := _WRAPPED.fullmatch(text):
        text = boxed[1]
    if text is bare and text.startswith(("\\d", "\\t", "-\\d", "-\\t")):
        return None  # LaTeX out of place, which math-verify does not read
    if found := _PLAIN.fullmatch(text):
        sign, digits, grouped, decimals = found.groups()
        decimals = decimals or ""
        value = Fraction(int((digits or grouped.replace(",", "")) + decimals), 10 ** len(decimals))
    elif (found := _RATIO.fullmatch(text)) and int(found[3]):
        sign, value = found[1], Fraction(int(found[2]), int(found[3]))
    else:
        return None
    return -value if sign else value
