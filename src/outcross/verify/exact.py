"""Equality with the reference answer."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Task
from outcross.verify.each import PASS, Finding, scored


@dataclass(frozen=True)
class Exact(Stage):
    """Passes an answer that equals the task's reference answer, up to white space at both ends.

    pattern: a regular expression that finds the answer in a longer text: its last match counts, and of that the first group
        where there is one. It is not applied to the reference.
    casefold: whether upper and lower case are the same.

    An answer that was cut off fails ("unfinished"). A task without a reference answer is abstained on.
    """

    pattern: str = ""
    casefold: bool = False
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"exact: pattern {self.pattern!r} is not a regular expression: {error}") from None

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """With a `pattern` of no usual form only what must fail."""
        right, wrong = wrapped(self.pattern, "42"), wrapped(self.pattern, "41") or "41"
        task = Task("equal", "6*7=", "42")
        known = Canary(task, (wrong,), ("fail",)) if right is None else Canary(task, (right, wrong), ("pass", "fail"))
        return known, Canary(Task("no reference", "6*7="), (wrong,), ("abstain",))

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored(self, groups, self._judge)

    def _judge(self, task: Task, text: str) -> Finding:
        if task.answer is None:
            return "abstain", "the task has no reference answer", ""
        found = last_match(self.pattern, text) if self.pattern else text
        if found is None:
            return "fail", "nothing in the answer matches the pattern", text[-200:]
        said, expected = found.strip(), task.answer.strip()
        if said == expected or (self.casefold and said.casefold() == expected.casefold()):
            return PASS
        return "fail", "differs from the reference answer", said


def last_match(pattern: str, text: str) -> str | None:
    """What the last match of `pattern` in `text` found: its first group where there is one; None without a match."""
    found = deque(re.finditer(pattern, text), maxlen=1)
    if not found:
        return None
    match = found[0]
    return match.group(1) if match.re.groups else match.group()


_FORMS = ("{}", "#### {}", "\\boxed{{{}}}", "<answer>{}</answer>", "Answer: {}", "The answer is {}.", "**{}**", "[{}]", "({})", "`{}`")


def wrapped(pattern: str, answer: str) -> str | None:
    """A text of a usual form in which `pattern` finds `answer`, for canaries; None when it finds it in no such form."""
    texts = (form.format(answer) for form in _FORMS)
    return next((text for text in texts if not pattern or (last_match(pattern, text) or "").strip() == answer), None)
