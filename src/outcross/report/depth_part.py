"""What the optimiser saw by generation depth: how many generations of model-written text stand behind what was learnt."""

from __future__ import annotations

import math
from collections.abc import Iterator

from outcross.engine.store import PRIMARY
from outcross.report import numbers as n
from outcross.report.element import Child, el
from outcross.report.figures import Bar, stacked_bars
from outcross.report.parts import legend, table
from outcross.report.read import Reading
from outcross.report.record import Mixed, Part

DEEPEST = 4  # depths from here on share a colour
COLOURS = ("s1", "s3", "s5", "s2", "s4")
UNKNOWN = "s6"


def depth_of(part: Part) -> int | None:
    """The generation depth of a part of a mixture; None where its origin is not known, or is claimed and not backed."""
    return part.depth if part.is_real or part.kind == "synthetic" else None


def by_depth(mixed: Mixed) -> dict[int | None, float]:
    """Tokens by generation depth, repeats and weights counted; None (origin not known) last."""
    found: dict[int | None, float] = {}
    for part in mixed.parts:
        depth = depth_of(part)
        found[depth] = found.get(depth, 0.0) + part.tokens
    return dict(sorted(found.items(), key=lambda item: (item[0] is None, item[0] or 0)))


def mean_depth(mixed: Mixed) -> float | None:
    """The mean generation depth over tokens of known origin; None without any."""
    known = {depth: tokens for depth, tokens in by_depth(mixed).items() if depth is not None}
    total = math.fsum(known.values())
    return math.fsum(depth * tokens for depth, tokens in known.items()) / total if total else None


def depth_words(mixed: Mixed) -> str:
    """For example "0: 70.1 %, 1: 10.9 %, 2: 19.0 %"."""
    shares = by_depth(mixed)
    total = math.fsum(shares.values())
    named = {depth: "not known" if depth is None else str(depth) for depth in shares}
    return ", ".join(f"{named[depth]}: {n.percent(tokens / total)}" for depth, tokens in shares.items()) if total else ""


def depth_part(reading: Reading, most: int) -> Iterator[Child]:
    """One bar of tokens a round, and its mean depth; nothing where nothing was learnt."""
    found = [(item.label, role, mixed) for item in reading.rounds for role, mixed in item.mixtures.items() if mixed.parts]
    if not found:
        return
    yield el("h2", "Generation depth of what was learnt")
    yield el(
        "p",
        "How many generations of model-written text stand behind a row: 0 is text of people, 1 was written by a model that "
        "is not known to have learnt any such text. "
        "Shares of tokens, repeats and weights counted; the mean leaves out rows of unknown origin.",
        class_="soft",
    )
    shown = found[-most:]
    if len(shown) < len(found):
        yield el("p", f"The last {len(shown)} of {n.count(len(found))} mixtures.", class_="soft")
    named = [(label if role == PRIMARY else f"{label} {role}", mixed) for label, role, mixed in shown]
    bars = [_bar(name, mixed) for name, mixed in named]
    used = {colour for bar in bars for colour, _, _ in bar.pieces}
    yield legend([item for item in _colours() if item[0] in used])
    yield el("div", stacked_bars("generation depth of what was learnt in each round", bars, width=1000), class_="plot wide")
    yield table(["round", "#mean depth", "#deepest", "~tokens by depth"], [_row(name, mixed) for name, mixed in named])


def _colours() -> list[tuple[str, str]]:
    names = [f"depth {depth}" for depth in range(DEEPEST)] + [f"depth {DEEPEST} and more"]
    return [*zip(COLOURS, names, strict=True), (UNKNOWN, "origin not known")]


def _bar(name: str, mixed: Mixed) -> Bar:
    amounts: dict[str, float] = {}
    for depth, tokens in by_depth(mixed).items():
        colour = UNKNOWN if depth is None else COLOURS[min(depth, DEEPEST)]
        amounts[colour] = amounts.get(colour, 0.0) + tokens
    total, names = math.fsum(amounts.values()), dict(_colours())
    pieces = [
        (colour, tokens / total, f"{names[colour]}: {n.count(tokens)} tokens, {n.percent(tokens / total)}")
        for colour, tokens in amounts.items()
        if tokens
    ]
    return Bar(name, tuple(pieces))


def _row(name: str, mixed: Mixed) -> tuple[Child, ...]:
    mean = mean_depth(mixed)
    deepest = max((depth for depth in map(depth_of, mixed.parts) if depth is not None), default=None)
    return name, "–" if mean is None else n.number(mean), "–" if deepest is None else n.count(deepest), depth_words(mixed)
