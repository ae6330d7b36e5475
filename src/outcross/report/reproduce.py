"""The page of `outcross reproduce`: verdicts first, then the curves, then every claim. No script, no outside resource."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from outcross.report import numbers as n
from outcross.report.element import Child, Html, el
from outcross.report.figures import Mark, Series, line_chart
from outcross.report.html import POLICY
from outcross.report.parts import figure, fold, table, tiles

CHIPS = {"holds": "good", "fails": "bad", "undecided": "note"}


@dataclass(frozen=True)
class Row:
    """A claim as the table shows it."""

    claim: str
    kind: str
    theory: str
    published: str
    ours: str
    verdict: str
    what: str
    paper: str
    place: str
    note: str


@dataclass(frozen=True)
class Panel:
    """A picture: values over places on the x axis; lines of theory are dashed, in the colour of what they are the theory of."""

    title: str
    about: str
    x_names: tuple[str, ...]
    lines: tuple[PanelLine, ...]


@dataclass(frozen=True)
class PanelLine:
    """Values of one line, with their 95 % interval unless it is theory."""

    name: str
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


def write(path: Path, scale: str, seed: int, rows: Sequence[Row], panels: Sequence[Panel], versions: Mapping[str, str]) -> None:
    """Write the page."""
    path.write_text(render(scale, seed, rows, panels, versions), encoding="utf-8")


def render(scale: str, seed: int, rows: Sequence[Row], panels: Sequence[Panel], versions: Mapping[str, str]) -> str:
    """The page as text. It is well-formed XML too."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("title", f"Claims at scale {scale}, seed {seed} · Outcross"),
        el("style", Html(files("outcross.report").joinpath("style.css").read_text(encoding="utf-8"))),
    )
    footer = el("footer", el("p", f"Made by Outcross {versions.get('outcross', '')} from simulations and runs on this machine."))
    body = el("main", list(_sections(scale, seed, rows, panels, versions)), footer)
    return f"<!DOCTYPE html>\n{el('html', head, el('body', body), lang='en')}\n"


def _sections(scale: str, seed: int, rows: Sequence[Row], panels: Sequence[Panel], versions: Mapping[str, str]) -> Iterator[Child]:
    run = [row for row in rows if row.verdict in CHIPS]
    verdicts = Counter(row.verdict for row in run)
    yield el("p", f"Outcross reproduce · scale {scale} · seed {seed}", class_="eyebrow")
    yield el("h1", "What the papers say, run here")
    yield el("p", _headline(run, verdicts), class_="verdict")
    yield tiles([(n.count(verdicts[word]), word) for word in CHIPS] + [(n.count(len(rows) - len(run)), "not run here")])
    yield _by_kind(run)
    doubtful = [row for row in run if row.verdict != "holds"]
    if doubtful:
        yield el("h2", "Not shown at this scale")
        yield _claims(doubtful)
    if panels:
        yield el("h2", "Curves")
        yield el("p", "Bands are 95 % intervals; dashed lines are theory.", class_="soft")
        yield el("div", [_panel(panel) for panel in panels], class_="charts")
    yield el("h2", "All claims that were run")
    yield _claims(run)
    rest = [row for row in rows if row.verdict not in CHIPS]
    if rest:
        body = table(
            ["claim", "#published", "~what", "~paper and place", "~why not"],
            [(row.claim, row.published, row.what, f"{row.paper}; {row.place}", row.note) for row in rest],
        )
        yield fold([el("b", "Not run here"), " ", el("span", n.plural(len(rest), "claim"), class_="soft")], body)
    yield fold(el("b", "Versions"), table(["what", "version"], list(versions.items())))


def _headline(run: Sequence[Row], verdicts: Mapping[str, int]) -> str:
    if not run:
        return "No claim was run."
    failed, open_ = verdicts.get("fails", 0), verdicts.get("undecided", 0)
    words = [f"{failed} {'fails' if failed == 1 else 'fail'}"] * bool(failed) + [
        f"{open_} {'is' if open_ == 1 else 'are'} undecided"
    ] * bool(open_)
    rest = f"; {' and '.join(words)}." if words else "."
    return f"{verdicts.get('holds', 0)} of {len(run)} claims hold{rest}"


def _by_kind(run: Sequence[Row]) -> Html:
    kinds = dict.fromkeys(row.kind for row in run)
    counts = {kind: Counter(row.verdict for row in run if row.kind == kind) for kind in kinds}
    return table(["kind", *(f"#{word}" for word in CHIPS)], [(kind, *(n.count(counts[kind][word]) for word in CHIPS)) for kind in kinds])


def _claims(rows: Sequence[Row]) -> Html:
    return table(
        ["claim", "kind", "#theory", "#published", "#ours", "verdict", "~what"],
        [
            (
                el("code", row.claim),
                row.kind,
                row.theory,
                row.published,
                row.ours,
                el("span", row.verdict, class_=f"chip {CHIPS[row.verdict]}"),
                [row.what, el("br"), el("small", " · ".join(filter(None, (row.paper, row.place, row.note))))],
            )
            for row in rows
        ],
    )


def _panel(panel: Panel) -> Html:
    drawing = line_chart(
        panel.title, list(_series(panel)), panel.x_names, n.compact, width=520, height=300, bounds=(float("-inf"), float("inf"))
    )
    return figure([panel.title, el("small", f" · {panel.about}") if panel.about else None], drawing)


def _series(panel: Panel) -> Iterator[Series]:
    """A measured line takes the next colour; theory takes that of the line whose name it begins with, else that of the first."""
    measured = [line.name for line in panel.lines if line.low]
    for line in panel.lines:
        owner = line.name if line.low else next((name for name in measured if line.name.startswith(name)), measured[0] if measured else "")
        colour = f"s{measured.index(owner) % 6 + 1}" if owner in measured else "s6"
        if not line.low:
            yield Series("", colour, "dashed", tuple(Mark(place, value) for place, value in enumerate(line.values)))
            continue
        ends = zip(panel.x_names, line.values, line.low, line.high, strict=True)
        marks = tuple(
            Mark(place, value, low, high, f"{line.name}, {x}: {n.compact(value)} ({n.compact(low)} to {n.compact(high)})")
            for place, (x, value, low, high) in enumerate(ends)
        )
        yield Series(line.name, colour, "line", marks)
