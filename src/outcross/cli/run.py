"""`outcross run`."""

from __future__ import annotations

from pathlib import Path

import typer

from outcross.cli.shell import command, hint
from outcross.cli.start import WORDS


@command
def run(
    words: list[str] = WORDS,
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder of the run; default runs/NAME.", show_default=False),
    seed: int | None = typer.Option(None, help="Seed of everything random; default the run file's.", show_default=False),
    dry_run: bool = typer.Option(False, "--dry-run", help="Check everything, print what it would cost, and stop."),
    unsafe: bool = typer.Option(False, "--unsafe", help="Allow what principle forbids (replacing history); the report says so."),
    fail_on_refusal: bool = typer.Option(False, "--fail-on-refusal", help="End with exit code 10 if any promotion was refused."),
    journal: Path | None = typer.Option(
        None, "--journal", help="A journal of answers that runs share; default the run's own.", show_default=False
    ),
    offline: bool = typer.Option(False, "--offline", help="Ask nothing: a question that the journal does not answer ends the run."),
    samples: int = typer.Option(3, help="How many samples of each round to show.", min=0),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only decisions."),
) -> None:
    """Run a run file.

    Started again on the same folder, it goes on where it stopped; a finished run is only summed up.

    Any setting can be changed here: --recipe.mix.real_floor 0.8, or shorter where it is clear, --mix.real_floor 0.8.
    """
    from outcross.cli.start import default_out, execute, read_words
    from outcross.cli.validate import check

    more = [("seed", seed)] * (seed is not None) + [("unsafe", True)] * unsafe
    path, plan = read_words(words, more)
    out = out or default_out(path, plan)
    if dry_run:
        check(plan, out, path)
        hint("dry run: nothing was asked, trained or written")
        return
    execute(plan, out, quiet=quiet, samples=samples, fail_on_refusal=fail_on_refusal, journal=journal, offline=offline)
