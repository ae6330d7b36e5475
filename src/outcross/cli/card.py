"""`outcross card`: the card of the model that a run promoted."""

from __future__ import annotations

from pathlib import Path

import typer

from outcross.cli.shell import command, open_run, say


@command
def card(
    folder: Path = typer.Argument(help="The run.", metavar="RUN"),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="The Markdown file, such as MODEL/README.md; default: print it.", show_default=False
    ),
) -> None:
    """The model card of a run: what the champion learnt, and what every gate decided.

    Markdown with the front matter that Hugging Face reads. A run that only makes data has its card from `outcross export`.
    """
    from outcross.report.model_card import model_card
    from outcross.report.read import read_run

    text = model_card(read_run(open_run(folder)))
    if out is None:
        say(text)
        return
    out.write_text(text, encoding="utf-8")
    say(str(out))
