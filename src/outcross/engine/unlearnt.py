"""Why answers of a round taught nothing: told by what is on the record of each, for the line of the learn step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import groupby
from typing import Any

Row = Mapping[str, Any]
COLUMNS = ("id", "task_id", "error", "verdict", "value", "finished")


def unlearnt(rows: Iterable[Row], used: Set[int], *, compared: bool) -> Counter[str]:
    """How many answers became no example, by reason. rows: `COLUMNS` of all samples, those of a task together; used: hashes of the ids of those
    that did; compared: whether the objective holds a task's answers against each other. Failed requests are counted elsewhere."""
    found: Counter[str] = Counter()
    for _, group in groupby(rows, key=lambda row: row["task_id"]):
        task = list(group)
        left = [row for row in task if not row["error"] and hash(row["id"]) not in used]
        idle = compared and not any(hash(row["id"]) in used for row in task)
        found.update(_why(row, task, compared=compared, idle=idle) for row in left)
    return found


def _why(row: Row, task: Sequence[Row], *, compared: bool, idle: bool) -> str:
    """`idle`: nothing was learnt from the comparison of the answers of `task`."""
    if row["verdict"] not in ("pass", "fail"):
        return "not judged"
    if not row["finished"]:
        return "cut off"
    if row["verdict"] == "fail" and not compared:
        return "did not pass"
    return _why_idle(task) if idle else "not chosen"


def _why_idle(task: Sequence[Row]) -> str:
    values = [row["value"] for row in task if row["verdict"] in ("pass", "fail") and row["value"] is not None]
    if len(values) < 2:
        return "no other of its task judged"
    return "all of its task equal" if len({round(value, 12) for value in values}) == 1 else "not chosen"
