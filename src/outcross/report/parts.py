"""The small pieces that every section of the report is made of: tables, chips, tiles, figures, sample cards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from outcross.estimates import Estimate
from outcross.report import numbers as n
from outcross.report.element import Child, Html, clip, el

CHIPS = {
    **dict.fromkeys(("promoted", "released", "pass", "better", "within margin", "unchanged", "not below real"), "good"),
    **dict.fromkeys(("refused", "fail", "worse"), "bad"),
    **dict.fromkeys(("error", "nothing learnt", "ungated", "unclear", "worse within margin"), "note"),
}


def chip(text: str) -> Html:
    """A verdict as a small coloured word."""
    return el("span", text, class_=f"chip {CHIPS.get(text, '')}".rstrip())


def table(columns: Sequence[str], rows: Iterable[Sequence[Child]]) -> Html:
    """A table that scrolls on narrow screens. A column whose name starts with # holds numbers, with ~ text that may wrap."""
    kinds = [{"#": "n", "~": "w"}.get(name[:1]) for name in columns]
    head = [el("th", name.lstrip("#~"), class_=kind, scope="col") for name, kind in zip(columns, kinds, strict=True)]
    body = [el("tr", [el("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)]) for row in rows]
    return el("div", el("table", el("thead", el("tr", head)), el("tbody", body)), class_="scroll", tabindex="0")


def tiles(items: Iterable[tuple[str, str]]) -> Html:
    """Key figures: (value, what it is)."""
    return el("div", [el("div", el("b", value), el("span", name), class_="tile") for value, name in items], class_="tiles")


def figure(caption: Child, drawing: Html, *, wide: bool = False) -> Html:
    return el("figure", el("figcaption", caption), el("div", drawing, class_="plot wide" if wide else "plot"))


def legend(items: Iterable[tuple[str, str]]) -> Html:
    """(colour class, name) for fills that cannot carry their names."""
    return el("ul", [el("li", el("i", class_=colour), name) for colour, name in items], class_="legend")


def fold(title: Child, *body: Child, open_: bool = False, class_: str | None = None, id_: str | None = None) -> Html:
    """A part that folds away without any script."""
    return el("details", el("summary", title), el("div", body, class_="body"), open="open" if open_ else None, class_=class_, id=id_)


def interval(estimate: Estimate, unit: str) -> str:
    """The 95 % interval of a level; shares end at 0 and 100 %."""
    if estimate.low is None or estimate.high is None:
        return "n/a"
    low, high = (max(0.0, estimate.low), min(1.0, estimate.high)) if n.is_share(unit) else (estimate.low, estimate.high)
    return f"{n.quantity(low, unit)} to {n.quantity(high, unit)}"


def change_text(change: Estimate | None, unit: str) -> str:
    """A difference and its 95 % interval, without the unit: the column says it."""
    if change is None:
        return "n/a"
    if change.low is None or change.high is None:
        return n.difference(change.mean, unit)
    return f"{n.difference(change.mean, unit)} [{n.difference(change.low, unit)}, {n.difference(change.high, unit)}]"


def sample_card(row: Mapping[str, Any], characters: int) -> Html:
    """A row of groups.parquet or drops.parquet with its lineage; texts are cut at `characters`."""
    origin = row["outcross"]
    answer = row["completion"] if row["completion"] is not None else row["error"] or "no answer"
    facts: list[tuple[str, Child]] = [
        ("id", el("code", row["id"])),
        ("task", row["task_id"]),
        ("said by", [el("code", n.short(origin["source"]) or "unknown"), f", depth {origin['depth']}, in {origin['round']}"]),
    ]
    if list(origin["parents"]) != [row["task_id"]]:
        facts.append(("made from", ", ".join(map(n.short, origin["parents"])) or "nothing recorded"))
    facts += [("judged", _score(score)) for score in row["scores"]]
    if origin["verifiers"]:
        facts.append(("judged inside", ", ".join(origin["verifiers"])))
    cut = "" if row["finished"] or row["completion"] is None else chip("cut off")
    return el(
        "article",
        chip(row["verdict"] or ("error" if row["error"] else "not judged")),
        " ",
        cut,
        el("pre", clip(row["prompt"], characters), class_="asked", dir="auto"),
        el("pre", clip(answer, characters), dir="auto"),
        el(
            "dl",
            [
                (el("dt", name), el("dd", fact if isinstance(fact, Html) or not isinstance(fact, str) else clip(fact, 300)))
                for name, fact in facts
            ],
        ),
        class_="card",
    )


def _score(score: Mapping[str, Any]) -> str:
    value = "" if score["value"] is None else f" {n.compact(score['value'])}"
    reason = f": {score['reason']}" if score["reason"] else ""
    return f"{score['verdict']}{value} by {score['verifier']}@{score['version']}{reason}"
