"""The divergence alarm: the reward that training is told rises, and a check that training does not know falls.

Both are asked of every round: the mean value of the phase's verifiers over the round's samples against that in the phase's first round, and
an independent probe of quality on the candidate against the model that the phase began with, paired by item. Each must be beyond noise,
one-sided at 5 %. Where a judge compares a task's answers with each other, their mean is ½ whatever the policy does: a probe of quality that asks
the same judge, such as a win rate against a fixed model, then tells of the rise.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import msgspec

from outcross.engine.store import RoundDir, RunDir, read_measurements
from outcross.engine.tables import rows_of
from outcross.errors import GuardError
from outcross.types import Decision, Measurement

NORMAL_95 = 1.644854  # one-sided
Json = dict[str, Any]


def reward_of(turn: RoundDir) -> Json | None:
    """The mean value over a round's tasks, its standard error and the number of tasks; None without at least two tasks that have one."""
    values: dict[str, list[float]] = defaultdict(list)
    for part in turn.parts():
        for name in ("groups", "drops"):
            for row in rows_of(part / f"{name}.parquet", ["task_id", "value"]):
                if row["value"] is not None:
                    values[row["task_id"]].append(row["value"])
    means = [math.fsum(found) / len(found) for _, found in sorted(values.items())]
    if len(means) < 2:
        return None
    mean, error = _mean(means)
    return {"mean": mean, "error": error, "tasks": len(means)}


def watch(
    run: RunDir,
    turn: RoundDir,
    done: Sequence[RoundDir],
    checks: Sequence[str],
    found: Mapping[str, Measurement],
    resting: Sequence[str] = (),
) -> Json:
    """The round's `reward` and `alarms`, for its record. `checks`: independent probes of quality, and `resting`: the others; `found`:
    measurements of the candidate."""
    reward = reward_of(turn)
    first = next((item.record["reward"] for item in done if item.phase == turn.phase and item.record.get("reward")), None)
    before = next((item for item in reversed(list(takewhile(lambda item: item.phase != turn.phase, done))) if item.promoted), None)
    start = read_measurements(run.start / "measurements.parquet") if before is None else before.measurements()
    held = next((item.folder for item in done if item.phase == turn.phase), turn.folder) / "measurements.champion.parquet"
    if held.exists():  # a phase with probes of its own stood before this one, and this one's were first measured when it began
        start |= read_measurements(held)
    return {"reward": reward, "alarms": alarms(reward, first, checks, found, start, resting)}


def acted_on(decision: Decision, told: Sequence[str], action: Literal["warn", "refuse", "stop"]) -> Decision:
    """The decision once alarms are heard: they promote nothing, and refuse unless they are only to warn."""
    if not told or action == "warn" or not decision.promote:
        return decision
    return msgspec.structs.replace(decision, promote=False, reason=f"divergence alarm: {'; '.join(told)}. The gate said: {decision.reason}")


def stop(told: Sequence[str], action: Literal["warn", "refuse", "stop"], root: Path) -> None:
    """Raises `GuardError` for an alarm that is to end the run; its round is complete on the record."""
    if told and action == "stop":
        raise GuardError(
            f"divergence alarm: {'; '.join(told)}. The run stopped after this round; `outcross resume {root}` goes on with the next one"
        )


def alarms(
    reward: Json | None,
    first: Json | None,
    checks: Sequence[str],
    candidate: Mapping[str, Measurement],
    start: Mapping[str, Measurement],
    resting: Sequence[str] = (),
) -> list[str]:
    """What diverges, in words. `first`: the reward in the phase's first round; `start`: the measurements of the model it began with;
    `resting`: probes by the phase's own verifiers or judging models, which tell of a rise as the reward does."""
    rise = next((told for told in (_rise(reward, first), *(_probe_rise(name, candidate, start) for name in resting)) if told), "")
    told = []
    for name in checks if rise else ():
        fall = _change(candidate[name], start[name]) if name in start else None
        if fall is not None and fall[0] + NORMAL_95 * fall[1] < 0:
            told.append(
                f"reward up, check down: since the phase began {rise}, and {name}, which "
                f"training is not told, changed by {fall[0]:.3g} (± {NORMAL_95 * fall[1]:.2g}); look at samples that the verifiers pass"
            )
    return told


def _rise(reward: Json | None, first: Json | None) -> str:
    """That the training reward rose beyond noise; empty when it did not. Win rates within a group never do: they average to one half."""
    if reward is None or first is None:
        return ""
    rise, noise = reward["mean"] - first["mean"], math.hypot(reward["error"], first["error"])
    return f"the training reward rose by {rise:.3g} (± {NORMAL_95 * noise:.2g})" if rise > NORMAL_95 * noise else ""


def _probe_rise(name: str, candidate: Mapping[str, Measurement], start: Mapping[str, Measurement]) -> str:
    """The same of a probe that rests on what training is told."""
    rise = _change(candidate[name], start[name]) if name in start else None
    if rise is None or rise[0] <= NORMAL_95 * rise[1]:
        return ""
    return f"{name}, which rests on what training is told, rose by {rise[0]:.3g} (± {NORMAL_95 * rise[1]:.2g})"


def _change(candidate: Measurement, other: Measurement) -> tuple[float, float] | None:
    """Candidate minus other, signed so that higher is better, and its standard error; None when too little is shared."""
    sign = 1.0 if candidate.higher_is_better else -1.0
    if candidate.replicates is not None and other.replicates is not None:
        spread = [a - b for a, b in zip(candidate.replicates, other.replicates, strict=False)]
        return sign * (candidate.values[0] - other.values[0]), _mean(spread)[1] * math.sqrt(len(spread))
    theirs = dict(zip(other.items, other.values, strict=True))
    differences = [sign * (value - theirs[item]) for item, value in zip(candidate.items, candidate.values, strict=True) if item in theirs]
    return _mean(differences) if len(differences) > 1 else None


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
