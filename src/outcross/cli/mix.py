"""`outcross mix`: what other mixtures would have made of a run's rows, and the batches that its optimiser saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import command, hint, open_run, say, show, table
from outcross.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from outcross.engine.store import RunDir
    from outcross.engine.what_if import Composition, Met, Stored
    from outcross.recipe import Mixture

WORDS = typer.Argument(help="The folder of the run, then settings of its mixture to change: --real_floor 0.5", metavar="RUN")
MOST = 12  # values of one kind in a table


@dataclass(frozen=True)
class Replayed:
    """A mixture as it was and, where settings were changed, as it would have been."""

    label: str
    was: Composition
    now: Composition | None


@command
def mix(
    words: list[str] = WORDS,
    phase: str | None = typer.Option(None, help="Only rounds of this phase.", show_default=False),
    number: int | None = typer.Option(None, "--round", help="Only this round of each phase.", min=0, show_default=False),
    role: str = typer.Option("policy", help="Whose mixture."),
    batch: int | None = typer.Option(None, help="Instead: the rows of this optimiser step, as it saw them.", min=0, show_default=False),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """What a run's mixtures are made of, and what other settings would have made of the same rows.

    Any setting of the mixture can be changed: --real_floor 0.5 --history replace --budget 800 --caps "[{by: task, rows: 4}]".

    Nothing is asked, trained or written. The rows of each round are those that the run had.
    """
    from outcross.config.overrides import split_words

    plain, changes = split_words(words)
    if len(plain) != 1:
        raise ConfigError(f"give one run folder, not {len(plain)}: {', '.join(plain) or 'none'}; settings are written --name value")
    run = open_run(Path(plain[0]))
    found = _chosen(run, phase, number, role)
    if batch is not None:
        if changes:
            raise ConfigError(f"--batch shows what the optimiser saw; leave out {', '.join('--' + name for name, _ in changes)}")
        _show_batch(run, found[-1], batch, as_json)
        return
    turns = [_replayed(item, dict(changes)) for item in found]
    if as_json:
        import json

        say(json.dumps({"run": str(run.root), "changed": dict(changes), "rounds": [asdict(turn) for turn in turns]}, indent=1))
        return
    show(_rounds(run, turns, bool(changes)), *_parts(turns[-1]))
    if changes:
        hint("The rows are those that the run made under its own mixtures; under others its models, and so its later rows, would differ.")
    else:
        hint("Change a setting to see what it would have made: --real_floor 0.5, --history replace, --budget 800 …")


def _chosen(run: RunDir, phase: str | None, number: int | None, role: str) -> list[Stored]:
    from outcross.engine.what_if import stored

    phases = {item["name"]: item for item in run.manifest["phases"]}
    if phase is not None and phase not in phases:
        raise ConfigError(f"the run has no phase {phase!r}; {did_you_mean(phase, phases)}")
    roles = {name for item in phases.values() for name in item["learn"]}
    if role not in roles:
        raise ConfigError(f"the run taught no role {role!r}; {did_you_mean(role, roles)}")
    everything = list(stored(run, role))
    found = [item for item in everything if phase in (None, item.turn.phase) and number in (None, item.turn.number)]
    if not found:
        listed = ", ".join(item.label for item in everything) or "none yet"
        raise ConfigError(f"no such round of {run.root} has a mixture; there are: {listed}")
    return found


def _replayed(item: Stored, changes: dict[str, Any]) -> Replayed:
    from outcross.engine.what_if import composition

    was = item.deal(mixture_of(item))
    item.check(was[1])
    now = composition(*item.deal(mixture_of(item, changes))) if changes else None
    return Replayed(item.label, composition(*was), now)


def mixture_of(item: Stored, changes: dict[str, Any] | None = None) -> Mixture:
    """A round's mixture as the record has it, with other settings. Raises `ConfigError` for one that it has not, or cannot have."""
    from outcross.config.bind import Place, bind_value
    from outcross.mix import problems
    from outcross.recipe import Mixture

    made: Mixture = bind_value({**item.settings, **(changes or {})}, Mixture, Place("mix", item.run.root), {}).make()
    if wrong := next(problems(made), None):
        raise ConfigError(f"mix.{wrong}")
    return made


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _rounds(run: RunDir, turns: Sequence[Replayed], changed: bool) -> Any:
    columns = (
        "round",
        "",
        "rows seen",
        "tokens",
        "real rows",
        "real tokens",
        "new and old used",
        "wait",
        "left out",
        "real rows seen",
        "times",
    )
    rows = []
    for turn in turns:
        rows.append((turn.label, "was", *_line(turn.was)))
        if turn.now is not None:
            rows.append(("", "would be", *_line(turn.now)))
    return table(f"{run.root.name}: mixtures{' replayed' if changed else ''}", columns, rows, right=columns[2:])


