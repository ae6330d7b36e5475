"""Answers that a regular expression must match."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Task, Verdict
from outcross.verify.ahead import known
from outcross.verify.each import Finding
from outcross.verify.workers import Job, Workers, scored_by_workers

_MEMORY = 512 * 2**20
_LONGEST = 1_000_000  # characters of an answer

Place = Literal["whole", "anywhere"]


@dataclass(frozen=True)
class Matches(Stage):
    """Passes an answer that a regular expression of Python's `re` matches; white space at both ends of the answer does not count.

    pattern: the expression; or column: the task's column that holds one for each task. Flags are written into it: `(?is)…`.
    where: "whole": it must match from the first character to the last; "anywhere": some part of the answer is enough.
    seconds: of CPU time an answer. Expressions can take time that is exponential in the length of the answer, and nothing in `re`
        stops them, so they run in worker processes; beyond this one is killed and the verdict is the *error* "timeout".

    An answer that was cut off fails, and so does one of more than a million characters. A task without the column is abstained on.
    """

    pattern: str = ""
    column: str = ""
    where: Place = "whole"
    seconds: float = 1.0
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        if bool(self.pattern) == bool(self.column):
            raise ConfigError("matches: give either a `pattern`, or the `column` of the tasks that holds one")
        if self.where not in get_args(Place):
            raise ConfigError(f"matches: where is {self.where!r}; it is one of {', '.join(get_args(Place))}")
        if not 0 < self.seconds <= 3600:
            raise ConfigError(f"matches: seconds is {self.seconds}; it is more than 0 and at most 3600")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"matches: pattern {self.pattern!r:.100} is not a regular expression: {error}") from None

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """A few short texts, with what `re` says of them here; with a `column`, under a pattern of their own."""
        pattern, texts = self.pattern or "[0-9]+", ("42", "yes", "")
        find = re.fullmatch if self.where == "whole" else re.search
        expected: tuple[Verdict, ...] = tuple("pass" if find(pattern, text) else "fail" for text in texts)
        columns = ((self.column, pattern),) if self.column else ()
        return (Canary(Task("short texts", "", columns=columns), texts, expected),)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored_by_workers(self, groups, Job("pattern_worker", _MEMORY, self.seconds), self._ask)

    def _ask(self, workers: Workers, task: Task, text: str) -> Future[Finding]:
        pattern = self.pattern or dict(task.columns).get(self.column, "")
        if not pattern:
            return known(("abstain", "the task has no pattern", ""))
        if len(text) > _LONGEST:
            return known(("fail", "the answer is too long", f"{len(text)} characters"))
        return workers.submit(pattern, self.where, text)
