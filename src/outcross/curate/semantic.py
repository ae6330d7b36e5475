"""Documents on disk as vectors of what was answered and what was asked, and which of them mean almost the same.

    <shelf>/answers.f16, <shelf>/prompts.f16   float16 (documents, width + 1), of length 1      <shelf>/ids   width and identifiers; written last

The last number of a vector marks the empty text: it is like itself and nothing else. Rows are scaled to length 1 again after reading, so that
equal texts have cosine 1; elsewhere 16 bits move a cosine by less than 0.001. All pairs are compared, block by block: SemDeDup (Abbas et al.,
arXiv:2303.09540, §3) compares within k-means clusters only, which is faster on millions and misses the pairs that a border divides.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from outcross.curate.nearest import KEPT, OWN, Found
from outcross.curate.ngrams import I64
from outcross.errors import ModelError
from outcross.stages import Embeds

F16 = NDArray[np.float16]
F32 = NDArray[np.float32]

_ROWS, _COLUMNS = 512, 4096  # documents compared at once: 8 MB of cosines
_TEXTS = 512  # samples embedded at once
_HAIR = 1e-5  # so that equal texts reach a threshold of 1


class _Head(msgspec.Struct, array_like=True):
    width: int
    ids: list[str]


@dataclass(frozen=True)
class VectorShelf:
    """A finished shelf, opened for reading. Vectors stay on disk and are mapped."""

    folder: Path

    @property
    def complete(self) -> bool:
        """Whether it was written to its end."""
        return (self.folder / "ids").exists()

    @cached_property
    def _head(self) -> _Head:
        return msgspec.msgpack.decode((self.folder / "ids").read_bytes(), type=_Head)

    @property
    def ids(self) -> list[str]:
        """Identifiers of the documents."""
        return self._head.ids

    @property
    def width(self) -> int:
        """Numbers a vector has, its mark of the empty text included; 0 on an empty shelf."""
        return self._head.width

    @cached_property
    def answers(self) -> F16:
        """What was answered; (documents, width)."""
        return self._mapped("answers.f16")

    @cached_property
    def prompts(self) -> F16:
        """What was asked; (documents, width)."""
        return self._mapped("prompts.f16")

    def __len__(self) -> int:
        return len(self.ids)

    def _mapped(self, name: str) -> F16:
        shape = (len(self), self.width)
        found: F16 = np.memmap(self.folder / name, np.float16, "r", shape=shape) if len(self) else np.zeros(shape, np.float16)
        return found

    def copy(self, which: I64, folder: Path) -> None:
        """Write a shelf of some of the documents, in the given order."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, vectors in (("answers.f16", self.answers), ("prompts.f16", self.prompts)):
            with (folder / name).open("wb") as file:
                for begin in range(0, len(which), _COLUMNS):
                    vectors[which[begin : begin + _COLUMNS]].tofile(file)
        _finish(folder, self.width, [self.ids[i] for i in which])


