"""`outcross recall`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import typer

from outcross.cli.shell import command, hint, open_run, say


@command
def recall(
    verifier: str = typer.Argument(help="The verifier that was found broken.", metavar="VERIFIER"),
    folder: Path = typer.Option(..., "--run", help="The folder of the run.", metavar="RUN"),
    before: str | None = typer.Option(
        None, "--before", help="The version that is sound again; default: every version.", show_default=False
    ),
    bury: bool = typer.Option(False, "--bury", help="Tombstone what is found: it stays stored and is never learnt from again."),
) -> None:
    """List what a broken verifier let in.

    Samples, examples, and the models that learnt from them.
    """
    from outcross.engine.recall import recall as find

    run = open_run(folder)
    with run.locked() if bury else nullcontext():
        found = find(run, verifier, before, bury=bury)
    version = f" before version {before}" if before else ""
    say(f"{verifier}{version} judged {len(found.samples):,} samples; {len(found.examples):,} examples were made of them")
    if not found.samples:
        return
    say(f"rounds: {', '.join(found.rounds)}")
    say(f"models that learnt from them: {', '.join(found.models) or 'none'}")
    if bury:
        say(f"{len(found.samples) + len(found.examples):,} records are tombstoned; no later mixture holds them")
        hint("models stay as they are; start a new run from a model that is not listed, or from the first champion")
    else:
        hint("nothing was changed; --bury tombstones these records")
