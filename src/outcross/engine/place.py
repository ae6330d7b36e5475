"""Where a run's answers are: in its own folder, or in a journal that runs share, which its `journal.json` names."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from outcross.engine.journal import Journal
from outcross.engine.store import RunDir, write_json
from outcross.errors import ConfigError, StoreError


def open_journal(run: RunDir, wanted: Path | None = None, *, offline: bool = False, kind: type[Journal] = Journal) -> Journal:
    """The run's journal, which is made if it has none. `wanted`: the journal it is to share; its place is noted relative to the run's
    folder, so that both can be moved together, and need not be given again. `offline`: for reading only.

    Raises `ConfigError` when the run keeps its answers elsewhere, and what `Journal` raises.
    """
    there, name = run.journal, run.asker
    if name:
        if wanted is not None and not _same(wanted, there):
            return _moved(run, wanted, kind, offline)
        if not there.exists():
            raise StoreError(f"the journal of {run.root} is not at {there} any more; say where it is now with --journal PATH")
        return kind(there, name, writes=not offline, holder=run.root)
    if wanted is None or _same(wanted, there):
        return kind(there, writes=not offline)
    if there.exists():
        raise ConfigError(
            f"{run.root} keeps its answers in its own {there.name}, and --journal names {wanted}; leave it out, or start another run (--out). "
            f"A run that is given --journal {there} finds these answers"
        )
    if not offline:
        wanted.parent.mkdir(parents=True, exist_ok=True)
    journal = kind(wanted, uuid.uuid4().hex, writes=not offline, holder=run.root)
    _note(run, journal)
    return journal


def _moved(run: RunDir, wanted: Path, kind: type[Journal], offline: bool) -> Journal:
    """The run's journal under another path: it knows the run."""
    if wanted.exists():
        journal = kind(wanted, run.asker, writes=not offline, holder=run.root)
        if run.asker in journal.runs():
            _note(run, journal)
            return journal
        journal.close()
    raise ConfigError(
        f"the answers of {run.root} are in {run.journal}, and --journal names {wanted}, which holds none of this run's; leave --journal out"
    )


def _note(run: RunDir, journal: Journal) -> None:
    path = os.path.relpath(journal.path.resolve(), run.root.resolve())
    write_json(run.root / "journal.json", {"path": path, "run": journal.run})


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()
