"""`outcross gate`: the decisions of a run under other margins."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import command, open_run, say, show, table
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.cli.replay import Replayed
    from outcross.gate.non_inferior import NonInferior
    from outcross.types import Check, Measurement

COLUMNS = ("round", "was", "would be", "probe", "against", "estimate", "at least", "margin", "power", "holds")
EXPECTED_POWER = 0.8


@command
def gate(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    margin: list[str] = typer.Option([], help="Another margin, as probe=0.02; shares are shares. May be repeated.", metavar="PROBE=NUMBER"),
    alpha: float | None = typer.Option(None, help="Another chance of a false promotion over the whole run.", show_default=False),
    minimum_items: int | None = typer.Option(None, help="Fewer items refuse whatever they show.", min=2, show_default=False),
    superior: list[str] = typer.Option([], help="A probe on which the candidate must be shown better.", metavar="PROBE"),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
) -> None:
    """Replay a run's decisions on its stored measurements under other margins.

    Nothing is asked, trained or written. Each candidate is held against the champion that the run had.
    """
    from outcross.cli.replay import replay

    run = open_run(folder)
    turns = list(replay(run, _gate(folder, alpha, minimum_items, superior), margins_of(margin)))
    if not turns:
        raise ConfigError(f"{folder} has no round that a gate decided; `outcross show {folder}` shows its rounds")
    if as_json:
        say(json.dumps({"run": str(folder), "rounds": [_plain(turn) for turn in turns]}, indent=1))
        return
    show(table(f"{folder} replayed", COLUMNS, [row for turn in turns for row in _rows(turn)], right=COLUMNS[5:9]))
    for line in (*_changes(turns), *_power(turns[-1])):
        say(line)


def margins_of(words: Sequence[str]) -> dict[str, float]:
    """Margins by probe from words such as `pass_rate=0.02`. Raises `ConfigError` for another form or a margin that is not above 0."""
    found: dict[str, float] = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"--margin {word!r} is not of the form probe=number, such as pass_rate=0.02") from None
        if not 0 < found[name] < float("inf"):
            raise ConfigError(f"--margin {word!r}: a margin is a positive number in the probe's unit")
    return found


def _gate(folder: Path, alpha: float | None, minimum: int | None, superior: Sequence[str]) -> NonInferior:
    from outcross.cli.replay import gate_of_run
    from outcross.gate.non_inferior import NonInferior

    if alpha is not None and not 0 < alpha < 1:
        raise ConfigError(f"--alpha {alpha:g} is no chance between 0 and 1")
    try:
        found = gate_of_run(open_run(folder))
    except ConfigError:
        if alpha is None:
            raise
        found = NonInferior(alpha)
    changes: dict[str, Any] = {"alpha": alpha, "minimum_items": minimum, "superior": tuple(superior) or None}
    return replace(found, **{name: value for name, value in changes.items() if value is not None})


def _rows(turn: Replayed) -> Iterator[tuple[str, ...]]:
    from outcross.gate.reason import amount

    new = "promoted" if turn.new.promote else "refused"
    head = (
        turn.label + ("*" if turn.after_change else ""),
        "promoted" if turn.promoted else "refused",
        new + (" ←" if turn.changed else ""),
    )
    for check in turn.new.checks:
        unit = turn.comparison.candidate[check.probe].unit
        low, estimate, margin = amount(check.low, unit), amount(check.estimate, unit), amount(check.margin, unit)
        yield *head, check.probe, check.against, estimate, low, margin, f"{check.power:.0%}", "yes" if check.passed else "NO"
        head = ("", "", "")
    if not turn.new.checks:
        yield *head, turn.new.reason, *[""] * 6


def _changes(turns: Sequence[Replayed]) -> Iterator[str]:
    changed = [turn for turn in turns if turn.changed]
    for turn in changed:
        yield f"{turn.label} was {'promoted' if turn.promoted else 'refused'}; would be {turn.new.reason}"
    if not changed:
        yield f"All {len(turns)} decisions stay as they were."
    if any(turn.after_change for turn in turns):
        yield "* after a changed decision: a run under this gate would have gone on from another champion than the recorded one."


def _power(turn: Replayed) -> Iterator[str]:
    """What the items of the newest round can show, for each probe whose power is low."""
    from outcross.gate.evidence import weigh
    from outcross.gate.reason import shortage

    for check in turn.new.checks:
        candidate = turn.comparison.candidate[check.probe]
        if (turn.changed and not check.passed) or check.margin == 0 or check.power >= EXPECTED_POWER or check.against == "first":
            continue
        short = shortage(weigh(candidate, turn.comparison.champion[check.probe], turn.new.alpha_spent), check.margin, candidate.unit)
        if short:
            yield f"{turn.label} {check.probe}: {short}"


def _plain(turn: Replayed) -> Mapping[str, Any]:
    import msgspec

    was, new = ("promoted" if done else "refused" for done in (turn.promoted, turn.new.promote))
    checks = [{**msgspec.to_builtins(check), **_units(check, turn.comparison.candidate)} for check in turn.new.checks]
    found = {"round": turn.label, "was": was, "would_be": new, "changed": turn.changed, "after_change": turn.after_change}
    return {**found, "reason": turn.new.reason, "alpha_spent": turn.new.alpha_spent, "checks": checks}


def _units(check: Check, candidate: Mapping[str, Measurement]) -> dict[str, str]:
    return {"unit": candidate[check.probe].unit, "note": check.note}
