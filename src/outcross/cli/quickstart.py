"""`outcross quickstart`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, hint, say, show

if TYPE_CHECKING:
    from rich.table import Table

    from outcross.quickstart import Ending


@command
def quickstart(
    out: Path = typer.Option(Path("quickstart"), "--out", "-o", help="Folder for the start, the arms and the report."),
    seed: int = typer.Option(0, help="Seed of the start, the data and every draw."),
    arms: str = typer.Option("four", help="four, all (six), or names separated by commas."),
) -> None:
    """See it work: a small transformer learns from its own verified output, and is ruined when the guards are off."""
    from outcross import quickstart as work
    from outcross.engine.store import RunDir
    from outcross.report.compare import arms_of, headline
    from outcross.report.read import read_run

    chosen = work.arms_named(arms)
    began = time.monotonic()
    folder = out.resolve() / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    say(f"One transformer, {work.REAL_ROWS:,} real problems (sums of 3-digit numbers), {len(chosen)} arms of {work.ROUNDS} rounds.")
    work.train_start(folder, seed, say)
    work.run_arms(chosen, folder, seed, say)
    page = work.write_picture(chosen, folder)
    show(_table(work.endings(chosen, folder)))
    if len(chosen) > 1:
        say(headline(arms_of([read_run(RunDir(folder / arm.folder)) for arm in chosen]), []))
    for arm in chosen:
        if not arm.gated and arm.name.startswith("unverified"):
            refused = [turn for turn, decision in work.replayed_gate(RunDir(folder / arm.folder)) if not decision.promote]
            say(f"The gate, replayed on “{arm.name}”, refuses {len(refused)} of its {work.ROUNDS} rounds.")
    shown = page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page
    say(f"{time.monotonic() - began:.0f} s. The picture: {shown}")
    first = shown.parent / chosen[0].folder
    hint(f"next: outcross show {first} · outcross trace {first} ID · outcross sample {first} '123+456='")


def _table(found: Sequence[Ending]) -> Table:
    from rich.table import Table

    table = Table(title="Held-out problems solved", title_justify="left")
    for name in ("arm", "what it is", "start", "end", "change", "promoted", "time"):
        table.add_column(name, justify="left" if name in ("arm", "what it is") else "right")
    for item in found:
        promoted = f"{item.promoted} of {item.rounds}" if item.arm.gated else "no gate"
        change = f"{100 * (item.end - item.start):+.1f}"
        table.add_row(item.arm.name, item.arm.about, f"{item.start:.1%}", f"{item.end:.1%}", change, promoted, f"{item.seconds:.0f} s")
    return table
