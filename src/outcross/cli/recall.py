"""`outcross recall`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, hint, open_run, say, show, table
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from outcross.engine.recall import Recall
    from outcross.engine.reverify import Reverified
    from outcross.engine.store import RunDir
    from outcross.recipe import Phase
    from outcross.stages import Verifier

SHOWN = 5  # rows by name


@command
def recall(
    verifier: str = typer.Argument(
        help="The verifier that was found broken, also inside a combination or a generator.", metavar="VERIFIER"
    ),
    folder: Path = typer.Option(..., "--run", help="The folder of the run.", metavar="RUN"),
    before: str | None = typer.Option(
        None, "--before", help="The version that is sound again; default: every version.", show_default=False
    ),
    yes: bool = typer.Option(False, "--yes", "--bury", help="Tombstone what is found: it stays stored and is never learnt from again."),
    reverify: bool = typer.Option(
        False, "--reverify", help="Let the present verifier judge these rows; those whose verdict stands are kept."
    ),
    verify: str | None = typer.Option(
        None, "--verify", help="The verifier to judge them with; default the one that the run names.", metavar="USE", show_default=False
    ),
    json: bool = typer.Option(False, "--json", help="Everything that is found, row by row, as JSON."),
) -> None:
    """List what a broken verifier let in, and bury it.

    Rows, rounds and models, and what a mixture without these rows would lose.
    """
    from outcross.engine.recall import recall as find
    from outcross.engine.recall import tombstone

    run = open_run(folder)
    with run.locked() if yes or reverify else nullcontext():
        again = _again(run, verifier, before, verify) if reverify or verify else None
        found = find(run, verifier, before, keep=again.stand if again else ())
        if json:
            say(_as_json(run, found, again))
        else:
            _tell(run, folder, verifier, before, found, again)
        if not found.samples and not (again and again.found):
            return
        if yes or (not json and sys.stdin.isatty() and typer.confirm(f"tombstone {_records(found):,} records?")):
            path = tombstone(run, found, verifier, before, len(again.stand) if again else 0)
            if again:
                from outcross.engine.reverify import keep_scores

                hint(f"the new scores are in {os.path.relpath(keep_scores(path, again))}; those in the rounds stay as they were")
            say(f"{_records(found):,} records are tombstoned; no later mixture and no export holds them")
        else:
            hint(
                "nothing was changed; --yes tombstones these records" + ("" if again else ", --reverify spares those whose verdict stands")
            )


def _records(found: Recall) -> int:
    return len(found.samples) + len(found.examples)


# ── judging again ──────────────────────────────────────────────────────────────────────────────────────────────────────
def _again(run: RunDir, verifier: str, before: str | None, verify: str | None) -> Reverified:
    from outcross.cli.verifiers import from_words
    from outcross.config.runfile import of_run
    from outcross.engine.reverify import reverify
    from outcross.stages import roles_of

    plan = of_run(run) if verify is None or run.manifest["config"] else None
    if verify is not None:
        (named,) = from_words([verify])
        present: Mapping[str, Verifier] = {phase["name"]: named for phase in run.manifest["phases"]}
    else:
        assert plan is not None
        present = dict(_present(plan.build_recipe().phases, verifier))
    roles = {role for item in present.values() for role in roles_of(item)}
    if roles and plan is None:
        raise ConfigError(f"the verifier asks {', '.join(sorted(roles))}, and {run.root} was started from Python and names no models")
    models = {role: plan.build_model(role) for role in sorted(roles)} if plan else {}
    try:
        return reverify(run, models, present, verifier, before, seed=run.manifest["seed"])
    finally:
        for model in models.values():
            model.close()


def _present(phases: Sequence[Phase], verifier: str) -> Iterator[tuple[str, Verifier]]:
    """By phase, what stands for the verifier recalled now, or contains it; where several do, all of them must agree."""
    from outcross.engine.canaries import verifying
    from outcross.engine.recall import named
    from outcross.stages import name_of, version_of
    from outcross.verify.combine import AllOf

    for phase in phases:
        fitting = [item for item in verifying(phase) if verifier in dict(named(name_of(item), version_of(item)))]
        if fitting:
            yield phase.name, fitting[0] if len(fitting) == 1 else AllOf(tuple(fitting))


# ── what is told ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _tell(run: RunDir, folder: Path, verifier: str, before: str | None, found: Recall, again: Reverified | None) -> None:
    version = f" before version {before}" if before else ""
    if again is not None:
        say(f"{verifier}{version} judged {len(again.found):,} samples, which were verified again:")
        for (was, now), count in sorted(again.changes.items()):
            say(f"  {count:,} {was} → {now}{': kept' if was == now else ''}")
        say(f"recalled: {len(found.samples):,} samples whose verdict does not stand, and {len(found.examples):,} examples made of them")
    else:
        say(f"{verifier}{version} judged {len(found.samples):,} samples; {len(found.examples):,} examples were made of them")
        if found.samples:
            say(f"it let {len(found.passed):,} of them pass")
    if not found.samples:
        return
    counts = zip(found.rounds, found.counts, strict=True)
    say(f"rounds: {', '.join(f'{label} ({count:,})' for label, count in counts)}")
    buried = len(run.tombstones().intersection((*found.samples, *found.examples)))
    if buried:
        say(f"{buried:,} of these records are tombstoned already")
    rows = ", ".join(name[:12] for name in (found.passed or found.samples)[:SHOWN])
    more = f" and {len(found.passed) - SHOWN:,} more (--json names all)" if len(found.passed) > SHOWN else ""
    say(f"rows: {rows}{more}")
    released = _released(run, found)
    if released:
        say(f"released rows among them: {released:,}; an export leaves tombstoned rows out, copies made before hold them")
    say(f"models that learnt from them: {', '.join(_model(run, found, item) for item in found.models) or 'none'}")
    show(*_lost(run, found))
    for line in _champions(run, folder, found):
        show(line)


def _released(run: RunDir, found: Recall) -> int:
    samples = frozenset(found.samples)
    groups = (group for turn in run.rounds() if turn.released for group in turn.rows())
    return sum(sample.id in samples for group in groups for sample in group.samples)


def _model(run: RunDir, found: Recall, name: str) -> str:
    holds = any(run.champion(role) == (run.root / name).resolve() for role in _taught(run))
    return f"{name}{' (champion now)' if holds else ' (promoted)' if name in found.promoted else ' (not promoted)'}"


def _taught(run: RunDir) -> list[str]:
    return sorted({role for phase in run.manifest["phases"] for role in phase["learn"]})


def _lost(run: RunDir, found: Recall) -> Iterator[RenderableType]:
    from outcross.engine.recall import losses
    from outcross.report import numbers as n

    rows = [
        (
            f"{item.round} {item.role}",
            n.count(item.rows),
            n.count(item.tokens),
            n.percent(item.share),
            f"{n.percent(item.real)} → {n.percent(item.real_after)}",
        )
        for item in losses(run, found)
    ]
    if rows:
        columns = ("mixture", "rows", "tokens", "share of its tokens", "real tokens")
        yield table("What mixtures without these records would lose", columns, rows, right=columns[1:])


def _champions(run: RunDir, folder: Path, found: Recall) -> Iterator[RenderableType]:
    """Loudly: a champion that learnt from recalled rows, what would hold instead, and what to do."""
    from rich.text import Text

    from outcross.engine.recall import untouched

    for role in _taught(run):
        now = run.champion(role)
        if now is None or not any((run.root / name).resolve() == now for name in found.models):
            continue
        other = untouched(run, found, role)
        name = os.path.relpath(now, run.root.resolve())
        yield Text(f"! THE CHAMPION of {role}, {name}, LEARNT FROM THESE ROWS, and tombstones do not make it forget them", style="bold red")
        if other is None:
            yield Text("  no champion that did not learn from them is kept; start again from the first model")
        else:
            place = os.path.relpath(other, run.root)
            yield Text(f"  the last champion that did not: {folder / place}. Start a new run from it with a sound verifier;")
            yield Text(
                f"  `--journal {os.path.relpath(run.journal)}` finds the answers of this one. `outcross resume` would go on from {name}"
            )


def _as_json(run: RunDir, found: Recall, again: Reverified | None) -> str:
    import dataclasses
    import json

    from outcross.engine.recall import losses, untouched

    holders = {role: untouched(run, found, role) for role in _taught(run)}
    whole = {
        **dataclasses.asdict(found),
        "rounds": dict(zip(found.rounds, found.counts, strict=True)),
        "losses": [dataclasses.asdict(item) for item in losses(run, found)],
        "untouched": {role: None if place is None else os.path.relpath(place, run.root) for role, place in holders.items()},
    }
    del whole["counts"]
    if again is not None:
        whole["again"] = [
            {"id": item.sample, "round": item.round, "was": item.was, "verdict": item.score.verdict, "version": item.score.version}
            for item in again.found
        ]
    return json.dumps(whole, ensure_ascii=False, indent=1)
