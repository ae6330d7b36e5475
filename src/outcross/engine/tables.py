"""Records as Parquet: the schemas of a run's tables and the conversion both ways, column by column.

Tables read as they are in DuckDB, pandas, polars and `datasets`; lineage rides in one `outcross` struct column beside
the usual `prompt`/`completion`/`rejected` columns. Nothing in a table depends on the clock or the host.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from outcross.types import (
    Completion,
    Content,
    Drop,
    Example,
    Group,
    Loss,
    Measurement,
    Origin,
    Prompt,
    Sample,
    Score,
    Task,
    Turn,
)

T = TypeVar("T")

_text = pa.string()
_label = pa.dictionary(pa.int32(), pa.string())
ORIGIN = pa.struct(
    [
        ("kind", _text),
        ("proof", _text),
        ("source", _text),
        ("depth", pa.int32()),
        ("round", _text),
        ("parents", pa.list_(_text)),
        ("verifiers", pa.list_(_text)),
        ("note", _text),
    ]
)
SCORES = pa.list_(
    pa.struct(
        [("verifier", _text), ("version", _text), ("verdict", _text), ("value", pa.float64()), ("reason", _text), ("evidence", _text)]
    )
)
SAMPLES = pa.schema(
    [
        ("id", _text),
        ("task_id", _text),
        ("prompt", _text),
        ("completion", _text),
        ("answer", _text),
        ("verdict", _text),
        ("value", pa.float64()),
        ("error", _text),
        ("finished", pa.bool_()),
        ("seat", _text),
        ("subgroup", _text),
        ("effort", pa.float64()),
        ("scores", SCORES),
        ("tokens", pa.list_(pa.int32())),
        ("log_probs", pa.list_(pa.float32())),
        ("turns", _text),  # JSON, for samples that the columns above cannot hold
        ("task", _text),  # JSON, for tasks that the columns above cannot hold
        ("outcross", ORIGIN),
    ]
)
DROPS = SAMPLES.append(pa.field("curator", _text)).append(pa.field("reason", _text))
EXAMPLES = pa.schema(
    [
        ("id", _text),
        ("prompt", _text),
        ("completion", _text),
        ("rejected", _text),
        ("loss", _text),
        ("weight", pa.float64()),
        ("n_tokens", pa.int32()),
        ("subgroup", _text),
        ("record", _text),  # JSON of the whole example, where the columns above cannot hold it
        ("outcross", ORIGIN),
    ]
)
MIXTURE = pa.schema([("id", _text), ("source", _text), ("row", pa.int64()), ("repeats", pa.int32()), ("weight", pa.float64())])
ORDER = pa.schema([("step", pa.int32()), ("id", _text)])
LOSSES = pa.schema([("step", pa.int32()), *((name, pa.float64()) for name in ("loss", "gradient_norm", "learning_rate", "early_stop"))])
MEASUREMENTS = pa.schema(
    [
        ("model", _text),
        ("probe", _text),
        ("items", pa.list_(_text)),
        ("values", pa.list_(pa.float64())),
        ("replicates", pa.list_(pa.float64())),
        ("higher_is_better", pa.bool_()),
        ("unit", _text),
    ]
)

_json = msgspec.json.Encoder(order="deterministic")
_turns = msgspec.json.Decoder(tuple[Turn, ...])
_task = msgspec.json.Decoder(Task)
_example = msgspec.json.Decoder(Example)


def _origins(origins: list[Origin]) -> pa.StructArray:
    columns = (
        pa.array([o.kind for o in origins], _text),
        pa.array([o.proof for o in origins], _text),
        pa.array([o.source for o in origins], _text),
        pa.array([o.depth for o in origins], pa.int32()),
        pa.array([o.round for o in origins], _text),
        pa.array([o.parents for o in origins], pa.list_(_text)),
        pa.array([o.verifiers for o in origins], pa.list_(_text)),
        pa.array([o.note for o in origins], _text),
    )
    return pa.StructArray.from_arrays(columns, fields=list(ORIGIN))


def _origin(row: dict[str, Any]) -> Origin:
    return Origin(
        row["kind"], row["proof"], row["source"], row["depth"], row["round"], tuple(row["parents"]), tuple(row["verifiers"]), row["note"]
    )


def _scores(scores: list[tuple[Score, ...]]) -> pa.ListArray:
    offsets = [0]
    for item in scores:
        offsets.append(offsets[-1] + len(item))
    flat = list(chain.from_iterable(scores))
    columns = (
        pa.array([s.verifier for s in flat], _text),
        pa.array([s.version for s in flat], _text),
        pa.array([s.verdict for s in flat], _text),
        pa.array([s.value for s in flat], pa.float64()),
        pa.array([s.reason for s in flat], _text),
        pa.array([s.evidence for s in flat], _text),
    )
    fields = list(SCORES.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(columns, fields=fields), type=SCORES)


def _as_text(content: Content | Prompt) -> str:
    return content if isinstance(content, str) else _json.encode(content).decode()


def _plain_task(task: Task) -> bool:
    return isinstance(task.prompt, str) and not task.columns and task.origin == _NO_ORIGIN


def _plain_sample(task: Task, sample: Sample) -> bool:
    if not sample.turns:
        return True
    turn = sample.turns[0]
    return (
        len(sample.turns) == 1
        and turn.prompt == task.prompt
        and turn.reward is None
        and turn.value is None
        and not turn.completion.choice_log_probs
        and isinstance(turn.completion.content, str)
    )


_NO_ORIGIN = Origin()
_NO_COMPLETION = Completion("")


def encode_groups(groups: list[Group]) -> pa.RecordBatch:
    """One row per sample; the rows of a group stand together."""
    return pa.RecordBatch.from_arrays(_sample_columns(groups), schema=SAMPLES)


def encode_drops(drops: list[Drop]) -> pa.RecordBatch:
    """As `encode_groups`, with the curator and its reason."""
    columns = _sample_columns([drop.group for drop in drops])
    sizes = [len(drop.group.samples) for drop in drops]
    curators = list(chain.from_iterable([drop.curator] * n for drop, n in zip(drops, sizes, strict=True)))
    reasons = list(chain.from_iterable([drop.reason] * n for drop, n in zip(drops, sizes, strict=True)))
    return pa.RecordBatch.from_arrays([*columns, pa.array(curators, _text), pa.array(reasons, _text)], schema=DROPS)


def _sample_columns(groups: list[Group]) -> list[pa.Array]:
    samples: list[Sample] = []
    tasks: list[Task] = []
    prompts: list[str] = []
    extra: list[str | None] = []
    for group in groups:
        task, count = group.task, len(group.samples)
        samples.extend(group.samples)
        tasks.extend([task] * count)
        prompts.extend([_as_text(task.prompt)] * count)
        extra.extend([None if _plain_task(task) else _json.encode(task).decode()] * count)
    last = [s.turns[-1].completion if s.turns else _NO_COMPLETION for s in samples]
    turns = [None if _plain_sample(t, s) else _json.encode(s.turns).decode() for t, s in zip(tasks, samples, strict=True)]
    return [
        pa.array([s.id for s in samples], _text),
        pa.array([t.id for t in tasks], _text),
        pa.array(prompts, _text),
        pa.array([_as_text(c.content) if s.turns else None for c, s in zip(last, samples, strict=True)], _text),
        pa.array([t.answer for t in tasks], _text),
        pa.array([s.verdict for s in samples], _text),
        pa.array([s.value for s in samples], pa.float64()),
        pa.array([s.error for s in samples], _text),
        pa.array([c.finished for c in last], pa.bool_()),
        pa.array([s.seat for s in samples], _text),
        pa.array([t.subgroup for t in tasks], _text),
        pa.array([t.effort for t in tasks], pa.float64()),
        _scores([s.scores for s in samples]),
        pa.array([c.tokens for c in last], pa.list_(pa.int32())),
        pa.array([c.log_probs for c in last], pa.list_(pa.float32())),
        pa.array(turns, _text),
        pa.array(extra, _text),
        _origins([s.origin for s in samples]),
    ]


def _row_task(row: dict[str, Any]) -> Task:
    if row["task"] is not None:
        return _task.decode(row["task"])
    return Task(row["task_id"], row["prompt"], row["answer"], row["subgroup"], _NO_ORIGIN, row["effort"])


def _row_sample(row: dict[str, Any], task: Task) -> Sample:
    if row["turns"] is not None:
        turns = _turns.decode(row["turns"])
    elif row["completion"] is None:
        turns = ()
    else:
        said = Completion(row["completion"], tuple(row["tokens"]), tuple(row["log_probs"]), (), row["finished"])
        turns = (Turn(task.prompt, said),)
    scores = tuple(Score(**score) for score in row["scores"])
    return Sample(row["id"], turns, _origin(row["outcross"]), row["seat"], scores, row["error"])


def decode_groups(rows: Iterable[dict[str, Any]]) -> Iterator[Group]:
    """The inverse of `encode_groups` over consecutive rows."""
    for _, members in groupby(rows, key=lambda row: row["task_id"]):
        found = list(members)
        task = _row_task(found[0])
        yield Group(task, tuple(_row_sample(row, task) for row in found))


def _plain_example(e: Example) -> bool:
    return (
        isinstance(e.prompt, str)
        and isinstance(e.completion, str)
        and not isinstance(e.weight, tuple)
        and e.target is None
        and not e.old_log_probs
        and (e.rejected is None or isinstance(e.rejected, str))
        and e.loss.beta is None
        and e.loss.clip is None
    )


def encode_examples(rows: list[tuple[Example, int]]) -> pa.RecordBatch:
    """One row per example and its number of tokens."""
    examples = [example for example, _ in rows]
    columns = [
        pa.array([e.id for e in examples], _text),
        pa.array([_as_text(e.prompt) for e in examples], _text),
        pa.array([_as_text(e.completion) for e in examples], _text),
        pa.array([None if e.rejected is None else _as_text(e.rejected) for e in examples], _text),
        pa.array([e.loss.name for e in examples], _text),
        pa.array([scalar_weight(e) for e in examples], pa.float64()),
        pa.array([count for _, count in rows], pa.int32()),
        pa.array([e.subgroup for e in examples], _text),
        pa.array([None if _plain_example(e) else _json.encode(e).decode() for e in examples], _text),
        _origins([e.origin for e in examples]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=EXAMPLES)


def scalar_weight(example: Example) -> float:
    """An example's weight as one number: the mean of its per-token weights' sizes."""
    weight = example.weight
    if isinstance(weight, tuple):
        return sum(map(abs, weight)) / len(weight) if weight else 0.0
    return weight


def decode_example(row: dict[str, Any]) -> Example:
    """The inverse of `encode_examples`, for one row."""
    if row["record"] is not None:
        return _example.decode(row["record"])
    return Example(
        row["id"],
        row["prompt"],
        row["completion"],
        Loss(row["loss"]),
        row["weight"],
        row["rejected"],
        None,
        (),
        _origin(row["outcross"]),
        row["subgroup"],
    )


def encode_measurements(rows: list[tuple[str, Measurement]]) -> pa.RecordBatch:
    """One row per model ("candidate") and probe."""
    columns = [
        pa.array([model for model, _ in rows], _text),
        pa.array([m.probe for _, m in rows], _text),
        pa.array([m.items for _, m in rows], pa.list_(_text)),
        pa.array([m.values for _, m in rows], pa.list_(pa.float64())),
        pa.array([m.replicates for _, m in rows], pa.list_(pa.float64())),
        pa.array([m.higher_is_better for _, m in rows], pa.bool_()),
        pa.array([m.unit for _, m in rows], _text),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=MEASUREMENTS)


def decode_measurement(row: dict[str, Any]) -> Measurement:
    """The inverse of `encode_measurements`, for one row."""
    replicates = None if row["replicates"] is None else tuple(row["replicates"])
    return Measurement(row["probe"], tuple(row["items"]), tuple(row["values"]), replicates, row["higher_is_better"], row["unit"])


class Writer(Generic[T]):
    """Streams records into one Parquet file that appears, complete and on disk, at `close` and not before.

    Use as a context manager: leaving it by an exception removes the unfinished file.
    """

    def __init__(self, path: Path, schema: pa.Schema, encode: Callable[[list[T]], pa.RecordBatch], rows: int = 4096) -> None:
        self.path, self._encode, self._rows = path, encode, rows
        self._temporary = path.with_name(path.name + ".tmp")
        self._file = self._temporary.open("wb")
        self._parquet = pq.ParquetWriter(self._file, schema, compression="zstd", compression_level=1)
        self._waiting: list[T] = []

    def add(self, item: T) -> None:
        self._waiting.append(item)
        if len(self._waiting) >= self._rows:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._parquet.write_batch(self._encode(self._waiting))
            self._waiting = []

    def close(self) -> None:
        self._flush()
        self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        fsync_folder(self.path.parent)

    def __enter__(self) -> Writer[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if not self._file.closed:
                for thing in (self._parquet, self._file):
                    with suppress(OSError):  # a full disk is what got us here, perhaps
                        thing.close()
                self._temporary.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rows_of(path: Path, columns: list[str] | None = None, batch: int = 2048) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as dictionaries, a batch at a time; nothing when the file does not exist."""
    if path.exists():
        with pq.ParquetFile(path) as file:
            for part in file.iter_batches(batch_size=batch, columns=columns):
                yield from part.to_pylist()
