"""`outcross report`."""

from __future__ import annotations

from pathlib import Path

import typer

from outcross.cli.shell import command, open_run, say


@command
def report(
    folders: list[Path] = typer.Argument(help="One run, or several side by side.", metavar="RUN..."),
    out: Path | None = typer.Option(None, "--out", "-o", help="The HTML file; default RUN/report.html.", show_default=False),
) -> None:
    """Write the report: one offline HTML file.

    The verdict first, then every round, its data, its tests and its lineage; several runs side by side.
    """
    from outcross.report.html import write_report

    runs = [open_run(folder) for folder in folders]
    path = out or folders[0] / "report.html"
    write_report(runs, path)
    say(f"{path}  ({path.stat().st_size / 1e3:,.0f} kB)")
