"""`outcross generate`: the first half of the loop alone."""

from __future__ import annotations

from pathlib import Path

import typer

from outcross.cli.shell import command
from outcross.cli.start import WORDS


@command
def generate(
    words: list[str] = WORDS,
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder of the run; default runs/NAME-data.", show_default=False),
    seed: int | None = typer.Option(None, help="Seed of everything random; default the run file's.", show_default=False),
    rounds: int = typer.Option(1, help="How often to go over the tasks.", min=1),
    journal: Path | None = typer.Option(
        None, "--journal", help="A journal of answers that runs share; default the run's own.", show_default=False
    ),
    samples: int = typer.Option(3, help="How many samples of each round to show.", min=0),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only what is complete."),
) -> None:
    """Make verified data from a run file, and train nothing.

    Tasks → samples → verified and curated rows: the first half of the loop, with the first phase's stages.

    `outcross export` writes the rows that passed as TRL data sets.
    """
    from outcross.cli.start import default_out, execute, read_words

    path, plan = read_words(words, [("data_only", rounds), *[("seed", seed)] * (seed is not None)])
    default = default_out(path, plan)
    execute(plan, out or default.with_name(f"{default.name}-data"), quiet=quiet, samples=samples, journal=journal)
