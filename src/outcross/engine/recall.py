"""When a verifier is found broken: every record it let in, every model that learnt from one, and their tombstones."""

from __future__ import annotations

from dataclasses import dataclass

from outcross.engine.store import RunDir, read_json
from outcross.engine.tables import rows_of
from outcross.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Recall:
    """`samples` and `examples` by id, in the order in which they were made; `rounds` that hold them; `models` that saw one
    of the examples, directly or through the model they started from, as folders relative to the run."""

    samples: tuple[str, ...]
    examples: tuple[str, ...]
    rounds: tuple[str, ...]
    models: tuple[str, ...]


def recall(run: RunDir, verifier: str, before: str | None = None, *, bury: bool = False) -> Recall:
    """Find what `verifier` scored, in any version or in those other than and before `before`; tombstone it with `bury`.

    Versions are compared as dotted numbers where both are, else by equality: anything but `before` counts as affected.
    Raises `ConfigError` when the run never used the verifier.
    """
    samples: dict[str, None] = {}
    examples: dict[str, None] = {}
    rounds: dict[str, None] = {}
    for turn in run.begun():
        for part in turn.parts():
            for name in ("groups.parquet", "drops.parquet"):
                for row in rows_of(part / name, ["id", "scores", "outcross"]):
                    if _used(row, verifier, before):
                        samples[row["id"]] = None
                        rounds[turn.label] = None
            for path in sorted(part.glob("examples*.parquet")):
                for row in rows_of(path, ["id", "outcross"]):
                    if any(parent in samples for parent in row["outcross"]["parents"]):
                        examples[row["id"]] = None
    known = {name for turn in run.rounds() for name in turn.record["verifiers"]}
    if not samples and verifier not in known:  # a verifier inside a generator is known from the samples' origins alone
        raise ConfigError(f"{run.root} never used the verifier {verifier!r}; {did_you_mean(verifier, known)}")
    found = Recall(tuple(samples), tuple(examples), tuple(rounds), _models(run, examples))
    if bury and found.samples:
        run.bury([*found.samples, *found.examples], {"recall": verifier, "before": before})
    return found


def _used(row: dict[str, object], verifier: str, before: str | None) -> bool:
    scores = row["scores"]
    origin = row["outcross"]
    assert isinstance(scores, list) and isinstance(origin, dict)
    versions = [score["version"] for score in scores if score["verifier"] == verifier]
    versions += [tag.rpartition("@")[2] for tag in origin["verifiers"] if tag.rpartition("@")[0] == verifier]
    return any(before is None or _earlier(version, before) for version in versions)


def _earlier(version: str, before: str) -> bool:
    try:
        return tuple(map(int, version.split("."))) < tuple(map(int, before.split(".")))
    except ValueError:
        return version != before


def _models(run: RunDir, examples: dict[str, None]) -> tuple[str, ...]:
    """Model folders that saw a recalled example, and those built on such a model."""
    tainted: set[str] = set()
    folders: dict[str, None] = {}
    for part in (part for turn in run.begun() for part in turn.parts()):
        for marker in sorted((part / "steps").glob("fit*.json")):
            made, of = read_json(marker), marker.stem.removeprefix("fit")  # the role's suffix
            seen = any(row["id"] in examples for row in rows_of(part / f"order{of}.parquet", ["id"]))
            if seen or made["start"] in tainted:
                tainted.add(made["model"])
                folders[str((part / f"model{of}").relative_to(run.root))] = None
    return tuple(folders)
