"""Running claims: what is finished is kept in a folder, so that an interrupted run goes on; then one table, one page and one JSON file.

OUT/SCALE-SEED/  claims/NAME.json   curves/NAME.json   lineages/seed-K/NAME/ (runs like any other)   results.json   report.html
"""

from __future__ import annotations

import os
import platform
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from outcross.engine.store import read_json, write_json
from outcross.engine.watch import Silent, Watch
from outcross.lab.claim import FACTOR, Claim, Result, Scale
from outcross.lab.curves import PICTURES, Curve
from outcross.reproduce.lineage import Lineage, Lived, Place, finished, live, missing
from outcross.reproduce.picture_curves import pictures_of
from outcross.reproduce.text_curves import curves_of
from outcross.reproduce.trained import SEEDS, TrainedClaim

Say = Callable[[str], None]
PACKAGES = ("outcross", "numpy", "scipy", "torch", "transformers")
FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """A claim and what came of it: a result, or why there is none. `seconds`: what it took, lineages shared with earlier claims not counted."""

    claim: Claim
    result: Result | None
    why: str = ""
    seconds: float = 0.0
    versions: Mapping[str, str] | None = None

    @property
    def verdict(self) -> str:
        return self.result.verdict if self.result else "not run"


@dataclass(frozen=True)
class Study:
    """Claims of one scale and seed in a folder. `data`: the folder of texts and images that trained models need; None: they are not run."""

    out: Path
    scale: Scale
    seed: int
    data: Path | None

    @property
    def folder(self) -> Path:
        return self.out / f"{self.scale}-{self.seed}"

    def run(self, claims: Sequence[Claim], say: Say, watch: Watch = Silent()) -> list[Entry]:
        """Run what is not finished yet and write the results after each claim; `say` hears of progress."""
        for name in ("claims", "curves", "lineages"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        clock, entries = _Clock(self, claims), []
        for number, claim in enumerate(claims, 1):
            entry = self._kept(claim)
            if entry is None and (why := self.obstacle(claim)):
                entry = Entry(claim, None, why)
                if claim.kind != "cited":
                    say(f"{number}/{len(claims)} {claim.name}: not run, {why}")
            elif entry is None:
                say(f"{number}/{len(claims)} {claim.name}{clock.left(number - 1)}")
                began = time.monotonic()
                result = self._estimated(claim, say, watch)
                entry = Entry(claim, result, "", time.monotonic() - began, versions())
                write_json(self._path(claim), _noted(self, entry))
                clock.spent(number - 1, entry.seconds)
            else:
                say(f"{number}/{len(claims)} {claim.name}: finished before")
            entries.append(entry)
            write_json(self.folder / "results.json", self.as_json(entries))
        return entries

    def obstacle(self, claim: Claim) -> str:
        """Why a claim cannot be run here; empty when it can."""
        if not isinstance(claim, TrainedClaim):
            return "" if claim.measure else "cited only"
        if not SEEDS[self.scale]:
            return "trained models begin at --scale small"
        if self.data is None:
            return "it needs data: --data FOLDER"
        absent = sorted({name for lineage in claim.lineages for name in missing(lineage, self.data)})
        return f"{self.data} lacks {', '.join(absent)}" if absent else ""

    def expected_seconds(self, claim: Claim, known: frozenset[Lineage] = frozenset()) -> float:
        """About what a claim takes on one core, lineages in `known` left out."""
        if isinstance(claim, TrainedClaim):
            return claim.seeds(self.scale) * sum(lineage.seconds for lineage in claim.lineages if lineage not in known)
        return claim.seconds * FACTOR[self.scale] if claim.measure else 0.0

    def curves(self, entries: Sequence[Entry]) -> list[Curve]:
        """The curves behind these claims: of simulations drawn anew unless they are kept, of trained models read from their record."""
        names = [entry.claim.name for entry in entries if entry.result is not None]
        found = []
        for picture in PICTURES:
            if any(name.startswith(picture.claims) for name in names):
                path = self.folder / "curves" / f"{picture.name}.json"
                if not path.exists():
                    rng = np.random.default_rng([zlib.crc32(picture.name.encode()), self.seed])
                    write_json(path, picture.curve(1 if self.scale == "toy" else 4, rng))
                found.append(msgspec.convert(read_json(path), Curve))
        lineages = {lineage.name for entry in entries if entry.result is not None for lineage in _lineages(entry.claim)}
        seeds = [folder for folder in self._seeds() if folder.exists()]
        return [*found, *curves_of(seeds, lineages), *pictures_of(seeds, lineages)]

    def as_json(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """Everything that was found, in the form of results.json."""
        return {
            "format": FORMAT,
            "scale": self.scale,
            "seed": self.seed,
            "versions": versions(),
            "claims": [_noted(self, entry) for entry in entries],
        }

    def _seeds(self) -> list[Path]:
        return [self.folder / "lineages" / f"seed-{self.seed + number}" for number in range(SEEDS[self.scale])]

    def _estimated(self, claim: Claim, say: Say, watch: Watch) -> Result:
        if not isinstance(claim, TrainedClaim):
            return claim.run(self.scale, self.seed)
        return claim.result(claim.estimate(list(self._lived(claim, say, watch))))

    def _lived(self, claim: TrainedClaim, say: Say, watch: Watch) -> Iterator[Mapping[str, Lived]]:
        """The lineages of each seed, run where they are not finished."""
        assert self.data is not None
        for number, folder in enumerate(self._seeds()[: claim.seeds(self.scale)]):
            folder.mkdir(exist_ok=True)
            place = Place(self.data, folder, self.seed + number)
            found = {}
            for lineage in claim.lineages:
                if not finished(folder / lineage.name):
                    say(f"  seed {place.seed}: {lineage.name}, about {_minutes(lineage.seconds)}")
                found[lineage.name] = live(lineage, place, watch)
            yield found

    def _path(self, claim: Claim) -> Path:
        return self.folder / "claims" / f"{claim.name}.json"

    def _kept(self, claim: Claim) -> Entry | None:
        """The claim as an earlier run finished it, with this version of Outcross and as many replicates."""
        path = self._path(claim)
        if not path.exists():
            return None
        found = read_json(path)
        if found["versions"]["outcross"] != versions()["outcross"] or found["replicates"] != _replicates(self, claim):
            return None
        result = Result(found["theory"], found["ours"], found["standard_error"], found["verdict"], found["quantile"], found["note"])
        return Entry(claim, result, "", found["seconds"], found["versions"])


class _Clock:
    """How much is left: what claims should take, corrected by what they took so far."""

    def __init__(self, study: Study, claims: Sequence[Claim]) -> None:
        self._expected: list[float] = []
        known: frozenset[Lineage] = frozenset()
        for claim in claims:
            runs = study._kept(claim) is None and not study.obstacle(claim)
            self._expected.append(study.expected_seconds(claim, known) if runs else 0.0)
            known |= frozenset(_lineages(claim))
        self._should = self._did = 0.0

    def spent(self, place: int, seconds: float) -> None:
        self._should += self._expected[place]
        self._did += seconds

    def left(self, place: int) -> str:
        """The time that the claims from this one on will take."""
        pace = self._did / self._should if self._should > 5 else 1.0
        return f", about {_minutes(pace * sum(self._expected[place:]))} left"


def versions() -> dict[str, str]:
    """What the results were made with."""
    found = {"python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _lineages(claim: Claim) -> tuple[Lineage, ...]:
    return claim.lineages if isinstance(claim, TrainedClaim) else ()


def _replicates(study: Study, claim: Claim) -> int:
    return claim.seeds(study.scale) if isinstance(claim, TrainedClaim) else claim.replicates * FACTOR[study.scale]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _noted(study: Study, entry: Entry) -> dict[str, Any]:
    claim, result = entry.claim, entry.result
    found: dict[str, Any] = {
        "name": claim.name,
        "paper": claim.paper,
        "place": claim.place,
        "kind": claim.kind,
        "what": claim.what,
        "published": claim.published,
        "scale": study.scale,
        "seed": study.seed,
        "verdict": entry.verdict,
    }
    if result is None:
        return {**found, "why": entry.why}
    return {
        **found,
        "theory": result.theory,
        "ours": result.ours,
        "standard_error": result.standard_error,
        "quantile": result.quantile,
        "low": result.ours - result.half_width,
        "high": result.ours + result.half_width,
        "note": result.note,
        "replicates": _replicates(study, claim),
        "seconds": round(entry.seconds, 3),
        "versions": dict(entry.versions or {}),
    }
