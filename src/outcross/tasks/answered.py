"""Files of prompts with answers to them, as groups that verifiers can judge: whoever wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from outcross.errors import ConfigError, DataError, did_you_mean
from outcross.tasks.rows import Row, read
from outcross.types import Completion, Group, Message, Origin, Prompt, Sample, Task, Turn, content_hash

PARTS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "problem", "instruction", "input"),
    "completion": ("completion", "completions", "response", "responses", "generation", "generations", "output", "outputs", "prediction"),
    "answer": ("answer", "reference", "target", "gold", "label", "solution"),
    "task": ("task_id", "id"),
    "subgroup": ("subgroup",),
    "finished": ("finished",),
}
"""The parts of a row, and the columns that they are looked for in; `messages` gives prompt and completion in one."""

_LEFT_OUT = frozenset(
    "id outcross scores verdict value columns tokens log_probs turns task error seat effort messages".split()  # noqa: SIM905
)
"""What Outcross's own tables hold beside: no part of a task."""

_Read = tuple[str, Task, list[Sample]]


def answered(path: Path, columns: Mapping[str, str]) -> Iterator[Group]:
    """The rows of a file in the formats of `Files`; neighbouring rows of one task are one group.

    columns: which column plays which part, see `PARTS`. Others are columns of the task, as text, for verifiers that read them. A row
    holds one completion, a list of them, or `messages` that end with the assistant's; prompts and completions are texts or messages.

    Raises `DataError` naming the row for what is missing or of another type, `ConfigError` for an unknown part.
    """
    unknown = next((part for part in columns if part not in (*PARTS, "messages")), None)
    if unknown is not None:
        raise ConfigError(f"there is no part {unknown!r} of a row; {did_you_mean(unknown, (*PARTS, 'messages'))}")
    chosen: Mapping[str, str] | None = None

    def rows() -> Iterator[_Read]:
        nonlocal chosen
        for number, row in read(path):
            chosen = chosen or _chosen(path, row, columns)
            yield _row(path, number, row, chosen)

    for _, members in groupby(rows(), key=lambda item: (item[0], item[1])):
        found = list(members)
        yield Group(found[0][1], tuple(sample for _, _, samples in found for sample in samples))


def _chosen(path: Path, row: Row, columns: Mapping[str, str]) -> dict[str, str]:
    """Which column plays which part, from the first row where it is not said."""
    found = dict(columns)
    for part, names in PARTS.items():
        name = next((name for name in names if name in row and name not in found.values()), None)
        if part not in found and name is not None:
            found[part] = name
    if "messages" in row and not {"prompt", "completion"} <= found.keys():
        found["messages"] = columns.get("messages", "messages")
    if "messages" not in found and (lacking := next((part for part in ("prompt", "completion") if part not in found), None)):
        raise DataError(
            f"{path}: of its columns {', '.join(map(str, row))} none is known to hold the {lacking}; say which, `--column {lacking}=NAME`"
        )
    return found


def _row(path: Path, number: int, row: Row, parts: Mapping[str, str]) -> _Read:
    def wrong(column: str, allowed: str) -> DataError:
        if column not in row:
            return DataError(f"{path}, row {number}: there is no column {column!r}; {did_you_mean(column, map(str, row))}")
        return DataError(f"{path}, row {number}: column {column!r} holds {row.get(column)!r:.60}; it must be {allowed}")

    def text(part: str) -> str | None:
        value = row.get(parts.get(part, ""))
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise wrong(parts[part], "text or a number")

    if "messages" in parts:
        whole = _messages(row.get(parts["messages"]))
        if not isinstance(whole, tuple) or len(whole) < 2 or whole[-1].role != "assistant":
            raise wrong(parts["messages"], "a conversation that ends with a turn of the assistant")
        prompt: Prompt = whole[:-1]
        said: list[str] = [whole[-1].content]
    else:
        given = _messages(row.get(parts["prompt"]))
        if given is None:
            raise wrong(parts["prompt"], "text or a list of messages")
        prompt, said = given, _completions(row.get(parts["completion"]))
        if not said:
            raise wrong(parts["completion"], "text, the assistant's message, or a list of either")
    answer, subgroup, identifier = text("answer"), text("subgroup"), text("task")
    further = _columns(row, set(parts.values()))
    task = Task(identifier or content_hash("task", prompt, answer, further), prompt, answer, subgroup, columns=further)
    finished = row.get(parts.get("finished", ""), True) is not False
    return task.id, task, [_sample(task, number, place, item, finished) for place, item in enumerate(said)]


def _sample(task: Task, number: int, place: int, said: str, finished: bool) -> Sample:
    turns = (Turn(task.prompt, Completion(said, finished=finished)),)
    return Sample(content_hash("answered", number, place, said), turns, Origin())


def _messages(value: Any) -> Prompt | None:
    """Text, or messages; Outcross's own tables hold messages as JSON. None for anything else."""
    if isinstance(value, str):
        if not value.startswith('[{"role":'):
            return value
        try:
            value = json.loads(value)
        except ValueError:
            return None
    try:
        found = tuple(Message(item["role"], item["content"]) for item in value)
    except (TypeError, KeyError):
        return None
    return found if found and all(isinstance(item.content, str) for item in found) else None


def _completions(value: Any) -> list[str]:
    """One text, the last of a list of messages, or a list of either; empty for anything else."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        return []
    if value and all(isinstance(item, str) for item in value):
        return value
    whole = _messages(value)
    if isinstance(whole, tuple):
        return [whole[-1].content]
    each = [_messages(item) for item in value]
    return [item[-1].content for item in each if isinstance(item, tuple)] if all(isinstance(item, tuple) for item in each) else []


def _columns(row: Row, taken: set[str]) -> tuple[tuple[str, str], ...]:
    """What verifiers may read beside prompt and answer: the columns of Outcross's own exports, and whatever else is text."""
    own = row.get("columns")
    if isinstance(own, list):
        return tuple((item["name"], item["value"]) for item in own if isinstance(item, dict) and {"name", "value"} <= item.keys())
    return tuple(
        (str(name), value) for name, value in row.items() if name not in taken and name not in _LEFT_OUT and isinstance(value, str)
    )
