"""What `run`, `resume` and `generate` share: from a checked plan to a finished run and what is printed about it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import INTERRUPTED, REFUSED, console, hint, open_run, say, show
from outcross.errors import BudgetReached, ConfigError

if TYPE_CHECKING:
    from outcross.config.runfile import Plan

WORDS = typer.Argument(help="The run file, then settings to change: --mix.real_floor 0.8", metavar="RUN_FILE", show_default=False)


def read_words(words: Sequence[str], more: Sequence[tuple[str, Any]] = ()) -> tuple[Path, Plan]:
    """The run file named by the words of a command line, checked, with its overrides and `more`."""
    from outcross.config.overrides import split_words
    from outcross.config.runfile import load

    plain, changes = split_words(words)
    if len(plain) != 1:
        told = "no run file is given; `outcross init` writes one" if not plain else f"more than one run file is given: {', '.join(plain)}"
        raise ConfigError(told if not plain else f"{told}; settings are written --key value")
    path = Path(plain[0])
    return path, load(path, [*changes, *more])


def default_out(path: Path, plan: Plan) -> Path:
    """Where a run goes without --out: runs/NAME in the working directory."""
    return Path("runs") / (plan.file.name or path.stem)


def execute(plan: Plan, out: Path, *, quiet: bool = False, samples: int = 3, fail_on_refusal: bool = False) -> None:
    """Run or go on with a plan in `out`, watched, and print how it ended."""
    from outcross.cli.progress import watching
    from outcross.engine import loop

    root = out.resolve()
    recipe = plan.build_recipe()
    options = plan.options(root)
    models = plan.build_models()
    try:
        with watching(console(stderr=True), samples=samples, quiet=quiet) as watch:
            result = loop.run(recipe, models, root, seed=plan.file.seed, options=options, watch=watch)
    except KeyboardInterrupt:
        typer.secho(f"\nstopped. What was complete is kept. Go on with: outcross resume {_short(out)}", fg="yellow", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BudgetReached as error:
        raise BudgetReached(str(error).replace("resume RUN", f"resume {_short(out)}")) from error
    finally:
        for model in models.values():
            model.close()
    conclude(out)
    if fail_on_refusal and result.refused:
        raise typer.Exit(REFUSED)


def conclude(out: Path) -> None:
    """The verdict of a run and what to do with it."""
    from rich.text import Text

    from outcross.report.read import summary

    run = open_run(out)
    found = summary(run)
    show(Text(found.verdict, style="bold"), *(Text(f"! {line}", style="yellow") for line in found.headings))
    where = _short(out)
    champion = run.champion()
    if champion is not None:
        say(f"champion: {where}/champion -> {os.path.relpath(champion, out.resolve())}")
        hint(f"next: outcross show {where} · outcross report {where} · outcross sample {where} · outcross export {where}")
    else:
        hint(f"next: outcross show {where} · outcross export {where}")


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
