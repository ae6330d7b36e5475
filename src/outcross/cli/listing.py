"""`outcross list`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import typer

from outcross.cli.shell import command, hint, show, table
from outcross.errors import OutcrossError, StoreError

DEPTH = 4


@command
def list_runs(folder: Path = typer.Argument(Path(), help="Where to look.", metavar="[FOLDER]", show_default="here")) -> None:
    """The runs below a folder, one line each."""
    from outcross.engine.store import RunDir
    from outcross.report.read import summary

    if not folder.is_dir():
        raise StoreError(f"there is no folder {folder}")
    rows = []
    for root in find_runs(folder):
        try:
            found = summary(RunDir(root))
            rows.append((str(root), found.recipe, f"{found.tally.complete}/{found.tally.planned}", found.verdict))
        except OutcrossError as error:
            rows.append((str(root), "?", "?", str(error)))
    if not rows:
        hint(f"no runs below {folder}; `outcross init` writes a run file to start from")
        return
    show(table("", ("run", "recipe", "rounds", "verdict"), rows, right=("rounds",)))


def find_runs(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Folders that hold a manifest, down to `depth` levels; runs are not searched for runs."""
    if (folder / "manifest.json").exists():
        yield folder
    elif depth:
        with os.scandir(folder) as entries:
            below = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."))
        for name in below:
            yield from find_runs(folder / name, depth - 1)
