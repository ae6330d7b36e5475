"""`outcross trace`."""

from __future__ import annotations

from pathlib import Path

import typer

from outcross.cli.shell import command, open_run, say


@command
def trace(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    name: str = typer.Argument(help="An id (or its first six digits or more), or step:PHASE/ROUND:NUMBER.", metavar="ID"),
    most: int = typer.Option(20, help="How many entries of a list to show.", min=1),
) -> None:
    """Where a record came from and what became of it.

    Task → sample → example → optimiser step → model → later models, and back. ID is a task, sample, example, real row or model; all tables and `outcross show` print them.
    """
    from outcross.report.trace import trace as walk
    from outcross.report.trace_text import lines

    for line in lines(walk(open_run(folder), name, most)):
        say(line)
