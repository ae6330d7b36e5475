"""`outcross init`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from outcross.cli.shell import command, hint, say
from outcross.errors import ConfigError


class Template(StrEnum):
    """Run files to start from; each is a file in `outcross/cli/templates`."""

    toy = "toy"
    model = "model"


@command
def init(
    path: Path = typer.Argument(Path("run.yaml"), help="The run file to write.", metavar="[RUN_FILE]"),
    template: Template = typer.Option(
        Template.toy, "--template", "-t", help="toy: arithmetic in seconds; model: your model and your tasks."
    ),
    force: bool = typer.Option(False, "--force", help="Write over a file that is there."),
) -> None:
    """Write a commented run file to start from."""
    from importlib.resources import files

    path = path / "run.yaml" if path.is_dir() else path
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; name another file, or pass --force to write over it")
    text = files("outcross.cli").joinpath("templates", f"{template.value}.yaml").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    say(f"wrote {path}")
    hint(f"next: outcross validate {path} · outcross run {path}")
