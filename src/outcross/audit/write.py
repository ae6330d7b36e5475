"""Rows written in the format they came in, kept ones and dropped ones side by side."""

from __future__ import annotations

import csv
import json
import shutil
from contextlib import AbstractContextManager, ExitStack
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from outcross.audit.clean import Cleaning
from outcross.audit.documents import mapped
from outcross.audit.faults import masker
from outcross.tasks.rows import data_files, is_list, read

Row = dict[str, Any]
_BATCH = 1024
REASON = "audit"
"""The column of a dropped row that says why."""


class _Sink(Protocol):
    def add(self, row: Row, /) -> None: ...


def write(data: Path, cleaning: Cleaning, out: Path) -> tuple[Path, Path, int]:
    """Write what stays and what goes to `out`, in the format of `data`; both places, and how many rows were changed by masking.

    Dropped rows are as they came, with kind, finding and row number in the column `reason_column`; nothing that was masked elsewhere is masked there.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem, ending = (data.resolve().name, "") if data.is_dir() else _split(data.name)
    places = out / f"{stem}.kept{ending}", out / f"{stem}.dropped{ending}"
    change = masker(cleaning.mask) if cleaning.mask else None
    changed = 0
    rows = read(data)
    first = next(rows)
    because = reason_column(first[1])
    with ExitStack() as stack:
        kept = stack.enter_context(_sink(data, places[0], first[1], ""))
        dropped = stack.enter_context(_sink(data, places[1], first[1], because))
        for number, row in chain([first], rows):
            reason = cleaning.reasons.get(number - 1)
            if reason is not None:
                dropped.add({**row, because: f"row {number}: {reason[0]}: {reason[1]}"})
                continue
            new = mapped(row, cleaning.parts, change) if change else row
            changed += new != row
            kept.add(new)
    return (*places, changed)


def reason_column(row: Row) -> str:
    """`audit`, or longer where the set has such a column itself."""
    name = REASON
    while name in row:
        name += "_"
    return name


def _split(name: str) -> tuple[str, str]:
    """The stem, and the ending without a compression's."""
    path = Path(name)
    if path.suffix in (".gz", ".bz2", ".zst"):
        path = path.with_suffix("")
    return path.stem, path.suffix


def _sink(data: Path, place: Path, first: Row, reason: str) -> AbstractContextManager[_Sink]:
    """`reason`: the column that is added, if any."""
    ending = place.suffix.lower()
    if data.is_dir():
        return _Arrow(place, data, reason)
    if ending == ".parquet":
        return _Parquet(place, data, reason)
    if ending in (".csv", ".tsv"):
        return _Csv(place, [*first, *filter(None, [reason])])
    return _JsonList(place) if is_list(data) else _Json(place)


class _Text:
    """A text file that takes its name when it is complete."""

    def __init__(self, place: Path) -> None:
        self._place, self._temporary = place, place.with_name(f"{place.name}.tmp")

    def __enter__(self) -> Self:
        self._file: IO[str] = self._temporary.open("w", encoding="utf-8", newline="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            self._temporary.replace(self._place)
        else:
            self._temporary.unlink(missing_ok=True)


class _Json(_Text):
    def add(self, row: Row) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")


class _JsonList(_Text):
    """One list over the whole file, a row a line."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._before = "[\n"
        return self

    def add(self, row: Row) -> None:
        self._file.write(self._before + json.dumps(row, ensure_ascii=False))
        self._before = ",\n"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._file.write("[]\n" if self._before == "[\n" else "\n]\n")
        super().__exit__(kind, error, trace)


class _Csv(_Text):
    def __init__(self, place: Path, columns: list[str]) -> None:
        super().__init__(place)
        self._columns = columns

    def __enter__(self) -> Self:
        super().__enter__()
        self._writer = csv.DictWriter(
            self._file, self._columns, delimiter="\t" if self._place.suffix.lower() == ".tsv" else ",", lineterminator="\n"
        )
        self._writer.writeheader()
        return self

    def add(self, row: Row) -> None:
        self._writer.writerow(row)


class _Table:
    """A table of Arrow's, written in batches with the schema of the input. It takes its name when it is complete."""

    def __init__(self, place: Path, schema: Any, reason: str) -> None:
        import pyarrow as pa

        self._place, self._temporary, self._waiting = place, place.with_name(f"{place.name}.tmp"), list[Row]()
        self._schema = schema.append(pa.field(reason, pa.string())).remove_metadata() if reason else schema

    def __enter__(self) -> Self:
        self._writer = self._open()
        return self

    def _open(self) -> Any:
        raise NotImplementedError

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
        except BaseException:
            _away(self._temporary)
            raise
        if kind is None:
            _away(self._place)
            self._temporary.replace(self._place)
        else:
            _away(self._temporary)

    def add(self, row: Row) -> None:
        self._waiting.append(row)
        if len(self._waiting) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def _away(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


class _Parquet(_Table):
    def __init__(self, place: Path, data: Path, reason: str) -> None:
        import pyarrow.parquet as pq

        super().__init__(place, pq.read_schema(data), reason)

    def _open(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(self._temporary, self._schema, compression="zstd")


class _Arrow(_Table):
    """A folder as `save_to_disk` writes it."""

    def __init__(self, place: Path, data: Path, reason: str) -> None:
        import pyarrow as pa

        with pa.memory_map(str(data_files(data)[0])) as source, pa.ipc.open_stream(source) as batches:
            schema = batches.schema
        super().__init__(place, schema, reason)
        _away(self._temporary)
        self._temporary.mkdir()
        (self._temporary / "state.json").write_text(_state(data), encoding="utf-8")
        info = data / "dataset_info.json"
        if info.exists() and not reason:
            shutil.copyfile(info, self._temporary / info.name)
        elif info.exists():
            (self._temporary / info.name).write_text("{}", encoding="utf-8")

    def _open(self) -> Any:
        import pyarrow as pa

        return pa.ipc.new_stream(str(self._temporary / "data-00000-of-00001.arrow"), self._schema)


def _state(data: Path) -> str:
    state = json.loads((data / "state.json").read_text(encoding="utf-8"))
    return json.dumps(
        {**state, "_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": f"{state.get('_fingerprint', '')}-cleaned"}
    )
