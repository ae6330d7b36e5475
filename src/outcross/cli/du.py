"""`outcross du`."""

from __future__ import annotations

from pathlib import Path

import typer

from outcross.cli.shell import command, hint, open_run, show, table


@command
def du(folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN")) -> None:
    """What a run takes on disk, by kind."""
    from outcross.report.numbers import size
    from outcross.report.read import disk_use

    run = open_run(folder)
    used = disk_use(run)
    rows = [*((kind, size(amount)) for kind, amount in used.items() if amount), ("all", size(sum(used.values())))]
    show(table(str(folder), ("what", "size"), rows, right=("size",)))
    if run.manifest["keep_models"] == "all" and used["models"] > sum(used.values()) / 2:
        hint("`keep_models: champion` (or a number) in the run file keeps fewer models; records are never deleted")
