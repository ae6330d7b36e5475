"""The rows that a mixture may choose from, as columns of numbers: their sizes, what they are, and, where a mixture asks for it, how the
answers that they teach were scored. Read from the tables of the record in batches; no text is held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from outcross.engine.tables import decode_example, scalar_weight
from outcross.mix import Floats, Ints, Labels, Pool, Traits
from outcross.types import Example

BATCH = 65_536
OWN = ("pg", "sppo")  # losses whose numbers, an advantage or a win rate, are against the policy that drew the answer
ORIGINS = ("kind", "proof", "source", "depth")
SIZES = ["n_tokens", "weight", "subgroup", *(f"outcross.{name}" for name in ORIGINS)]
_text = pa.string()
REAL = pa.schema(
    [
        ("n_tokens", pa.int32()),
        ("weight", pa.float64()),
        ("subgroup", _text),
        ("outcross", pa.struct([("kind", _text), ("proof", _text), ("source", _text), ("depth", pa.int32())])),
    ]
)


def encode_real(rows: list[tuple[Example, int]]) -> pa.RecordBatch:
    """Sizes and origins of rows of the bench, with their numbers of tokens."""
    origins = [{name: getattr(example.origin, name) for name in ORIGINS} for example, _ in rows]
    columns = ([tokens for _, tokens in rows], [scalar_weight(e) for e, _ in rows], [e.subgroup for e, _ in rows], origins)
    return pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, REAL, strict=True)], schema=REAL)


def pool_of_real(path: Path) -> Pool:
    """The rows of the bench, in their order; none when the file does not exist."""
    return _pool(_batches(path, SIZES))


@dataclass(frozen=True)
class Source:
    """A table of examples of this round or an earlier one, without tombstoned rows and rows that may not be kept."""

    path: Path
    buried: frozenset[str]
    keeps_own: bool  # history holds none that are about the policy of their round: under another they are stale
    held: bool = False  # no row of it may be seen

    def pool(self, *, answers: bool = False) -> Pool:
        """The rows' sizes and traits; with `answers`, what the record says of the answers that they teach: task, score and difficulty."""
        if not answers:
            return _pool(self._kept(SIZES))
        known = Answers.read(self.path.parent)
        parents: list[str] = []

        def watched() -> Iterator[pa.RecordBatch]:
            for batch in self._kept([*SIZES, "outcross.parents"]):
                parents.extend(found[0] if found else "" for found in _parents(batch))
                yield batch

        found = _pool(watched())
        return Pool(found.tokens, found.weight, known.told(found.known, parents))

    def examples(self) -> Iterator[Example]:
        for batch in self._kept(None, size=2048):
            yield from map(decode_example, batch.to_pylist())

    def _kept(self, columns: list[str] | None, size: int = BATCH) -> Iterator[pa.RecordBatch]:
        if self.held:
            return
        asked = [] if self.keeps_own else ["loss"]
        asked += ["id", "outcross.parents"] if self.buried else []
        for batch in _batches(self.path, columns and [*columns, *(name for name in asked if name not in columns)], size):
            if not self.keeps_own:
                batch = batch.filter(pc.invert(pc.is_in(batch["loss"], pa.array(OWN))))
            if self.buried:
                ids = batch["id"].to_pylist()
                lost = (name in self.buried or any(p in self.buried for p in old) for name, old in zip(ids, _parents(batch), strict=True))
                batch = batch.filter(pa.array([not one for one in lost], pa.bool_()))
            yield batch


def _parents(batch: pa.RecordBatch) -> list[list[str]]:
    found: list[list[str]] = pc.struct_field(batch["outcross"], "parents").to_pylist()
    return found


def _batches(path: Path, columns: list[str] | None, size: int = BATCH) -> Iterator[pa.RecordBatch]:
    if path.exists():
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=size, columns=columns)


def _pool(batches: Iterable[pa.RecordBatch]) -> Pool:
    tokens: list[Floats] = [np.zeros(0)]
    weight: list[Floats] = [np.zeros(0)]
    traits = [Traits.unknown(0)]
    for batch in batches:
        tokens.append(_numbers(batch["n_tokens"]))
        weight.append(np.abs(_numbers(batch["weight"])))
        kind, proof, source, depth = (pc.struct_field(batch["outcross"], name) for name in ORIGINS)
        unproved = pc.and_(pc.equal(kind, "real"), pc.equal(proof, "none"))
        origin = pc.if_else(unproved, "unknown", kind)
        none = Traits.unknown(len(batch))
        labels = (_labels(source), _labels(origin), _labels(batch["subgroup"]), none.task)
        traits.append(Traits(*labels, depth.to_numpy(zero_copy_only=False).astype(np.int64), none.score, none.difficulty))
    return Pool(np.concatenate(tokens), np.concatenate(weight), Traits.joined(traits))


def _numbers(column: pa.Array) -> Floats:
    found: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)  # a missing number becomes NaN
    return found


def _labels(column: pa.Array) -> Labels:
    encoded = column.dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return Labels(codes.astype(np.int32), tuple(encoded.dictionary.to_pylist()))


@dataclass(frozen=True)
class Answers:
    """The samples of a round by the hashes of their identifiers, in order: their task, their value, and the share of the task's verdicts
    that were *fail*. 28 bytes a sample."""

    keys: Ints
    task: Labels
    score: Floats
    difficulty: Floats

    @staticmethod
    def read(folder: Path) -> Answers:
        """Of the round or inner turn in `folder`: kept samples and those set aside."""
        keys: list[Ints] = [np.zeros(0, np.int64)]
        tasks, score, verdict = [Labels.none(0)], [np.zeros(0)], [Labels.none(0)]
        for name in ("groups", "drops"):
            for batch in _batches(folder / f"{name}.parquet", ["id", "task_id", "value", "verdict"]):
                keys.append(_hashed(batch["id"].to_pylist()))
                tasks.append(_labels(batch["task_id"]))
                score.append(_numbers(batch["value"]))
                verdict.append(_labels(batch["verdict"]))
        task, said, order = Labels.joined(tasks), Labels.joined(verdict), np.argsort(np.concatenate(keys))
        counts = [_tally(task, np.array([*(name == what for name in said.names), False])[said.codes]) for what in ("pass", "fail")]
        judged = counts[0] + counts[1]
        hard = np.divide(counts[1], judged, out=np.full(len(judged), np.nan), where=judged > 0)
        sorted_task = Labels(task.codes[order], task.names)
        return Answers(np.concatenate(keys)[order], sorted_task, np.concatenate(score)[order], np.append(hard, np.nan)[sorted_task.codes])

    def told(self, traits: Traits, parents: list[str]) -> Traits:
        """`traits` with what is known of the samples `parents`, one a row."""
        if not len(self.keys):
            return traits
        wanted = _hashed(parents)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        known = self.keys[place] == wanted
        task = Labels(np.where(known, self.task.codes[place], -1).astype(np.int32), self.task.names)
        score, difficulty = (np.where(known, column[place], np.nan) for column in (self.score, self.difficulty))
        return Traits(traits.source, traits.origin, traits.subgroup, task, traits.depth, score, difficulty)


def _hashed(names: list[str]) -> Ints:
    return np.fromiter(map(hash, names), np.int64, len(names))


def _tally(task: Labels, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> Floats:
    return np.bincount(task.codes[chosen], minlength=len(task.names)).astype(np.float64)
