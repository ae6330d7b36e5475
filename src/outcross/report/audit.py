"""The page of an audit: the answer first, the reasons in order of harm, then the figures. No script, no outside resource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files

from outcross.audit.findings import Audit, Case, Finding, GroupShare, Statistic
from outcross.report import numbers as n
from outcross.report.element import Child, Html, clip, el
from outcross.report.figures import LETTER, Bar, Row, interval_chart, stacked_bars, svg
from outcross.report.html import POLICY
from outcross.report.parts import figure, fold, legend, table, tiles

CHIPS = {"bad": "bad", "warn": "note", "note": ""}
COLOURS = {"bad": "s2", "warn": "s5", "note": "s6"}
ANSWERS = {"yes": "good", "yes, after cleaning": "note", "no": "bad"}
_TEXT = 400  # characters of an example
_GROUPS = 24


def render(found: Audit) -> str:
    """The page as text. It is well-formed XML too."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("title", f"{clip(found.data, 120)} · Outcross audit"),
        el("style", Html(files("outcross.report").joinpath("style.css").read_text(encoding="utf-8"))),
    )
    body = el("main", list(_sections(found)), el("footer", el("p", "Made by Outcross from the data alone; nothing left this machine.")))
    return f"<!DOCTYPE html>\n{el('html', head, el('body', body), lang='en')}\n"


def _sections(found: Audit) -> Iterator[Child]:
    against = [f"against {found.real}" if found.real else "without real data", *(f"evaluated on {name}" for name in found.evals)]
    yield el("p", f"Outcross audit · {found.data} · {' · '.join(against)}", class_="eyebrow")
    yield el("h1", "Would you train on this? ", el("span", found.answer, class_=f"chip {ANSWERS[found.answer]}"))
    yield el("p", found.headline.replace("`", ""), class_="verdict")
    yield _tiles(found)
    yield from _reasons(found.findings)
    yield from _statistics(found)
    yield from _groups(found.groups)
    yield from _composition(found)
    yield from _method(found)


def _tiles(found: Audit) -> Html:
    made = found.composition
    counts = {level: sum(item.level == level for item in found.findings) for level in CHIPS}
    real = sum(rows for (kind, proof, _), rows in made.origins.items() if kind == "real" and proof != "none")
    return tiles(
        (
            (n.count(made.rows), "rows"),
            (n.large(made.words), "words"),
            (n.percent(real / made.rows), "known to be real"),
            (str(counts["bad"]), "bad findings"),
            (str(counts["warn"]), "warnings"),
            (n.number(found.harm), "points of harm"),
        )
    )


# ── the reasons ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _reasons(findings: Sequence[Finding]) -> Iterator[Child]:
    yield el("h2", "Reasons, the most harmful first")
    if not findings:
        yield el("p", "Nothing was found.")
        return
    yield figure(["Points of harm", el("small", " · 100 × share affected × weight of the kind")], _bars(findings), wide=True)
    for place, item in enumerate(findings):
        title = [
            el("b", item.about.title[:1].upper() + item.about.title[1:]),
            " ",
            el("span", item.level, class_=f"chip {CHIPS[item.level]}"),
        ]
        yield fold([*title, " ", el("span", item.says, class_="soft")], list(_reason(item)), open_=place < 3)


def _reason(item: Finding) -> Iterator[Child]:
    where = f"rows {', '.join(f'{row:,}' for row in item.first[:12])}{' …' if item.rows > 12 else ''}" if item.first else "the whole set"
    interval = (
        "all rows were counted"
        if item.low is None or item.high is None
        else f"95 % interval {n.percent(item.low)} to {n.percent(item.high)}"
    )
    rows: list[tuple[str, Child]] = [
        ("affected", f"{n.percent(item.share)}; {interval}; {where}"),
        ("harm", f"{n.number(item.harm)} points: weight {item.about.weight:g}, because {item.about.why}; harms {item.about.harms}"),
        ("what to do", el("code", item.todo) if item.about.repair in ("drop", "mask") else item.todo),
    ]
    yield table(("", "~"), [(el("b", name), what) for name, what in rows])
    if item.cases:
        yield el("div", [_case(case) for case in item.cases], class_="cards")


def _case(case: Case) -> Html:
    return el(
        "article",
        el("b", f"Row {case.row:,}"),
        el("div", clip(case.what, _TEXT), class_="soft"),
        el("pre", clip(case.text, _TEXT), dir="auto"),
        class_="card",
    )


def _bars(findings: Sequence[Finding], width: int = 1000) -> Html:
    """Harm as bars on a common scale; the ticks are the limits of *warn* and *bad*."""
    left = max(len(item.about.title) for item in findings) * LETTER + 14
    most = max(12.0, *(item.harm for item in findings))
    scale = (width - left - 80) / most
    parts: list[Child] = [
        el("g", el("title", name), el("line", x1=left + scale * at, x2=left + scale * at, y1=2, y2=28 * len(findings) + 4, class_="grid"))
        for name, at in (("warning from 1 point", 1.0), ("bad from 10 points", 10.0))
    ]
    for place, item in enumerate(findings):
        y, wide = 6 + 28 * place, max(1.5, scale * item.harm)
        box = el("rect", x=left, y=y, width=wide, height=18, rx=3, class_=f"fill {COLOURS[item.level]}")
        parts.append(el("text", item.about.title, x=left - 10, y=y + 13.5, class_="tick end"))
        parts.append(el("g", el("title", item.says), box))
        parts.append(el("text", n.number(item.harm), x=left + wide + 8, y=y + 13.5, class_="name"))
    return svg("points of harm of each finding", width, 28 * len(findings) + 8, parts)


