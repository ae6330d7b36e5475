"""What can vary between prompts: one frozen dataclass per kind of attribute, written in a run file by its first setting.

    topic:    {category: {algebra: 3, geometry: 1}}                    weights, or a list of equally likely values
    subtopic: {subcategory: {algebra: [linear, quadratic], geometry: [area]}, of: topic}
    grade:    {integer: [1, 12]}                                       both ends included
    price:    {uniform: [0.5, 20], decimals: 2}
    height:   {normal: [170, 10], low: 140, decimals: 0}
    hint:     {boolean: 0.25}                                          how likely true is
    due:      {date: [2024-01-01, 2024-12-31]}
    persona:  {sample_of: personas.jsonl, weight: share}               a row; {{ persona.name }} is its column
    author:   {faker: [name, city], locale: de_DE}
    ticket:   {uuid: "T-"}
    length:   {cases: {algebra: {integer: [1, 2]}, geometry: {integer: [3, 9]}}, of: topic}
    total:    {expression: "price * grade"}                            of other attributes and columns

A draw inverts the attribute's distribution at a `Point` and says which stratum of tasks got the same value, if that is known.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from outcross.errors import DataError, did_you_mean
from outcross.tasks.attribute import Attribute, Drawn, Shares, cumulative, shown
from outcross.tasks.ranges import Boolean, Date, Integer, Normal, Uniform
from outcross.tasks.sampled import Faker, SampleOf, Uuid
from outcross.tasks.strata import Point
from outcross.tasks.templates import Expression as Computed
from outcross.tasks.templates import Template, Values, is_template


@dataclass(frozen=True)
class Category(Attribute):
    """One of several values: `{value: weight}`, or a list of equally likely ones, which may be rows of named values."""

    category: Mapping[Any, float] | tuple[Any, ...]

    finite: ClassVar[bool] = True

    def identity(self) -> object:
        return {"values": list(self._values), "weights": list(self._edges)}

    def problems(self) -> Iterator[str]:
        yield from _choice_problems("category", self.category)

    def shares(self, known: Mapping[str, Shares]) -> Shares:
        found: dict[str, float] = {}
        for value, low, high in zip(self._values, (0.0, *self._edges), self._edges):
            found[shown(value)] = found.get(shown(value), 0.0) + high - low
        return found

    def draw(self, point: Point, values: Values) -> Drawn:
        edges = self._edges
        index = min(bisect_right(edges, point.spaced), len(edges) - 1)
        return self._values[index], point.within(edges[index - 1] if index else 0.0, edges[index], str(index))

    @cached_property
    def _values(self) -> tuple[Any, ...]:
        return tuple(sorted(map(shown, self.category))) if isinstance(self.category, Mapping) else tuple(self.category)

    @cached_property
    def _edges(self) -> tuple[float, ...]:
        if not isinstance(self.category, Mapping):
            return tuple((place + 1) / len(self.category) for place in range(len(self.category)))
        return cumulative([weight for _, weight in sorted((shown(key), weight) for key, weight in self.category.items())])


@dataclass(frozen=True)
class Subcategory(Attribute):
    """One of the values that belong to the value of another attribute, `of`: weights or a list for each."""

    subcategory: Mapping[Any, Any]
    of: str

    finite: ClassVar[bool] = True

    def identity(self) -> object:
        return {"of": self.of, **{f"={key}": item.identity() for key, item in self.by_text.items()}}

    @property
    def needs(self) -> frozenset[str]:
        return self._given.needs

    def problems(self) -> Iterator[str]:
        if not self.subcategory:
            yield "subcategory is empty; give the values of each value of `of`"
        for key, choice in self.subcategory.items():
            if not isinstance(choice, Mapping | Sequence) or isinstance(choice, str):
                yield f"subcategory.{shown(key)} is {choice!r:.60}; it must be a list of values, or {{value: weight}}"
            else:
                yield from _choice_problems(f"subcategory.{shown(key)}", choice)

    def shares(self, known: Mapping[str, Shares]) -> Shares | None:
        return _mixed(self.by_text, self.of, known)

    def draw(self, point: Point, values: Values) -> Drawn:
        return _case(self.by_text, self._given, values).draw(point, values)

    @cached_property
    def by_text(self) -> Mapping[str, Category]:
        """The choice for each value of `of`, by its text."""
        return {_key(key): Category(_frozen(choice)) for key, choice in self.subcategory.items()}

    @cached_property
    def _given(self) -> Computed:
        return Computed(self.of, f"`of: {self.of}`")


@dataclass(frozen=True)
class Cases(Attribute):
    """Another attribute for each value of `of`."""

    cases: Mapping[str, AnyAttribute]
    of: str

    @property
    def finite(self) -> bool:  # type: ignore[override]
        return all(case.finite for case in self.cases.values())

    @property
    def needs(self) -> frozenset[str]:
        return self._given.needs.union(*(case.needs for case in self.cases.values()))

    def problems(self) -> Iterator[str]:
        if not self.cases:
            yield "cases is empty; give an attribute for each value of `of`"
        for key, case in self.cases.items():
            yield from (f"cases.{key}: {problem}" for problem in case.problems())

    def shares(self, known: Mapping[str, Shares]) -> Shares | None:
        return _mixed(self.by_text, self.of, known)

    def draw(self, point: Point, values: Values) -> Drawn:
        return _case(self.by_text, self._given, values).draw(point, values)

    @cached_property
    def by_text(self) -> Mapping[str, Attribute]:
        """The cases by the text of the value that they are for."""
        return {_key(key): case for key, case in self.cases.items()}

    @cached_property
    def _given(self) -> Computed:
        return Computed(self.of, f"`of: {self.of}`")


@dataclass(frozen=True)
class Expression(Attribute):
    """Computed from other attributes and columns: an expression keeps its type (`price * 2`), a template (`{{ a }}-{{ b }}`) gives text."""

    expression: str

    @property
    def needs(self) -> frozenset[str]:
        return self._computed.needs

    def draw(self, point: Point, values: Values) -> Drawn:
        return self._computed(values), None

    @cached_property
    def _computed(self) -> Template | Computed:
        return (Template if is_template(self.expression) else Computed)(self.expression, f"expression {self.expression!r:.60}")


AnyAttribute = Category | Subcategory | Cases | Integer | Uniform | Normal | Boolean | Date | SampleOf | Faker | Uuid | Expression


def _key(value: object) -> str:
    """A key of a run file as text; `true` and `false` come as booleans the first time and as text from a run's record."""
    text = shown(value)
    return text.lower() if text in ("True", "False") else text


