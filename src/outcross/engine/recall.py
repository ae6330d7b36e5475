"""When a verifier is found broken: every record it let in, every model that learnt from one, and their tombstones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outcross.engine.store import PRIMARY, RoundDir, RunDir, read_json
from outcross.engine.tables import rows_of
from outcross.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Recall:
    """`samples` and `examples` by id, in the order in which they were made; `rounds` that hold them; `models` that saw one
    of the examples, directly or through the model they started from, as folders relative to the run, and which of them were
    `promoted`. `counts`: samples by round. `passed`: the samples that the verifier let through; one inside a generator leaves no verdict,
    and all it touched count."""

    samples: tuple[str, ...]
    examples: tuple[str, ...]
    rounds: tuple[str, ...]
    models: tuple[str, ...]
    promoted: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


def recall(run: RunDir, verifier: str, before: str | None = None, *, bury: bool = False, keep: Collection[str] = ()) -> Recall:
    """Find what `verifier` scored, in any version or in those other than and before `before`; tombstone it with `bury`. Verifiers inside
    combinations and generators are found by the versions that name them. Samples in `keep`, whose verdict stands, are left out.

    Versions are compared as dotted numbers where both are, else by equality: anything but `before` counts as affected.
    Raises `ConfigError` when the run never used the verifier.
    """
    samples: dict[str, bool] = {}
    examples: dict[str, None] = {}
    rounds: dict[str, int] = {}
    kept = frozenset(keep)
    for turn, row in judged(run, verifier, before):
        if row["id"] not in kept:
            samples[row["id"]] = passed(row, verifier)
            rounds[turn.label] = rounds.get(turn.label, 0) + 1
    for turn in run.begun():
        for part in turn.parts():
            for path in sorted(part.glob("examples*.parquet")):
                for row in rows_of(path, ["id", "outcross"]):
                    if any(parent in samples for parent in row["outcross"]["parents"]):
                        examples[row["id"]] = None
    known = {name for turn in run.rounds() for top, item in turn.record["verifiers"].items() for name, _ in named(top, item["version"])}
    if not samples and not kept and verifier not in known:  # a verifier inside a generator is known from the samples' origins alone
        raise ConfigError(f"{run.root} never used the verifier {verifier!r}; {did_you_mean(verifier, known)}")
    models = _models(run, examples)
    folders = {holder["folder"] for turn in run.rounds() if turn.promoted for holder in turn.record["champion"].values()}
    promoted = tuple(folder for folder in models if folder in folders)
    through = tuple(name for name, right in samples.items() if right)
    found = Recall(tuple(samples), tuple(examples), tuple(rounds), models, promoted, through, tuple(rounds.values()))
    if bury and found.samples:
        tombstone(run, found, verifier, before)
    return found


def tombstone(run: RunDir, found: Recall, verifier: str, before: str | None, stand: int = 0) -> Path:
    """Tombstone what was found; `stand` says how many samples were verified anew and kept. The file that says so."""
    reason = {"recall": verifier, "before": before, "stand": stand}
    return run.bury([*found.samples, *found.examples], reason)


def judged(run: RunDir, verifier: str, before: str | None) -> Iterator[tuple[RoundDir, Mapping[str, Any]]]:
    """Every sample that `verifier` judged in an affected version, with its round: id, scores and origin."""
    for turn in run.begun():
        for part in turn.parts():
            for name in ("groups.parquet", "drops.parquet"):
                for row in rows_of(part / name, ["id", "scores", "outcross"]):
                    if any(before is None or _earlier(version, before) for version in versions(row, verifier)):
                        yield turn, row


def versions(row: Mapping[str, Any], verifier: str) -> list[str]:
    """The versions in which `verifier` judged a sample: by itself, inside a combination, or inside the sample's generator."""
    tags = [(score["verifier"], score["version"]) for score in row["scores"]]
    tags += [(name, version) for name, _, version in (tag.partition("@") for tag in row["outcross"]["verifiers"])]
    return [found for name, version in tags for inner, found in named(name, version) if inner == verifier]


