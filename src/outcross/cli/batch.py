"""`outcross batch`: a run whose models are asked by batch files, for about half the price."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import command, hint, open_run, say

if TYPE_CHECKING:
    from outcross.config.runfile import Plan
    from outcross.models.http import Http

app = typer.Typer(no_args_is_help=True)

OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
WORDS = typer.Argument(help="A run file, with settings to change, or the folder of a run.", metavar="RUN_FILE", show_default=False)


@app.callback()
def batch() -> None:
    """Ask models by batch files, which providers answer within a day for about half the price.

    `write` and `read` by turns, until the run is complete.
    """


@app.command("write", context_settings=OVERRIDES)
@command
def write(
    words: list[str] = WORDS,
    out: Path | None = typer.Option(None, "--out", "-o", help="Folder of the run; default runs/NAME.", show_default=False),
    role: list[str] = typer.Option([], help="Ask only this role by batch, the others at once; may be repeated.", show_default=False),
    again: bool = typer.Option(False, "--again", help="Write questions of earlier batches again that have no answer yet."),
    tries: int = typer.Option(3, help="After so many failures a question is a failed sample.", min=1),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only what is to be done next."),
) -> None:
    """Go on with a run as far as the answers at hand allow, and write what it asks next into files for a batch API.

    Give the files to the provider, take the results in with `outcross batch read`, and write again, until the run is complete.
    """
    from outcross.cli.start import default_out, read_words

    if len(words) == 1 and (Path(words[0]) / "manifest.json").exists():
        from outcross.config.runfile import of_run

        out = Path(words[0])
        plan = of_run(open_run(out))
    else:
        path, plan = read_words(words)
        out = out or default_out(path, plan)
    _go_on(plan, out, role, again=again, tries=tries, quiet=quiet)


def _go_on(plan: Plan, out: Path, roles: Sequence[str], *, again: bool, tries: int, quiet: bool) -> None:
    from contextlib import closing

    from outcross.cli.progress import watching
    from outcross.cli.shell import console
    from outcross.cli.start import conclude
    from outcross.engine import loop
    from outcross.engine.collect import AnswersAwaited, Collector
    from outcross.models.batch import Questions, Writer

    root = out.resolve()
    recipe, options, models = plan.build_recipe(), plan.options(root), plan.build_models()
    try:
        asked = _by_letter(models, roles)
        names = {model.id: name for name, model in reversed(asked.items())}
        with (
            watching(console(stderr=True), samples=0, quiet=quiet) as watch,
            closing(Questions(root / "batches")) as questions,
            Writer(questions, names, again, tries) as writer,
        ):

            def runner(executor: Any) -> Collector:
                return Collector(executor, lambda model: any(model is item for item in asked.values()), writer.put_aside)

            try:
                loop.run(recipe, models, root, seed=plan.file.seed, options=options, watch=watch, runner=runner)
                files: list[Path] | None = None
            except AnswersAwaited:
                files = writer.finish()
    finally:
        for model in models.values():
            model.close()
    if files is None:
        conclude(out)
    else:
        _tell(out, files, writer)


def _by_letter(models: Any, roles: Sequence[str]) -> dict[str, Http]:
    """The models behind endpoints, by role, or those of the roles that were named. Raises `ConfigError`."""
    from outcross.errors import ConfigError, did_you_mean
    from outcross.models.http import Http

    for name in roles:
        if name not in models:
            raise ConfigError(f"--role {name}: no model plays it; {did_you_mean(name, models)}")
        if not isinstance(models[name], Http):
            raise ConfigError(f"--role {name}: its model is a {type(models[name]).__name__}; only models behind endpoints have batch files")
    found = {name: model for name, model in models.items() if isinstance(model, Http) and (not roles or name in roles)}
    if not found:
        raise ConfigError("no model of this run is behind an endpoint, so there is nothing to ask by batch files; use `outcross run`")
    return found


def _tell(out: Path, files: Sequence[Path], writer: Any) -> None:
    import os

    for path in files:
        say(f"{os.path.relpath(path)}  {_lines(path):,} questions, {path.stat().st_size / 1e6:,.1f} MB")
    if writer.awaited:
        say(f"{writer.awaited:,} questions of earlier batches wait for their answers (--again writes them anew)")
    if writer.given_up:
        say(f"{writer.given_up:,} questions failed {writer.tries} times and are failed samples")
    where = os.path.relpath(out)
    give = "give these files to the provider's batch API, then: " if files else "nothing new to ask. When results are there: "
    hint(f"{give}outcross batch read {where} RESULTS.jsonl")


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


@app.command("read")
@command
def read(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    results: list[Path] = typer.Argument(help="Results files, and files of errors, as the provider gave them.", metavar="RESULTS"),
    price_factor: float = typer.Option(0.5, help="What a batch costs, as a share of the price in the run file.", min=0.0),
) -> None:
    """Take the results of batches into a run's journal.

    They may come in any order, in part, or twice. Questions that failed are told, and written again by `outcross batch write`.
    """
    import os
    from contextlib import closing

    from outcross.engine.journal import request_key
    from outcross.engine.place import open_journal
    from outcross.errors import StoreError
    from outcross.models import batch as letters

    run = open_run(folder)
    if not (run.root / "batches" / "questions.db").exists():
        raise StoreError(f"{folder} has asked nothing by batch files; begin with `outcross batch write`")

    def key_of(model: str, request: Any, version: str) -> bytes:
        return request_key(model, request, version)

    with closing(open_journal(run)) as journal, closing(letters.Questions(run.root / "batches")) as questions:
        found = letters.read(questions, results, journal.put, key_of, price_factor)
    say(f"{found.answered:,} answered, {found.failed.total():,} failed, {found.awaited:,} still awaited")
    for reason, count in found.failed.most_common(5):
        say(f"  {count:,} × {reason}")
    if found.repeated:
        say(f"  {found.repeated:,} lines repeat what was read before")
    if found.unknown:
        say(f"  {found.unknown:,} lines answer no question of this run")
    for where in found.damaged[:5]:
        say(f"  {where}: no result, skipped")
    if len(found.damaged) > 5:
        say(f"  … and {len(found.damaged) - 5:,} more such lines")
    hint(f"next: outcross batch write {os.path.relpath(folder)}")