def _choice_problems(name: str, choice: Any) -> Iterator[str]:
    if not choice:
        yield f"{name} is empty; give at least one value"
    for value in choice:
        if isinstance(value, bool):
            yield f"{name} has the value {value}: YAML reads yes, no, on and off as true or false; put it in quotes, or use `boolean`"
        elif not isinstance(value, str | int | float | Mapping):
            yield f"{name} has the value {value!r:.60}; it must be text (in quotes), a number, or a row of named values"
    if not isinstance(choice, Mapping):
        return
    wrong = {key: weight for key, weight in choice.items() if not isinstance(weight, int | float) or not 0 <= weight < math.inf}
    for key, weight in wrong.items():
        yield f"the weight of {shown(key)!r} in {name} is {weight!r:.60}; it must be a number, 0 or more"
    if choice and not wrong and not sum(choice.values()):
        yield f"all weights in {name} are 0; give at least one more than that"


def _frozen(choice: Any) -> Any:
    return choice if isinstance(choice, Mapping) else tuple(choice)


def _mixed(cases: Mapping[str, Attribute], of: str, known: Mapping[str, Shares]) -> Shares | None:
    """The shares of each case's values, weighted by how often the case is met."""
    if of not in known:
        return None
    found: dict[str, float] = {}
    for key, share in known[of].items():
        inner = cases[key].shares(known) if key in cases else None
        if inner is None:
            return None
        for value, part in inner.items():
            found[value] = found.get(value, 0.0) + share * part
    return found


def _case(cases: Mapping[str, Attribute], given: Computed, values: Values) -> Attribute:
    found = shown(given(values))
    if found not in cases:
        raise DataError(f"{given.label} gave {found!r}, for which there is no case; {did_you_mean(found, cases)}")
    return cases[found]
