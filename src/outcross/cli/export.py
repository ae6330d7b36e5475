"""`outcross export`: what a run made, as data sets for TRL and others, or as a folder with its card."""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.exported import Choice, Format, check_released, forms_of, rows
from outcross.cli.rowfiles import ImageRows, ParquetRows, write_file
from outcross.cli.shell import command, hint, open_run, say
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.engine.store import RunDir
    from outcross.report.card import Written

MARK = "outcross-export"  # stands in the card, so that an earlier export is known and may be replaced


@command
def export(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    form: Format | None = typer.Option(
        None,
        "--format",
        "-f",
        help="The record format; default the one of what the policy learnt, else trl-prompt-completion. raw: all that is known of a row.",
        show_default=False,
    ),
    out: Path | None = typer.Option(
        None,
        "--out",
        "-o",
        help="A .jsonl or .parquet file, or a folder for Parquet with a card; default RUN/export/FORMAT, or FORMAT.jsonl for what a model learnt.",
        show_default=False,
    ),
    held_out: float = typer.Option(0.0, "--held-out", help="Share of the prompts for a validation split (folders only).", min=0.0, max=0.5),
    everything: bool = typer.Option(False, "--all/--only-passed", help="Kept answers that passed no verifier too, with their verdict."),
    refused: bool = typer.Option(False, "--refused", help="Rows that the gate refused to release too; the card is headed so."),
) -> None:
    """Write what a run accepted as a data set.

    Rows are those of released rounds; of promoted rounds, the examples that were learnt. Each has its lineage in the column `outcross`. A
    folder holds Parquet, which `datasets.load_dataset` reads, and a card that says where every row comes from and what was tested.

    trl-preference writes the pairs that were learnt; where there were none, a sample that passed beside one that failed at the same task; kto
    likewise writes labels. trl-reward adds each pair's probability, trl-weighted each answer's target and weight, which TRL's own losses do not
    read. images are PNG files in a folder with metadata.jsonl, which the imagefolder of `datasets` reads. Tombstoned records are left out.
    Splits are by prompt, and the same each time.
    """
    run = open_run(folder)
    learnt = forms_of(run)
    form = form or next(iter(learnt), Format.prompt_completion)
    choice = Choice(form, everything, refused)
    releases = any(turn.record.get("release") is not None for turn in run.rounds())
    path = out or folder / "export" / (form.value if releases or form is Format.images else f"{form.value}.jsonl")
    check_released(run, choice)
    if form is Format.images and path.suffix:
        raise ConfigError(f"--out {path} is one file, and images are written to a folder of PNG files; name a folder")
    if path.suffix in (".jsonl", ".parquet"):
        if held_out:
            raise ConfigError(f"--held-out {held_out:g} makes two splits, which do not fit in the file {path}; name a folder with --out")
        _to_file(run, choice, path)
    elif path.suffix and not path.is_dir():
        raise ConfigError(f"--out {path} ends in {path.suffix!r}; it must end in .jsonl or .parquet, or name a folder")
    else:
        _to_folder(run, choice, path, held_out)
    others = [other.value for other in learnt if other is not form]
    if others:
        hint(f"this run also taught rows of the format {', '.join(others)}; name one with --format")


def _to_file(run: RunDir, choice: Choice, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = write_file(path, (row for _, row in rows(run, choice)))
    if not written:
        raise ConfigError(_why_nothing(run, choice.form))
    say(f"{path}  ({written:,} rows)")
    hint(f'load it with datasets.load_dataset("{"parquet" if path.suffix == ".parquet" else "json"}", data_files="{path}")')


def _to_folder(run: RunDir, choice: Choice, path: Path, share: float) -> None:
    """A folder that appears under its name only when it is complete; an earlier export there is replaced, and nothing else."""
    from outcross.report.card import card
    from outcross.report.read import read_run

    readme = path / "README.md"
    if path.exists() and any(path.iterdir()) and not (readme.exists() and MARK in readme.read_text(encoding="utf-8")):
        raise ConfigError(f"{path} holds files that are no export of Outcross; name another folder with --out")
    temporary = path.with_name(f"{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "data").mkdir(parents=True)
    try:
        written = _write_splits(run, choice, temporary / "data", share)
        if not written.splits:
            raise ConfigError(_why_nothing(run, choice.form))
        (temporary / "README.md").write_text(card(read_run(run), written, MARK), encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for name, count in written.splits.items():
        say(f"{path}/data/{name}/  ({count:,} images)" if choice.form is Format.images else f"{path}/data/{_file(name)}  ({count:,} rows)")
    say(f"{path}/README.md  (the card)")
    hint(f'load it with datasets.load_dataset("{path}")')


def _write_splits(run: RunDir, choice: Choice, folder: Path, share: float) -> Written:
    from outcross.report.card import Written
    from outcross.text import digest, normalise

    origins: Counter[tuple[str, str, int, str]] = Counter()
    with ExitStack() as stack:
        tables = {name: stack.enter_context(_table(choice, folder, name)) for name in ("train", "validation")}
        for prompt, row in rows(run, choice):
            held = digest("split\x1f" + normalise(prompt)) < share * 2**64
            tables["validation" if held else "train"].add(row)
            lineage: dict[str, Any] = row["outcross"]
            origins[lineage["kind"], lineage["proof"], lineage["depth"], lineage["source"]] += 1
    splits = {name: table.count for name, table in tables.items() if table.count}
    labels = tuple(turn.label for turn in run.rounds() if choice.takes(turn))
    return Written(splits, origins, choice.form.value, labels, choice.everything)


def _table(choice: Choice, folder: Path, split: str) -> AbstractContextManager[ParquetRows | ImageRows]:
    return ImageRows(folder / split) if choice.form is Format.images else ParquetRows(folder / _file(split))


def _file(split: str) -> str:
    return f"{split}-00000-of-00001.parquet"


def _why_nothing(run: RunDir, form: Format) -> str:
    outcomes = [turn.record["outcome"] for turn in run.rounds()]
    if not any(item in ("promoted", "data only", "released", "refused") for item in outcomes):
        return f"{run.root.name} has nothing to export: its rounds ended {', '.join(outcomes) or 'before the first was complete'}"
    needs = {
        Format.preference: "a task with one answer that passed and one that failed",
        Format.kto: "judged samples",
        Format.reward: "comparisons that a reward model learnt",
        Format.weighted: "answers that were learnt with a target or an advantage",
        Format.images: "accepted answers that are images",
    }
    return f"{run.root.name} has no rows for {form.value}: it needs {needs.get(form, 'accepted examples')}"
