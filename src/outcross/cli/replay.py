"""Decisions of a gate on measurements that a run has stored, under other margins. Nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outcross.errors import ConfigError, StoreError, did_you_mean

if TYPE_CHECKING:
    from outcross.engine.store import RoundDir, RunDir
    from outcross.gate.non_inferior import NonInferior
    from outcross.types import Comparison, Decision, Measurement

NON_INFERIOR, OBSERVE = "outcross.gate.non_inferior:NonInferior", "outcross.gate.observe:Observe"


@dataclass(frozen=True)
class Replayed:
    """One round's decision as it was and as another gate would have taken it.

    after_change: an earlier decision differs, so that under the other gate this candidate would have had another parent or champion.
    """

    label: str
    promoted: bool
    new: Decision
    comparison: Comparison
    after_change: bool

    @property
    def changed(self) -> bool:
        return self.promoted != self.new.promote


def replay(run: RunDir, gate: NonInferior, margins: Mapping[str, float]) -> Iterator[Replayed]:
    """Every gated round of a run under `gate`, in order. `margins` replaces those on the record, by probe.

    Each candidate is held against the champion that the run had. A run under the other gate would part from this one at the first
    changed decision; what follows is told as if the champion had been the recorded one. Alpha is spent as in a run.

    Raises `ConfigError` for a probe that the run has not, `StoreError` where measurements are missing.
    """
    from outcross.engine.store import read_measurements
    from outcross.types import Comparison

    manifest = run.manifest
    learning = {phase["name"]: phase for phase in manifest["phases"] if phase["learn"]}
    recorded = {probe["name"]: probe["margin"] for probe in manifest["probes"]}
    _refuse_unknown((*margins, *gate.superior), recorded)
    first = champion = read_measurements(run.start / "measurements.parquet")
    planned = sum(phase["rounds"] for phase in learning.values())
    left, number, parted = gate.alpha, 0, False
    for item in run.rounds():
        if item.decision is None or item.phase not in learning:
            continue
        names = learning[item.phase]["probes"]
        measured = item.measurements()
        now = champion | read_measurements(item.folder / "measurements.champion.parquet")
        comparison = Comparison(
            _of(names, measured, "candidate", item),
            _of(names, now, "champion", item),
            _of(names, first, "first model", item),
            number,
            planned,
            left,
        )
        decision = gate(comparison, {name: margins.get(name, recorded[name]) for name in names})
        turn = Replayed(item.label, item.promoted, decision, comparison, parted)
        yield turn
        left, number, parted = max(0.0, left - decision.alpha_spent), number + 1, parted or turn.changed
        champion = measured if item.promoted else champion


def gate_of_run(run: RunDir) -> NonInferior:
    """The test of a run's gate: the gate itself, or what an observing gate observed. Raises `ConfigError` for another gate."""
    from outcross.gate.non_inferior import NonInferior

    found = run.manifest["recipe"]["canonical"]
    gate: dict[str, Any] = found["bench"]["gate"] if isinstance(found, dict) and "bench" in found else {}
    if gate.get("type") == OBSERVE:
        gate = gate["test"]
    if gate.get("type") != NON_INFERIOR:
        raise ConfigError(
            f"the gate of {run.root.name} is {gate.get('type', 'not on the record')!r}, which has no alpha to replay with; state one: --alpha 0.05"
        )
    return NonInferior(float.fromhex(gate["alpha"]["float"]), gate["minimum_items"], tuple(gate["superior"]))


def _refuse_unknown(named: tuple[str, ...], recorded: Mapping[str, float]) -> None:
    for name in named:
        if name not in recorded:
            raise ConfigError(f"the run has no probe {name!r}; {did_you_mean(name, recorded)}")


def _of(names: list[str], found: Mapping[str, Measurement], who: str, item: RoundDir) -> dict[str, Measurement]:
    missing = [name for name in names if name not in found]
    if missing:
        raise StoreError(f"{item.label} holds no measurement of {missing[0]!r} for the {who}; its decision cannot be replayed")
    return {name: found[name] for name in names}
