"""Charts as inline SVG: lines over rounds, stacked bars with a floor, intervals around zero. Colours are classes of the style
sheet (s1 to s6), so that one drawing reads in light and in dark; lines carry their names, so that no colour has to be told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from outcross.report.element import Child, Html, el

Show = Callable[[float], str]
LETTER = 6.9  # width of a letter at the charts' 13 px, taken a little wide: fonts differ
BOLD = 8.5
GAP = 16.0  # least distance of two direct labels


@dataclass(frozen=True)
class Mark:
    """A value at a place on the x axis, its interval where known, and what a pointer resting on it reads."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Marks of one colour. *line* joins them, shades their intervals and dots those with a note, *solid* and *hollow* draw
    points with whiskers, *dashed* is a thin line of reference. An empty name leaves the direct label out."""

    name: str
    colour: str
    style: Literal["line", "dashed", "solid", "hollow"]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Frame:
    """The plotting area in pixels and the ranges it shows."""

    left: float
    top: float
    right: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        span = self.x_high - self.x_low or 1.0
        return self.left + (value - self.x_low) / span * (self.right - self.left)

    def y(self, value: float) -> float:
        span = self.y_high - self.y_low or 1.0
        return self.bottom - (value - self.y_low) / span * (self.bottom - self.top)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers, steps of 1, 2 or 5 times a power of ten, that span at least part of [low, high]."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low] if math.isfinite(low) else []
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    title: str, series: Sequence[Series], x_names: Sequence[str], show: Show, *, width: int, height: int, bounds: tuple[float, float]
) -> Html:
    """Values over rounds. `x_names[i]` stands at x = i; the y range covers all intervals and stays inside `bounds`."""
    shown = [replace(one, marks=tuple(_inside(one.marks, bounds))) for one in series]
    shown = [one for one in shown if one.marks]
    low, high = _range(shown, bounds)
    labels = [(one, f"{one.name} {show(one.marks[-1].y)}") for one in shown if one.name]
    space = max((len(text) * BOLD for _, text in labels), default=0) + 14
    grid = ticks(low, high)
    left = max((len(show(tick)) for tick in grid), default=3) * LETTER + 10
    frame = Frame(left, 14, width - space, height - 30, 0, max(1, len(x_names) - 1), low, high)
    parts: list[Child] = [_grid(frame, grid, show), _x_axis(frame, x_names)]
    order = {"dashed": 0, "line": 1, "hollow": 2, "solid": 2}
    parts += [_series(frame, one) for one in sorted(shown, key=lambda one: order[one.style])]
    places = spread([frame.y(one.marks[-1].y) for one, _ in labels], 12, height - 34)
    for (one, text), y in zip(labels, places, strict=True):
        at = frame.x(one.marks[-1].x)
        parts.append(el("line", x1=at + 5, y1=frame.y(one.marks[-1].y), x2=frame.right + 9, y2=y, class_=f"leader {one.colour}"))
        parts.append(el("text", text, x=frame.right + 12, y=y + 4, class_=f"label {one.colour}"))
    return svg(title, width, height, parts)


def svg(title: str, width: float, height: float, parts: Child) -> Html:
    """A drawing with an accessible name."""
    return el("svg", el("title", title), parts, role="img", viewBox=f"0 0 {width:g} {height:g}", width=width, height=height)


def spread(places: Sequence[float], top: float, bottom: float) -> list[float]:
    """Label positions as near to `places` as a distance of `GAP` and the space between `top` and `bottom` allow."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    found = list(places)
    for position, index in enumerate(order):
        least = top if position == 0 else found[order[position - 1]] + GAP
        found[index] = max(found[index], least)
    ceiling = bottom
    for index in reversed(order):
        found[index] = min(found[index], ceiling)
        ceiling = found[index] - GAP
    return found


