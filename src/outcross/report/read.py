"""The record as a person wants it: summary, rounds, costs and disk use. For `show`, `list`, `du`, the report and `open`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from outcross.engine.store import PRIMARY, RunDir
from outcross.report.bill import Bill, read_bill
from outcross.report.claim import claim
from outcross.report.judges import JudgeFound, read_judges
from outcross.report.record import Count, Manifest, Mixed, RoundRecord, read_manifest, read_metrics, read_round
from outcross.report.tracks import Track, read_tracks
from outcross.report.verdict import Tally, mostly_length, sentence


@dataclass(frozen=True)
class RoundRow:
    """One complete round in one line. Counts are samples; `made` were generated, `passed` is None without a verifier, `rows` could be
    released (None where that is not what the round was for)."""

    label: str
    outcome: str
    made: int
    passed: int | None
    kept: int
    examples: int
    steps: int
    mixture: Mixed | None
    means: Mapping[str, float]
    reason: str
    gated: bool
    rows: int | None = None

    @property
    def teaches(self) -> bool:
        """Whether the round was to teach a model."""
        return self.rows is None and self.outcome != "data only"


@dataclass(frozen=True)
class Summary:
    """A run at a glance. `headings` are what a reader must know before any number."""

    name: str
    root: Path
    recipe: str
    paper: str
    fingerprint: str
    seed: int
    verdict: str
    headings: tuple[str, ...]
    tally: Tally
    tracks: tuple[Track, ...]
    rounds: tuple[RoundRow, ...]

    @property
    def taught(self) -> tuple[str, ...]:
        """The labels of complete rounds that were to teach a model: the x axis of charts over rounds."""
        return tuple(row.label for row in self.rounds if row.teaches)


@dataclass(frozen=True)
class Cost:
    """What a step took, summed over attempts. `rss_mb` is the peak of memory."""

    seconds: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0
    rss_mb: float = 0.0


@dataclass(frozen=True)
class Costs:
    """Cost by (round, step) in the order of first appearance, and how often the run was started."""

    steps: Mapping[tuple[str, str], Cost]
    attempts: int

    @property
    def total(self) -> Cost:
        found = list(self.steps.values())
        return Cost(
            sum(item.seconds for item in found),
            sum(item.prompt_tokens for item in found),
            sum(item.completion_tokens for item in found),
            max((item.rss_mb for item in found), default=0.0),
        )


@dataclass(frozen=True)
class Reading:
    """A run's record, read once."""

    run: RunDir
    manifest: Manifest
    rounds: tuple[RoundRecord, ...]
    summary: Summary
    costs: Costs

    @cached_property
    def judges(self) -> tuple[JudgeFound, ...]:
        """What the scores on the record tell about their judges; reads the tables of rounds with a judge."""
        return read_judges(self.run, self.rounds)

    @cached_property
    def bill(self) -> Bill | None:
        """What models were asked and what it cost; None when nobody was asked. Raises `StoreError` when the journal cannot be read."""
        return read_bill(self.run, self.manifest, self.rounds, self.costs.total.seconds, complete=self.summary.tally.over)


def read_run(run: RunDir) -> Reading:
    """Raises `StoreError` when the folder is no run or its record is damaged."""
    manifest = read_manifest(run)
    rounds = tuple(read_round(item) for item in run.rounds())
    return Reading(run, manifest, rounds, _summary(run, manifest, rounds), read_costs(run))


def summary(run: RunDir) -> Summary:
    """Raises `StoreError` when the folder is no run or its record is damaged."""
    return read_run(run).summary


def _summary(run: RunDir, manifest: Manifest, rounds: Sequence[RoundRecord]) -> Summary:
    tracks = read_tracks(run, manifest, rounds)
    tally = tally_of(manifest, rounds, tracks)
    headings = list(manifest.headings)
    if not tally.gated and not any("ungated" in heading.lower() for heading in headings):
        headings.append("ungated")
    headings += [line for item in rounds for line in _alarms(item)]
    headings += mostly_length(tracks)
    return Summary(
        manifest.name,
        run.root,
        manifest.recipe.name,
        manifest.recipe.paper,
        manifest.recipe.fingerprint,
        manifest.seed,
        sentence(tally, tracks) + claim(run),
        tuple(headings),
        tally,
        tracks,
        tuple(map(round_row, rounds)),
    )


def _alarms(item: RoundRecord) -> list[str]:
    """What happened in a round that a reader must know before any number."""
    admission = item.admission
    held = [] if admission is None or admission.decision == "accept" else [f"not admitted: {item.label}: {admission.reason}"]
    back = item.rolled_back
    undone = [f"rolled back in {item.label} to {back.to}: {', '.join(back.rounds)} undone"] if back is not None and back.rounds else []
    moved = [f"alarm in {item.label} ({alarm.action.replace('_', ' ')}): {alarm.reason}" for alarm in item.moved if alarm.action != "note"]
    return [*(f"divergence alarm in {item.label}: {line}" for line in item.alarms), *moved, *undone, *held]


