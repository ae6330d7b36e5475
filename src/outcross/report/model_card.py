"""The card of a model that a run taught: Markdown with the front matter that Hugging Face reads. It says what was measured, and no more.

The front matter follows the Hub's model card metadata, results as a `model-index`. What only the user knows (licence, the base model's
name on the Hub where the run was given a folder) stands there as a comment to fill in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from outcross.engine.store import PRIMARY, read_measurements
from outcross.report import numbers as n
from outcross.report.card_parts import contamination, gates, people, price, settings, verifiers
from outcross.report.depth_part import depth_words, mean_depth
from outcross.report.judges_part import lines, title
from outcross.report.markdown import cell, table
from outcross.report.parts import change_text, interval
from outcross.report.read import Reading
from outcross.report.record import RoundRecord, read_tombstones

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HELD_OUT = ("held-out items of the run", "outcross-held-out")
FRESH = ("fresh items, which no gate saw", "outcross-fresh")


def model_card(reading: Reading) -> str:
    """The whole card of the champion of a run that trains. Raises `StoreError` when the record is damaged."""
    said = _said(reading)
    parts = [
        _front(said, reading),
        f"# {_line(said.get('title') or reading.manifest.name)}",
        *_flags(reading),
        reading.summary.verdict,
        *([said["notes"]] if said.get("notes") else []),
        *_model(reading),
        *_learnt(reading),
        *_found(reading),
        *verifiers(reading.rounds, "the answers it learnt from"),
        *_judges(reading),
        *people(reading.rounds),
        *gates(reading.rounds, "this model was"),
        *_alarms(reading),
        *_recalled(reading),
        *contamination(reading, reading.rounds),
        *price(reading),
        *_limits(reading),
        *_again(reading),
    ]
    return "\n\n".join(parts) + "\n"


def _said(reading: Reading) -> Mapping[str, Any]:
    config = reading.manifest.config
    return dict(config.get("card") or {}) if isinstance(config, Mapping) else {}


# ── front matter ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _front(said: Mapping[str, Any], reading: Reading) -> str:
    base, language_model = _base(reading), _is_language_model(reading)
    stated = {
        "license": said.get("license"),
        "language": said.get("language"),
        "library_name": "transformers" if language_model else None,
        "pipeline_tag": "text-generation" if language_model else None,
        "base_model": base if HUB_NAME.fullmatch(base) else None,
        "tags": ["outcross", "self-training", "synthetic"],
        "model-index": _index(reading, "text-generation" if language_model else "other"),
    }
    shown = yaml.safe_dump({key: value for key, value in stated.items() if value}, sort_keys=False, allow_unicode=True, width=140).rstrip()
    open_ = [] if said.get("license") else ["# license: for you to state"]
    open_ += [] if stated["base_model"] else [f"# base_model: its name on the Hub, for you to state; the run began with {_line(base)}"]
    open_ += ["# datasets: the names on the Hub of the real data, for you to state"]
    return "\n".join(["---", shown, *open_, "---"])


def _base(reading: Reading) -> str:
    """What the run file calls the first model: a name, or of a path its last part."""
    config = reading.manifest.config
    models = config.get("models") or {} if isinstance(config, Mapping) else {}
    given = models.get(PRIMARY)
    given = models.get(given) if isinstance(given, str) else given
    while isinstance(given, Mapping) and isinstance(given.get("model"), Mapping):  # a model that wraps another
        given = given["model"]
    if not isinstance(given, Mapping):
        return "a model given from Python"
    if given.get("model"):
        return str(given["model"])
    return str(given.get("path") or given.get("use") or "").rstrip("/").rpartition("/")[2]


def _line(text: str) -> str:
    return " ".join(text.split())


def _is_language_model(reading: Reading) -> bool:
    """Whether the champion is a folder that `transformers` loads as a causal language model."""
    folder = reading.run.champion()
    path = (folder or reading.run.start / "model") / "config.json"
    if not path.is_file():
        return False
    named = json.loads(path.read_text(encoding="utf-8")).get("architectures") or []
    return any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in named)


def _index(reading: Reading, task: str) -> list[dict[str, Any]]:
    """What was measured of this model, as the Hub's `model-index`; nothing of a model that is still the first one."""
    held = {track.probe: (track.now.mean, track.unit) for track in reading.summary.tracks}
    fresh = {
        name: (found.mean, found.unit) for name, found in read_measurements(reading.run.root / "final" / "measurements.parquet").items()
    }
    results = []
    for (named, kind), values in ((HELD_OUT, held), (FRESH, fresh)):
        metrics = [
            {"type": probe, "value": value, "name": f"{n.words(probe)}{f' ({unit})' if unit else ''}"}
            for probe, (value, unit) in values.items()
            if math.isfinite(value)
        ]
        if metrics:
            results.append({"task": {"type": task}, "dataset": {"name": named, "type": kind}, "metrics": metrics})
    return [{"name": reading.manifest.name, "results": results}] if results and reading.summary.tally.promoted else []


