"""`outcross reproduce`: published claims, run here and judged."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, hint, say, show, table
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.lab.claim import Claim
    from outcross.lab.curves import Curve
    from outcross.report.reproduce import Panel, Row
    from outcross.reproduce.run import Entry, Study


class Scale(StrEnum):
    """How much is run: replicates of simulations times 1, 10 or 100; no trained models, one seed of them, or five (three of images)."""

    toy = "toy"
    small = "small"
    full = "full"


@command
def reproduce(
    names: list[str] = typer.Argument(None, help="Claims to run.", metavar="[CLAIM]...", show_default=False),
    everything: bool = typer.Option(False, "--all", help="Run every claim that can be run here."),
    listing: bool = typer.Option(False, "--list", help="Show every claim and run none."),
    scale: Scale = typer.Option(Scale.toy, help="1, 10 or 100 times the replicates; 0, 1 or up to 5 seeds of trained models."),
    seed: int = typer.Option(0, help="The same seed gives the same numbers.", min=0),
    data: Path = typer.Option(None, help="Folder with the texts and images that trained models need.", show_default=False),
    out: Path = typer.Option(Path("reproduced"), help="Where finished claims are kept; a run that was stopped goes on there."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of a table."),
) -> None:
    """Run published claims about collapse and set theory, paper and our numbers side by side."""
    if sum(map(bool, (names, everything, listing))) != 1:
        raise ConfigError("say what to run: --list shows all claims; then name some of them, or give --all")
    if data is not None and not data.is_dir():
        raise ConfigError(f"--data: there is no folder {data}; it holds for example wikitext-2/valid.txt and wikitext-2/test.txt")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the matrices are small: more threads only wait for each other
    from outcross.reproduce.claims import CLAIMS, find
    from outcross.reproduce.run import Study

    study = Study(out, scale.value, seed, data)
    if listing:
        _list(study, CLAIMS, as_json)
        return
    chosen = find(names) if names else CLAIMS
    if names and (why := [f"{claim.name}: {reason}" for claim in chosen if (reason := study.obstacle(claim))]):
        raise ConfigError("; ".join(why))
    _run(study, chosen, as_json)


def _list(study: Study, claims: tuple[Claim, ...], as_json: bool) -> None:
    if as_json:
        kept = ("name", "kind", "published", "what", "paper", "place")
        say(json.dumps([{name: getattr(claim, name) for name in kept} | {"cost": _cost(study, claim)} for claim in claims], indent=1))
        return
    rows = [
        (
            claim.name,
            claim.kind,
            "" if claim.published is None else _number(claim.published),
            claim.what,
            claim.paper,
            claim.place,
            _cost(study, claim),
        )
        for claim in claims
    ]
    columns = ("claim", "kind", "published", "what", "paper", "place", f"cost, {study.scale}")
    show(table("Claims", columns, rows, right=("published", columns[-1])))
    say(_tally(claim.kind for claim in claims))


def _cost(study: Study, claim: Claim) -> str:
    """About what a claim takes by itself on one core."""
    from outcross.report import numbers as n

    if claim.kind == "cited":
        return "not run"
    seconds = study.expected_seconds(claim)
    return n.duration(seconds) if seconds else "from small on"


def _run(study: Study, claims: Sequence[Claim], as_json: bool) -> None:
    from outcross.reproduce.run import versions

    entries = study.run(claims, hint)
    rows = [_row(entry) for entry in entries]
    page = study.folder / "report.html"
    _write_page(page, study, rows, study.curves(entries), versions())
    if as_json:
        say(json.dumps(study.as_json(entries), indent=1, ensure_ascii=False))
        return
    ran = [row for row in rows if row.verdict != "not run"]
    columns = ("claim", "kind", "theory", "published", "ours", "verdict")
    cells = [(row.claim, row.kind, row.theory, row.published, row.ours, row.verdict) for row in ran]
    show(table(f"Scale {study.scale}, seed {study.seed}; ours ± half a 95 % interval", columns, cells, right=columns[2:5]))
    for kind in dict.fromkeys(row.kind for row in ran):
        say(f"{kind}: {_tally(row.verdict for row in ran if row.kind == kind)}")
    if len(ran) < len(rows):
        say(f"not run: {_tally(_reason(entry) for entry in entries if entry.result is None)}")
    hint(f"curves and notes: {page}")


def _reason(entry: Entry) -> str:
    return entry.why.partition(":")[0]


def _row(entry: Entry) -> Row:
    from outcross.report.reproduce import Row

    claim, result = entry.claim, entry.result
    published = "" if claim.published is None else _number(claim.published)
    theory = ours = ""
    if result is not None:
        theory = "> 0" if claim.kind == "direction" else "" if result.theory is None else _number(result.theory)
        ours = _number(result.ours) + (f" ± {result.half_width:.2g}" if result.standard_error else " (exact)")
    note = entry.why if result is None else result.note
    return Row(claim.name, claim.kind, theory, published, ours, entry.verdict, claim.what, claim.paper, claim.place, note)


def _write_page(path: Path, study: Study, rows: Sequence[Row], curves: Sequence[Curve], versions: dict[str, str]) -> None:
    from outcross.report.reproduce import write

    write(path, study.scale, study.seed, rows, [_panel(curve) for curve in curves], versions)


def _panel(curve: Curve) -> Panel:
    from outcross.report.reproduce import Panel, PanelLine

    lines = tuple(PanelLine(line.name, line.values, line.low, line.high) for line in curve.lines)
    return Panel(curve.title, curve.about, curve.x_names, lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _tally(words: Iterable[str]) -> str:
    return " · ".join(f"{word} {count}" for word, count in Counter(words).items())