def _inside(marks: Sequence[Mark], bounds: tuple[float, float]) -> Iterator[Mark]:
    """Marks that are numbers inside `bounds`, with their intervals cut to them: a normal interval of a share can leave 0 to 1."""
    for mark in marks:
        if math.isfinite(mark.y) and bounds[0] <= mark.y <= bounds[1]:
            low = None if mark.low is None else max(mark.low, bounds[0])
            yield replace(mark, low=low, high=None if mark.high is None else min(mark.high, bounds[1]))


def _range(series: Sequence[Series], bounds: tuple[float, float]) -> tuple[float, float]:
    ends = [
        value
        for one in series
        for mark in one.marks
        for value in (mark.low, mark.y, mark.high)
        if value is not None and math.isfinite(value)
    ]
    if not ends:
        return 0.0, 1.0
    low, high = min(ends), max(ends)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return max(low - pad, bounds[0]), min(high + pad, bounds[1])


def _grid(frame: Frame, grid: Sequence[float], show: Show) -> Iterator[Child]:
    for tick in grid:
        y = frame.y(tick)
        yield el("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid")
        yield el("text", show(tick), x=frame.left - 7, y=y + 4, class_="tick end")


def _x_axis(frame: Frame, names: Sequence[str]) -> Iterator[Child]:
    widest = max((len(name) for name in names), default=1) * LETTER + 12
    every = max(1, math.ceil(widest * len(names) / max(1.0, frame.right - frame.left)))
    for index, name in enumerate(names):
        if index % every == 0:
            yield el("text", name, x=frame.x(index), y=frame.bottom + 20, class_="tick middle")


