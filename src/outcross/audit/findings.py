"""What an audit finds, as values: the terminal, the page and the JSON file are three ways to show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from outcross.audit.kinds import KINDS, Kind, Level, level_of

Answer = Literal["yes", "yes, after cleaning", "no"]


@dataclass(frozen=True)
class Case:
    """A row shown for a finding: its number in the file (from 1), the row it resembles (0: none), what was found, and its text, masked."""

    row: int
    other: int
    what: str
    text: str


@dataclass(frozen=True)
class Finding:
    """One fault. share: affected part of the set, with a 95 % interval where it was estimated (None: all rows were counted); rows: how many
    (0 where the fault is one of the whole set); looked_at: rows looked at; says: the figure in a sentence; first: numbers of affected rows."""

    kind: str
    share: float
    low: float | None
    high: float | None
    rows: int
    looked_at: int
    says: str
    cases: tuple[Case, ...] = ()
    first: tuple[int, ...] = ()

    @property
    def about(self) -> Kind:
        return KINDS[self.kind]

    @property
    def harm(self) -> float:
        """Points: 100 × share × weight."""
        return 100 * self.share * self.about.weight

    @property
    def level(self) -> Level:
        return level_of(self.kind, self.harm)

    @property
    def todo(self) -> str:
        """What to do about it."""
        match self.about.repair:
            case "drop" | "mask" as act:
                return f"outcross clean --only {self.kind} {'masks the passages' if act == 'mask' else 'drops these rows'}"
            case "mix":
                return "mix with real data (real_floor in a run file), or generate what is missing"
            case "look":
                return "look at the examples: choose another generator or prompt, or a real set that this one is meant to be like"


@dataclass(frozen=True)
class Statistic:
    """One figure of the set against real text at equal length. value and real: means over draws; difference with its interval at the family's
    level; null: what a second real sample would differ by at most; missing: share of the real value that is gone (0 where inside the null)."""

    name: str
    value: float
    real: float
    difference: float
    low: float
    high: float
    null: float
    worse: Literal["lower", "higher", "either"]

    @property
    def outside(self) -> bool:
        """Whether a second real sample would not show such a difference."""
        return abs(self.difference) > self.null

    @property
    def worse_by(self) -> float:
        """The share of the real value by which it is worse; 0 when a second real sample could show as much."""
        sign = {"lower": -1, "higher": 1, "either": 0}[self.worse]
        return max(0.0, sign * self.difference / abs(self.real)) if self.outside and self.real else 0.0


@dataclass(frozen=True)
class GroupShare:
    """A group's rows in the set and in real data, and the difference of the shares with its interval over all groups."""

    name: str
    rows: int
    real_rows: int
    share: float
    real_share: float
    low: float
    high: float


@dataclass(frozen=True)
class Composition:
    """What the set is made of. origins: (kind, proof, rule) → rows; depths: generation → rows, where rows carry their lineage."""

    rows: int
    words: int
    characters: int
    parts: Mapping[str, str]
    sources: Mapping[str, int]
    origins: Mapping[tuple[str, str, str], int]
    depths: Mapping[int, int]
    lengths: tuple[tuple[int, int], ...]  # (words from, rows), from doubling to doubling
    languages: Mapping[str, int]
    language_rows: int


@dataclass(frozen=True)
class Audit:
    """All of it. findings: the most harmful first; unjudged: what could not be looked at, and what would allow it."""

    data: str
    real: str
    evals: tuple[str, ...]
    answer: Answer
    headline: str
    composition: Composition
    findings: tuple[Finding, ...]
    statistics: tuple[Statistic, ...] = ()
    tokens: int = 0
    groups: tuple[GroupShare, ...] = ()
    unjudged: tuple[str, ...] = ()
    coverage_of_checks: tuple[tuple[str, str], ...] = field(default=())  # (check, on how many rows)

    @property
    def harm(self) -> float:
        """Points of all findings together."""
        return sum(item.harm for item in self.findings)

    @property
    def model_harm(self) -> float:
        """Points of the findings that harm the model trained on the set: what predicts its loss."""
        return sum(item.harm for item in self.findings if item.about.harms == "model")

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        composition = asdict(self.composition) | {
            "origins": [
                {"kind": kind, "proof": proof, "rule": rule, "rows": rows} for (kind, proof, rule), rows in self.composition.origins.items()
            ]
        }
        findings = [
            asdict(item)
            | {"level": item.level, "harm": item.harm, "weight": item.about.weight, "harms": item.about.harms, "todo": item.todo}
            for item in self.findings
        ]
        return asdict(self) | {"harm": self.harm, "model_harm": self.model_harm, "composition": composition, "findings": findings}