def tally_of(manifest: Manifest, rounds: Sequence[RoundRecord], tracks: Sequence[Track]) -> Tally:
    """How the rounds ended."""
    ended = [item.outcome for item in rounds if item.release is None]
    releases = [item for item in rounds if item.release is not None]
    return Tally(
        manifest.planned,
        ended.count("promoted"),
        ended.count("refused") + ended.count("rolled back"),
        ended.count("nothing learnt"),
        ended.count("data only"),
        sum(round_row(item).kept for item in rounds if item.outcome == "data only"),
        all(item.decision is None or item.decision.gated for item in rounds),
        _over(manifest, rounds, tracks),
        len(releases),
        sum(item.outcome == "released" for item in releases),
        sum(item.release.rows for item in releases if item.release is not None and item.outcome == "released"),
    )


def _over(manifest: Manifest, rounds: Sequence[RoundRecord], tracks: Sequence[Track]) -> bool:
    """Whether every phase ran all its rounds, was followed by another, or reached the number at which it was to end early."""
    ran = [item.phase for item in rounds]
    names = [phase.name for phase in manifest.phases]
    return all(
        ran.count(phase.name) == phase.rounds
        or any(later in ran for later in names[index + 1 :])
        or _reached(manifest, phase.name, rounds, tracks)
        for index, phase in enumerate(manifest.phases)
    )


def _reached(manifest: Manifest, phase: str, rounds: Sequence[RoundRecord], tracks: Sequence[Track]) -> bool:
    canonical = manifest.recipe.canonical
    phases: list[dict[str, Any]] = canonical.get("phases", []) if isinstance(canonical, dict) else []
    until = next((item.get("until") for item in phases if item.get("name") == phase), None)
    if not until:
        return False
    probe, goal = until[0], float.fromhex(until[1]["float"]) if isinstance(until[1], dict) else float(until[1])
    held = [item.measurements[probe] for item in rounds if item.outcome == "promoted" and probe in item.measurements]
    if not held:
        first = next((track for track in tracks if track.probe == probe), None)
        return first is not None and (first.first.mean >= goal if first.higher_is_better else first.first.mean <= goal)
    return held[-1].candidate >= goal if held[-1].higher_is_better else held[-1].candidate <= goal


def round_row(item: RoundRecord) -> RoundRow:
    """A round's record in one line."""
    turns = turns_of(item.counts)
    passed = [[count.detail["pass"] for count in turn if count.stage == "verify" and "pass" in count.detail] for turn in turns]
    kept = [[count.kept for count in turn if count.stage != "learn"] for turn in turns]
    decision = item.decision
    return RoundRow(
        item.label,
        item.outcome,
        sum(count.into for count in item.counts if count.stage == "generate"),
        sum(found[-1] for found in passed if found) if any(passed) else None,
        sum(found[-1] for found in kept if found),
        sum(fit.examples for fit in item.fits.values()),
        sum(fit.steps for fit in item.fits.values()),
        item.mixtures.get(PRIMARY) or next(iter(item.mixtures.values()), None),
        {name: found.candidate for name, found in item.measurements.items()},
        decision.reason if decision else "",
        decision.gated if decision else True,
        item.release.rows if item.release is not None else None,
    )


def turns_of(counts: Sequence[Count]) -> list[list[Count]]:
    """The counts of a round, turn by turn: each inner turn begins by generating."""
    turns: list[list[Count]] = []
    for count in counts:
        if count.stage == "generate" or not turns:
            turns.append([])
        turns[-1].append(count)
    return turns


def read_costs(run: RunDir) -> Costs:
    """What the steps of a run took, from `metrics.jsonl`."""
    steps: dict[tuple[str, str], Cost] = {}
    attempts = 0
    for line in read_metrics(run):
        attempts = max(attempts, line.attempt)
        old = steps.get((line.round, line.step), Cost())
        steps[line.round, line.step] = Cost(
            old.seconds + line.seconds,
            old.prompt_tokens + line.tokens.get("prompt", 0),
            old.completion_tokens + line.tokens.get("completion", 0),
            max(old.rss_mb, line.rss_mb),
        )
    return Costs(steps, attempts)


def disk_use(run: RunDir) -> dict[str, int]:
    """Bytes by kind: models, tables, journal, logs, other. Links are not followed; hard links count once."""
    found = dict.fromkeys(("models", "tables", "journal", "logs", "other"), 0)
    seen: set[tuple[int, int]] = set()
    for folder, _, names in os.walk(run.root):
        for name in names:
            path = Path(folder, name)
            status = path.lstat()
            if path.is_symlink() or (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            found[_kind(path.relative_to(run.root))] += status.st_size
    return found


def _kind(path: Path) -> str:
    if any(part == "model" or part.startswith("model.") for part in path.parts[:-1]):
        return "models"
    if path.suffix == ".parquet":
        return "tables"
    if path.name.startswith("responses.db"):
        return "journal"
    return "logs" if path.parts[0] == "logs" or path.name == "metrics.jsonl" else "other"
