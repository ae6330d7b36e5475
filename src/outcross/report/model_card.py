"""The card of a model that a run promoted: Markdown with the front matter that Hugging Face reads. It says what was measured, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from outcross.report import card as of_rows
from outcross.report import numbers as n
from outcross.report.claim import claim
from outcross.report.read import Reading
from outcross.report.record import Found, RoundRecord, read_tombstones


def model_card(reading: Reading) -> str:
    """The whole card. Settings under `card:` in the run file are used: title, license, language, notes, base_model, datasets."""
    said = dict(reading.manifest.config.get("card", {})) if isinstance(reading.manifest.config, Mapping) else {}
    promoted = [item for item in reading.rounds if item.outcome == "promoted"]
    parts = [
        _front(said, reading, promoted),
        f"# {said.get('title') or reading.manifest.name}",
        *_flags(reading, promoted),
        reading.summary.verdict,
        *([said["notes"]] if said.get("notes") else []),
        *_learnt(reading),
        *of_rows.verifiers(reading.rounds),
        *of_rows.people(reading.rounds),
        *_gates(reading),
        *_alarms(reading.rounds),
        *_recalled(reading),
        *_limits(reading, promoted),
        *of_rows.again(reading),
    ]
    return "\n\n".join(parts) + "\n"


def _front(said: Mapping[str, Any], reading: Reading, promoted: Sequence[RoundRecord]) -> str:
    name = said.get("title") or reading.manifest.name
    front: dict[str, Any] = {key: said[key] for key in ("license", "language", "base_model", "datasets") if said.get(key)}
    front |= {"pipeline_tag": said.get("pipeline_tag", "text-generation"), "tags": ["outcross", reading.manifest.recipe.name]}
    measured = promoted[-1].measurements if promoted else {}
    if measured:
        metrics = [{"type": probe, "value": found.candidate, "name": n.words(probe)} for probe, found in measured.items()]
        data = {"name": "held-out items of the run", "type": "held-out"}
        front["model-index"] = [{"name": name, "results": [{"task": {"type": front["pipeline_tag"]}, "dataset": data, "metrics": metrics}]}]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True, width=140)}---"


def _flags(reading: Reading, promoted: Sequence[RoundRecord]) -> Iterator[str]:
    """What a reader must know before any number."""
    found = [] if promoted else ["no round was promoted: the champion is the model that the run began with"]
    found += reading.summary.headings
    if found:
        yield "\n".join(f"> **{line[0].upper()}{line[1:]}.**  " for line in found)


def _learnt(reading: Reading) -> Iterator[str]:
    """What the optimiser saw in each round that taught: shares of real data, and generations of model-written text behind it."""
    lines = []
    for item in reading.rounds:
        for role, mixed in item.mixtures.items():
            depth = item.fits[role].depth if role in item.fits else None
            mean = sum(part.depth * part.records for part in mixed.parts) / mixed.records if mixed.records else 0.0
            shares = [n.percent(mixed.real_share.get(unit, 0.0)) for unit in ("records", "tokens")]
            lines.append(
                (
                    item.label,
                    role,
                    item.outcome,
                    n.count(round(mixed.records)),
                    *shares,
                    mixed.floor,
                    f"{mean:.2f}",
                    str(depth if depth is not None else "–"),
                )
            )
    yield "## What it learnt"
    yield (
        "Records count repeats and weights. Real means proved or attested; unknown origin counts as synthetic. Depth: generations of model-written text behind the "
        "records, and behind the model."
    )
    heads = ("round", "role", "decision", "records", "real, records", "real, tokens", "floor", "mean depth", "model's depth")
    yield of_rows.table(heads, lines) if lines else "Nothing."


def _gates(reading: Reading) -> Iterator[str]:
    """Every decision, refused ones too, with every check's bound; and the claim on items that no gate saw."""
    yield "## Gate"
    for item in reading.rounds:
        if item.decision is None:
            continue
        yield f"**{item.label}: {item.outcome}{'' if item.decision.gated else ' (ungated)'}.** {of_rows.reasoned(item.decision, item.outcome)}"
        if item.measurements:
            yield of_rows.table(
                ("probe", "this model", "95 %", "champion before", "first"), [_probe(*pair) for pair in item.measurements.items()]
            )
        if item.decision.checks:
            heads = ("check", "against", "difference", "lower bound", "must exceed", "α", "power", "items", "holds")
            yield of_rows.table(heads, [of_rows.checked(check, item.units.get(check.probe, "")) for check in item.decision.checks])
    yield "A difference is signed so that higher is better; the lower bound holds with confidence 1 − α. Power is the chance that an unchanged model passes."
    fresh = claim(reading.run)
    if fresh:
        yield fresh.strip()


def _probe(name: str, found: Found) -> tuple[str, ...]:
    low, high = found.low, found.high
    bounds = "" if low is None or high is None else f"{n.quantity(low, found.unit)} to {n.quantity(high, found.unit)}"
    return (
        n.words(name),
        n.with_unit(found.candidate, found.unit),
        bounds,
        *(n.with_unit(x, found.unit) for x in (found.champion, found.first)),
    )


def _alarms(rounds: Sequence[RoundRecord]) -> Iterator[str]:
    told = [f"- {item.label}: {alarm.action}: {alarm.reason}" for item in rounds for alarm in item.moved]
    told += [f"- {item.label}: {text}" for item in rounds for text in item.alarms]
    told += [f"- {item.label}: rolled back" for item in rounds if item.rolled_back is not None]
    if told:
        yield "## Alarms"
        yield "\n".join(told)


def _recalled(reading: Reading) -> Iterator[str]:
    told = [f"- {item.told}: {n.plural(len(item.records), 'record')}" for item in read_tombstones(reading.run)]
    if told:
        yield "## Recalled"
        yield "Records that are not learnt from any more; models made before may have seen them."
        yield "\n".join(told)


def _limits(reading: Reading, promoted: Sequence[RoundRecord]) -> Iterator[str]:
    missing = ["anything that the probes above do not measure", "safety, and fairness beyond the subgroups that were named"]
    if not claim(reading.run) and promoted:
        missing.insert(
            0, "the model on fresh items: the figures are of items on which it was chosen, and a little too good (`bench.final`)"
        )
    yield "## Not checked"
    yield "\n".join(f"- {item}" for item in missing)
