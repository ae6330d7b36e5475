"""Attributes from a range: numbers, days, and true or false."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, ClassVar

from outcross.tasks.attribute import Attribute, Drawn, Shares, shown
from outcross.tasks.strata import Point
from outcross.tasks.templates import Values


@dataclass(frozen=True)
class Integer(Attribute):
    """A whole number, each of the range as likely as the others; both ends are included."""

    integer: tuple[int, int]

    @property
    def finite(self) -> bool:  # type: ignore[override]
        return True

    def problems(self) -> Iterator[str]:
        yield from _range_problems("integer", self.integer)

    def shares(self, known: Mapping[str, Shares]) -> Shares | None:
        low, high = self.integer
        size = high - low + 1
        return {str(low + place): 1 / size for place in range(size)} if size <= 1000 else None

    def draw(self, point: Point, values: Values) -> Drawn:
        low, high = self.integer
        size = high - low + 1
        if size > point.size > 1:
            return low + min(int(point.scattered * size), size - 1), None
        place = min(int(point.spaced * size), size - 1)
        return low + place, point.within(place / size, (place + 1) / size, str(place))


@dataclass(frozen=True)
class Uniform(Attribute):
    """A number, anywhere in a range, rounded to `decimals` (0: a whole number)."""

    uniform: tuple[float, float]
    decimals: int = 2

    def problems(self) -> Iterator[str]:
        yield from _range_problems("uniform", self.uniform)
        yield from _decimals_problems(self.decimals)

    def draw(self, point: Point, values: Values) -> Drawn:
        low, high = self.uniform
        return _rounded(low + point.scattered * (high - low), self.decimals), None


@dataclass(frozen=True)
class Normal(Attribute):
    """A number from a normal distribution, `[mean, standard deviation]`, cut off at `low` and `high`, rounded to `decimals`."""

    normal: tuple[float, float]
    low: float | None = None
    high: float | None = None
    decimals: int = 2

    def problems(self) -> Iterator[str]:
        if not all(map(math.isfinite, self.normal)) or self.normal[1] <= 0:
            yield f"normal is {list(self.normal)}; it must be [mean, standard deviation] with a standard deviation above 0"
        elif self._cut[1] - self._cut[0] < 1e-9:
            yield f"low is {self.low} and high {self.high}; almost nothing of the distribution {list(self.normal)} lies between them"
        yield from _decimals_problems(self.decimals)

    def draw(self, point: Point, values: Values) -> Drawn:
        low, high = self._cut
        place = low + point.scattered * (high - low)
        return _rounded(NormalDist(*self.normal).inv_cdf(min(max(place, 1e-15), 1 - 1e-15)), self.decimals), None

    @cached_property
    def _cut(self) -> tuple[float, float]:
        whole = NormalDist(*self.normal)
        return 0.0 if self.low is None else whole.cdf(self.low), 1.0 if self.high is None else whole.cdf(self.high)


@dataclass(frozen=True)
class Boolean(Attribute):
    """True with this probability."""

    boolean: float

    finite: ClassVar[bool] = True

    def problems(self) -> Iterator[str]:
        if not 0 <= self.boolean <= 1:
            yield f"boolean is {self.boolean}; it must be the probability of true, from 0 to 1"

    def shares(self, known: Mapping[str, Shares]) -> Shares:
        return {"true": self.boolean, "false": 1 - self.boolean}

    def draw(self, point: Point, values: Values) -> Drawn:
        value = point.spaced < self.boolean
        edges = (0.0, self.boolean) if value else (self.boolean, 1.0)
        return value, point.within(*edges, shown(value))


@dataclass(frozen=True)
class Date(Attribute):
    """A day between two, both included; `{{ due.year }}` and `{{ due.strftime("%d %B") }}` work in templates."""

    date: tuple[datetime.date, datetime.date]

    def identity(self) -> object:
        return [day.isoformat() for day in self.date]

    def problems(self) -> Iterator[str]:
        if self.date[0] > self.date[1]:
            yield f"date is [{self.date[0]}, {self.date[1]}]; the first day must not be after the last"

    def draw(self, point: Point, values: Values) -> Drawn:
        first, last = self.date
        days = (last - first).days + 1
        return first + datetime.timedelta(days=min(int(point.scattered * days), days - 1)), None


def _range_problems(name: str, pair: tuple[float, float]) -> Iterator[str]:
    low, high = pair
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        yield f"{name} is {list(pair)}; it must be [lowest, highest]"


def _decimals_problems(decimals: int) -> Iterator[str]:
    if not 0 <= decimals <= 12:
        yield f"decimals is {decimals}; allowed are 0 to 12"


def _rounded(value: float, decimals: int) -> Any:
    return round(value, decimals) + 0.0 if decimals else round(value)
