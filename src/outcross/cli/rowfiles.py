"""Rows written to files that appear under their names only when they are complete."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
BATCH = 4096


def write_file(path: Path, found: Iterable[Row]) -> int:
    """Write rows to a .jsonl or .parquet file; how many there were. No file is left when there was none."""
    temporary = path.with_name(f"{path.name}.tmp")
    write: Callable[[Path, Iterator[Row]], int] = _write_parquet if path.suffix == ".parquet" else _write_jsonl
    try:
        count = write(temporary, iter(found))
        if count:
            temporary.replace(path)
        return count
    finally:
        temporary.unlink(missing_ok=True)


def _write_jsonl(path: Path, found: Iterator[Row]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in found:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, found: Iterator[Row]) -> int:
    with ParquetRows(path) as table:
        for row in found:
            table.add(row)
    return table.count


class ParquetRows:
    """One Parquet file that grows row by row; there is none as long as there is no row."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._waiting: list[Row] = []
        self._writer: Any = None

    def __enter__(self) -> ParquetRows:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, row: Row) -> None:
        self.count += 1
        self._waiting.append(row)
        if len(self._waiting) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for start in range(0, len(self._waiting), BATCH):
            rows = list(islice(self._waiting, start, start + BATCH))
            columns: Mapping[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
            types = _types()
            arrays = [pa.array(values, types.get(name)) for name, values in columns.items()]
            piece = pa.RecordBatch.from_arrays(arrays, names=list(columns))
            self._writer = self._writer or pq.ParquetWriter(self.path, piece.schema, compression="zstd")
            self._writer.write_batch(piece)
        self._waiting.clear()


def _types() -> Mapping[str, pa.DataType]:
    """Types of columns that may hold nothing in one batch and something in the next."""
    import pyarrow as pa

    from outcross.engine.tables import ORIGIN, SCORES

    text = pa.string()
    return {
        "outcross": pa.struct([pa.field("id", text), *ORIGIN]),
        "answer": text,
        "subgroup": text,
        "verdict": text,
        "value": pa.float64(),
        "scores": SCORES,
        "columns": pa.list_(pa.struct([("name", text), ("value", text)])),
    }


class ImageRows:
    """A folder of PNG files with a metadata.jsonl that names them, as the `imagefolder` of `datasets` reads it; there is none as long as
    there is no row. The column `image` of a row holds the pixels."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self._lines: Any = None

    def __enter__(self) -> ImageRows:
        return self

    def __exit__(self, *_: object) -> None:
        if self._lines is not None:
            self._lines.close()

    def add(self, row: Row) -> None:
        """Raises `DataError` for pixels that a PNG file cannot hold without loss."""
        from outcross.images import png

        if self._lines is None:
            self.folder.mkdir()
            self._lines = (self.folder / "metadata.jsonl").open("w", encoding="utf-8")
        said = dict(row)
        name = f"{self.count:06d}.png"
        (self.folder / name).write_bytes(png(said.pop("image")))
        self._lines.write(json.dumps({"file_name": name, **said}, ensure_ascii=False) + "\n")
        self.count += 1
