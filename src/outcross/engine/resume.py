"""Starting a run, or going on with one: what the manifest says, whether it is still the same run, and what was left half done."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from outcross.engine.guards import gate_of, probes_of, watched_by
from outcross.engine.store import FORMAT, RunDir, file_hash, sweep, write_json
from outcross.errors import ConfigError, StoreError
from outcross.recipe import Recipe, Release, canonical, fingerprint
from outcross.stages import Model, Role, name_of

PACKAGES = ("outcross", "numpy", "pyarrow", "torch", "transformers")


def manifest_of(
    recipe: Recipe, models: Mapping[Role, Model], seed: int, name: str, config: Mapping[str, Any], headings: list[str], keep: str | int
) -> dict[str, Any]:
    """What manifest.json holds: all that says what this run is."""
    return {
        "format": FORMAT,
        "name": name,
        "recipe": {"name": recipe.name, "paper": recipe.paper, "fingerprint": fingerprint(recipe), "canonical": canonical(recipe)},
        "config": config,
        "seed": seed,
        "phases": [_phase(recipe, index) for index in range(len(recipe.phases))],
        "models": {role: {"id": model.id, "depth": model.depth} for role, model in sorted(models.items())},
        "headings": headings,
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "keep_models": keep,
        "probes": _probes(recipe),
    }


def _phase(recipe: Recipe, index: int) -> dict[str, Any]:
    phase = recipe.phases[index]
    return {
        "name": phase.name,
        "rounds": phase.rounds,
        "inner": phase.inner,
        "learn": sorted(phase.learn),
        "mixture": asdict(phase.mix),
        "gate": name_of(gate_of(recipe.bench, phase)),
        "probes": [probe.name for probe in probes_of(recipe.bench, phase)],
        "release": None if phase.release is None else _release(phase.release),
        "expert": None if phase.expert is None else asdict(phase.expert),
    }


def _release(release: Release) -> dict[str, Any]:
    probes = [{"name": probe.name, "kind": probe.kind, "ground": probe.ground, **asdict(probe.bounds)} for probe in release.probes]
    return {"gate": name_of(release.gate), "alpha": release.gate.alpha, "probes": probes}


def _probes(recipe: Recipe) -> list[dict[str, Any]]:
    found = {probe.name: probe for phase in recipe.phases for probe in watched_by(recipe.bench, phase)}
    return [{"name": name, "kind": probe.kind, "margin": probe.margin, "ground": probe.ground} for name, probe in sorted(found.items())]


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue


def prepare(run: RunDir, manifest: dict[str, Any]) -> int:
    """Write the manifest of a new run, or check that an existing one is the same. Returns the number of this attempt.

    Raises `ConfigError` with the differences when the folder holds another run.
    """
    if run.exists:
        check_same(run, manifest)
        sweep(run)
    else:
        write_json(run.root / "manifest.json", manifest)
    attempt = 1 + sum(1 for _ in (run.root / "logs").glob("attempt_*"))
    (run.root / "logs" / f"attempt_{attempt}").mkdir(parents=True)
    return attempt


def check_same(run: RunDir, manifest: dict[str, Any]) -> None:
    """Raises `ConfigError` with the differences when the folder holds another run."""
    changed = [
        line
        for key in ("recipe", "seed", "models")
        for line in _differences(_plain(run.manifest[key]), _plain(manifest[key]), key)
        if not line.startswith("recipe.fingerprint")
    ]
    if changed:
        shown = "\n".join(f"  {line}" for line in changed[:12])
        more = f"\n  … and {len(changed) - 12} more" if len(changed) > 12 else ""
        raise ConfigError(
            f"{run.root} holds another run; these differ (there → here):\n{shown}{more}\n"
            "Use another folder (--out) for the changed run, or undo the change to resume this one."
        )


def check_intact(run: RunDir) -> None:
    """Raises `StoreError` when a file of a complete round is gone, or is not the one whose checksum the round's record holds: what is not
    there would otherwise not be learnt from, and nobody would be told."""
    wrong = [
        f"{path} {'was changed' if path.exists() else 'is gone'}"
        for turn in run.rounds()
        for name, digest in turn.record["files"].items()
        for path in [turn.folder / name]
        if not path.exists() or file_hash(path) != digest
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise StoreError(
            f"the record of {run.root} is not what was written: {'; '.join(wrong[:5])}{more}. Restore the files from a copy; later rounds "
            "learn from them, and records are never rebuilt silently"
        )


def changed_versions(run: RunDir, manifest: Mapping[str, Any]) -> str:
    """What is installed in another version than when the run was begun, in a sentence; empty when nothing is."""
    old, new = run.manifest["versions"], manifest["versions"]
    told = [f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return (
        f"the run was begun with other versions ({', '.join(told)}); what follows may differ from what it would have been" if told else ""
    )


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict) and not (_is_number(old) or _is_number(new)):
        for key in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _differences(before, after, f"{path}[{index}]")
    elif old != new:
        yield f"{path}: {_short(old)} → {_short(new)}"


def _is_number(value: Any) -> bool:
    """Whether this is a number in the exact form that fingerprints use, which nobody can read."""
    return isinstance(value, dict) and set(value) == {"float"}


def _short(value: Any) -> str:
    if _is_number(value):
        return f"{float.fromhex(value['float']):g}"
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"


def seconds_before(run: RunDir) -> float:
    """Wall-clock seconds that finished steps of earlier attempts took."""
    return sum(seconds for _, seconds in seconds_by_step(run))


def seconds_by_step(run: RunDir) -> Iterator[tuple[str, float]]:
    """(round label, seconds) of every step that an attempt finished or was stopped in."""
    path = run.root / "metrics.jsonl"
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
            yield str(found.get("round", "")), float(found.get("seconds", 0.0))
        except (json.JSONDecodeError, AttributeError):
            continue  # the last line of a killed attempt may be cut off


def append_metric(run: RunDir, metric: Mapping[str, Any]) -> None:
    """Add one line to metrics.jsonl, the only place besides logs/ that knows clocks and hosts."""
    line = json.dumps(metric, sort_keys=True) + "\n"
    handle = os.open(run.root / "metrics.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, line.encode())
    finally:
        os.close(handle)
