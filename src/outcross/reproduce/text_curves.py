"""Curves of the text lineages, read from their records: a probe by generation, and where they end by the share of real rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from outcross.lab.claim import NORMAL_95
from outcross.lab.curves import Curve, Line
from outcross.reproduce import text
from outcross.reproduce.lineage import Course, courses, finished
from outcross.reproduce.text import TextLineage

_MIXED = (  # what is learnt from
    ("TinyStories", (text.REPLACE, text.SUBSAMPLE, text.SHARES[0], text.ACCUMULATE)),
    ("wikitext-2", (text.WIKI_REPLACE, text.WIKI_TENTH)),
)
_WRITTEN = (  # how it is written
    ("TinyStories", (text.REPLACE, text.COLD)),
    ("wikitext-2", (text.WIKI_REPLACE, text.WIKI_BEAMS)),
)
_SWEEP = (text.REPLACE, *text.SHARES)
NAMES = {
    text.REPLACE.name: "replace",
    text.COLD.name: "replace, T = 0.3",
    text.SUBSAMPLE.name: "subsample",
    text.ACCUMULATE.name: "accumulate",
    text.SHARES[0].name: "10 % real",
    text.WIKI_REPLACE.name: "replace",
    text.WIKI_BEAMS.name: "replace, 5 beams",
    text.WIKI_TENTH.name: "10 % real",
}
_PROBES = {
    "real_loss": ("Held-out loss", "nats per token"),
    "tail_loss": ("Loss on the rarest tenth of tokens", "nats per token"),
    "text_vocabulary": ("Vocabulary of what is written", "doublings over real text"),
    "self_perplexity": ("How surprising its text is to the first model", "nats per token"),
}


def curves_of(seeds: Sequence[Path], lineages: Collection[str]) -> list[Curve]:
    """The pictures of those lineages that every seed has finished."""
    found = []
    for corpus, members in _MIXED:
        shown = _finished(members, seeds, lineages)
        found += [_by_generation(corpus, corpus, probe, shown, seeds) for probe in _PROBES if shown]
    for corpus, members in _WRITTEN:
        if len(shown := _finished(members, seeds, lineages)) == len(members):
            found.append(_by_generation(f"written-{corpus}", f"{corpus}: drawn at T = 1 or not", "real_loss", shown, seeds))
    sweep = _finished(_SWEEP, seeds, lineages)
    if len(sweep) > 2:
        found.append(_sweep(sweep, seeds))
    return found


def _finished(members: Iterable[TextLineage], seeds: Sequence[Path], lineages: Collection[str]) -> list[TextLineage]:
    return [one for one in members if one.name in lineages and seeds and all(finished(folder / one.name) for folder in seeds)]


def _by_generation(key: str, where: str, probe: str, shown: Sequence[TextLineage], seeds: Sequence[Path]) -> Curve:
    title, unit = _PROBES[probe]
    lines = tuple(_line(one, probe, seeds) for one in shown)
    names = tuple(map(str, range(len(lines[0].values))))
    about = f"{unit[0].upper()}{unit[1:]}; generation 0 learnt from real text."
    return Curve(f"text-{key}-{probe}".lower(), f"{title}, {where}", about, ("text",), names, lines)


def _line(lineage: TextLineage, probe: str, seeds: Sequence[Path]) -> Line:
    return _banded(NAMES[lineage.name], [courses(folder / lineage.name)[probe] for folder in seeds])


def _banded(name: str, found: Sequence[Course]) -> Line:
    """The mean over seeds; the band is that of the change from generation 0, over seeds or, of one seed, over held-out items."""
    means = np.stack([course.means for course in found])
    middle = means.mean(axis=0)
    if len(found) > 1:
        half = NORMAL_95 * (means - means[:, :1]).std(axis=0, ddof=1) / np.sqrt(len(found))
    else:
        half = NORMAL_95 * np.array([0.0, *(found[0].error(number) for number in range(1, len(middle)))])
    return Line(name, tuple(map(float, middle)), tuple(map(float, middle - half)), tuple(map(float, middle + half)))


def _sweep(shown: Sequence[TextLineage], seeds: Sequence[Path]) -> Curve:
    """The held-out loss at the end by the share of real rows; the first model stands for real rows alone."""
    lines = [_banded("", [courses(folder / one.name)["real_loss"] for folder in seeds]) for one in shown]
    ends = [(line.values[-1], line.low[-1], line.high[-1]) for line in lines] + [(lines[0].values[0],) * 3]
    values, low, high = (tuple(part) for part in zip(*ends, strict=True))
    names = (*(f"{100 * one.real:.0f} %" for one in shown), "100 %")
    about = "Nats per token after 5 generations by the share of real rows; the places are not to scale."
    return Curve(
        "text-real-share", "Where 70 % real stands, TinyStories", about, ("real-share-text",), names, (Line("ours", values, low, high),)
    )