def _series(frame: Frame, one: Series) -> Iterator[Child]:
    points = [(frame.x(mark.x), frame.y(mark.y)) for mark in one.marks]
    if one.style in ("line", "dashed"):
        if one.style == "line":
            yield _band(frame, one)
        yield el("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=f"{one.style} {one.colour}")
    if one.style == "dashed":
        return
    for mark, (x, y) in zip(one.marks, points, strict=True):
        if not mark.note:
            continue
        whisker = None
        if one.style != "line" and mark.low is not None and mark.high is not None:
            whisker = el("line", x1=x, x2=x, y1=frame.y(mark.low), y2=frame.y(mark.high), class_=f"whisker {one.colour}")
        note = el("title", mark.note)
        hollow = " hollow" if one.style == "hollow" else ""
        yield el("g", note, whisker, el("circle", cx=x, cy=y, r=3 if one.style == "line" else 4.5, class_=f"dot {one.colour}{hollow}"))


def _band(frame: Frame, one: Series) -> Html | None:
    known = [(mark, mark.low, mark.high) for mark in one.marks if mark.low is not None and mark.high is not None]
    if len(known) < 2:
        return None
    upper = [f"{frame.x(mark.x):.1f},{frame.y(high):.1f}" for mark, _, high in known]
    lower = [f"{frame.x(mark.x):.1f},{frame.y(low):.1f}" for mark, low, _ in reversed(known)]
    return el("polygon", points=" ".join(upper + lower), class_=f"band {one.colour}")


@dataclass(frozen=True)
class Bar:
    """One stacked bar: its name and (colour, share, note) from left to right; `floor` is the share the first ones must reach."""

    name: str
    pieces: tuple[tuple[str, float, str], ...]
    floor: float | None = None


def stacked_bars(title: str, bars: Sequence[Bar], *, width: int) -> Html:
    """Shares of a whole, one bar under the other; a dark tick on each bar marks its floor."""
    left = max((len(bar.name) for bar in bars), default=1) * LETTER + 12
    across = width - left - 12
    parts: list[Child] = []
    for index, bar in enumerate(bars):
        y, at = 6 + 26 * index, left
        parts.append(el("text", bar.name, x=left - 9, y=y + 14, class_="tick end"))
        for colour, share, note in bar.pieces:
            wide = share * across
            box = el("rect", x=at, y=y, width=max(0.0, wide - 1), height=20, class_=f"fill {colour}")
            text = el("text", f"{100 * share:.0f} %", x=at + 8, y=y + 14.5, class_="inside") if wide > 48 else None
            parts.append(el("g", el("title", note), box, text))
            at += wide
        if bar.floor is not None:
            x = left + bar.floor * across
            parts.append(
                el("g", el("title", f"floor {100 * bar.floor:.0f} %"), el("line", x1=x, x2=x, y1=y - 4, y2=y + 24, class_="floor"))
            )
    return svg(title, width, 26 * len(bars) + 10, parts)


@dataclass(frozen=True)
class Row:
    """A difference with its interval, named; `show` writes its value."""

    name: str
    value: float
    low: float | None
    high: float | None
    text: str


def interval_chart(title: str, rows: Sequence[Row], show: Show, *, width: int) -> Html:
    """Differences around a line at zero, one under the other, each with its interval and its number."""
    left = max(len(row.name) for row in rows) * LETTER + 16
    space = max(len(row.text) for row in rows) * LETTER + 20
    ends = [0.0, *(end for row in rows for end in (row.low, row.value, row.high) if end is not None and math.isfinite(end))]
    pad = 0.06 * (max(ends) - min(ends)) or 1.0
    height = 30 * len(rows) + 34
    frame = Frame(left, 6, width - space, height - 28, min(ends) - pad, max(ends) + pad, 0, 1)
    parts: list[Child] = []
    for tick in ticks(frame.x_low, frame.x_high):
        kind = "zero" if tick == 0 else "grid"
        parts.append(el("line", x1=frame.x(tick), x2=frame.x(tick), y1=frame.top, y2=frame.bottom, class_=kind))
        parts.append(el("text", show(tick), x=frame.x(tick), y=frame.bottom + 18, class_="tick middle"))
    for index, row in enumerate(rows):
        y = frame.top + 30 * index + 16
        colour = "s-unclear" if row.low is None or row.high is None or row.low <= 0 <= row.high else "s1" if row.low > 0 else "s2"
        if row.low is not None and row.high is not None:
            parts.append(el("line", x1=frame.x(row.low), x2=frame.x(row.high), y1=y, y2=y, class_=f"thick {colour}"))
        if math.isfinite(row.value):
            parts.append(el("circle", cx=frame.x(row.value), cy=y, r=5, class_=f"dot {colour}"))
        parts.append(el("text", row.name, x=left - 12, y=y + 4, class_="name end"))
        parts.append(el("text", row.text, x=frame.right + 12, y=y + 4, class_="name"))
    return svg(title, width, height, parts)


def room(estimate: float, low: float, margin: float, passed: bool) -> Html:
    """A gate's check in a table cell: from the lower bound to the estimate, between the margin (left tick) and zero."""
    ends = [value for value in (estimate, low, -margin, 0.0) if math.isfinite(value)]
    pad = 0.1 * (max(ends) - min(ends)) or 1.0
    frame = Frame(2, 0, 138, 18, min(ends) - pad, max(ends) + pad, 0, 1)
    colour = "s3" if passed else "s2"
    parts: list[Child] = [
        el("line", x1=frame.x(-margin), x2=frame.x(-margin), y1=1, y2=17, class_="floor"),
        el("line", x1=frame.x(0), x2=frame.x(0), y1=3, y2=15, class_="zero"),
    ]
    if math.isfinite(low) and math.isfinite(estimate):
        parts.append(el("line", x1=frame.x(low), x2=frame.x(estimate), y1=9, y2=9, class_=f"thick {colour}"))
        parts.append(el("circle", cx=frame.x(estimate), cy=9, r=4, class_=f"dot {colour}"))
    return svg("lower bound to estimate; the long tick is the margin, the short one zero", 140, 18, parts)


def split_bar(kept: int, dropped: int, failed: int) -> Html:
    """In = kept + dropped + failed as one small bar."""
    total = max(1, kept + dropped + failed)
    parts, at = [], 0.0
    for colour, amount in (("s3", kept), ("s5", dropped), ("s2", failed)):
        wide = 140 * amount / total
        parts.append(el("rect", x=at, y=3, width=wide, height=12, class_=f"fill {colour}"))
        at += wide
    return svg(f"{kept} kept, {dropped} dropped, {failed} failed", 140, 18, parts)
