"""`outcross clean`: apply what an audit recommends."""

from __future__ import annotations

from pathlib import Path

import typer

from outcross.cli.shell import command, hint, say, show, table
from outcross.errors import ConfigError


@command
def clean(
    data: Path = typer.Argument(help="JSON lines, CSV, Parquet, or a folder of Hugging Face datasets.", metavar="DATA"),
    out: Path | None = typer.Option(None, "--out", "-o", help="Where kept and dropped rows go.", show_default=False),
    real: Path | None = typer.Option(None, "--real", help="Real data: copies of its rows are dropped.", show_default=False),
    evals: list[Path] = typer.Option([], "--eval", help="A set that models are evaluated on; may be repeated."),
    columns: list[str] = typer.Option(
        [], "--column", "-c", help="Which column plays a part: prompt, context, answer, rejected, messages.", metavar="PART=NAME"
    ),
    only: str = typer.Option("", "--only", help="Repair these kinds and no others.", metavar="KINDS"),
    skip: str = typer.Option("", "--skip", help="Leave these kinds alone.", metavar="KINDS"),
    drop: str = typer.Option("", "--drop", help="Drop the rows with these instead of masking: secrets, personal.", metavar="KINDS"),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would go and write nothing."),
) -> None:
    """Drop or mask what `outcross audit` finds in single rows; write kept and dropped rows, each dropped one with its reason.

    The files have the format of DATA. Cleaning a cleaned file again drops nothing.
    """
    from outcross.audit.clean import cleaning, kinds_of
    from outcross.audit.kinds import KINDS
    from outcross.audit.write import reason_column, write
    from outcross.cli.audit import folder_for, question_of, visible
    from outcross.tasks.rows import read

    if out is None and not dry_run:
        raise ConfigError("--out is missing; name a folder for the kept and the dropped rows, or use --dry-run")
    folder_for(out)
    kinds = kinds_of(_listed(only), _listed(skip))
    question = question_of(data, real, evals, "", columns, (), "", 0)
    found = cleaning(question, kinds, _listed(drop))
    gone = len(found.reasons)
    first = {kind: (row, what) for row, (kind, what) in reversed(list(found.reasons.items()))}
    if found.counts:
        lines = [
            (kind, f"{count:,}", KINDS[kind].title, f"row {first[kind][0] + 1:,}: {visible(first[kind][1]):.100}")
            for kind, count in found.counts.items()
        ]
        show(table("", ("kind", "rows", "dropped because of", "for example"), lines, right=("rows",)))
    say(f"{found.rows:,} in = {found.rows - gone:,} kept + {gone:,} dropped")
    if out is None or dry_run:
        hint("nothing was written")
        return
    kept, dropped, changed = write(data, found, out)
    if found.mask:
        say(f"{changed:,} of the kept rows had passages masked ({', '.join(found.mask)})")
    hint(f"kept: {kept}\ndropped, with the reason in the column `{reason_column(next(read(data))[1])}`: {dropped}")


def _listed(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",") if word.strip())
