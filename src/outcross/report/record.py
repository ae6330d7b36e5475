"""The JSON of a run's record, typed: `manifest.json`, `round.json` and `metrics.jsonl`.

Unknown keys are passed over, so a record of a later minor version still reads; a missing or mistyped one is a damaged record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from outcross.engine.store import RoundDir, RunDir, read_json
from outcross.errors import StoreError
from outcross.types import Alarm, Decision

T = TypeVar("T")
Outcome = Literal["promoted", "refused", "nothing learnt", "data only", "released", "no rows", "rolled back"]


class Count(msgspec.Struct, frozen=True):
    """What one stage did, in samples: `into` = kept + dropped + failed."""

    stage: str
    name: str
    into: int = msgspec.field(name="in")
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    detail: Mapping[str, int] = {}


class Part(msgspec.Struct, frozen=True):
    """One origin's part of a mixture, weights and repeats counted."""

    kind: str
    proof: str = "none"
    source: str = ""
    depth: int = 0
    round: str = ""
    records: float = 0.0
    tokens: float = 0.0

    @property
    def is_real(self) -> bool:
        return self.kind == "real" and self.proof != "none"


class Mixed(msgspec.Struct, frozen=True):
    """What the optimiser of one role saw in a round."""

    records: float
    tokens: float
    real_share: Mapping[str, float]
    floor: str
    real_records: float = 0.0
    real_tokens: float = 0.0
    required: float | None = None
    waiting: int = 0
    real_epochs: float = 0.0
    parts: tuple[Part, ...] = ()


class Fit(msgspec.Struct, frozen=True):
    """One training: from model `start` to model `model`. `kept`: of a fit that might stop early, the steps that led to the weights that were
    kept. `left_out`: examples that were not learnt from, by reason; `real_share`: the share of real data among those that were."""

    steps: int
    examples: int
    start: str
    model: str
    depth: int = 0
    skipped: int = 0
    kept: int | None = None
    left_out: Mapping[str, int] = {}
    real_share: Mapping[str, float] = {}

    @property
    def unlearnt(self) -> str:
        """Examples of the mixture that the optimiser did not see, and why; empty when it saw all."""
        told = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items()) or f"{self.skipped:,}"
        share = ", ".join(f"{value:.1%} of {unit}" for unit, value in self.real_share.items())
        return f"not learnt from: {told}{f'; real among the others: {share}' if share else ''}" if self.skipped else ""


class Found(msgspec.Struct, frozen=True):
    """What a probe found of candidate, champion and first champion; `low` and `high`: 95 % interval of the candidate."""

    candidate: float
    champion: float
    first: float
    items: int
    unit: str = ""
    higher_is_better: bool = True
    low: float | None = None
    high: float | None = None


class RowsFound(msgspec.Struct, frozen=True):
    """What a probe found of a round's rows, of earlier releases and of real data; `low` and `high`: 95 % interval of the round's."""

    round: float
    items: int
    release: float | None = None
    real: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""


class ReleaseFound(msgspec.Struct, frozen=True):
    """The rows of a round that could be released: how many, of how many tasks, and what its probes found."""

    rows: int
    tasks: int
    probes: Mapping[str, RowsFound] = {}


class Holder(msgspec.Struct, frozen=True):
    """The candidate of a role, which holds it once the round is promoted."""

    id: str
    folder: str = ""


class VerifierRecord(msgspec.Struct, frozen=True):
    version: str
    ground: str = ""


class Admission(msgspec.Struct, frozen=True):
    """What people decided about a round's batch: "accept", "reject", or "go on" while they have not."""

    decision: str
    reason: str = ""


class RolledBack(msgspec.Struct, frozen=True):
    """Where a round's alarms let the champion return `to` (a round, or "start"), and the promotions that this undid."""

    to: str
    rounds: tuple[str, ...] = ()


class Tried(msgspec.Struct, frozen=True):
    """A verifier's canaries before one batch: answers that had to pass, had to fail, or had to be left without a verdict, and did."""

    before: str
    verifier: str
    version: str
    gold: int
    bad: int
    other: int = 0


class Reward(msgspec.Struct, frozen=True):
    """The mean value that verifiers gave over a round's tasks, and its standard error."""

    mean: float
    error: float
    tasks: int