def named(name: str, version: str) -> Iterator[tuple[str, str]]:
    """A verifier and those that its version names, however deep: `all_of`, `1(exact@1,any_of@1(math@2))` are all_of, exact, any_of and
    math, each with its version."""
    yield name, version
    inside = version.partition("(")[2]
    if not inside.endswith(")"):
        return
    depth = start = 0
    for place, letter in enumerate(inside):
        depth += (letter == "(") - (letter == ")")
        if (letter == "," and depth == 0) or depth < 0:
            part, at, of_part = inside[start:place].partition("@")
            start = place + 1
            if at:
                yield from named(part, of_part)


def passed(row: Mapping[str, Any], verifier: str) -> bool:
    """Whether every score that rests on `verifier` is a pass."""
    resting = [
        score["verdict"] for score in row["scores"] if any(name == verifier for name, _ in named(score["verifier"], score["version"]))
    ]
    return all(verdict == "pass" for verdict in resting)


def _earlier(version: str, before: str) -> bool:
    """A combination's own version stands before the parenthesis that names its parts."""
    if "(" not in before:
        version = version.partition("(")[0]
    try:
        return tuple(map(int, version.split("."))) < tuple(map(int, before.split(".")))
    except ValueError:
        return version != before


def _models(run: RunDir, examples: Mapping[str, None]) -> tuple[str, ...]:
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


# ── what it would cost ─────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Loss:
    """What a role's mixture of one round would lose with these records, weights and repeats counted: rows, tokens, and the share of the
    mixture's tokens; and the share of real tokens in it, before and after, if nothing took their place."""

    round: str
    role: str
    rows: float
    tokens: float
    share: float
    real: float
    real_after: float


def losses(run: RunDir, found: Recall) -> list[Loss]:
    """The loss of every mixture that holds a recalled example, in the order of the rounds."""
    examples = frozenset(found.examples)
    sizes: dict[str, int] = {}
    lost = []
    for turn in run.begun():
        for part in turn.parts():
            for path in sorted(part.glob("examples*.parquet")):
                sizes |= {row["id"]: row["n_tokens"] for row in rows_of(path, ["id", "n_tokens"]) if row["id"] in examples}
            for path in sorted(part.glob("mixture*.parquet")):
                of = path.stem.removeprefix("mixture")
                rows = [(row["id"], row["repeats"] * abs(row["weight"])) for row in rows_of(path) if row["id"] in examples]
                marker = part / "steps" / f"mix{of}.json"
                if rows and marker.exists():
                    label = turn.label if part == turn.folder else f"{turn.label}/{part.name.removeprefix('inner_')}"
                    lost.append(_loss(label, of.lstrip(".") or PRIMARY, rows, sizes, read_json(marker)))
    return lost


def _loss(label: str, role: str, rows: list[tuple[str, float]], sizes: Mapping[str, int], mixed: Mapping[str, Any]) -> Loss:
    tokens = sum(weight * sizes[name] for name, weight in rows)
    whole, real = mixed["tokens"], mixed["real_share"]["tokens"]
    left = whole - tokens
    share = tokens / whole if whole else 0.0
    return Loss(label, role, sum(weight for _, weight in rows), tokens, share, real, real * whole / left if left > 1e-9 else 0.0)


def untouched(run: RunDir, found: Recall, role: str = PRIMARY) -> Path | None:
    """The folder of the last champion of `role` that learnt from none of these records, the first one at the earliest, among those that
    are kept; None when none is."""
    taken = set(found.models)
    holders = [turn.record["champion"][role]["folder"] for turn in run.rounds() if turn.promoted and role in turn.record["champion"]]
    folders = [run.start / ("model" if role == PRIMARY else f"model.{role}"), *(run.root / name for name in holders if name not in taken)]
    return next((folder for folder in reversed(folders) if folder.is_dir()), None)
