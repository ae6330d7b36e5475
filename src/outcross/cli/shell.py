"""What every command shares: how errors end a command, how text is printed, how a run folder is opened.

Nothing heavy is imported here or at the top of any command: `outcross --help` answers at once.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import typer

from outcross.errors import OutcrossError, StoreError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from outcross.engine.store import RunDir

P = ParamSpec("P")
R = TypeVar("R")

DEBUG = "OUTCROSS_DEBUG"
INTERRUPTED = 130
REFUSED = 10
_WRITE_ERRORS = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk quota reached",
    errno.EROFS: "read-only file system",
    errno.EACCES: "no permission",
}


def command(function: Callable[P, R]) -> Callable[P, R]:
    """A command whose errors end it with one clear message on standard error and the exit code of `outcross.errors`.

    With OUTCROSS_DEBUG set (or `--debug`), the traceback is shown instead.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except OutcrossError as error:
            fail(error, str(error), error.exit_code)
        except KeyboardInterrupt as error:
            fail(error, "stopped", INTERRUPTED)
        except BrokenPipeError:  # `outcross show RUN | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except OSError as error:
            if error.errno not in _WRITE_ERRORS:
                raise
            advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another place, or fix its permissions"
            where = f": {error.filename}" if error.filename else ""
            fail(error, f"{_WRITE_ERRORS[error.errno]}{where}; {advice} and try again. What was complete is kept", StoreError.exit_code)

    return guarded


def fail(error: BaseException, message: str, code: int) -> NoReturn:
    """End the command with a message on standard error."""
    if os.environ.get(DEBUG):
        raise error
    typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


def say(text: str = "") -> None:
    """A line on standard output."""
    typer.echo(text)


def hint(text: str) -> None:
    """A line on standard error, beside the answer: what to do next, what was noticed."""
    typer.secho(text, fg="bright_black", err=True)


def console(*, stderr: bool = False) -> Console:
    """A rich console that keeps to the terminal's width; where there is none, tables are as wide as they need to be."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, soft_wrap=False, width=None if stream.isatty() else 400)


def show(*what: RenderableType) -> None:
    """Tables and text on standard output."""
    screen = console()
    for item in what:
        screen.print(item, markup=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """A plain table; columns named in `right` hold numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(Text(name), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def open_run(folder: Path) -> RunDir:
    """The run in a folder. Raises `StoreError` saying what the folder is instead."""
    from outcross.engine.store import RunDir

    run = RunDir(folder)
    if not run.exists:
        if not folder.exists():
            raise StoreError(f"there is no folder {folder}; `outcross list` shows the runs below the working directory")
        raise StoreError(f"{folder} is not a run: it has no manifest.json; `outcross list {folder}` shows the runs inside it")
    return run
