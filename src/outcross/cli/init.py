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
    dataset = "dataset"
    sppo = "sppo"
    rlaif = "rlaif"


@command
def init(
    path: Path | None = typer.Argument(
        None, help="The run file to write; default run.yaml, of a data set data.yaml.", metavar="[RUN_FILE]", show_default=False
    ),
    template: Template = typer.Option(
        Template.toy,
        "--template",
        "-t",
        help="toy: arithmetic in seconds; model: your model and your tasks; dataset: rows from an endpoint, and no model trained; "
        "sppo: a judge compares your model's answers; rlaif: a reward model between judge and model.",
    ),
    force: bool = typer.Option(False, "--force", help="Write over a file that is there."),
) -> None:
    """Write a commented run file to start from."""
    from importlib.resources import files

    name = "data.yaml" if template is Template.dataset else "run.yaml"
    path = Path(name) if path is None else path / name if path.is_dir() else path
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; name another file, or pass --force to write over it")
    text = files("outcross.cli").joinpath("templates", f"{template.value}.yaml").read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    say(f"wrote {path}")
    preview = f" · outcross preview {path}" if template is Template.dataset else ""
    hint(f"next: outcross validate {path}{preview} · outcross run {path}")
