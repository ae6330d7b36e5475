"""What every kind of attribute offers, and values as text."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

from outcross.tasks.strata import Point, Stratum
from outcross.tasks.templates import Values

Drawn = tuple[Any, Stratum | None]
Shares = Mapping[str, float]
"""How much of all tasks each value gets, by its text; the sum is 1."""


def shown(value: object) -> str:
    """A value as text: on the record, in coverage, and as the key of a case."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True)
class Attribute:
    """Base of every kind. `finite`: whether its values can be crossed with those of others."""

    finite: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[str]:
        """Names of the attributes and columns that it is made from."""
        return frozenset()

    def problems(self) -> Iterator[str]:
        """What is wrong with the settings."""
        return iter(())

    def shares(self, known: Mapping[str, Shares]) -> Shares | None:
        """The planned share of each value, given those of other attributes; None where the values are not known before drawing."""
        return None

    def draw(self, point: Point, values: Values) -> Drawn:
        """The value at a point, and the tasks of its plan that get the same one. Raises `DataError`."""
        raise NotImplementedError


def cumulative(weights: Sequence[float]) -> tuple[float, ...]:
    """The upper edge of each weight's share of [0, 1]."""
    total = sum(weights)
    edges = [edge / total for edge in accumulate(weights)]
    return (*edges[:-1], 1.0)
