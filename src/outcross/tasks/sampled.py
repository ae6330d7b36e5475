"""Attributes that are rows of a file, and values that are made up."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from outcross.errors import ConfigError, DataError, MissingExtra, did_you_mean
from outcross.tasks.attribute import Attribute, Drawn, cumulative
from outcross.tasks.rows import content_digest, read
from outcross.tasks.strata import Point
from outcross.tasks.templates import Values


@dataclass(frozen=True)
class SampleOf(Attribute):
    """A row of a file (JSON lines, CSV, Parquet), held in memory: a persona, say. `weight`: the column that says how likely a row is."""

    sample_of: Path
    weight: str = ""

    finite: ClassVar[bool] = True

    def identity(self) -> object:
        return {"content": content_digest(Path(self.sample_of)), "weight": self.weight}

    def draw(self, point: Point, values: Values) -> Drawn:
        edges = self._edges
        index = min(bisect_right(edges, point.spaced), len(edges) - 1)
        return self._rows[index], point.within(edges[index - 1] if index else 0.0, edges[index], str(index))

    @cached_property
    def _rows(self) -> tuple[Mapping[str, Any], ...]:
        return tuple(row for _, row in read(Path(self.sample_of)))

    @cached_property
    def _edges(self) -> tuple[float, ...]:
        if not self.weight:
            return tuple((place + 1) / len(self._rows) for place in range(len(self._rows)))
        return cumulative([self._weight(number, row) for number, row in enumerate(self._rows, 1)])

    def _weight(self, number: int, row: Mapping[str, Any]) -> float:
        if self.weight not in row:
            raise DataError(
                f"{self.sample_of}, row {number}: there is no column {self.weight!r}; {did_you_mean(self.weight, map(str, row))}"
            )
        try:
            found = float(row[self.weight])
        except (TypeError, ValueError):
            found = -1.0
        if not 0 < found < math.inf:
            raise DataError(
                f"{self.sample_of}, row {number}: the weight {self.weight!r} is {row[self.weight]!r:.40}; it must be a number above 0"
            )
        return found


@dataclass(frozen=True)
class Faker(Attribute):
    """What the package Faker makes up: one provider (`name`) gives a text, several a row of them. Not demographically accurate.

    The same values come from the same version of the package, which is therefore part of the task set's identity.
    """

    faker: str | tuple[str, ...]
    locale: str = "en_US"

    def identity(self) -> object:
        _faker(self.locale)
        return {"faker": self.faker, "locale": self.locale, "version": version("faker")}

    def problems(self) -> Iterator[str]:
        source = _faker(self.locale)
        for name in (self.faker,) if isinstance(self.faker, str) else self.faker:
            if name.startswith("_") or not callable(getattr(source, name, None)):
                yield f"faker is {name!r}, which Faker does not offer for {self.locale}; name one of its providers: name, job, city, company …"

    def draw(self, point: Point, values: Values) -> Drawn:
        source = _faker(self.locale)
        source.seed_instance(f"{point.key}\x1f{point.rank}")
        if isinstance(self.faker, str):
            return _plain(getattr(source, self.faker)()), None
        return {name: _plain(getattr(source, name)()) for name in self.faker}, None


@dataclass(frozen=True)
class Uuid(Attribute):
    """A random identifier (RFC 9562, version 4) after a prefix, which may be empty."""

    uuid: str

    def draw(self, point: Point, values: Values) -> Drawn:
        made = blake2b(f"{point.key}\x1f{point.rank}".encode(), digest_size=16).digest()
        return f"{self.uuid}{UUID(bytes=made, version=4)}", None


@cache
def _faker(locale: str) -> Any:
    try:
        import faker
    except ModuleNotFoundError as error:
        raise MissingExtra("faker", "faker", "the attribute `faker`") from error
    try:
        return faker.Faker(locale)
    except AttributeError:
        raise ConfigError(f"Faker has no locale {locale!r}; name one of its own, such as en_US or de_DE") from None


def _plain(value: Any) -> Any:
    """What Faker made, as something that templates and the record can show."""
    return value if isinstance(value, str | int | float) else str(value)
