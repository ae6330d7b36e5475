"""Rows of a data file as dictionaries, streamed: JSON lines, CSV, Parquet, and folders written by `datasets`' save_to_disk."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from outcross.errors import HALF, DataError
from outcross.provenance import digest_of

Row = dict[str, Any]
_CELL = 2**31 - 1  # characters; the module's own limit is 128 Ki, and documents are longer
_COMPRESSED = (".gz", ".bz2", ".zst")
_KNOWN = ".jsonl, .ndjson, .json, .csv, .tsv (plain, .gz, .bz2 or .zst), .parquet, or a folder written by save_to_disk"


def read(path: Path) -> Iterator[tuple[int, Row]]:
    """Number (from 1) and content of each row. Raises `DataError` for a file that is missing, empty or damaged."""
    rows = _rows(path)
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            yield number, row
    except (OSError, EOFError, UnicodeDecodeError, ValueError, csv.Error) as error:
        why = HALF if "surrogate" in str(error) else "the file is damaged or not what its name says"
        raise DataError(f"{path}: reading stopped after row {number}: {error}; {why}") from error
    if number == 0:
        raise DataError(f"{path} holds no rows; check that it was written to the end")


def data_files(path: Path) -> list[Path]:
    """The files whose bytes are the content of `path`. Raises `DataError` when it does not exist."""
    if not path.exists():
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "check the path; relative paths start at the run file's folder"
        raise DataError(f"there is no file {path}; {hint}")
    if not path.is_dir():
        return [path]
    try:
        return [path / item["filename"] for item in json.loads((path / "state.json").read_text())["_data_files"]]
    except (OSError, ValueError, KeyError):
        splits = sorted(item.parent.name for item in path.glob("*/state.json"))
        hint = f"it holds the splits {', '.join(splits)}: name one of these folders" if splits else "it has no state.json"
        raise DataError(f"{path} is not a data set written by save_to_disk; {hint}") from None


def is_list(path: Path) -> bool:
    """Whether a JSON file is one list of objects, and not an object a line."""
    with _opened(path) as file:
        first = next((line for line in file if line.strip()), b"")
    return first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def content_digest(path: Path, algorithm: str = "blake2b") -> str:
    """Hash over the bytes of a file, or of a folder's data files in order; hexadecimal."""
    return digest_of(data_files(path), algorithm)


def _rows(path: Path) -> Iterable[Row]:
    files = data_files(path)
    if path.is_dir():
        return _arrow(files)
    kinds = path.suffixes[-2:] if path.suffix in _COMPRESSED else path.suffixes[-1:]
    kind = kinds[0].lower() if kinds else ""
    if kind == ".parquet":
        return _parquet(path)
    if kind in (".jsonl", ".ndjson", ".json"):
        return _json(_opened(path))
    if kind in (".csv", ".tsv"):
        return _csv(_opened(path), "\t" if kind == ".tsv" else ",")
    raise DataError(f"{path} has the ending {path.suffix!r}; known are {_KNOWN}")


def _json(file: IO[bytes]) -> Iterator[Row]:
    """One object a line, or one list of objects over the whole file."""
    with file:
        first = next((line for line in file if line.strip()), b"").removeprefix(codecs.BOM_UTF8)
        if first.lstrip().startswith(b"["):
            whole = msgspec.json.decode(first + file.read())
            yield from map(_object, whole)
            return
        for line in _chained(first, file):
            if line.strip():
                yield _object(msgspec.json.decode(line))


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _object(value: Any) -> Row:
    if not isinstance(value, dict):
        raise ValueError(f"the next row is {value!r:.60}, not an object with named columns")
    return value


def _csv(file: IO[bytes], delimiter: str) -> Iterator[Row]:
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        csv.field_size_limit(_CELL)
        rows = csv.DictReader(text, delimiter=delimiter, strict=True)
        twice = [name for name, count in Counter(rows.fieldnames or ()).items() if count > 1]
        if twice:
            raise ValueError(f"the heading names {', '.join(map(repr, twice))} more than once; give every column a name of its own")
        for row in rows:
            if None in row or None in row.values():
                raise ValueError(f"the next row has not as many cells as the heading: {list(row.values())!r:.100}")
            yield row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise ValueError(str(error)) from error


def _arrow(files: Iterable[Path]) -> Iterator[Row]:
    import pyarrow as pa

    for path in files:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as batches:
            for batch in batches:
                yield from batch.to_pylist()


def _opened(path: Path) -> IO[bytes]:
    """The bytes of a file, decompressed when its ending says so."""
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression="detect"))