# ── what it is ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def _flags(reading: Reading) -> Iterator[str]:
    """What a reader must know before any number."""
    found = [] if reading.summary.tally.promoted else ["no round was promoted: this is the model that the run began with"]
    found += reading.summary.headings
    found += [
        f"real floor waived: {item.label}, {role}: {mixed.floor.partition(':')[2].strip()}"
        for item in reading.rounds
        for role, mixed in item.mixtures.items()
        if mixed.floor.startswith("waived")
    ]
    if found:
        yield "\n".join(f"> **{_line(text[0].upper() + text[1:]).rstrip('.')}.**  " for text in found)


def _chain(reading: Reading, role: str) -> dict[str, RoundRecord]:
    """The rounds whose training is in the model that holds `role` now, newest first, by the model that they made."""
    made = {item.fits[role].model: item for item in reading.rounds if role in item.fits}
    holds = next((item.champion[role].id for item in reversed(reading.rounds) if item.outcome == "promoted" and role in item.champion), "")
    found: dict[str, RoundRecord] = {}
    while holds in made and holds not in found:
        found[holds] = made[holds]
        holds = made[holds].fits[role].start
    return found


def _model(reading: Reading) -> Iterator[str]:
    yield "## The model"
    rows = []
    for role, first in reading.manifest.models.items():
        if not any(role in item.fits for item in reading.rounds):
            continue
        chain = _chain(reading, role)
        now, item = next(iter(chain.items()), (first.id, None))
        depth = item.fits[role].depth if item is not None else first.depth
        told = ", ".join(other.label for other in reversed(chain.values())) or "none: it is the first model, as it was given"
        rows.append((role, f"`{n.short(first.id)}`", f"`{n.short(now)}`", n.count(depth), cell(told)))
    if not rows:
        yield "No model was trained."
        return
    yield table(("role", "first model", "this model", "generation depth", "taught in"), rows)
    yield (
        "The generation depth counts the generations of model-written text that a model learnt from, here and, as far as it was stated, before. "
        "What a first model of depth 0 had learnt is not known to the run."
    )


def _learnt(reading: Reading) -> Iterator[str]:
    """The mixtures, and which of them this model holds."""
    rows = []
    for item in reading.rounds:
        for role, mixed in item.mixtures.items():
            inside = any(other is item for other in _chain(reading, role).values())
            share, depth = mixed.real_share, mean_depth(mixed)
            rows.append(
                (
                    item.label,
                    role,
                    "yes" if inside else f"no ({item.outcome})",
                    n.count(mixed.records),
                    n.count(mixed.tokens),
                    n.percent(share.get("records", 0.0)),
                    n.percent(share.get("tokens", 0.0)),
                    "not known" if depth is None else n.compact(depth),
                    cell(depth_words(mixed)),
                )
            )
    if rows:
        heads = ("round", "role", "in this model", "rows", "tokens", "real rows", "real tokens", "mean depth", "tokens by depth")
        yield "## What it learnt"
        yield "Repeats and weights are counted. Real is what is proved or attested to be written by people; unknown origin counts as synthetic."
        yield table(heads, rows)


