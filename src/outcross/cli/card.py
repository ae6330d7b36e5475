"""`outcross card`: what a run made, told to a stranger."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, hint, open_run, say
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.engine.store import RunDir
    from outcross.report.card import Written


@command
def card(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Where to write it: a new .md file, or a folder for its README.md; default: print it.", show_default=False
    ),
) -> None:
    """Print the card of what a run made, as Hugging Face reads it.

    Of a run that trains, the card of its model; of a data-only run, that of its rows. All of it comes from the record. What only you know
    (licence, names on the Hub) is left for you to fill in. `outcross export` writes rows together with their card.
    """
    from outcross.report.card import card as of_data
    from outcross.report.model_card import model_card
    from outcross.report.read import read_run

    run = open_run(folder)
    if not run.rounds():
        raise ConfigError(f"{folder} has no complete round to tell of; `outcross resume {folder}` goes on with it")
    reading = read_run(run)
    text = model_card(reading) if reading.summary.tally.training else of_data(reading, _rows(run), mark="")
    if out is None:
        typer.echo(text, nl=False)
        return
    path = out / "README.md" if out.is_dir() else out
    if path.exists():
        raise ConfigError(f"{path} exists, and may hold what you wrote; name another file with --out, or move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    say(f"{path}")
    hint("lines of its front matter that begin with # are for you to fill in")


def _rows(run: RunDir) -> Written:
    """The rows that `outcross export` would write by default."""
    from outcross.cli.exported import Choice, check_released, rows
    from outcross.report.card import Written

    choice = Choice()
    check_released(run, choice)
    origins = Counter((of["kind"], of["proof"], of["depth"], of["source"]) for _, row in rows(run, choice) for of in [row["outcross"]])
    if not origins:
        raise ConfigError(f"{run.root.name} has no accepted rows to tell of; `outcross show {run.root}` tells what became of the answers")
    labels = tuple(turn.label for turn in run.rounds() if choice.takes(turn))
    return Written({"train": origins.total()}, origins, choice.form.value, labels, choice.everything)
