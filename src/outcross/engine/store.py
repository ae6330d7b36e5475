"""The run directory: where everything lies, how it is written, and how it is read back.

    RUN/ manifest.json   the resolved configuration, fingerprint, seed, versions, roles and headings
         responses.db    the journal of raw answers            metrics.jsonl, logs/attempt_n/   clocks and hosts
         journal.json    instead, where runs share a journal: its place, and the name that this run has in it
         champion   ──▶  the model folder that holds now (champion.<role> for further roles)
         release    ──▶  the last round whose rows were released; a release is the rows of all released rounds
         start/          model/ and measurements.parquet of the first champion
         <phase>/<round>/[inner_k/]  groups.parquet drops.parquet examples.parquet mixture.parquet order.parquet losses.parquet model/
                         measurements.parquet  steps/*.json  round.json  (rolled_back.json where a promotion was undone)
         final/          measurements of the last champion (and .first of the first one) on fresh items, when the run is over
         tombstones/     one file per recall or review: records that may not be learnt from any more
         training/       while the run is not over: what a fit that was stopped goes on from, and what reference models said
         lock

Everything is written to a temporary name, fsynced and renamed; `round.json` is written last and holds the checksums of
the round's files. The store only accumulates: a record can be tombstoned, never deleted.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from outcross.engine.tables import decode_example, decode_groups, decode_measurement, fsync_folder, rows_of
from outcross.errors import HALF, DataError, OutcrossError, RunLocked, StoreError
from outcross.types import Decision, Example, Group, Measurement, Sample

FORMAT = 1
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
PRIMARY = "policy"


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, atomically and durably. Structs and dataclasses are welcome."""
    text = json.dumps(msgspec.to_builtins(value), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path.name} cannot hold {text[max(0, error.start - 60) : error.end]!r}: {HALF}") from error
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_folder(path.parent)


def read_json(path: Path) -> Any:
    """Read JSON. Raises `StoreError` naming the file when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist; is {path.parent} the folder of an Outcross run?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is damaged ({error}); restore it from a copy, records are never rebuilt silently") from error


def file_hash(path: Path) -> str:
    """128 bits of BLAKE2b of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@dataclass(frozen=True)
class RoundRows:
    """The rows of a round (`outcross.stages.Rows`), read from disk each time: kept samples with an answer that passed every verifier, or all
    that were kept where none was named (`verified` false)."""

    folders: tuple[Path, ...]
    verified: bool
    buried: frozenset[str] = frozenset()

    def is_row(self, sample: Sample) -> bool:
        """Whether a kept sample is a row."""
        right = sample.verdict == "pass" or (not self.verified and sample.verdict is None)
        return right and bool(sample.turns) and not sample.error and sample.id not in self.buried

    def __iter__(self) -> Iterator[Group]:
        for folder in self.folders:
            for group in decode_groups(rows_of(folder / "groups.parquet")):
                samples = tuple(filter(self.is_row, group.samples))
                if samples:
                    yield Group(group.task, samples)

    def made(self) -> Iterator[Group]:
        for folder in self.folders:
            for name in ("groups", "drops"):
                yield from decode_groups(rows_of(folder / f"{name}.parquet"))


@dataclass(frozen=True)
class RoundDir:
    """One round's folder. `label` is "phase/0002", as in every origin."""

    folder: Path
    phase: str
    number: int

    @property
    def label(self) -> str:
        return f"{self.phase}/{self.number:04d}"

    @property
    def record_path(self) -> Path:
        return self.folder / "round.json"

    @property
    def complete(self) -> bool:
        return self.record_path.exists()

    @cached_property
    def record(self) -> dict[str, Any]:
        """round.json of a complete round."""
        found: dict[str, Any] = read_json(self.record_path)
        return found

    @property
    def undone_by(self) -> str | None:
        """The label of the later round whose alarm rolled this promotion back; None while it stands."""
        note = self.folder / "rolled_back.json"
        return str(read_json(note)["by"]) if note.exists() else None

    @property
    def undone(self) -> bool:
        """Whether a later round's alarm rolled this promotion back."""
        return (self.folder / "rolled_back.json").exists()

    @property
    def promoted(self) -> bool:
        return self.complete and self.record["outcome"] == "promoted" and not self.undone

    @property
    def released(self) -> bool:
        return self.complete and self.record["outcome"] == "released"

    @property
    def accepted(self) -> bool:
        """Whether later rounds build on this one: on its model, or on its rows."""
        return self.promoted or self.released or (self.complete and self.record["outcome"] == "data only")

    @property
    def decision(self) -> Decision | None:
        found = self.record.get("decision")
        return None if found is None else msgspec.convert(found, Decision)

    def parts(self) -> list[Path]:
        """The folders that hold tables: the round's own, or one per inner turn."""
        inner = sorted(self.folder.glob("inner_*"), key=lambda path: int(path.name.removeprefix("inner_")))
        return inner or [self.folder]

    def groups(self) -> Iterator[Group]:
        """Kept groups, in the order of generation."""
        for part in self.parts():
            yield from decode_groups(rows_of(part / "groups.parquet"))

    def rows(self, buried: frozenset[str] = frozenset()) -> RoundRows:
        """What this round made, as a set of rows, without tombstoned samples."""
        return RoundRows(tuple(self.parts()), bool(self.record["verifiers"]), buried)

    def examples(self, role: str = PRIMARY) -> Iterator[Example]:
        for part in self.parts():
            for row in rows_of(part / f"examples{suffix(role)}.parquet"):
                yield decode_example(row)

    def measurements(self) -> dict[str, Measurement]:
        """What the probes found of this round's candidate, by probe."""
        return read_measurements(self.folder / "measurements.parquet")