class RoundRecord(msgspec.Struct, frozen=True):
    """`round.json`."""

    phase: str
    round: int
    index: int
    label: str
    outcome: Outcome
    counts: tuple[Count, ...] = ()
    mixtures: Mapping[str, Mixed] = {}
    fits: Mapping[str, Fit] = {}
    measurements: Mapping[str, Found] = {}
    decision: Decision | None = None
    champion: Mapping[str, Holder] = {}
    release: ReleaseFound | None = None
    admission: Admission | None = None
    reward: Reward | None = None
    alarms: tuple[str, ...] = ()
    moved: tuple[Alarm, ...] = ()
    rolled_back: RolledBack | None = None
    verifiers: Mapping[str, VerifierRecord] = {}
    canaries: tuple[Tried, ...] = ()
    stages: Mapping[str, str] = {}
    files: Mapping[str, str] = {}

    @property
    def units(self) -> dict[str, str]:
        """The unit of each probe that measured anything."""
        rows = self.release.probes if self.release is not None else {}
        return {name: found.unit for probes in (self.measurements, rows) for name, found in probes.items()}


class Tombstone(msgspec.Struct, frozen=True):
    """One file of `tombstones/`: why, and which samples and examples are not learnt from any more."""

    reason: Mapping[str, Any]
    records: tuple[str, ...]

    @property
    def told(self) -> str:
        """Why, in words."""
        reason = self.reason
        if "recall" not in reason:
            return ", ".join(f"{name} {value}" for name, value in reason.items())
        version = f" before version {reason['before']}" if reason.get("before") else ""
        stand = f"; {reason['stand']:,} samples were verified anew and stand" if reason.get("stand") else ""
        return f"recall of {reason['recall']}{version}{stand}"


class RecipeRecord(msgspec.Struct, frozen=True):
    name: str
    paper: str = ""
    fingerprint: str = ""
    canonical: Any = None


class PhaseRecord(msgspec.Struct, frozen=True):
    name: str
    rounds: int = 1
    inner: int = 1
    learn: tuple[str, ...] = ()
    mixture: Any = None
    gate: str | None = None
    probes: tuple[str, ...] = ()
    release: Any = None


class FirstModel(msgspec.Struct, frozen=True):
    id: str
    depth: int = 0


class ProbeRecord(msgspec.Struct, frozen=True):
    name: str
    kind: str = "quality"
    margin: float = 0.0
    ground: str = ""
    unit: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """`manifest.json`."""

    name: str
    recipe: RecipeRecord
    phases: tuple[PhaseRecord, ...]
    seed: int = 0
    config: Any = None
    models: Mapping[str, FirstModel] = {}
    headings: tuple[str, ...] = ()
    versions: Mapping[str, str] = {}
    keep_models: str | int = "all"
    probes: tuple[ProbeRecord, ...] = ()

    @property
    def planned(self) -> int:
        """How many rounds the run plans."""
        return sum(phase.rounds for phase in self.phases)


class Metric(msgspec.Struct, frozen=True):
    """One line of `metrics.jsonl`: clocks and costs of one step."""

    time: str = ""
    attempt: int = 1
    round: str = ""
    step: str = ""
    seconds: float = 0.0
    tokens: Mapping[str, float] = {}
    rss_mb: float = 0.0


def read_manifest(run: RunDir) -> Manifest:
    """Raises `StoreError` when the folder is no run or its manifest is damaged."""
    return _typed(run.manifest, Manifest, run.root / "manifest.json")


def read_round(found: RoundDir) -> RoundRecord:
    """A promotion that a later round undid is told as such. Raises `StoreError` when the record is damaged."""
    record = _typed(found.record, RoundRecord, found.record_path)
    return msgspec.structs.replace(record, outcome="rolled back") if found.undone else record


def read_tombstones(run: RunDir) -> Iterator[Tombstone]:
    """Recalls and reviews, in the order in which they came. Raises `StoreError` when one is damaged."""
    for path in sorted((run.root / "tombstones").glob("*.json")):
        yield _typed(read_json(path), Tombstone, path)


def read_metrics(run: RunDir) -> Iterator[Metric]:
    """The lines of `metrics.jsonl`; a line that a killed process left half written is passed over."""
    path = run.root / "metrics.jsonl"
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield msgspec.convert(json.loads(line), Metric)
            except (json.JSONDecodeError, msgspec.ValidationError):
                continue


def _typed(value: object, kind: type[T], path: Path) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise StoreError(f"{path} is damaged ({error}); restore it from a copy, records are never rebuilt silently") from error
