"""How much of what could be asked a set of composed tasks asks: planned shares beside those that came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from typing import Any

from outcross.tasks.attribute import shown
from outcross.tasks.attributes import AnyAttribute
from outcross.tasks.composer import shares_of
from outcross.types import Prompt, content_hash

_MOST = 8  # values that are written out
_FEW = 64  # values up to which pairs are counted


@dataclass(frozen=True)
class Covered:
    """One attribute: how often each value occurs, by its text, the planned shares where they are known, and the ends of a range."""

    name: str
    counts: Mapping[str, int]
    planned: Mapping[str, float] | None = None
    ends: tuple[str, str] | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Values with a planned share that never occur."""
        return tuple(value for value, share in (self.planned or {}).items() if share and value not in self.counts)

    @property
    def off(self) -> float:
        """The largest difference between a value's share and the planned one; 0 where none is planned."""
        total = sum(self.counts.values())
        return max((abs(self.counts.get(value, 0) / total - share) for value, share in (self.planned or {}).items()), default=0.0)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        if self.planned is None and len(self.counts) > _MOST:
            return f"{self.name}: {len(self.counts):,} different values{', {} to {}'.format(*self.ends) if self.ends else ''}"
        of = f" of {sum(share > 0 for share in self.planned.values()):,}" if self.planned else ""
        most = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{value:.40} {100 * count / total:.1f} %" for value, count in most[:_MOST])
        more = f" and {len(most) - _MOST:,} more" if len(most) > _MOST else ""
        missing = f"; never: {', '.join(self.missing[:_MOST])}" if self.missing else ""
        off = f"; at most {100 * self.off:.1f} points off the plan" if self.planned else ""
        return f"{self.name}: {len(self.counts):,}{of} values, {listed}{more}{missing}{off}"


@dataclass(frozen=True)
class Coverage:
    """What `tasks` tasks cover. `pairs`: for two attributes of few values, how many combinations of values occur, of how many."""

    tasks: int
    prompts: int
    attributes: tuple[Covered, ...]
    pairs: Mapping[tuple[str, str], tuple[int, int]]

    def __str__(self) -> str:
        lines = [f"{self.tasks:,} tasks, {self.prompts:,} different prompts", *map(str, self.attributes)]
        partly = sorted((met / possible, pair) for pair, (met, possible) in self.pairs.items() if met < possible)
        for _, (first, second) in partly[:_MOST]:
            met, possible = self.pairs[first, second]
            lines.append(f"{first} × {second}: {met:,} of {possible:,} pairs")
        complete = len(self.pairs) - len(partly)
        others = [f"{len(partly) - _MOST:,} more are incomplete"] * (len(partly) > _MOST) + [f"{complete:,} are complete"] * (complete > 0)
        if others:
            lines.append(f"of {len(self.pairs):,} pairs of attributes, {' and '.join(others)}")
        return "\n".join(lines)


def covered(attributes: Mapping[str, AnyAttribute], drawn: Iterable[tuple[Mapping[str, Any], Prompt]]) -> Coverage:
    """Count what was drawn. Memory: one count per different value, and one hash per different prompt."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in attributes}
    ends: dict[str, tuple[Any, Any]] = {}
    met: dict[tuple[str, str], set[tuple[str, str]]] = {pair: set() for pair in _pairs(attributes)}
    prompts: set[str] = set()
    tasks = 0
    for values, prompt in drawn:
        tasks += 1
        prompts.add(content_hash(prompt))
        texts = {name: shown(values[name]) for name in attributes}
        for name, text in texts.items():
            counts[name][text] += 1
            if isinstance(values[name], int | float | date):
                low, high = ends.get(name, (values[name],) * 2)
                ends[name] = min(low, values[name]), max(high, values[name])
        for (first, second), seen in met.items():
            seen.add((texts[first], texts[second]))
    shares = shares_of(attributes)
    found = tuple(
        Covered(name, counts[name], shares.get(name), (shown(ends[name][0]), shown(ends[name][1])) if name in ends else None)
        for name in attributes
    )
    possible = {pair: len(counts[pair[0]]) * len(counts[pair[1]]) for pair in met}
    return Coverage(tasks, len(prompts), found, {pair: (len(met[pair]), possible[pair]) for pair in met})


def _pairs(attributes: Mapping[str, AnyAttribute]) -> Iterator[tuple[str, str]]:
    """Those whose values are few and known, and of which neither is made from the other."""
    few = [name for name, shares in shares_of(attributes).items() if len(shares) <= _FEW]
    for first, second in combinations(few, 2):
        if first not in attributes[second].needs and second not in attributes[first].needs:
            yield first, second
