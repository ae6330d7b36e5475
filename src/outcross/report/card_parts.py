"""What the cards of a data set and of a model both say: verifiers, people, gates, contamination, cost, settings. Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from outcross.report import numbers as n
from outcross.report.bill import Bill, Line
from outcross.report.markdown import cell, table
from outcross.report.read import Reading
from outcross.report.record import RoundRecord
from outcross.types import Check, Decision


def verifiers(rounds: Sequence[RoundRecord], what: str) -> Iterator[str]:
    yield "## Verifiers"
    known = {name: record for item in rounds for name, record in item.verifiers.items()}
    if not known:
        yield f"None. Whether {what} are right was not checked."
        return
    lines = []
    for name, record in known.items():
        counts = [count for item in rounds for count in item.counts if count.stage == "verify" and count.name == name]
        verdicts = {verdict: sum(count.detail.get(verdict, 0) for count in counts) for verdict in ("pass", "fail", "abstain", "error")}
        decided = verdicts["pass"] + verdicts["fail"]
        share = n.percent(verdicts["pass"] / decided) if decided else "–"
        lines.append((name, record.version, record.ground, share, *map(n.count, verdicts.values())))
    yield table(("verifier", "version", "its verdicts rest on", "passed", "pass", "fail", "abstain", "error"), lines)


def people(rounds: Sequence[RoundRecord]) -> Iterator[str]:
    """What experts signed; nothing where nobody was asked."""
    asked = [(item.label, item.admission.decision, cell(item.admission.reason)) for item in rounds if item.admission is not None]
    if asked:
        yield "## Admitted by people"
        yield "A random sample of each batch was judged before any of it was used; the shares hold whenever the people stopped looking."
        yield table(("round", "decision", "what was signed"), asked)


def gates(rounds: Sequence[RoundRecord], what: str) -> Iterator[str]:
    """Every decision of the run, refused rounds too, and every check with its bound. `what` was held against nothing without one: "this model was"."""
    yield "## Gate"
    decided = [item for item in rounds if item.decision is not None]
    if not decided:
        yield f"None: {what} held against nothing."
        return
    for item in decided:
        assert item.decision is not None
        yield f"**{item.label}: {item.outcome}{'' if item.decision.gated else ' (ungated)'}.** {_reason(item.decision, item.outcome)}"
        units = item.units
        if item.release is not None and item.release.probes:
            yield table(("probe", "rows of the round", "95 %", "earlier releases", "real data", "tasks"), _probes(item))
        if item.decision.checks:
            heads = ("check", "against", "difference", "lower bound", "must exceed", "α", "power", "tasks", "holds")
            yield table(heads, [_check(check, units.get(check.probe, "")) for check in item.decision.checks])
    yield (
        "A difference is the round's minus the other's, signed so that higher is better; the lower bound holds with confidence 1 − α. Power is the "
        "chance that a candidate exactly as good passes. Limits of exact values have no bound: they speak of what was measured alone. "
        "Shown is the absence of losses larger than the margins on these probes, and no more."
    )


def _reason(decision: Decision, outcome: str) -> str:
    text = decision.reason.removeprefix(f"{outcome}: ")
    return f"{text[:1].upper()}{text[1:]}."


def _probes(item: RoundRecord) -> Iterator[tuple[str, ...]]:
    assert item.release is not None
    for name, found in item.release.probes.items():
        bounds = (
            ""
            if found.low is None or found.high is None
            else f"{n.quantity(found.low, found.unit)} to {n.quantity(found.high, found.unit)}"
        )
        others = ("" if value is None else n.with_unit(value, found.unit) for value in (found.release, found.real))
        yield (n.words(name), n.with_unit(found.round, found.unit), bounds, *others, n.count(found.items))


def _check(check: Check, unit: str) -> tuple[str, ...]:
    return (
        n.words(check.probe),
        "its limit"
        if check.against == "limit"
        else {"real": "real data", "release": "earlier releases", "first": "first model"}.get(check.against, check.against),
        n.signed(check.estimate, unit),
        n.difference(check.low, unit),
        n.difference(-check.margin, unit),
        n.number(check.alpha) if check.alpha else "exact",
        n.percent(check.power) if check.alpha else "",
        n.count(check.items),
        "yes" if check.passed else "**no**",
    )


def contamination(reading: Reading, rounds: Sequence[RoundRecord]) -> Iterator[str]:
    yield "## Contamination"
    if any("not decontaminated" in heading for heading in reading.manifest.headings):
        yield "Not checked: the run named no held-out items and no benchmarks."
        return
    dropped = {
        count.name: sum(other.dropped for item in rounds for other in item.counts if other.name == count.name)
        for item in rounds
        for count in item.counts
        if count.name.startswith("decontaminate")
    }
    found = ", ".join(f"{name} set aside {n.plural(amount, 'sample')}" for name, amount in dropped.items())
    yield (
        f"Every sample was held against the run's held-out items: {found}. By these checks none is left. They compare passages: a "
        "translation or a free paraphrase of an item would pass."
    )


def price(reading: Reading) -> Iterator[str]:
    yield "## Cost"
    bill = reading.bill
    took = f"All steps took {n.duration(reading.costs.total.seconds)} in {n.plural(reading.costs.attempts, 'attempt')}."
    if bill is None:
        yield f"No model was asked. {took}"
        return
    yield f"Of the whole run, refused rounds included. {took}"
    lines = [(", ".join(line.roles), f"`{_public_name(line.model)}`", *_billed(line)) for line in bill.lines]
    total = [("all", "", *_billed(bill))] if len(lines) > 1 else []
    yield table(("role", "model", "requests", "tokens read", "tokens written", "money"), [*lines, *total])


def _public_name(model: str) -> str:
    """A model as the journal names it; of a folder of this machine the last part."""
    return PurePath(model).name if PurePath(model).is_absolute() else n.short(model)


def _billed(line: Line | Bill) -> tuple[str, ...]:
    money = "no price stated" if line.money is None else n.money(line.money)
    return (*map(n.count, (line.requests, line.prompt_tokens, line.completion_tokens)), money)


def settings(config: Any, without: Sequence[str] = ()) -> Iterator[str]:
    """The run file, folded away, as far as it may be published and `without` these keys of its bench; nothing for a run started from Python."""
    if config:
        shown = yaml.safe_dump(public(config, without), sort_keys=False, allow_unicode=True, width=140).rstrip()
        yield f"<details><summary>Settings</summary>\n\n```yaml\n{shown}\n```\n\n</details>"


PRIVATE = ("url", "endpoints", "account", "headers_env", "key_env", "ca_file", "command")  # of a model: not the readers' to know
PATHS = ("path", "file", "folder", "tokenizer", "rows")


def public(config: Mapping[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """What was run. Endpoints, folders and machines are left out: a card is published."""
    models = {role: _without(settings) for role, settings in config.get("models", {}).items()}
    bench = {key: value for key, value in config.get("bench", {}).items() if value not in (None, [], {}) and key not in without}
    kept = {key: config[key] for key in ("name", "recipe", "seed") if config.get(key) is not None} | (
        {"unsafe": True} if config.get("unsafe") else {}
    )
    return {**kept, "bench": _shortened(bench), "models": models, "recipe": _shortened(kept["recipe"])}


def _without(settings: Any) -> Any:
    if not isinstance(settings, Mapping):
        return settings
    return _shortened({key: value for key, value in settings.items() if key not in PRIVATE and value is not None})


def _shortened(value: Any, key: str = "") -> Any:
    """The same with the last part of every path alone."""
    if isinstance(value, Mapping):
        return {name: _shortened(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item, key) for item in value]
    return PurePath(value).name if isinstance(value, str) and key in PATHS else value