def read_measurements(path: Path) -> dict[str, Measurement]:
    """Measurements by probe name; none when the file does not exist."""
    return {row["probe"]: decode_measurement(row) for row in rows_of(path)}


def suffix(role: str) -> str:
    """What a role adds to file names: nothing for the policy."""
    return "" if role == PRIMARY else f".{role}"


@dataclass(frozen=True)
class RunDir:
    """A run's folder, for reading; the engine writes through it."""

    root: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json. Raises `StoreError` when there is none or it is of a later format."""
        found: dict[str, Any] = read_json(self.root / "manifest.json")
        if found.get("format") != FORMAT:
            raise StoreError(f"{self.root} has format {found.get('format')!r}; this version of Outcross reads format {FORMAT}")
        return found

    @property
    def exists(self) -> bool:
        return (self.root / "manifest.json").exists()

    @property
    def start(self) -> Path:
        return self.root / "start"

    @property
    def training(self) -> Path:
        """Where fits keep what a run that was stopped goes on from; no part of the record, and gone when the run is over."""
        return self.root / "training"

    @property
    def own_journal(self) -> Path:
        return self.root / "responses.db"

    @property
    def shared(self) -> dict[str, str] | None:
        """What journal.json says of a journal that runs share: its `path` from this folder, and this `run`'s name in it."""
        note = self.root / "journal.json"
        return read_json(note) if note.exists() else None

    @property
    def journal(self) -> Path:
        """Where the run's answers are, in this folder or in a journal that runs share."""
        shared = self.shared
        return self.own_journal if shared is None else Path(os.path.normpath(self.root.resolve() / shared["path"]))

    @property
    def asker(self) -> str:
        """The name under which that journal counts what this run paid for."""
        shared = self.shared
        return "" if shared is None else shared["run"]

    def round(self, phase: str, number: int) -> RoundDir:
        return RoundDir(self.root / phase / f"{number:04d}", phase, number)

    def rounds(self) -> list[RoundDir]:
        """Complete rounds, in the order in which they ran."""
        return [item for item in self.begun() if item.complete]

    def begun(self) -> list[RoundDir]:
        """Rounds that have a folder, the one that was stopped half way included."""
        planned = self.manifest["phases"]
        found = (self.round(phase["name"], number) for phase in planned for number in range(phase["rounds"]))
        return [item for item in found if item.folder.is_dir()]

    def champion(self, role: str = PRIMARY) -> Path | None:
        """The folder of the model that holds now."""
        link = self.root / f"champion{suffix(role)}"
        return link.resolve() if link.is_symlink() else None

    def tombstones(self) -> frozenset[str]:
        """Identifiers of samples and examples that may not be learnt from any more."""
        files = sorted((self.root / "tombstones").glob("*.json"))
        return frozenset(record for path in files for record in read_json(path)["records"])

    def bury(self, records: list[str], reason: Mapping[str, object]) -> Path:
        """Tombstone records; they stay stored and readable, and no later mixture holds them."""
        folder = self.root / "tombstones"
        folder.mkdir(exist_ok=True)
        path = folder / f"{len(list(folder.glob('*.json'))):04d}.json"
        write_json(path, {"reason": dict(reason), "records": sorted(records)})
        return path

    def point(self, role: str, model: Path) -> None:
        """Let `champion` name `model`, atomically; does nothing when it does already."""
        self._link(f"champion{suffix(role)}", model)

    def point_release(self, folder: Path) -> None:
        """Let `release` name the last round that was released, in the same way."""
        self._link("release", folder)

    def _link(self, name: str, folder: Path) -> None:
        link = self.root / name
        target = os.path.relpath(folder, self.root)
        if link.is_symlink() and str(link.readlink()) == target:
            return
        temporary = self.root / f"{link.name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
        fsync_folder(self.root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run against a second process. Raises `RunLocked`, or `StoreError` when the folder cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"cannot write to {self.root} ({error.strerror}); choose another folder with --out, or fix its permissions"
            ) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.pread(handle, 64, 0).decode(errors="replace").strip()
                raise RunLocked(
                    f"{self.root} is being run by process {holder or 'unknown'}; wait for it, stop it, or choose another folder with --out"
                ) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)


def sweep(run: RunDir) -> None:
    """Remove what a killed process left half written: names that end in `.tmp`, where the engine writes and nowhere else."""
    written = ["start", "final", "tombstones", *(phase["name"] for phase in run.manifest["phases"])]
    found = [path for name in written for path in (run.root / name).rglob("*.tmp")]
    found += [run.root / "manifest.json.tmp", run.root / "release.tmp", *run.root.glob("champion*.tmp")]
    for path in sorted(found, reverse=True):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def checksums(folder: Path) -> dict[str, str]:
    """Checksums of a round's tables and markers; models are known by their own hash, stages' states are not records."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        skipped = any(piece.startswith(("model", "state")) or piece.endswith(".tmp") for piece in inside.parts)
        if path.is_file() and not skipped and path.name not in ("round.json", "rolled_back.json"):
            found[str(inside)] = file_hash(path)
    return found


def save_folder(folder: Path, save: Any) -> None:
    """Let `save(path)` fill a folder that appears, complete and on disk, under its name only afterwards.

    Raises `StoreError` when it cannot be saved: libraries tell a full disk in many ways.
    """
    temporary = folder.with_name(folder.name + ".tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    try:
        save(temporary)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OutcrossError):
            raise
        free = shutil.disk_usage(folder.parent).free
        raise StoreError(
            f"the model cannot be saved to {folder} ({type(error).__name__}: {error}; {free / 1e6:,.1f} MB free). What was complete is kept; "
            "free space or fix the permissions, then `outcross resume`"
        ) from error
    for path in sorted(temporary.rglob("*")):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
    fsync_folder(temporary)
    temporary.replace(folder)
    fsync_folder(folder.parent)
