"""Documents on disk as shingle sets, band keys and identifiers: what near duplicates are looked up in, round after round.

    <shelf>/values.u64   shingles (see `minhash.Sets`)      <shelf>/sizes.npy   int64 (documents, 2)
    <shelf>/keys.npy     uint32 (bands, documents)          <shelf>/ids         identifiers, MessagePack; written last

In memory a shelf has 4 bytes per band and 24 bytes per document; shingles stay on disk and are mapped.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np

from outcross.curate.minhash import U32, Bands, Sets, Shingles, Side, band_keys, shingled
from outcross.curate.ngrams import I64

_ROWS = 1024  # documents shingled in one go
_CHARACTERS = 1 << 19


@dataclass(frozen=True)
class Shelf:
    """A finished shelf, opened for reading."""

    folder: Path

    @property
    def complete(self) -> bool:
        """Whether it was written to its end."""
        return (self.folder / "ids").exists()

    @cached_property
    def side(self) -> Side:
        """The documents' sets; their values are mapped from the disk."""
        sizes: I64 = np.load(self.folder / "sizes.npy")
        path = self.folder / "values.u64"
        values = np.memmap(path, np.uint64, "r") if path.stat().st_size else np.zeros(0, np.uint64)
        return Side(values, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes.sum(axis=1))]), sizes)

    @cached_property
    def keys(self) -> U32:
        """Band keys, mapped from the disk; (bands, documents)."""
        found: U32 = np.load(self.folder / "keys.npy", mmap_mode="r" if len(self) else None)
        return found

    @cached_property
    def ids(self) -> list[str]:
        """Identifiers of the documents."""
        return msgspec.msgpack.decode((self.folder / "ids").read_bytes(), type=list[str])

    def __len__(self) -> int:
        return len(self.side.sizes)

    def copy(self, which: I64, folder: Path) -> None:
        """Write a shelf of some of the documents, in the given order."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "values.u64").open("wb") as file:
            for begin in range(0, len(which), _ROWS):
                part = which[begin : begin + _ROWS]
                lengths = self.side.sizes[part].sum(axis=1)
                shifts = self.side.starts[part] - (np.cumsum(lengths) - lengths)
                self.side.values[np.arange(int(lengths.sum())) + np.repeat(shifts, lengths)].tofile(file)
        _finish(folder, self.side.sizes[which], self.keys[:, which], [self.ids[i] for i in which])


class Writer:
    """Fills a shelf document by document. Memory: one batch of texts, and 4 bytes per band and 24 per document."""

    def __init__(self, folder: Path, shingles: Shingles, n: int, bands: Bands) -> None:
        self._folder, self._shingles, self._n, self._bands = folder, shingles, n, bands
        self._ids: list[str] = []
        self._answers: list[str] = []
        self._prompts: list[str] = []
        self._characters = 0
        self._sizes: list[I64] = [np.zeros((0, 2), np.int64)]
        self._keys: list[U32] = [np.zeros((bands.count, 0), np.uint32)]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._file = (folder / "values.u64").open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._flush()
            _finish(self._folder, np.concatenate(self._sizes), np.concatenate(self._keys, axis=1), self._ids)
        self._file.close()

    def add(self, identifier: str, answer: str, prompt: str) -> None:
        """One more document, numbered in order."""
        self._ids.append(identifier)
        self._answers.append(answer)
        self._prompts.append(prompt)
        self._characters += len(answer) + len(prompt)
        if len(self._answers) >= _ROWS or self._characters >= _CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._answers:
            sets: Sets = shingled(self._answers, self._prompts, self._shingles, self._n)
            sets.values.tofile(self._file)
            self._sizes.append(sets.sizes)
            self._keys.append(band_keys(sets, self._bands))
        self._answers, self._prompts, self._characters = [], [], 0
        self._file.flush()


def _finish(folder: Path, sizes: I64, keys: U32, ids: Sequence[str]) -> None:
    np.save(folder / "sizes.npy", sizes)
    np.save(folder / "keys.npy", keys)
    (folder / "ids").write_bytes(msgspec.msgpack.encode(ids))
