"""Which recorded rounds hold the models of a run, which of their folders stay on disk, and when a phase has reached its goal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from outcross.engine.store import RoundDir, RunDir, read_measurements
from outcross.recipe import Phase
from outcross.stages import Role

KeepModels = Literal["champion", "all"] | int


def holder(done: Sequence[RoundDir], role: Role) -> RoundDir | None:
    """The last round that promoted a model to `role` and was not rolled back; None while the first one holds it."""
    return next((turn for turn in reversed(done) if turn.promoted and role in turn.record["champion"]), None)


def reached(done: Sequence[RoundDir], phase: Phase, start: Path) -> str:
    """How the phase's `until` has come true for the model that holds now; empty while it has not. `start`: the first model's folder."""
    if phase.until is None:
        return ""
    name, wanted = phase.until
    last = next((turn for turn in reversed(done) if turn.promoted and name in turn.record["measurements"]), None)
    if last is not None:
        found = last.record["measurements"][name]
        value, higher = float(found["candidate"]), bool(found["higher_is_better"])
    elif (first := read_measurements(start / "measurements.parquet").get(name)) is not None:
        value, higher = first.mean, first.higher_is_better
    else:
        return ""
    return f"{name} is {value:.4g}, and the phase ends at {wanted:g}" if (value >= wanted if higher else value <= wanted) else ""


def prune(run: RunDir, done: Sequence[RoundDir], roles: Sequence[Role], keep: KeepModels, also: RoundDir | None) -> None:
    """Remove model folders that `keep` does not ask for; the champions, the champions as of `also` and the first models always stay."""
    if keep == "all":
        return
    last = [turn for turn in done if turn.promoted][-(1 if keep == "champion" else max(1, int(keep))) :]
    held = {found["folder"] for turn in last for found in turn.record["champion"].values()}
    for known in (done, done[: done.index(also) + 1] if also else ()):
        held |= {turn.record["champion"][role]["folder"] for role in roles if (turn := holder(known, role)) is not None}
    for path in _models(done):
        if str(path.relative_to(run.root)) not in held:
            doomed = path.with_name(path.name + ".tmp")
            path.replace(doomed)
            shutil.rmtree(doomed)


def _models(done: Iterable[RoundDir]) -> list[Path]:
    found: list[Any] = [path for turn in done for part in turn.parts() for path in part.glob("model*")]
    return [path for path in found if path.is_dir()]
