"""One round of the report, folded: counts by stage, mixture by origin, the gate's reasoning, samples, drops by reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from outcross.engine.store import RoundDir
from outcross.report import lookup
from outcross.report import numbers as n
from outcross.report.element import Child, Html, clip, el
from outcross.report.figures import room, split_bar
from outcross.report.learning import learning_part
from outcross.report.lineage import SAMPLE
from outcross.report.parts import chip, fold, legend, sample_card, table
from outcross.report.read import turns_of
from outcross.report.record import Count, Fit, Mixed, RoundRecord, RowsFound
from outcross.types import Alarm, Check, Decision

CARD = (*SAMPLE, "finished")
REASONS = 6  # kinds of drops shown with examples


@dataclass(frozen=True)
class Limits:
    """How much the page shows: samples a round, characters a text, rounds in full over all runs, rows a table, characters of
    a configuration."""

    samples: int = 6
    characters: int = 500
    rounds: int = 60
    rows: int = 400
    configuration: int = 20_000


def round_part(item: RoundDir, found: RoundRecord, units: dict[str, str], limits: Limits, *, open_: bool) -> Html:
    """A whole round, folded under one line that says how it ended."""
    decision = found.decision
    title = [
        el("b", found.label),
        " ",
        chip(found.outcome),
        " " if decision is None or decision.gated else [" ", chip("ungated")],
        el("span", clip(_short(found), 200), class_="soft") if decision else None,
    ]
    body = [
        *_counts(found),
        *_fits(item, found),
        *_rows(found),
        *_gate(decision, {**units, **found.units}),
        *_alarms(found, {**units, **found.units}),
        *_samples(item, limits),
        *_drops(item, limits),
    ]
    return fold(title, body, open_=open_)


def _short(found: RoundRecord) -> str:
    return found.decision.reason.removeprefix(f"{found.outcome}: ") if found.decision else ""


def _counts(found: RoundRecord) -> Iterator[Child]:
    turns = turns_of(found.counts)
    yield el("h4", "Samples: in = kept + dropped + failed")
    for index, turn in enumerate(turns):
        if len(turns) > 1:
            yield el("p", f"inner turn {index}", class_="soft")
        yield table(["stage", "#in", "#kept", "#dropped", "#failed", "", "~of these"], map(_count, turn))
    yield legend([("s3", "kept"), ("s5", "dropped"), ("s2", "failed")])
    if found.canaries:
        told = (f"{item.verifier} {item.gold} gold and {item.bad} bad before {item.before}" for item in found.canaries)
        yield el("p", f"Canaries, all judged as they must be: {', '.join(told)}.", class_="soft")


def _count(count: Count) -> tuple[Child, ...]:
    detail = ", ".join(f"{n.count(amount)} {clip(name, 80)}" for name, amount in list(count.detail.items())[:12])
    cells = (count.into, count.kept, count.dropped, count.failed)
    return f"{count.stage} · {count.name}", *map(n.count, cells), split_bar(count.kept, count.dropped, count.failed), detail


def _fits(item: RoundDir, found: RoundRecord) -> Iterator[Child]:
    for role, mixed in found.mixtures.items():
        yield el("h4", f"Mixture and training of {role}")
        yield el("p", _mixed(mixed), " ", _fit(found.fits[role]) if role in found.fits else None)
        rows = [
            (
                f"{part.kind}, {part.proof}" if part.kind == "real" else part.kind,
                el("code", n.short(part.source)),
                part.round or "–",
                *map(n.count, (part.depth, part.records, part.tokens)),
            )
            for part in mixed.parts[:20]
        ]
        yield table(["origin", "source", "made in", "#depth", "#rows", "#tokens"], rows)
        if role in found.fits:
            yield from learning_part(item.parts()[-1], role, found.fits[role])


def _mixed(mixed: Mixed) -> str:
    share = mixed.real_share
    real = f"{n.percent(share.get('records', 0.0))} of {n.count(mixed.records)} rows and {n.percent(share.get('tokens', 0.0))} of {n.count(mixed.tokens)} tokens were real"
    floor = f"waived ({mixed.floor.partition(':')[2].strip()})" if mixed.floor.startswith("waived") else mixed.floor
    required = f", at least {n.percent(mixed.required)}" if mixed.required is not None else ""
    waiting = f"; {n.plural(mixed.waiting, 'synthetic row')} had to wait" if mixed.waiting else ""
    epochs = f"; each real row was seen {mixed.real_epochs:.1f} times" if mixed.real_epochs else ""
    return f"{real}. Floor: {floor}{required}{epochs}{waiting}."


def _fit(fit: Fit) -> list[Child]:
    skipped = f" ({fit.unlearnt})" if fit.skipped else ""
    kept = "" if fit.kept is None else f", weights kept after step {n.count(fit.kept)}"
    text = f"Trained {n.plural(fit.steps, 'step')} on {n.plural(fit.examples, 'example')}{skipped}{kept}, from "
    return [text, el("code", n.short(fit.start)), " to ", el("code", n.short(fit.model)), f" (depth {fit.depth})."]


def _rows(found: RoundRecord) -> Iterator[Child]:
    """What the probes of a release found."""
    if found.release is None:
        return
    yield el("h4", f"Rows: {n.plural(found.release.rows, 'row')} of {n.plural(found.release.tasks, 'task')}")
    if found.release.probes:
        yield table(
            ["probe", "#this round", "#95 %", "#earlier releases", "#real data", "#tasks"], map(_rows_probe, found.release.probes.items())
        )


def _rows_probe(item: tuple[str, RowsFound]) -> tuple[Child, ...]:
    name, found = item
    interval = (
        "" if found.low is None or found.high is None else f"{n.quantity(found.low, found.unit)} to {n.quantity(found.high, found.unit)}"
    )
    others = ("–" if value is None else n.with_unit(value, found.unit) for value in (found.release, found.real))
    return n.words(name), n.with_unit(found.round, found.unit), interval, *others, n.count(found.items)


def _gate(decision: Decision | None, units: dict[str, str]) -> Iterator[Child]:
    if decision is None:
        return
    yield el("h4", f"The gate's reasoning: {'promote' if decision.promote else 'refuse'}")
    ungated = "" if decision.gated else "This gate refuses nothing: the round is ungated. "
    spent = f" It spent {n.compact(decision.alpha_spent)} of the run's α." if decision.alpha_spent else ""
    yield el("p", el("code", decision.gate), f": {ungated}{clip(decision.reason, 600)}.{spent}".replace("..", "."))
    if decision.checks:
        notes = ["~note"] if any(check.note for check in decision.checks) else []
        sizes = ["#candidate − other", "#lower bound", "#margin", "lower bound to estimate", "#α", "#power", "#items"]
        columns = ["probe", "against", *sizes, "", *notes]
        yield table(columns, [_check(check, units.get(check.probe, ""))[: len(columns)] for check in decision.checks])
        yield el(
            "p",
            "Signed so that higher is better. A check holds when the lower bound lies above −margin; power is the chance that an unchanged candidate passes.",
            class_="soft",
        )


def _check(check: Check, unit: str) -> tuple[Child, ...]:
    return (
        n.words(check.probe),
        check.against,
        n.signed(check.estimate, unit),
        n.difference(check.low, unit),
        n.difference(check.margin, unit).lstrip("+"),
        room(check.estimate, check.low, check.margin, check.passed),
        n.compact(check.alpha),
        n.percent(check.power),
        n.count(check.items),
        chip("pass" if check.passed else "fail"),
        clip(check.note, 200),
    )


def _alarms(found: RoundRecord, units: dict[str, str]) -> Iterator[Child]:
    """What is shown to have become worse, by how much, and the items that moved most."""
    if not found.moved:
        return
    yield el("h4", "Alarms: what is shown to be worse")
    columns = ["probe", "against", "#candidate − other", "#at least", "#at most", "#rounds in a row", "what follows", "~moved most"]
    yield table(columns, [_alarm(alarm, units.get(alarm.probe, "")) for alarm in found.moved])
    back = found.rolled_back
    if back is not None and back.rounds:
        yield el("p", f"The champion returned to {back.to}; undone: {', '.join(back.rounds)}.")


def _alarm(alarm: Alarm, unit: str) -> tuple[Child, ...]:
    moved = "; ".join(clip(text, 80) for text in alarm.rows or alarm.items)
    numbers = (n.signed(alarm.change, unit), n.difference(alarm.high, unit), n.difference(alarm.low, unit))
    return (
        n.words(alarm.probe),
        alarm.against,
        *numbers,
        n.count(alarm.rounds),
        alarm.action.replace("_", " "),
        moved or clip(alarm.reason, 200),
    )


def _samples(item: RoundDir, limits: Limits) -> Iterator[Child]:
    found = []
    for verdict in ("pass", "fail", "error", "abstain", None):
        for part in item.parts():
            if verdict is None:
                found.append(lookup.unjudged(part / "groups.parquet", CARD, limits.samples))
            else:
                found.append(lookup.rows(part / "groups.parquet", CARD, {"verdict": [verdict]}, limits.samples))
    chosen = [rows[turn] for turn in range(limits.samples) for rows in found if turn < len(rows)][: limits.samples]
    if chosen:
        yield el("h4", "Samples that were kept")
        yield el("p", "The first of each verdict, in the order of generation; kept means not set aside by a curator.", class_="soft")
        yield el("div", [sample_card(row, limits.characters) for row in chosen], class_="cards")


def _drops(item: RoundDir, limits: Limits) -> Iterator[Child]:
    listed: dict[tuple[str, str], int] = {}
    for part in item.parts():
        for curator, reason, amount in lookup.pairs(part / "drops.parquet", "curator", "reason"):
            listed[curator, reason] = listed.get((curator, reason), 0) + amount
    if not listed:
        return
    ranked = sorted(listed.items(), key=lambda entry: -entry[1])
    yield el("h4", "Drops by reason")
    yield table(
        ["curator", "~reason", "#samples"], [(curator, clip(reason, 200), n.count(amount)) for (curator, reason), amount in ranked[:20]]
    )
    if len(ranked) > 20:
        yield el("p", f"and {n.count(len(ranked) - 20)} rarer reasons", class_="soft")
    examples = [row for (curator, reason), _ in ranked[:REASONS] for row in _first(item, curator, reason)][: limits.samples]
    yield el(
        "div",
        [el("div", el("small", clip(f"{row['curator']}: {row['reason']}", 120)), sample_card(row, limits.characters)) for row in examples],
        class_="cards",
    )


def _first(item: RoundDir, curator: str, reason: str) -> list[dict[str, object]]:
    for part in item.parts():
        found = lookup.rows(part / "drops.parquet", CARD, {"curator": [curator], "reason": [reason]}, 1)
        if found:
            return found
    return []