# ── figures ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _statistics(found: Audit) -> Iterator[Child]:
    if not found.statistics:
        return
    yield el("h2", "Variety and tails against real text")
    yield el(
        "p",
        f"Every figure is of {n.count(found.tokens)} words, here and there, drawn again and again. One unit is what a second real sample of that length "
        "could differ by (95 % over all figures together): within −1 and 1 nobody can tell this set from more real data.",
    )
    rows = [_row(item) for item in found.statistics]
    yield figure(
        "Difference from real text, in units of the null",
        interval_chart("difference from real text", rows, lambda value: f"{value:g}", width=1000),
        wide=True,
    )
    cells = [
        (
            item.name,
            n.number(item.value),
            n.number(item.real),
            n.number(item.null),
            f"{n.number(item.low)} to {n.number(item.high)}",
            _told(item),
        )
        for item in found.statistics
    ]
    yield fold("The figures", table(("figure", "#this set", "#real", "#null ±", "#difference", ""), cells))


def _row(item: Statistic) -> Row:
    unit = item.null or abs(item.difference) or 1.0
    return Row(item.name, item.difference / unit, item.low / unit, item.high / unit, f"{n.number(item.value)} · real {n.number(item.real)}")


def _told(item: Statistic) -> Child:
    if not item.outside:
        return ""
    return el("span", "worse" if item.worse_by else "differs", class_=f"chip {'bad' if item.worse_by else 'note'}")


def _groups(groups: Sequence[GroupShare]) -> Iterator[Child]:
    if not groups:
        return
    yield el("h2", "Groups")
    if any(one.real_rows for one in groups):
        shown = groups[:_GROUPS]
        rows = [
            Row(
                clip(one.name, 40),
                one.share - one.real_share,
                one.low,
                one.high,
                f"{n.percent(one.share)} · real {n.percent(one.real_share)}",
            )
            for one in shown
        ]
        yield figure(
            ["Share here minus share in real data", el("small", " · 95 % intervals over all groups")],
            interval_chart("group shares against real data", rows, lambda value: f"{100 * value:+.0f}", width=1000),
            wide=True,
        )
    yield fold(
        n.plural(len(groups), "group"),
        table(("group", "#rows", "#share", "#real rows", "#share of real"), [_group(one) for one in groups[:500]]),
    )


def _group(one: GroupShare) -> tuple[Child, ...]:
    missing = el("span", "missing", class_="chip bad") if not one.rows else n.count(one.rows)
    return clip(one.name, 80), missing, n.percent(one.share), n.count(one.real_rows), n.percent(one.real_share)


# ── what it is made of ─────────────────────────────────────────────────────────────────────────────────────────────────
def _composition(found: Audit) -> Iterator[Child]:
    made = found.composition
    yield el("h2", "What it is made of")
    origins = [
        (f"s{place % 6 + 1}", kind if proof == "none" else f"{kind}, {proof}: {rule}", rows / made.rows)
        for place, ((kind, proof, rule), rows) in enumerate(made.origins.items())
    ]
    bars = [Bar("origin", tuple((colour, share, f"{name}: {n.percent(share)}") for colour, name, share in origins))]
    names = [(colour, name) for colour, name, _ in origins]
    if made.depths:
        pieces = [(f"s{depth % 6 + 1}", f"generation {depth}", rows / made.rows) for depth, rows in made.depths.items()]
        bars.append(Bar("depth", tuple((colour, share, f"{name}: {n.percent(share)}") for colour, name, share in pieces)))
        names += [(colour, name) for colour, name, _ in pieces]
    yield figure(
        "Origin" + (" and generation depth" if made.depths else ""), stacked_bars("origin of the rows", bars, width=1000), wide=True
    )
    yield legend(names)
    yield (
        el("p", "Rows of unknown origin count as synthetic.", class_="soft")
        if any(kind == "unknown" for kind, _, _ in made.origins)
        else None
    )
    yield figure("Words a row", _histogram(made.lengths), wide=True)
    for title, counts, total in (("Languages", made.languages, made.language_rows), ("Sources", made.sources, made.rows)):
        if counts:
            rows = [(name, n.count(count), n.percent(count / total)) for name, count in counts.items()]
            yield fold(f"{title}, of {total:,} rows", table(("", "#rows", "#share"), rows))


def _histogram(lengths: Sequence[tuple[int, int]], width: int = 1000, height: int = 190) -> Html:
    """Rows by length, a bar for each doubling."""
    most = max(count for _, count in lengths)
    step = (width - 20) / len(lengths)
    parts: list[Child] = []
    for place, (start, count) in enumerate(lengths):
        tall, x = (height - 54) * count / most, 10 + step * place
        name = "0" if start == 0 else f"{start:,}–{2 * start - 1:,}" if start > 1 else "1"
        box = el("rect", x=x + 3, y=height - 28 - tall, width=step - 6, height=tall, rx=3, class_="fill s1")
        parts.append(el("g", el("title", f"{name} words: {count:,} rows"), box))
        parts.append(el("text", name, x=x + step / 2, y=height - 10, class_="tick middle"))
        if count:
            parts.append(el("text", f"{count:,}", x=x + step / 2, y=height - 34 - tall, class_="tick middle"))
    return svg("rows by number of words", width, height, parts)


def _method(found: Audit) -> Iterator[Child]:
    yield el("h2", "What was looked at")
    yield table(("~check", "~on"), found.coverage_of_checks)
    if found.unjudged:
        yield el("ul", [el("li", item) for item in found.unjudged], class_="flags")
    yield el(
        "p",
        "Findings on all rows are counts and have no interval. A text in one language is found by its words and marks, not by its meaning: what is false, "
        "harmful or off the subject is not seen here.",
        class_="soft",
    )
