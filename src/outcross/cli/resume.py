"""`outcross resume`."""

from __future__ import annotations

from pathlib import Path

import typer

from outcross.cli.shell import command, open_run


@command
def resume(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    tokens: int | None = typer.Option(None, "--budget.tokens", help="A new cap on tokens, over the whole run.", show_default=False),
    requests: int | None = typer.Option(None, "--budget.requests", help="A new cap on requests.", show_default=False),
    seconds: float | None = typer.Option(None, "--budget.seconds", help="A new cap on wall-clock seconds.", show_default=False),
    money: float | None = typer.Option(None, "--budget.money", help="A new cap on money.", show_default=False),
    errors: float | None = typer.Option(
        None, "--errors.share", help="A new share of answers on which a verifier may err.", show_default=False
    ),
    fail_on_refusal: bool = typer.Option(False, "--fail-on-refusal", help="End with exit code 10 if any promotion was refused."),
    journal: Path | None = typer.Option(
        None, "--journal", help="Where the journal that it shares is now, if it was moved.", show_default=False
    ),
    offline: bool = typer.Option(False, "--offline", help="Ask nothing: a question that the journal does not answer ends the run."),
    samples: int = typer.Option(3, help="How many samples of each round to show.", min=0),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only decisions."),
) -> None:
    """Go on with a run that was stopped.

    Nothing that was generated or trained is done again.
    """
    from outcross.cli.start import execute
    from outcross.config.runfile import of_run

    caps = {f"budget.{name}": cap for name, cap in (("tokens", tokens), ("requests", requests), ("seconds", seconds), ("money", money))}
    changes = {**caps, "errors.share": errors}
    plan = of_run(open_run(folder), [(name, value) for name, value in changes.items() if value is not None])
    execute(plan, folder, quiet=quiet, samples=samples, fail_on_refusal=fail_on_refusal, journal=journal, offline=offline)