# ── what was found ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _found(reading: Reading) -> Iterator[str]:
    tracks = reading.summary.tracks
    yield "## Results"
    if not tracks:
        yield "None: nothing was measured."
        return
    rows = [
        (
            n.words(track.probe),
            track.kind,
            n.with_unit(track.first.mean, track.unit),
            n.with_unit(track.now.mean, track.unit),
            interval(track.now, track.unit),
            f"{change_text(track.change, track.unit)} {n.difference_unit(track.unit)}".rstrip(),
            n.difference(track.margin, track.unit).lstrip("+"),
            n.count(track.now.items),
            track.verdict,
        )
        for track in tracks
    ]
    yield table(("probe", "kind", "first model", "this model", "95 %", "change [95 %]", "margin", "items", "finding"), rows)
    chosen = " This model was chosen by these measurements, so that they flatter it." if reading.summary.tally.promoted else ""
    yield f"On the run's held-out items; a change is this model minus the first, paired by items.{chosen}"


def _judges(reading: Reading) -> Iterator[str]:
    if reading.judges:
        yield "## Judges"
    for found in reading.judges:
        yield f"**{cell(title(found))}**"
        yield table(("", "estimate", "95 % interval", "n"), [tuple(map(cell, row)) for row in lines(found)])


def _alarms(reading: Reading) -> Iterator[str]:
    rows = [
        (
            item.label,
            n.words(alarm.probe),
            alarm.against,
            n.signed(alarm.change, item.units.get(alarm.probe, "")),
            alarm.action.replace("_", " "),
        )
        for item in reading.rounds
        for alarm in item.moved
    ]
    told = [f"{item.label}: {line}" for item in reading.rounds for line in item.alarms]
    back = [
        f"{item.label} returned to {item.rolled_back.to}; undone: {', '.join(item.rolled_back.rounds)}"
        for item in reading.rounds
        if item.rolled_back is not None and item.rolled_back.rounds
    ]
    if rows or told or back:
        yield "## Alarms"
    if rows:
        yield table(("round", "probe", "against", "change", "what followed"), rows)
    if told or back:
        yield "\n".join(f"- {_line(line)}" for line in [*told, *back])


def _recalled(reading: Reading) -> Iterator[str]:
    found = list(read_tombstones(reading.run))
    if found:
        yield "## Recalled"
        yield "No later training held these records. Rounds that were taught before a recall may have learnt from them."
        yield table(("why", "records"), [(cell(item.told), n.count(len(item.records))) for item in found])


def _limits(reading: Reading) -> Iterator[str]:
    headings = " ".join(reading.summary.headings)
    missing = [] if any(item.verifiers for item in reading.rounds) else ["whether the answers that it learnt from are right"]
    missing += ["whether its training data resemble data written by people"] if "no real anchor" in headings else []
    missing += [] if (reading.run.root / "final" / "measurements.parquet").exists() else ["how good it is on items that no gate has seen"]
    missing += [
        "abilities that no probe above measures: they may have been lost",
        "personal data, secrets and offence in the texts that it learnt from or writes",
        "whether the terms of its base model and of other models' answers allow your use",
    ]
    yield "## Not checked"
    yield "\n".join(f"- {item}" for item in missing)


def _again(reading: Reading) -> Iterator[str]:
    manifest = reading.manifest
    versions: Sequence[str] = [f"{name} {version}" for name, version in manifest.versions.items()]
    paper = f" ({manifest.recipe.paper})" if manifest.recipe.paper else ""
    how = (
        "Save the settings below as `run.yaml`, with paths of yours, then `outcross run run.yaml`."
        if manifest.config
        else "It was started from Python."
    )
    yield "## How to make it again"
    yield (
        f"Recipe `{manifest.recipe.name}`{paper}, fingerprint `{manifest.recipe.fingerprint}`, seed {manifest.seed}; {', '.join(versions)}. {how} "
        "The same recipe, data, models and seed on the same machine give the same model; what an endpoint answers may change."
    )
    yield from settings(manifest.config)