def _line(found: Composition) -> Iterator[str]:
    from outcross.report import numbers as n

    yield from (n.count(found.records), n.count(found.tokens), n.percent(found.real[0]), n.percent(found.real[1]))
    yield f"{found.used:,} of {found.offered:,}"
    yield from (n.count(found.waiting), n.count(found.left_out), n.count(found.real_rows))
    yield f"{found.repeats[0]:.2g}, at most {found.repeats[1]}"


def _parts(turn: Replayed) -> Iterator[Any]:
    """The last round by origin, depth and subgroup."""
    from outcross.engine.what_if import BY
    from outcross.report import numbers as n

    names = ("rows", "seen", "share of rows", "share of tokens")
    columns = ("", *(names if turn.now is None else (*(f"{name} was" for name in names), *(f"{name}" for name in names))))
    shown = [turn.was] if turn.now is None else [turn.was, turn.now]
    for by in BY:
        values = list(dict.fromkeys(share.value for found in shown for share in found.shares if share.by == by))
        if not any(values):
            continue
        rows = []
        for value in values[:MOST]:
            cells: list[str] = []
            for found in shown:
                share = next((item for item in found.shares if (item.by, item.value) == (by, value)), None)
                cells += (
                    ["–"] * 4
                    if share is None
                    else [
                        n.count(share.rows),
                        n.count(share.seen),
                        n.percent(share.records / found.records if found.records else 0.0),
                        n.percent(share.tokens / found.tokens if found.tokens else 0.0),
                    ]
                )
            rows.append((value or "(none)", *cells))
        if len(values) > MOST:
            rows.append((f"and {len(values) - MOST} more", *[""] * (len(columns) - 1)))
        yield table(f"{turn.label} by {by}", (by, *columns[1:]), rows, right=columns[1:])


# ── a batch ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _show_batch(run: RunDir, found: Stored, step: int, as_json: bool) -> None:
    from outcross.engine.what_if import batch

    rows = batch(found, step, _real(found))
    if as_json:
        import json

        import msgspec

        say(json.dumps({"round": found.label, "batch": step, "rows": [msgspec.to_builtins(_row(row)) for row in rows]}, indent=1))
        return
    columns = ("id", "source", "weight", "prompt", "completion")
    show(
        table(f"{found.label}: batch {step}, {len(rows)} rows in the order of the optimiser", columns, map(_cells, rows), right=["weight"])
    )


def _row(row: Met) -> dict[str, Any]:
    """A row of a batch for JSON."""
    return {"id": row.id, "source": row.source, "weight": row.weight, "example": row.example}


def _cells(row: Met) -> tuple[str, ...]:
    from outcross.text import prompt_text

    texts = ("(not at hand)",) * 2 if row.example is None else (prompt_text(row.example.prompt), str(row.example.completion))
    clipped = (text if len(text) <= 60 else text[:59] + "…" for text in (" ".join(text.split()) for text in texts))
    return row.id[:12], row.source, f"{row.weight:g}", *clipped


def _real(found: Stored) -> Any:
    """The real rows of a role, as the run file of the record names them; none where there is no run file, or its data are gone."""
    from outcross.config.runfile import of_run
    from outcross.engine.guards import real_of

    try:
        recipe = of_run(found.run).build_recipe()
        phase = next(item for item in recipe.phases if item.name == found.turn.phase)
        real = real_of(recipe.bench, phase.learn[found.role])
        return () if real is None else list(real)
    except ConfigError as error:
        hint(f"the texts of real rows are not at hand: {error}")
        return ()
