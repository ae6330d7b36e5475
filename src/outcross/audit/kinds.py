"""The kinds of fault, how much each one harms, and what repairs it: the one table that the ranking rests on.

The harm of a finding, in points, is 100 × the share affected × the weight of its kind. A weight says how many plain wasted rows one affected
row is as bad as; the reason stands beside it. They were set by these reasons, and four of them (broken characters, coverage, likeness, stopping in the
middle) changed once, on the Wikipedia sets of `benchmarks/audit_prediction.py`. From 10 points on a finding is *bad*, from 1 on a *warning*, below a *note*.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["note", "warn", "bad"]
Repair = Literal["drop", "mask", "mix", "look"]
LEVELS: tuple[Level, ...] = ("note", "warn", "bad")
BAD, WARN = 10.0, 1.0  # points


@dataclass(frozen=True)
class Kind:
    """harms: the model that is trained, the measurement of any model, or people. repair: `outcross clean` drops the row or masks the
    passage; *mix* asks for real data beside it, *look* for a person. at_least: the level of any finding of this kind, however rare."""

    title: str
    weight: float
    why: str
    harms: Literal["model", "measurement", "people"]
    repair: Repair
    at_least: Level = "note"


KINDS: dict[str, Kind] = {
    # people
    "secrets": Kind(
        "keys, tokens and passwords", 20, "one key that a model repeats costs more than many bad rows", "people", "mask", "warn"
    ),
    "personal": Kind("personal data", 5, "a model can repeat it to anybody", "people", "mask"),
    "links": Kind("unsafe links", 5, "a model that learns them will write them", "people", "drop"),
    # measurement
    "contamination": Kind(
        "rows that stand in the evaluation set",
        10,
        "1 % of them moves a benchmark by more than most improvements",
        "measurement",
        "drop",
        "warn",
    ),
    "memorised": Kind("copies of real rows", 1, "nothing new is learnt, and the real row counts twice", "measurement", "drop"),
    # the model: rows
    "unreadable": Kind("rows without text", 1, "the row teaches nothing", "model", "drop"),
    "garbled": Kind(
        "broken characters", 1, "the row is wasted: broken words are new words, and teach little about the sound ones", "model", "drop"
    ),
    "repetition": Kind("text that goes round in circles", 2, "the row is wasted and going round is learnt", "model", "drop"),
    "template": Kind("left-over template marks", 2, "the row is wasted, and a mark ends or turns a dialogue", "model", "drop"),
    "boilerplate": Kind("an assistant's stock phrases", 1, "the answer says what a model says of itself", "model", "drop"),
    "tie": Kind("preferred and rejected are equal", 1, "the comparison teaches nothing", "model", "drop"),
    "duplicates": Kind("exact duplicates", 1, "the row is a second epoch of another one", "model", "drop"),
    "near": Kind("near duplicates", 0.8, "at least four fifths of the row are a second epoch of another one", "model", "drop"),
    # the model: the whole set
    "coverage": Kind(
        "what real text says and this set does not", 1.5, "what is missing everywhere cannot be learnt from any row", "model", "mix"
    ),
    "likeness": Kind("text unlike the real one", 2, "that share of the text is wasted, and what it sounds like is learnt", "model", "look"),
    "diversity": Kind("less varied than real data", 1, "the share of variety that is gone", "model", "mix"),
    "tails": Kind("rare words lost", 1, "the share of the tail that is gone: the first sign of collapse", "model", "mix"),
    "cut": Kind("answers that stop in the middle", 0.3, "the row teaches to stop there; what stands before is sound", "model", "look"),
    "language": Kind("rows in languages that real data lacks", 1, "the row is wasted", "model", "look"),
    "groups": Kind("groups missing or thinned out", 2, "the group's rows are lost, and a mean does not show it", "people", "mix"),
}
ROW_KINDS = tuple(name for name, kind in KINDS.items() if kind.repair in ("drop", "mask"))
"""What `outcross clean` repairs."""


def level_of(kind: str, harm: float) -> Level:
    """The level of a finding of so many points."""
    found: Level = "bad" if harm >= BAD else "warn" if harm >= WARN else "note"
    return max(found, KINDS[kind].at_least, key=LEVELS.index)