class VectorWriter:
    """Fills a shelf document by document. Memory: one batch of texts and their vectors, and the identifiers."""

    def __init__(self, folder: Path, model: Embeds) -> None:
        self._folder, self._model = folder, model
        self._width = len(next(iter(model.embed(["how long is a vector?"])))) + 1
        self._ids: list[str] = []
        self._waiting: list[tuple[str, str]] = []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._answers, self._prompts = ((folder / name).open("wb") for name in ("answers.f16", "prompts.f16"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._answers.close()
            self._prompts.close()
        if kind is None:
            _finish(self._folder, self._width, self._ids)

    def add(self, identifier: str, answer: str, prompt: str) -> None:
        """One more document, numbered in order. Raises `ModelError` when the model gives vectors of different lengths."""
        self._ids.append(identifier)
        self._waiting.append((answer, prompt))
        if len(self._waiting) == _TEXTS:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        texts = list(dict.fromkeys(text for pair in self._waiting for text in pair))
        vectors = embedded(self._model, texts, self._width)
        place = {text: number for number, text in enumerate(texts)}
        for side, file in enumerate((self._answers, self._prompts)):
            vectors[[place[pair[side]] for pair in self._waiting]].astype(np.float16).tofile(file)
        self._waiting = []


def embedded(model: Embeds, texts: Sequence[str], width: int) -> F32:
    """Vectors of length 1, (texts, width): the last number is 1 for a text without content, which the model is not asked for, and 0
    otherwise. Raises `ModelError` for a vector that is zero, not finite or not of width - 1 numbers, and for too few of them."""
    full = [number for number, text in enumerate(texts) if text.strip()]
    rows = [np.asarray(vector, np.float32) for vector in model.embed([texts[number] for number in full])]
    if len(rows) != len(full) or any(len(row) != width - 1 for row in rows):
        raise ModelError(
            f"{len(full)} texts gave {len(rows)} vectors of {sorted({len(row) for row in rows})} numbers; one of {width - 1} each is needed"
        )
    found = np.zeros((len(texts), width), np.float32)
    found[:, -1] = 1
    if rows:
        found[full, :-1] = _scaled(np.stack(rows))
        found[full, -1] = 0
    return found


def _scaled(vectors: F32) -> F32:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ModelError("an embedding is zero or not finite, so that it has no direction; use another model, or the one it was made for")
    scaled: F32 = vectors / lengths
    return scaled


def _finish(folder: Path, width: int, ids: list[str]) -> None:
    (folder / "ids").write_bytes(msgspec.msgpack.encode(_Head(width, ids)))


def semantic_duplicates(shelf: VectorShelf, older: Sequence[VectorShelf], scores: NDArray[np.float64], threshold: float) -> Found:
    """Compare `shelf` with `older` shelves, the first taking precedence, and with itself, higher scores first and earlier documents first
    among equals: a document is kept unless a kept one is as near as `threshold`. The likeness is the lesser of two cosines, between the
    answers and between the prompts. Empty answers are kept. `scores`: float (documents,).

    Time: all pairs, 2 × width operations each. Memory: `_ROWS` × `_COLUMNS` cosines and as many vectors, whatever the round's size."""
    count = len(shelf)
    found = Found(np.full(count, KEPT, np.int32), np.full(count, -1, np.int64), np.zeros(count))
    said = np.flatnonzero(np.asarray(shelf.answers[:, -1]) == 0) if count else np.zeros(0, np.int64)
    for number, other in enumerate(older):
        _check_width(shelf, other)
        everything = np.arange(len(other))
        for begin in range(0, len(said), _ROWS):
            rows = said[begin : begin + _ROWS]
            _against(shelf, rows[found.shelf[rows] == KEPT], other, everything, number, found, threshold)
    order = said[np.lexsort((said, -scores[said]))]
    order = order[found.shelf[order] == KEPT]
    kept = np.zeros(0, np.int64)
    for begin in range(0, len(order), _ROWS):
        rows = order[begin : begin + _ROWS]
        _against(shelf, rows, shelf, kept, OWN, found, threshold)
        _among(shelf, rows[found.shelf[rows] == KEPT], found, threshold)
        kept = np.concatenate([kept, rows[found.shelf[rows] == KEPT]])
    return found


def nearest(vectors: F32, shelf: VectorShelf) -> tuple[NDArray[np.float64], I64]:
    """For each vector the largest cosine with an answer on the shelf, and where that stands; the first among equals."""
    best, place = np.full(len(vectors), -np.inf), np.zeros(len(vectors), np.int64)
    for begin in range(0, len(shelf), _COLUMNS):
        cosines = vectors @ _scaled(np.asarray(shelf.answers[begin : begin + _COLUMNS], np.float32)).T
        near = cosines.argmax(axis=1)
        values = cosines[np.arange(len(vectors)), near]
        better = values > best
        best[better], place[better] = values[better], begin + near[better]
    return best, place


def _check_width(shelf: VectorShelf, other: VectorShelf) -> None:
    if len(shelf) and len(other) and shelf.width != other.width:
        raise ModelError(
            f"vectors of {shelf.width - 1} numbers against earlier ones of {other.width - 1}: the embedder of a run stays the same"
        )


def _against(shelf: VectorShelf, rows: I64, other: VectorShelf, those: I64, number: int, found: Found, threshold: float) -> None:
    """Note for each of `rows` the nearest of `those` on the other shelf, the first among equals."""
    if not len(rows) or not len(those):
        return
    best, place = np.full(len(rows), -np.inf), np.zeros(len(rows), np.int64)
    for part, cosines in _blocks(shelf, rows, other, those, threshold):
        near = cosines.argmax(axis=1)
        values = cosines[np.arange(len(rows)), near]
        better = values > best
        best[better], place[better] = values[better], part[near[better]]
    hits = best >= threshold - _HAIR
    found.shelf[rows[hits]], found.document[rows[hits]], found.jaccard[rows[hits]] = number, place[hits], np.minimum(best[hits], 1)


def _among(shelf: VectorShelf, rows: I64, found: Found, threshold: float) -> None:
    """The greedy rule among the documents of one block, best first."""
    if not len(rows):
        return
    cosines = np.concatenate([part for _, part in _blocks(shelf, rows, shelf, rows, threshold)], axis=1)
    kept = np.zeros(len(rows), np.bool_)
    for i, row in enumerate(rows):
        candidates = np.where(kept, cosines[i], -np.inf)
        near = int(candidates.argmax())
        if candidates[near] >= threshold - _HAIR:
            found.shelf[row], found.document[row], found.jaccard[row] = OWN, rows[near], min(candidates[near], 1)
        else:
            kept[i] = True


def _blocks(shelf: VectorShelf, rows: I64, other: VectorShelf, those: I64, threshold: float) -> Iterator[tuple[I64, F32]]:
    """Likeness of `rows` (at most `_ROWS`) and parts of `those`, float32 (rows, part). Prompts are only looked at in blocks in which some answers
    are near."""
    answers = _read(shelf.answers, rows)
    prompts: F32 | None = None
    for begin in range(0, len(those), _COLUMNS):
        part = those[begin : begin + _COLUMNS]
        cosines: F32 = answers @ _read(other.answers, part).T
        if (cosines >= threshold - _HAIR).any():
            prompts = _read(shelf.prompts, rows) if prompts is None else prompts
            np.minimum(cosines, prompts @ _read(other.prompts, part).T, out=cosines)
        yield part, cosines


def _read(vectors: F16, rows: I64) -> F32:
    return _scaled(np.asarray(vectors[rows], np.float32))
