"""How one task is composed: its attributes in the order in which they depend on each other, then its texts."""

from __future__ import annotations

import keyword
from collections.abc import Iterator, Mapping
from typing import Any

from outcross.errors import ConfigError, DataError, did_you_mean
from outcross.tasks.attribute import shown
from outcross.tasks.attributes import AnyAttribute, Cases, Subcategory
from outcross.tasks.seeds import Columns, Seed, flat
from outcross.tasks.strata import Point, Stratum, independent, nested, planned
from outcross.tasks.templates import GLOBALS, Expression, Template, Values, check_names
from outcross.types import Kind, Message, Origin, Prompt, Task, content_hash

_RESERVED = GLOBALS | {"row", "true", "false", "none", "and", "or", "not", "in", "is", "if", "else"}


class Composer:
    """The templates of a `Compose`, ready to be filled in. `size` is how many tasks are planned together, `together` how many in
    succession should differ from each other."""

    def __init__(
        self,
        attributes: Mapping[str, AnyAttribute],
        turns: tuple[Message, ...],
        answer: str,
        subgroup: str,
        constraints: tuple[str, ...],
        attempts: int,
        plan: str,
        seed: int,
    ) -> None:
        _check_attributes(attributes)
        self.size = self.together = 1
        self._attributes, self._attempts, self._plan, self._seed = attributes, attempts, plan, seed
        self._order = _ordered(attributes)
        several = len(turns) > 2 or (len(turns) > 1 and turns[0].role != "system")
        self._turns = [
            (
                turn.role,
                Template(turn.content, f"compose: messages.{place}" if several else f"compose: {_LABELS.get(turn.role, turn.role)}"),
            )
            for place, turn in enumerate(turns)
        ]
        self._answer = Template(answer, "compose: answer") if answer else None
        self._subgroup = Expression(subgroup, "compose: subgroup") if subgroup else None
        self._constraints = [Expression(item, f"compose: the constraint {item!r:.80}") for item in constraints]

    # ── before anything is drawn ───────────────────────────────────────────────────────────────────────────────────────
    def check(self, columns: frozenset[str] | None, recorded: Columns = ()) -> None:
        """Raises `ConfigError` for a name that nothing defines, or that an attribute and the rows both define.

        `columns`: those of the rows; empty without rows, None while they are not known.
        """
        self._check_cases()
        if columns is None:
            return
        doubled = sorted(self._attributes.keys() & (columns | {name for name, _ in recorded}))
        if doubled:
            raise ConfigError(f"compose: {doubled[0]!r} is an attribute and a column of the rows; rename the attribute")
        known = {*columns, *self._attributes, *(("row",) if columns else ())}
        for name, item in self._attributes.items():
            for needed in sorted(item.needs - known):
                raise ConfigError(
                    f"compose: attribute {name!r} uses {needed!r}, which is no attribute and no column of the rows; "
                    f"{did_you_mean(needed, known - {name})}"
                )
        parts = [template for _, template in self._turns]
        for part in (*parts, self._answer, self._subgroup, *self._constraints):
            if part is not None:
                check_names(part, known)

    def _check_cases(self) -> None:
        """Every value that `of` can have must have a case, and every case must be able to happen."""
        shares = shares_of(self._attributes)
        for name, item in self._attributes.items():
            if not isinstance(item, Subcategory | Cases) or item.of not in shares:
                continue
            given, cases = {value for value, share in shares[item.of].items() if share}, set(item.by_text)
            for value in sorted(given - cases):
                raise ConfigError(f"compose: attribute {name!r} has no case for the {item.of} {value!r}; {did_you_mean(value, cases)}")
            for case in sorted(cases - shares[item.of].keys()):
                raise ConfigError(
                    f"compose: attribute {name!r} has a case for {case!r}, which no {item.of} is; {did_you_mean(case, given)}"
                )

    # ── one task ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def task(self, number: int, seed: Seed | None) -> Task:
        """The task of this number. Raises `DataError` naming it and its row."""
        values, prompt = self.filled(number, seed)
        try:
            answer = self._answer(values) if self._answer else None
            subgroup = shown(self._subgroup(values)) if self._subgroup else None
        except DataError as error:
            raise _placed(error, number, seed) from error.__cause__
        drawn = flat({name: values[name] for name in self._order})
        origin = _origin(seed, self._seed)
        identifier = content_hash("compose", prompt, answer, drawn, origin.parents, number)
        return Task(identifier, prompt, answer, subgroup, origin, columns=(*(seed.columns if seed else ()), *drawn))

    def filled(self, number: int, seed: Seed | None) -> tuple[Values, Prompt]:
        """The values of all names for a task, in keeping with the constraints, and its prompt. Raises `DataError`."""
        try:
            values = self._kept(number, {**seed.values, "row": seed.values} if seed else {})
            texts = tuple(Message(role, template(values)) for role, template in self._turns)
        except DataError as error:
            raise _placed(error, number, seed) from error.__cause__
        if not texts[-1].content.strip():
            raise _placed(
                DataError(f"{self._turns[-1][1].label} is empty when it is filled in, and a task must ask something"), number, seed
            )
        return values, texts[0].content if len(texts) == 1 and texts[0].role == "user" else texts

    def _kept(self, number: int, given: Values) -> Values:
        """Drawn values that keep the constraints."""
        values: Values = given
        for attempt in range(self._attempts if self._constraints else 1):
            values = self._values(number, attempt, given)
            if all(constraint(values) for constraint in self._constraints):
                return values
        used = sorted(frozenset[str]().union(*(constraint.needs for constraint in self._constraints)) - {"row"})
        last = ", ".join(f"{name}={value}" for name, value in flat({name: values[name] for name in used}))
        raise DataError(
            f"none of {self._attempts:,} draws kept the constraints; the last had {last:.200}. Loosen a constraint, or let attributes "
            "depend on each other (`subcategory`, `cases`) so that what is refused is not drawn"
        )

    def _values(self, number: int, attempt: int, given: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(given)
        strata: dict[str, Stratum] = {}
        whole = Stratum(number, self.size, f"{self._seed}")
        last = whole  # stratum of the combination so far
        for name in self._order:
            item = self._attributes[name]
            above = strata.get(getattr(item, "of", ""), whole)
            if attempt or self._plan == "independent":
                point = independent(f"{self._seed}\x1f{number}\x1f{attempt}", name)
            elif self._plan == "crossed" and item.finite and last is not whole:
                point = nested(last, name)
            else:
                point = planned(above, name, self.together if above is whole else 1)
            values[name], stratum = self._drawn(name, point, values)
            if stratum is not None:
                strata[name] = stratum
                last = stratum if item.finite else last
        return values

    def _drawn(self, name: str, point: Point, values: Values) -> tuple[Any, Stratum | None]:
        try:
            return self._attributes[name].draw(point, values)
        except DataError as error:
            raise DataError(f"attribute {name!r}: {error}") from error.__cause__


_LABELS = {"user": "prompt"}


def _placed(error: DataError, number: int, seed: Seed | None) -> DataError:
    where = f", {seed.place}" if seed else ""
    return DataError(f"compose: task {number}{where}: {str(error).replace('compose: ', '')}")


def _origin(seed: Seed | None, number: int) -> Origin:
    """A composed prompt is made by a rule from a row: what people wrote in the row does not make the whole real."""
    if seed is None:
        return Origin("unknown", "none", f"compose:seed={number}")
    kind: Kind = "synthetic" if seed.origin.kind == "synthetic" else "unknown"
    return Origin(kind, "none", seed.origin.source, seed.origin.depth, parents=(seed.id, *seed.origin.parents), note="composed")


def shares_of(attributes: Mapping[str, AnyAttribute]) -> dict[str, Mapping[str, float]]:
    """The planned shares of the values of every attribute for which they are known."""
    found: dict[str, Mapping[str, float]] = {}
    for name in _ordered(attributes):
        shares = attributes[name].shares(found)
        if shares is not None:
            found[name] = shares
    return found


def _check_attributes(attributes: Mapping[str, AnyAttribute]) -> None:
    for name, item in attributes.items():
        if not name.isidentifier() or keyword.iskeyword(name) or name in _RESERVED:
            raise ConfigError(
                f"compose: an attribute is called {name!r}; a template can only use letters, digits and _, and no word of Jinja"
            )
        for problem in _problems(item):
            raise ConfigError(f"compose: attribute {name!r}: {problem}")


def _problems(item: AnyAttribute) -> Iterator[str]:
    try:
        yield from item.problems()
        _ = item.needs
    except ConfigError as error:
        yield str(error)


def _ordered(attributes: Mapping[str, AnyAttribute]) -> list[str]:
    """Names, each after those that it is made from; by name where that leaves a choice, as a run's record forgets the order."""
    left, found = sorted(attributes), list[str]()
    while left:
        ready = [name for name in left if not attributes[name].needs & set(left)]
        if not ready:
            raise ConfigError(f"compose: the attributes {', '.join(left)} are made from each other in a circle; take one out of it")
        found += ready
        left = [name for name in left if name not in ready]
    return found
