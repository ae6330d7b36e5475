"""The card of an exported data set: Markdown with the front matter that Hugging Face reads. It says what was measured, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from outcross.report import numbers as n
from outcross.report.bill import Bill, Line
from outcross.report.read import Reading, turns_of
from outcross.report.record import Count, RoundRecord
from outcross.types import Check, Decision

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))
SHOWN = 30  # lines of a table


@dataclass(frozen=True)
class Written:
    """What an export wrote: rows by split; rows by origin (kind, proof, depth, source); the format; the rounds they come from; whether kept
    answers that passed no verifier are among them."""

    splits: Mapping[str, int]
    origins: Mapping[tuple[str, str, int, str], int]
    form: str
    rounds: tuple[str, ...]
    everything: bool

    @property
    def rows(self) -> int:
        return sum(self.splits.values())


def card(reading: Reading, written: Written, mark: str) -> str:
    """The whole card. `mark` stands in a comment, by which a later export knows this one."""
    said = dict(reading.manifest.config.get("card", {})) if isinstance(reading.manifest.config, Mapping) else {}
    rounds = [item for item in reading.rounds if item.label in written.rounds]
    parts = [
        _front(said, reading, written),
        f"<!-- {mark}: made from the record of the run; another export to this folder replaces it -->",
        f"# {said.get('title') or reading.manifest.name}",
        *_flags(reading, written, rounds),
        reading.summary.verdict,
        *([said["notes"]] if said.get("notes") else []),
        *_rows(written),
        *_models(said, reading),
        *_counts(rounds),
        *verifiers(rounds),
        *people(rounds),
        *_gates(reading.rounds, written),
        *_contamination(reading, rounds),
        *_price(reading),
        *_not_checked(reading, rounds),
        *again(reading),
    ]
    return "\n\n".join(parts) + "\n"


def _front(said: Mapping[str, Any], reading: Reading, written: Written) -> str:
    lines = ["---", f"pretty_name: {_quoted(said.get('title') or reading.manifest.name)}"]
    if said.get("license"):
        lines.append(f"license: {_quoted(said['license'])}")
    if said.get("language"):
        lines += ["language:", *(f"- {_quoted(item)}" for item in said["language"])]
    size = next((name for most, name in SIZES if written.rows < most), "n>10M")
    lines += ["tags:", "- synthetic", "- outcross", "size_categories:", f"- {size}", "configs:", "- config_name: default", "  data_files:"]
    for split in written.splits:
        lines += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    return "\n".join([*lines, "---"])


def _flags(reading: Reading, written: Written, rounds: Sequence[RoundRecord]) -> Iterator[str]:
    """What a reader must know before any number."""
    refused = [item.label for item in rounds if item.outcome == "refused"]
    found = [f"refused: the gate did not release the rows of {', '.join(refused)}; they were exported on request"] if refused else []
    found += reading.summary.headings
    if written.everything:
        found.append("unfiltered: answers that failed their verifiers or have no verdict are among the rows; see the column `verdict`")
    if found:
        yield "\n".join(f"> **{line[0].upper()}{line[1:]}.**  " for line in found)


# ── the rows and where they come from ──────────────────────────────────────────────────────────────────────────────────
def _rows(written: Written) -> Iterator[str]:
    splits = ", ".join(f"{n.count(rows)} {name}" for name, rows in written.splits.items())
    yield "## Rows"
    yield (
        f"{n.plural(written.rows, 'row')} ({splits}) in the format {written.form}, of {n.plural(len(written.rounds), 'round')}: {', '.join(written.rounds)}. "
        "Rows of one prompt are in one split. The column `outcross` holds the lineage of each row: its identifier, where it comes from, "
        "the identifiers it was made from, and the generations of model-written text behind it (`depth`)."
    )
    lines = [
        (kind, proof, n.count(depth), f"`{n.short(source)}`", n.count(rows), n.percent(rows / written.rows))
        for (kind, proof, depth, source), rows in sorted(written.origins.items(), key=lambda item: -item[1])
    ]
    yield table(("origin", "backed by", "depth", "source", "rows", "share"), lines)


def _models(said: Mapping[str, Any], reading: Reading) -> Iterator[str]:
    terms = said.get("model_licenses") or {}
    settings = reading.manifest.config.get("models", {}) if isinstance(reading.manifest.config, Mapping) else {}
    lines = []
    for role, model in reading.manifest.models.items():
        given = settings.get(role)
        given = settings.get(given, {}) if isinstance(given, str) else given or {}
        name = given.get("model") or given.get("path") or given.get("use") or "given from Python"
        shown = str(name).rstrip("/").rpartition("/")[2] if given.get("path") and not given.get("model") else name
        lines.append((role, _cell(shown), f"`{n.short(model.id)}`", n.count(model.depth), _cell(terms.get(role) or "not stated")))
    yield "## Models"
    yield table(("role", "model", "identity", "depth", "terms of its answers"), lines)
    if not said.get("license"):
        yield "No licence of the data set is stated."


def _counts(rounds: Sequence[RoundRecord]) -> Iterator[str]:
    yield "## From tasks to rows"
    yield "In samples: in = kept + dropped + failed, at every step. Nothing is deleted; what was set aside is in the record of the run."
    lines = []
    for item in rounds:
        for turn in turns_of(item.counts):
            lines += [
                (
                    item.label,
                    f"{count.stage} {count.name}",
                    *map(n.count, (count.into, count.kept, count.dropped, count.failed)),
                    _why(count),
                )
                for count in turn
            ]
    yield table(("round", "step", "in", "kept", "dropped", "failed", "of these"), lines)


def _why(count: Count) -> str:
    ranked = sorted(count.detail.items(), key=lambda item: -item[1])
    more = f", and {len(ranked) - 6} other reasons" if len(ranked) > 6 else ""
    return ", ".join(f"{_cell(name)} {n.count(amount)}" for name, amount in ranked[:6]) + more


# ── what was checked ───────────────────────────────────────────────────────────────────────────────────────────────────
def verifiers(rounds: Sequence[RoundRecord]) -> Iterator[str]:
    yield "## Verifiers"
    known = {name: record for item in rounds for name, record in item.verifiers.items()}
    if not known:
        yield "None. Whether these rows are right was not checked."
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
    asked = [(item.label, item.admission.decision, _cell(item.admission.reason)) for item in rounds if item.admission is not None]
    if asked:
        yield "## Admitted by people"
        yield "A random sample of each batch was judged before any of it was used; the shares hold whenever the people stopped looking."
        yield table(("round", "decision", "what was signed"), asked)


def _gates(rounds: Sequence[RoundRecord], written: Written) -> Iterator[str]:
    """Every decision of the run, refused rounds too, and every check with its bound."""
    yield "## Gate"
    decided = [item for item in rounds if item.decision is not None]
    if not decided:
        yield "None: these rows were held against nothing."
        return
    for item in decided:
        assert item.decision is not None
        yield f"**{item.label}: {item.outcome}{'' if item.decision.gated else ' (ungated)'}.** {reasoned(item.decision, item.outcome)}"
        units = item.units
        if item.release is not None and item.release.probes:
            yield table(("probe", "rows of the round", "95 %", "earlier releases", "real data", "tasks"), _probes(item))
        if item.decision.checks:
            heads = ("check", "against", "difference", "lower bound", "must exceed", "α", "power", "tasks", "holds")
            yield table(heads, [checked(check, units.get(check.probe, "")) for check in item.decision.checks])
    yield (
        "A difference is the round's minus the other's, signed so that higher is better; the lower bound holds with confidence 1 − α. Power is the "
        "chance that rows exactly as good pass. Limits of exact values have no bound: they speak of these rows alone. "
        "Shown is the absence of losses larger than the margins on these probes, not that the rows are good."
    )


def reasoned(decision: Decision, outcome: str) -> str:
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


def checked(check: Check, unit: str) -> tuple[str, ...]:
    return (
        n.words(check.probe),
        "its limit" if check.against == "limit" else {"real": "real data", "release": "earlier releases"}.get(check.against, check.against),
        n.signed(check.estimate, unit),
        n.difference(check.low, unit),
        n.difference(-check.margin, unit),
        n.number(check.alpha) if check.alpha else "exact",
        n.percent(check.power) if check.alpha else "",
        n.count(check.items),
        "yes" if check.passed else "**no**",
    )


def _contamination(reading: Reading, rounds: Sequence[RoundRecord]) -> Iterator[str]:
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


def _price(reading: Reading) -> Iterator[str]:
    yield "## Cost"
    bill = reading.bill
    took = f"All steps took {n.duration(reading.costs.total.seconds)} in {n.plural(reading.costs.attempts, 'attempt')}."
    if bill is None:
        yield f"No model was asked. {took}"
        return
    yield f"Of the whole run, refused rounds included. {took}"
    lines = [(", ".join(line.roles), f"`{n.short(line.model)}`", *_billed(line)) for line in bill.lines]
    total = [("all", "", *_billed(bill))] if len(lines) > 1 else []
    yield table(("role", "model", "requests", "tokens read", "tokens written", "money"), [*lines, *total])


def _billed(line: Line | Bill) -> tuple[str, ...]:
    money = "no price stated" if line.money is None else n.money(line.money)
    return (*map(n.count, (line.requests, line.prompt_tokens, line.completion_tokens)), money)


def _not_checked(reading: Reading, rounds: Sequence[RoundRecord]) -> Iterator[str]:
    headings = " ".join(reading.manifest.headings)
    missing = []
    if not any(item.verifiers for item in rounds):
        missing.append("whether answers are right")
    if "no real anchor" in headings:
        missing.append("whether rows resemble data written by people")
    if "not decontaminated" in headings:
        missing.append("whether rows hold items of benchmarks")
    missing += ["personal data, secrets and offence in the texts", "whether the terms of the models' providers allow a use of these rows"]
    missing.append("what a model becomes that learns them")
    yield "## Not checked"
    yield "\n".join(f"- {item}" for item in missing)


def again(reading: Reading) -> Iterator[str]:
    manifest = reading.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    paper = f" ({manifest.recipe.paper})" if manifest.recipe.paper else ""
    yield "## How to make it again"
    yield (
        f"Recipe `{manifest.recipe.name}`{paper}, fingerprint `{manifest.recipe.fingerprint}`, seed {manifest.seed}; {versions}. Save the settings "
        "below as `run.yaml`, with an endpoint of yours where one is needed, then `outcross run run.yaml`. The same recipe, seed and models' answers give the same rows; what an endpoint "
        "answers may change."
    )
    if manifest.config:
        shown = yaml.safe_dump(_public(manifest.config), sort_keys=False, allow_unicode=True, width=140).rstrip()
        yield f"<details><summary>Settings</summary>\n\n```yaml\n{shown}\n```\n\n</details>"


PRIVATE = ("url", "endpoints", "account", "headers_env", "key_env", "ca_file", "command")  # of a model: not the readers' to know
PATHS = ("path", "file", "folder", "tokenizer", "rows")


def _public(config: Mapping[str, Any]) -> dict[str, Any]:
    """What made the rows. Endpoints, folders and machines are left out: a card is published."""
    models = {role: _without(settings) for role, settings in config.get("models", {}).items()}
    bench = {key: value for key, value in config.get("bench", {}).items() if value not in (None, [], {}) and key != "gate"}
    kept = {key: config[key] for key in ("name", "recipe", "seed") if config.get(key) is not None}
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


# ── Markdown ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    listed = list(rows)
    shown = [f"| {' | '.join(row)} |" for row in listed[:SHOWN]]
    more = [f"| … {len(listed) - SHOWN} more |{' |' * (len(heads) - 1)}"] if len(listed) > SHOWN else []
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *shown, *more])


def _cell(text: object) -> str:
    """Text that breaks no table."""
    return " ".join(str(text).replace("|", "\\|").split())


def _quoted(text: object) -> str:
    """A YAML scalar."""
    return json.dumps(str(text), ensure_ascii=False)
