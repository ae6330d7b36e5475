"""The card of an exported data set: Markdown with the front matter that Hugging Face reads. It says what was measured, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outcross.report import numbers as n
from outcross.report.card_parts import contamination, gates, people, price, settings, verifiers
from outcross.report.markdown import cell, quoted, table
from outcross.report.read import Reading, turns_of
from outcross.report.record import Count, RoundRecord

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"))


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
    """The whole card. `mark` stands in a comment, by which a later export knows this one; "" for a card that no export replaces."""
    said = dict(reading.manifest.config.get("card", {})) if isinstance(reading.manifest.config, Mapping) else {}
    rounds = [item for item in reading.rounds if item.label in written.rounds]
    parts = [
        _front(said, reading, written),
        *([f"<!-- {mark}: made from the record of the run; another export to this folder replaces it -->"] if mark else []),
        f"# {said.get('title') or reading.manifest.name}",
        *_flags(reading, written, rounds),
        reading.summary.verdict,
        *([said["notes"]] if said.get("notes") else []),
        *_rows(written),
        *_models(said, reading),
        *_counts(rounds),
        *verifiers(rounds, "these rows"),
        *people(rounds),
        *gates(reading.rounds, "these rows were"),
        *contamination(reading, rounds),
        *price(reading),
        *_not_checked(reading, rounds),
        *_again(reading),
    ]
    return "\n\n".join(parts) + "\n"


def _front(said: Mapping[str, Any], reading: Reading, written: Written) -> str:
    lines = ["---", f"pretty_name: {quoted(said.get('title') or reading.manifest.name)}"]
    if said.get("license"):
        lines.append(f"license: {quoted(said['license'])}")
    if said.get("language"):
        lines += ["language:", *(f"- {quoted(item)}" for item in said["language"])]
    size = next((name for most, name in SIZES if written.rows < most), "n>10M")
    lines += ["tags:", "- synthetic", "- outcross", "size_categories:", f"- {size}", "configs:", "- config_name: default", "  data_files:"]
    for split in written.splits:
        lines += [f"  - split: {split}", f"    path: data/{split}/**" if written.form == "images" else f"    path: data/{split}-*.parquet"]
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
    given_models = reading.manifest.config.get("models", {}) if isinstance(reading.manifest.config, Mapping) else {}
    lines = []
    for role, model in reading.manifest.models.items():
        given = given_models.get(role)
        given = given_models.get(given, {}) if isinstance(given, str) else given or {}
        name = given.get("model") or given.get("path") or given.get("use") or "given from Python"
        shown = str(name).rstrip("/").rpartition("/")[2] if given.get("path") and not given.get("model") else name
        lines.append((role, cell(shown), f"`{n.short(model.id)}`", n.count(model.depth), cell(terms.get(role) or "not stated")))
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
    return ", ".join(f"{cell(name)} {n.count(amount)}" for name, amount in ranked[:6]) + more


# ── what was not checked ───────────────────────────────────────────────────────────────────────────────────────────────────
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


def _again(reading: Reading) -> Iterator[str]:
    manifest = reading.manifest
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    paper = f" ({manifest.recipe.paper})" if manifest.recipe.paper else ""
    yield "## How to make it again"
    yield (
        f"Recipe `{manifest.recipe.name}`{paper}, fingerprint `{manifest.recipe.fingerprint}`, seed {manifest.seed}; {versions}. Save the settings "
        "below as `run.yaml`, with an endpoint of yours where one is needed, then `outcross run run.yaml`. The same recipe, seed and models' answers give the same rows; what an endpoint "
        "answers may change."
    )
    yield from settings(manifest.config, without=("gate",))
