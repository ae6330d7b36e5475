"""What `run`, `resume` and `generate` share: from a checked plan to a finished run and what is printed about it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import INTERRUPTED, REFUSED, console, hint, open_run, say, show
from outcross.errors import BudgetReached, ConfigError, ReviewNeeded, StageError

if TYPE_CHECKING:
    from outcross.config.runfile import Plan
    from outcross.engine.store import RunDir

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


def execute(
    plan: Plan,
    out: Path,
    *,
    quiet: bool = False,
    samples: int = 3,
    fail_on_refusal: bool = False,
    journal: Path | None = None,
    offline: bool = False,
) -> None:
    """Run or go on with a plan in `out`, watched, and print how it ended. `journal` goes before what the plan says."""
    from outcross.cli.progress import watching
    from outcross.engine import loop

    root = out.resolve()
    recipe = plan.build_recipe()
    options = plan.options(root)
    options = replace(options, journal=journal or options.journal, offline=offline)
    models = plan.build_models()
    try:
        with watching(console(stderr=True), samples=samples, quiet=quiet) as watch:
            result = loop.run(recipe, models, root, seed=plan.file.seed, options=options, watch=watch)
    except KeyboardInterrupt:
        typer.secho(f"\nstopped. What was complete is kept. Go on with: outcross resume {_short(out)}", fg="yellow", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except (BudgetReached, StageError) as error:
        message = str(error).replace("resume RUN", f"resume {_short(out)}").replace("RUN/responses.db", f"{_short(out)}/responses.db")
        raise type(error)(message) from error
    except ReviewNeeded as error:
        raise ReviewNeeded(str(error).replace(str(root), _short(out))) from error
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
    if found.tally.releases:
        _conclude_release(run, where, found.tally.released)
    elif champion is not None:
        say(f"champion: {where}/champion -> {os.path.relpath(champion, out.resolve())}")
        hint(f"next: outcross show {where} · outcross report {where} · outcross sample {where} · outcross export {where}")
    else:
        hint(f"next: outcross show {where} · outcross export {where}")


def _conclude_release(run: RunDir, where: str, released: int) -> None:
    link = run.root / "release"
    if released and link.is_symlink():
        say(f"release: {where}/release -> {link.readlink()}")
        hint(f"next: outcross show {where} · outcross report {where} · outcross export {where}")
        return
    last = run.rounds()[-1]
    say(f"{last.label}: {last.decision.reason if last.decision is not None else 'no row was left to release'}")
    export = "" if last.decision is None else f" · outcross export {where} --refused, which heads the card so"
    hint(f"next: outcross show {where} {last.label}{export}")


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return shlex.quote(str(path) if relative.startswith("..") else relative)
