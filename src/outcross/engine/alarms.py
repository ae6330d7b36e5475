"""What follows from a monitor's alarms: they are recorded, refuse, raise the floor of real data, stop the run, or roll it back.

All of it is decided when a round's record is written and derived from records ever after, so that a run that is killed and resumed goes the
same way. A rollback takes effect as a promotion does: by `take_effect`, after the record is complete, and as often as one likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from outcross.engine.guards import watched_by
from outcross.engine.store import RoundDir, RunDir, read_json, write_json
from outcross.engine.tables import rows_of
from outcross.errors import GuardError
from outcross.recipe import Bench, Mixture, Phase
from outcross.text import prompt_text
from outcross.types import ACTIONS, Action, Alarm, Comparison, Decision

Json = dict[str, Any]
CHARACTERS = 200  # of an example row
NOTHING_TO_RAISE = "; there is no floor of real data to raise"


def watch(bench: Bench, phase: Phase, comparison: Comparison, done: Sequence[RoundDir]) -> Json:
    """The round's `moved` (its alarms), for its record, and `rolled_back` where they ask for that; nothing without a monitor."""
    monitor = bench.alarms
    if monitor is None:
        return {}
    margins = {probe.name: probe.margin for probe in watched_by(bench, phase)}
    before = [alarms_of(turn) for turn in done if "moved" in turn.record]
    found = [_possible(alarm, phase.mix) for alarm in monitor(comparison, margins, before)]
    texts = _texts(bench, {item for alarm in found for item in alarm.items})
    told = [msgspec.structs.replace(alarm, rows=tuple(texts[item] for item in alarm.items if item in texts)) for alarm in found]
    entry: Json = {"moved": [msgspec.to_builtins(alarm) for alarm in told]}
    if _reaches(told, "roll_back"):
        held = good(done)
        since = done[done.index(held) + 1 :] if held is not None else done
        entry["rolled_back"] = {"to": "start" if held is None else held.label, "rounds": [turn.label for turn in since if turn.promoted]}
    return entry


def alarms_of(turn: RoundDir) -> list[Alarm]:
    """The alarms on a round's record."""
    return [msgspec.convert(item, Alarm) for item in turn.record.get("moved", ())]


def good(done: Sequence[RoundDir]) -> RoundDir | None:
    """The last promoted round that raised no warning; None when the first champion is the last good one."""
    return next((turn for turn in reversed(done) if turn.promoted and not _reaches(alarms_of(turn), "warn")), None)


def acted_on(decision: Decision, made: Mapping[str, Any]) -> Decision:
    """The decision once alarms are heard: they promote nothing, and refuse where they stop the run."""
    told = [item["reason"] for item in made.get("moved", ()) if ACTIONS.index(item["action"]) >= ACTIONS.index("stop")]
    if not told or not decision.promote:
        return decision
    return msgspec.structs.replace(decision, promote=False, reason=f"alarm: {'; '.join(told)}. The gate said: {decision.reason}")


def lifted(bench: Bench, phase: Phase, done: Sequence[RoundDir]) -> Phase:
    """The phase with the floor of real data that earlier alarms have raised, and as it was where none has."""
    times = sum(_reaches(alarms_of(turn), "raise_real") for turn in done)
    if not times or bench.alarms is None or not _has_floor(phase.mix):
        return phase
    mix = phase.mix
    if mix.floor == "anchor":
        return replace(phase, mix=replace(mix, anchor=mix.anchor + times * bench.alarms.step))
    return replace(
        phase, mix=replace(mix, real_floor=max(mix.real_floor, min(bench.alarms.most, mix.real_floor + times * bench.alarms.step)))
    )


def stop(made: Mapping[str, Any], root: Path) -> None:
    """Raises `GuardError` for an alarm that is to end the run; its round is complete on the record."""
    told = [item["reason"] for item in made.get("moved", ()) if ACTIONS.index(item["action"]) >= ACTIONS.index("stop")]
    if not told:
        return
    back = made.get("rolled_back")
    undone = ", ".join(back["rounds"]) if back else ""
    rolled = f" The run was rolled back to {back['to']}, without {undone}." if back and undone else ""
    raise GuardError(
        f"alarm: {'; '.join(told)}.{rolled} The run stopped after this round; `outcross resume {root}` goes on with the next one"
    )


def take_effect(run: RunDir, done: Sequence[RoundDir]) -> None:
    """Let recorded rollbacks take effect: what the undone rounds made is tombstoned, and they count as promoted no more. Doing it again
    changes nothing."""
    for turn in done:
        undone: list[str] = turn.record.get("rolled_back", {}).get("rounds", [])
        waiting = [item for item in done if item.label in undone and not item.undone]
        if not waiting:
            continue
        reason = {"rollback": turn.label}
        if not any(read_json(path)["reason"] == reason for path in (run.root / "tombstones").glob("*.json")):
            run.bury([name for item in waiting for name in _made(item)], reason)
        for item in waiting:
            write_json(item.folder / "rolled_back.json", {"by": turn.label})


def _made(turn: RoundDir) -> Iterable[str]:
    """Samples and examples of a round, by id."""
    for part in turn.parts():
        for path in sorted((*part.glob("groups.parquet"), *part.glob("drops.parquet"), *part.glob("examples*.parquet"))):
            yield from (row["id"] for row in rows_of(path, ["id"]))


def _reaches(alarms: Iterable[Alarm], action: Action) -> bool:
    return any(ACTIONS.index(alarm.action) >= ACTIONS.index(action) for alarm in alarms)


def _has_floor(mix: Mixture) -> bool:
    return isinstance(mix.floor, str)


def _possible(alarm: Alarm, mix: Mixture) -> Alarm:
    """A floor that was waived cannot be raised: what is left is a warning."""
    if alarm.action != "raise_real" or _has_floor(mix):
        return alarm
    return msgspec.structs.replace(alarm, action="warn", reason=alarm.reason + NOTHING_TO_RAISE)


def _texts(bench: Bench, wanted: set[str]) -> dict[str, str]:
    """What the bench's held-out and real rows with these identifiers say, clipped."""
    found = {}
    for task in bench.held_out if wanted else ():
        if task.id in wanted:
            found[task.id] = prompt_text(task.prompt)[:CHARACTERS]
    for example in (bench.real or ()) if wanted - set(found) else ():
        if example.id in wanted:
            said = example.completion if isinstance(example.completion, str) else ""
            found.setdefault(example.id, f"{prompt_text(example.prompt)} {said}".strip()[:CHARACTERS])
    return found
