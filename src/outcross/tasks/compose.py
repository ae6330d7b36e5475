"""Prompts as data: Jinja templates over seed rows and planned attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Literal

from outcross.errors import ConfigError
from outcross.tasks.attributes import AnyAttribute
from outcross.tasks.composer import Composer
from outcross.tasks.coverage import Coverage, covered
from outcross.tasks.rows import content_digest
from outcross.tasks.seeds import Seed, read_seeds
from outcross.types import Message, Task

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Compose:
    """Tasks made of templates (Jinja, sandboxed; an unknown name is an error) over seed rows and attributes drawn by `seed`.

    prompt: the user's message. With `system` it becomes a conversation; `messages` gives a conversation of several turns instead.
    attributes: what varies, by name: category, subcategory, cases, integer, uniform, normal, boolean, date, sample_of, faker, uuid
        or expression, each with settings of its own (`tasks/attributes.py`). One may depend on any other, in whatever order.
    rows: a data file or another task set, whose columns the templates see by name, and all together as `row`.
    n: how many tasks; the rows are gone over as often as that takes. Left out: `per_row` for each row.
    per_row: how many tasks in succession share a row; their attributes are spread over the whole range of values.
    plan: *stratified*: every value gets its exact share of the tasks, and ranges are filled evenly (a Latin hypercube), each
        attribute by itself and a dependent one within each value of what it depends on; *crossed*: every combination of values gets its
        exact share; *independent*: drawn anew for each task.
    constraints: expressions that must hold, `grade > 3 or topic == 'algebra'`. A combination that one refuses is drawn again, independently,
        at most `attempts` times, so that shares are then no longer exact; `coverage()` counts what came out.
    answer, subgroup: a template and an expression, for the task's reference answer and its part of the statistics.

    Every attribute, and every column of the row, is a column of the task; those of a drawn row are `persona.name`. The row's identifier is
    the task's parent. A composed prompt is never claimed to be real, and inherits the depth of its row.

    Building checks the templates; iterating streams, and raises `DataError` for a row or value that a template cannot be written with.
    """

    prompt: str = ""
    attributes: Mapping[str, AnyAttribute] = field(default_factory=dict)
    rows: Iterable[Task] | Path | None = None
    n: int | None = None
    per_row: int = 1
    seed: int = 0
    plan: Literal["stratified", "crossed", "independent"] = "stratified"
    system: str = ""
    messages: tuple[Message, ...] = ()
    answer: str = ""
    subgroup: str = ""
    constraints: tuple[str, ...] = ()
    attempts: int = 1000

    def __post_init__(self) -> None:
        if bool(self.prompt) == bool(self.messages):
            raise ConfigError("compose: give either `prompt`, the user's message, or `messages`, a conversation of several turns")
        if self.messages:
            self._check_messages()
        if self.rows is None and self.n is None:
            raise ConfigError("compose: say how many tasks to make, `n: 1000`, or give `rows`")
        if min(self.n or 1, self.per_row, self.attempts) < 1 or self.n == 0:
            raise ConfigError(
                f"compose: n={self.n}, per_row={self.per_row}, attempts={self.attempts}; each must be 1 or more (or no n, with rows)"
            )
        if self.plan not in ("stratified", "crossed", "independent"):
            raise ConfigError(f"compose: plan is {self.plan!r}; allowed: stratified, crossed, independent")
        self._composer().check(frozenset() if self.rows is None else None)

    def _check_messages(self) -> None:
        wrong = next((item.role for item in self.messages if item.role not in _ROLES), None)
        if wrong is not None:
            raise ConfigError(f"compose: a message has the role {wrong!r}; allowed: {', '.join(_ROLES)}")
        if self.messages[-1].role == "assistant":
            raise ConfigError("compose: the last message is the assistant's, so that nothing is left to answer; end with the user's")
        if self.system:
            raise ConfigError("compose: there is `system`, and `messages`; put the system message first among the messages")

    def identity(self) -> object:
        """What is made, not where its rows lie."""
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "rows"}
        rows = {"content": content_digest(Path(self.rows))} if isinstance(self.rows, str | Path) else self.rows
        return {**settings, "rows": rows}

    def __iter__(self) -> Iterator[Task]:
        composer = self._composer()
        return (composer.task(number, seed) for number, seed in self._places(composer))

    def coverage(self) -> Coverage:
        """What all tasks together cover, against what was planned: `print(tasks.coverage())`. Makes every task once; holds counts."""
        composer = self._composer()
        return covered(self.attributes, (composer.filled(number, seed) for number, seed in self._places(composer)))

    def _composer(self) -> Composer:
        turns = self.messages or (*((Message("system", self.system),) if self.system else ()), Message("user", self.prompt))
        return Composer(self.attributes, turns, self.answer, self.subgroup, self.constraints, self.attempts, self.plan, self.seed)

    def _places(self, composer: Composer) -> Iterator[tuple[int, Seed | None]]:
        """The number of each task and its row. The composer is told how many there are, and checked against the first row."""
        composer.size, composer.together = self._size(), self.per_row
        if self.rows is None:
            yield from zip(range(composer.size), repeat(None))
            return
        number = 0
        while number < composer.size:
            repeated = chain.from_iterable(repeat(seed, self.per_row) for seed in read_seeds(self.rows))
            for seed in islice(repeated, composer.size - number):
                if number == 0:
                    composer.check(frozenset(seed.values), seed.columns)
                yield number, seed
                number += 1

    def _size(self) -> int:
        if self.n is not None:
            return self.n
        assert self.rows is not None
        return sum(1 for _ in read_seeds(self.rows)) * self.per_row
