"""The report: one offline HTML page of at most 2 MB for one run or several side by side. No script, no outside resource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from outcross.engine.store import RunDir
from outcross.errors import ConfigError
from outcross.report import compare, sections
from outcross.report import numbers as n
from outcross.report.bill_part import bill_part
from outcross.report.compare import Arm, Contrast, arms_of
from outcross.report.depth_part import depth_part
from outcross.report.drift_part import drift_part
from outcross.report.element import Child, Html, clip, el, join
from outcross.report.judges_part import judges_part
from outcross.report.parts import fold
from outcross.report.read import Reading, read_run
from outcross.report.rounds import Limits, round_part

LARGEST = 2_000_000  # bytes of the page
# What is shown, from all that is useful down to what always fits: the first that makes a page small enough is taken.
LEVELS = (Limits(), Limits(4, 250, 24, 200, 10_000), Limits(2, 120, 8, 60, 4_000), Limits(0, 0, 2, 20, 1_000), Limits(0, 0, 0, 10, 500))
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_report(runs: Sequence[RunDir], path: Path, contrasts: Sequence[Contrast] = ()) -> None:
    """Write the report of `runs` to `path`; several runs are compared first and shown one by one after that.

    `contrasts` name pairs of runs to subtract, the headline first; by default the first run is held against each other one.
    The more a run holds, the fewer samples and rounds are shown in full, with a note. Raises `StoreError` for a folder that
    is no run, `ConfigError` for an unknown name in a contrast, for no run at all, and for more runs than a page can hold.
    """
    if not runs:
        raise ConfigError("a report needs at least one run; name the folder of one")
    arms = arms_of([read_run(run) for run in runs])
    for limits in LEVELS:
        page = render(arms, contrasts, limits).encode()
        if len(page) <= LARGEST:
            break
    else:
        raise ConfigError(
            f"{len(runs)} runs make a page of {n.size(len(page))}, and a report holds at most {n.size(LARGEST)}; name fewer runs"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page)


def render(arms: Sequence[Arm], contrasts: Sequence[Contrast], limits: Limits) -> str:
    """The page as text. It is well-formed XML too."""
    limits = replace(limits, rounds=limits.rounds // len(arms))
    title = ", ".join(arm.name for arm in arms)
    body = _several(arms, contrasts, limits) if len(arms) > 1 else _single(arms[0], limits)
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("title", f"{clip(title, 120)} · Outcross report"),
        el("style", Html(files("outcross.report").joinpath("style.css").read_text(encoding="utf-8"))),
    )
    shortened = None
    if limits.samples != LEVELS[0].samples:
        shortened = el("p", "This page was shortened to stay below 2 MB; the record holds everything.")
    version = arms[0].reading.manifest.versions.get("outcross", "")
    footer = el("footer", shortened, el("p", f"Made by Outcross {version}".rstrip(), " from the record alone."))
    return f"<!DOCTYPE html>\n{el('html', head, el('body', el('main', join(list(body)), footer)), lang='en')}\n"


def _flags(headings: Sequence[str]) -> Html | None:
    return el("ul", [el("li", clip(heading[:1].upper() + heading[1:], 400)) for heading in headings], class_="flags") if headings else None


def _chips(headings: Sequence[str]) -> Child:
    return [[" ", el("span", clip(heading, 120), class_="chip note")] for heading in headings]


def _single(arm: Arm, limits: Limits) -> Iterator[Child]:
    found = arm.reading.summary
    paper = f" · {found.paper}" if found.paper else ""
    yield el("p", f"Outcross report · {found.recipe}{paper} · seed {found.seed}", class_="eyebrow")
    yield el("h1", arm.name)
    yield el("p", found.verdict, class_="verdict")
    yield _flags(found.headings)
    yield sections.tile_row(arm.reading)
    yield from run_sections(arm.reading, limits)


def _several(arms: Sequence[Arm], contrasts: Sequence[Contrast], limits: Limits) -> Iterator[Child]:
    yield el("p", f"Outcross report · {n.plural(len(arms), 'run')} side by side", class_="eyebrow")
    yield el("h1", " · ".join(clip(arm.name, 80) for arm in arms))
    yield el("p", compare.headline(arms, contrasts), class_="verdict")
    yield from compare.picture(arms)
    yield el(
        "ul",
        [el("li", el("b", arm.name), ": ", arm.reading.summary.verdict, _chips(arm.reading.summary.headings)) for arm in arms],
        class_="verdicts",
    )
    yield from compare.contrasts(arms, contrasts)
    yield from compare.overview(arms)
    yield from compare.further_pictures(arms)
    yield el("h2", "Each run")
    for arm in arms:
        found = arm.reading.summary
        body = [_flags(found.headings), sections.tile_row(arm.reading), *run_sections(arm.reading, limits)]
        yield fold([el("b", arm.name), " ", el("span", found.verdict, class_="soft")], body, class_="run", id_=compare.anchor(arm))


def run_sections(reading: Reading, limits: Limits) -> Iterator[Child]:
    """A run from its probes to its environment."""
    yield from sections.probes(reading)
    yield from sections.overview(reading, limits.rows)
    yield from _rounds(reading, limits)
    yield from sections.mixtures(reading, limits.rows // 4)
    yield from depth_part(reading, limits.rows // 4)
    yield from drift_part(reading, limits.rows)
    yield from judges_part(reading)
    yield from sections.tombstones(reading)
    yield from bill_part(reading)
    yield from sections.costs(reading, limits.rows)
    yield from sections.environment(reading, limits.configuration)


def _rounds(reading: Reading, limits: Limits) -> Iterator[Child]:
    pairs = list(zip(reading.run.rounds(), reading.rounds, strict=True))
    shown = pairs[-limits.rounds :] if limits.rounds else []
    if len(shown) < len(pairs):
        yield el("p", f"Shown in full: the last {len(shown)} of {n.plural(len(pairs), 'round')}.", class_="soft")
    units = {track.probe: track.unit for track in reading.summary.tracks}
    for item, found in shown:
        yield round_part(item, found, units, limits, open_=False)
