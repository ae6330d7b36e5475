"""Trackers that users bring: TensorBoard, trackio, Weights & Biases, MLflow, through accelerate's interface to them.

A run's own record does not depend on them: what they show is in its folder too, and one that fails is noted and left alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from outcross.engine.store import RoundDir, RunDir, read_json
from outcross.engine.watch import Watch
from outcross.errors import ConfigError, did_you_mean
from outcross.types import Decision, Group

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

PROJECT = "outcross"
NAMES = ("tensorboard", "trackio", "wandb", "mlflow")


def check(names: Sequence[str]) -> None:
    """Raises `ConfigError` for a tracker that is not known or not installed."""
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"there is no tracker {name!r}; {did_you_mean(name, NAMES)}")
    if names:
        try:
            from accelerate import utils
        except ImportError:
            raise ConfigError(f"the tracker {names[0]} needs the package 'accelerate': pip install 'outcross[torch]'") from None
        for name in names:
            if not getattr(utils, f"is_{name}_available")():
                raise ConfigError(f"the tracker {name!r} is not installed: pip install {name}")


@contextmanager
def tracked(names: Sequence[str], run: RunDir, name: str, config: Mapping[str, Any], watch: Watch) -> Iterator[Watch]:
    """`watch`, which also tells the trackers; without any, itself. Steps go on from those that the run has taken already."""
    if not names:
        yield watch
        return
    tracking = Tracking(watch, run, _taken(run))
    for item in names:
        tracking.begin(item, name, config)
    try:
        yield tracking
    finally:
        tracking.finish()


def _taken(run: RunDir) -> int:
    """Optimiser steps of all fits that are done, in inner turns and in a round that was stopped too; one that teaches several roles counts once."""
    parts = (part for turn in run.begun() for part in turn.parts())
    return sum(read_json(mark)["steps"] for part in parts for mark in (part / "steps").glob("fit*.json"))


class Tracking:
    """A watch that passes everything on, and tells trackers: per optimiser step its loss, gradient norm and learning rate, per round what was
    measured, the share of real data and whether it was promoted. All against optimiser steps of the whole run."""

    def __init__(self, watch: Watch, run: RunDir, taken: int) -> None:
        self._watch, self._run, self._taken = watch, run, taken
        self._trackers: dict[str, GeneralTracker] = {}

    def begin(self, tracker: str, name: str, config: Mapping[str, Any]) -> None:
        """Start one. A failure is noted."""
        try:
            made = _made(tracker, self._run, name)
            made.start()
            self._trackers[tracker] = made
            made.store_init_configuration(dict(_flat(config)))
        except Exception as error:
            self._fail(tracker, error)

    def finish(self) -> None:
        for tracker, made in list(self._trackers.items()):
            try:
                made.finish()
            except Exception as error:
                self._fail(tracker, error)

    # ── Watch ──────────────────────────────────────────────────────────────────────────────────────────────────────
    def stage(self, round: str, stage: str, done: int, total: int | None, counts: Mapping[str, float], /) -> None:
        self._watch.stage(round, stage, done, total, counts)

    def note(self, text: str, /) -> None:
        self._watch.note(text)

    def samples(self, round: str, groups: Sequence[Group], /) -> None:
        self._watch.samples(round, groups)

    def learnt(self, round: str, role: str, step: int, facts: Mapping[str, float], /) -> None:
        self._watch.learnt(round, role, step, facts)
        self._taken += 1
        self._log({f"{role}/{name}": value for name, value in facts.items()})

    def decided(self, round: str, outcome: str, decision: Decision | None, /) -> None:
        self._watch.decided(round, outcome, decision)
        self._log(dict(_of_round(self._run, round)))

    def _log(self, values: dict[str, float]) -> None:
        for tracker, made in list(self._trackers.items()):
            try:
                made.log(values, step=self._taken)
            except Exception as error:
                self._fail(tracker, error)

    def _fail(self, tracker: str, error: Exception) -> None:
        """Tracking is a convenience: a run of days does not end because a server is away."""
        self._trackers.pop(tracker, None)
        self._watch.note(
            f"{tracker} is not told any more ({type(error).__name__}: {error}); the run goes on, and its folder holds everything"
        )


def _made(tracker: str, run: RunDir, name: str) -> GeneralTracker:
    from accelerate import PartialState, tracking

    PartialState(cpu=True)  # accelerate's trackers write to its log, which wants this; a Trainer makes it anew
    if tracker == "tensorboard":
        folder = run.root / "logs" / "tensorboard"
        before = len(
            list(folder.rglob("events.*"))
        )  # files are named by the second: an attempt that follows at once must not write over the last one's
        return tracking.TensorBoardTracker(name, folder, filename_suffix=f".{before}")
    if tracker == "wandb":
        return tracking.WandBTracker(PROJECT, name=name, id=_identity(run), resume="allow", dir=str(run.root / "logs"))
    if tracker == "mlflow":
        return tracking.MLflowTracker(PROJECT, run_name=name)
    return tracking.TrackioTracker(PROJECT, name=name, resume="allow")


def _identity(run: RunDir) -> str:
    """What a run is called by a server that goes on with it after a stop."""
    path = run.root / "logs" / "tracker_id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _flat(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str | float | int | bool]]:
    """A nested configuration as dotted names with plain values, which all trackers take."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        elif value is not None:
            yield f"{before}{key}", value if isinstance(value, str | float | int | bool) else str(value)


def _of_round(run: RunDir, label: str) -> Iterator[tuple[str, float]]:
    """What a round's record says in numbers."""
    phase, _, number = label.rpartition("/")
    record = RoundDir(run.root / label, phase, int(number)).record
    yield "round/promoted", float(record["outcome"] in ("promoted", "released"))
    for probe, found in record["measurements"].items():
        yield f"probe/{probe}", found["candidate"]
    for role, mixed in record["mixtures"].items():
        yield f"mixture/{role}/real_records", mixed["real_share"]["records"]
        yield f"mixture/{role}/real_tokens", mixed["real_share"]["tokens"]
    for count in record["counts"]:
        yield f"{count['stage']}/{count['name'].partition(':')[0]}/kept", float(count["kept"])
