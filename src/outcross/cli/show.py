"""`outcross show`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, hint, open_run, say, table
from outcross.cli.shell import show as print_all
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from outcross.engine.store import RoundDir, RunDir
    from outcross.report.read import Reading, RoundRow, Summary
    from outcross.report.record import Mixed, ReleaseFound, RoundRecord


@command
def show(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    name: str | None = typer.Argument(
        None, help="A round, such as train/0002 or 2: everything about it.", metavar="[ROUND]", show_default=False
    ),
    samples: int = typer.Option(5, help="How many tasks of a round to show.", min=0),
    json: bool = typer.Option(False, "--json", help="The run as one JSON object for machines: verdict, rounds, probes, bill."),
) -> None:
    """A run in tables, or one round of it.

    Of a round: counts, mixture, probes, the gate's reasoning and samples.
    """
    from outcross.report.read import read_run

    run = open_run(folder)
    if json:
        say(_as_json(read_run(run)))
        return
    if name is None:
        found_run = read_run(run)
        print_all(*_run_tables(found_run.summary, folder), *_judges(found_run), *_tombstones(run), *_bill(found_run))
        rounds = [item.label for item in run.rounds()]
        if rounds:
            hint(f"one round in full: outcross show {folder} {rounds[-1]}")
        return
    found = find_round(run, name)
    print_all(*_round_tables(found))
    _show_samples(found, samples)


def find_round(run: RunDir, name: str) -> RoundDir:
    """The complete round of this label or number over the whole run. Raises `ConfigError` listing those there are."""
    rounds = run.rounds()
    for index, item in enumerate(rounds):
        if name in (item.label, f"{item.phase}/{item.number}", str(index)):
            return item
    listed = ", ".join(item.label for item in rounds) or "none yet"
    raise ConfigError(f"{run.root.name} has no complete round {name!r}; there are: {listed}")


# ── a run ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _run_tables(found: Summary, folder: Path) -> Iterator[RenderableType]:
    from rich.text import Text

    paper = f" · {found.paper}" if found.paper else ""
    yield Text(found.verdict, style="bold")
    for line in found.headings:
        yield Text(f"! {line}", style="yellow")
    yield Text(f"{folder} · recipe {found.recipe}{paper} · seed {found.seed} · fingerprint {found.fingerprint[:12]}", style="bright_black")
    if found.tracks:
        yield _tracks(found)
    if found.rounds:
        yield _rounds(found)


def _tombstones(run: RunDir) -> Iterator[RenderableType]:
    """What was recalled."""
    from rich.text import Text

    from outcross.report.record import read_tombstones

    for item in read_tombstones(run):
        yield Text(f"! {len(item.records):,} records are tombstoned: {item.told}", style="yellow")


def _judges(reading: Reading) -> Iterator[RenderableType]:
    """What the record tells about its judges."""
    from outcross.report.judges_part import COLUMNS, lines, title

    for found in reading.judges:
        yield table(title(found), COLUMNS, lines(found), right=COLUMNS[1:])


def _bill(reading: Reading) -> Iterator[RenderableType]:
    """What models were asked and what it cost, and what the preview had led to expect."""
    from outcross.errors import StoreError
    from outcross.report import numbers as n
    from outcross.report.bill import money_of

    try:
        found = reading.bill
    except StoreError as error:
        hint(f"the bill cannot be read: {error}")
        return
    if found is None:
        return
    rows = []
    for line in found.lines:
        counts = map(n.count, (line.requests, line.prompt_tokens, line.completion_tokens))
        rows.append((", ".join(line.roles) or "–", n.short(line.model), *counts, money_of(line.money)))
    counts = map(n.count, (found.requests, found.prompt_tokens, found.completion_tokens))
    rows.append(("total", "", *counts, money_of(found.money)))
    columns = ("role", "model", "requests", "tokens read", "tokens written", "money")
    yield table("Bill", columns, rows, right=columns[2:])
    if found.forecast:
        names = ("", "expected", "likely between", "became" if found.complete else "so far")
        yield table("The bill and the forecast", names, [(item.name, *item.numbers) for item in found.forecast], right=names[1:])


def _as_json(reading: Reading) -> str:
    import dataclasses
    import json

    import msgspec

    found = {**dataclasses.asdict(reading.summary), "bill": reading.bill, "seconds": reading.costs.total.seconds}
    return json.dumps(msgspec.to_builtins(found, enc_hook=str), ensure_ascii=False, indent=1)


def _tracks(found: Summary) -> Table:
    from outcross.report import numbers as n

    rows = []
    for track in found.tracks:
        change = track.change
        interval = (
            ""
            if change is None or change.low is None or change.high is None
            else (f"{n.difference(change.low, track.unit)} to {n.difference(change.high, track.unit)}")
        )
        values = (n.with_unit(track.first.mean, track.unit), n.with_unit(track.now.mean, track.unit))
        moved = "" if change is None else n.signed(change.mean, track.unit)
        rows.append((n.words(track.probe), track.kind, *values, moved, interval, track.verdict))
    columns = ("probe", "kind", "first champion", "champion now", "change", "95 % interval", "")
    return table("Probes", columns, rows, right=columns[2:5])


def _rounds(found: Summary) -> Table:
    from outcross.report import numbers as n

    units = {track.probe: track.unit for track in found.tracks}
    probes = [track.probe for track in found.tracks]
    rows = [
        (*_round_cells(row), *(n.quantity(row.means[name], units[name]) if name in row.means else "" for name in probes))
        for row in found.rounds
    ]
    columns = ("round", "outcome", "samples", "passed", "kept", "seen", "real share", *map(n.words, probes))
    return table("Rounds", columns, rows, right=columns[2:])


def _round_cells(row: RoundRow) -> tuple[str, ...]:
    from outcross.report import numbers as n

    passed = "" if row.passed is None else n.count(row.passed)
    outcome = row.outcome if row.gated else f"{row.outcome}, ungated"
    real = n.percent(row.mixture.real_share["records"]) if row.mixture else ""
    return row.label, outcome, n.count(row.made), passed, n.count(row.kept), n.count(row.examples), real


# ── a round ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _round_tables(item: RoundDir) -> Iterator[RenderableType]:
    from rich.text import Text

    from outcross.report import numbers as n
    from outcross.report.record import read_round

    found = read_round(item)
    reason = f": {found.decision.reason.removeprefix(f'{found.outcome}: ')}" if found.decision else ""
    yield Text(f"{found.label} {found.outcome}{reason}", style="bold")
    yield _counts(found)
    if found.canaries:
        yield Text(_canaries(found))
    for role, mixture in found.mixtures.items():
        yield _mixture(role, mixture)
    for role, fit in found.fits.items():
        if fit.skipped:
            yield Text(f"Examples of {role}: {fit.unlearnt}")
        if fit.kept is not None:
            yield Text(
                f"Early stop: {role} was trained for {n.plural(fit.steps, 'optimiser step')}, and its weights after step {n.count(fit.kept)} kept"
            )
    if found.measurements:
        yield _measured(found)
    if found.release is not None and found.release.probes:
        yield _release(found.release)
    if found.decision and found.decision.checks:
        yield _checks(found)
    for alarm in found.moved:
        moved = f"; moved most: {', '.join(alarm.rows or alarm.items)}" if alarm.items else ""
        yield Text(f"alarm ({alarm.action.replace('_', ' ')}): {alarm.reason}{moved}")


def _counts(found: RoundRecord) -> Table:
    from outcross.report import numbers as n

    rows = [
        (
            f"{item.stage} {item.name}",
            *map(n.count, (item.into, item.kept, item.dropped, item.failed)),
            ", ".join(f"{reason} {amount:,}" for reason, amount in item.detail.items()),
        )
        for item in found.counts
    ]
    columns = ("stage", "in", "kept", "dropped", "failed", "")
    return table("Counts, in samples: in = kept + dropped + failed", columns, rows, right=columns[1:5])


def _canaries(found: RoundRecord) -> str:
    told = (f"{item.verifier} {item.gold} gold and {item.bad} bad before {item.before}" for item in found.canaries)
    return f"Canaries, all judged as they must be: {', '.join(told)}"


def _mixture(role: str, mixture: Mixed) -> Table:
    from outcross.report import numbers as n

    rows = [
        (f"{part.kind} ({part.proof})", n.short(part.source), part.round, str(part.depth), n.count(part.records), n.count(part.tokens))
        for part in mixture.parts
    ]
    share = mixture.real_share
    required = f", floor {n.percent(mixture.required)}" if mixture.required is not None else f", floor {mixture.floor}"
    title = f"What {role} learnt from: real {n.percent(share['records'])} of records, {n.percent(share['tokens'])} of tokens{required}"
    if mixture.waiting:
        title += f"; {n.count(mixture.waiting)} synthetic rows wait for more real data"
    columns = ("origin", "source", "round", "depth", "records", "tokens")
    return table(title, columns, rows, right=columns[3:])


def _measured(found: RoundRecord) -> Table:
    from outcross.report import numbers as n

    rows = []
    for name, item in found.measurements.items():
        interval = (
            "" if item.low is None or item.high is None else f"{n.quantity(item.low, item.unit)} to {n.quantity(item.high, item.unit)}"
        )
        values = (n.with_unit(value, item.unit) for value in (item.candidate, item.champion, item.first))
        rows.append((n.words(name), *values, interval, n.count(item.items)))
    columns = ("probe", "candidate", "champion", "first champion", "95 % of candidate", "items")
    return table("Probes", columns, rows, right=columns[1:4])


def _release(found: ReleaseFound) -> Table:
    from outcross.report import numbers as n

    rows = []
    for name, item in found.probes.items():
        interval = (
            "" if item.low is None or item.high is None else f"{n.quantity(item.low, item.unit)} to {n.quantity(item.high, item.unit)}"
        )
        others = ("" if value is None else n.with_unit(value, item.unit) for value in (item.release, item.real))
        rows.append((n.words(name), n.with_unit(item.round, item.unit), interval, *others, n.count(item.items)))
    columns = ("probe", "this round", "95 %", "earlier releases", "real data", "tasks")
    return table(f"Rows: {n.plural(found.rows, 'row')} of {n.plural(found.tasks, 'task')}", columns, rows, right=columns[1:])


def _checks(found: RoundRecord) -> Table:
    from outcross.report import numbers as n

    assert found.decision is not None
    units = found.units
    rows = []
    for check in found.decision.checks:
        unit = units.get(check.probe, "")
        numbers = (
            n.signed(check.estimate, unit),
            n.signed(check.low, unit),
            n.signed(-check.margin, unit),
            n.number(check.alpha) if check.alpha else "exact",
            n.percent(check.power) if check.alpha else "",
        )
        rows.append(("✓" if check.passed else "✗", n.words(check.probe), check.against, *numbers, check.note))
    columns = ("", "probe", "against", "change", "lower bound", "must exceed", "alpha", "power", "")
    return table("The gate's reasoning (changes signed so that higher is better)", columns, rows, right=columns[3:8])


def _show_samples(item: RoundDir, most: int) -> None:
    from itertools import islice

    from outcross.cli.progress import MARKS, prompt_of

    for group in islice(item.groups(), most):
        say(f"\n{prompt_of(group)}")
        for sample in group.samples[:4]:
            value = "" if sample.value in (None, 0.0, 1.0) else f" {sample.value:g}"
            say(
                f"  {MARKS[sample.verdict]}{value} {sample.text if not sample.error else f'no answer: {sample.error}'}   [{sample.id[:12]}]"
            )
        if len(group.samples) > 4:
            say(f"  … {len(group.samples) - 4} more")
