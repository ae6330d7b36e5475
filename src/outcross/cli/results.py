"""Results by item, from runs, measurement files and the logs of evaluation tools, as measurements that can be paired."""

from __future__ import annotations

import csv
import json
import math
import struct
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outcross.errors import DataError

if TYPE_CHECKING:
    from outcross.types import Measurement

Values = dict[str, dict[str, list[float]]]  # metric → item → every value of it
IDENTIFIERS = ("id", "item", "doc_id", "task_id", "sample_id", "question_id")
GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}  # how inspect writes correct, incorrect, partial and no answer


def read_results(path: Path, lower_is_better: bool = False) -> dict[str, Measurement]:
    """What a file or folder says about its items, by metric.

    A run (its champion), a folder or file of measurements, rows with an identifier and numbers (JSONL or CSV), samples that lm-eval
    logged (`samples_*.jsonl`), or a log of inspect (`.json`, `.eval`). Several values of one item are averaged. `lower_is_better`
    speaks of files that do not say it themselves. Raises `DataError`.
    """
    if path.is_dir() or path.suffix == ".parquet":
        return _measured(path)
    if not path.is_file():
        raise DataError(f"there is no file or run {path}")
    if path.suffix == ".csv":
        values = _of_rows(_csv_rows(path), path)
    elif path.suffix == ".jsonl":
        values = _of_rows(_json_rows(path), path)
    elif path.suffix in (".json", ".eval"):
        values = _inspect(path)
    else:
        raise DataError(
            f"{path}: results are read from .jsonl, .csv, .json, .eval and .parquet files and from runs, not from {path.suffix!r}"
        )
    found = {metric: _measurement(metric, items, lower_is_better) for metric, items in values.items()}
    if not found:
        raise DataError(
            f"{path} holds no number by item; each row needs an identifier ({', '.join(IDENTIFIERS)}) and a number or true/false"
        )
    return found


def _measured(path: Path) -> dict[str, Measurement]:
    from outcross.engine.store import RunDir, read_measurements
    from outcross.report.tracks import champion_measurements

    if (path / "manifest.json").is_file():
        found = dict(champion_measurements(RunDir(path)))
    else:
        found = read_measurements(path if path.is_file() else path / "measurements.parquet")
    if not found:
        raise DataError(f"{path} holds no measurements; give a run, a round's folder or a measurements.parquet")
    return found


def _measurement(metric: str, items: Mapping[str, list[float]], lower: bool) -> Measurement:
    from outcross.types import Measurement

    means = {item: math.fsum(values) / len(values) for item, values in items.items()}
    unit = "share" if all(0 <= value <= 1 for value in means.values()) else ""
    return Measurement(metric, tuple(means), tuple(means.values()), higher_is_better=not lower, unit=unit)


# ── rows, and samples of lm-eval ───────────────────────────────────────────────────────────────────────────────────────
def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: no JSON ({error})") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: a row is an object, and this is {line.strip()[:40]!r}")
            yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as lines:
        for number, row in enumerate(csv.DictReader(lines), 2):
            yield number, {name: _parsed(value) for name, value in row.items() if name is not None}


def _parsed(text: str | None) -> Any:
    if text in ("True", "true", "False", "false"):
        return text.casefold() == "true"
    try:
        return float(text or "")
    except ValueError:
        return text


def _of_rows(rows: Iterable[tuple[int, Mapping[str, Any]]], path: Path) -> Values:
    found: Values = defaultdict(lambda: defaultdict(list))
    for number, row in rows:
        name = next((name for name in IDENTIFIERS if row.get(name) not in (None, "")), None)
        if name is None:
            raise DataError(f"{path}, line {number}: no identifier; name the item in one of {', '.join(IDENTIFIERS)}")
        item = f"{row[name]:g}" if isinstance(row[name], float) else str(row[name])
        logged = row.get("metrics") if "doc_hash" in row else None
        if logged is not None:
            item = f"{item}#{row['doc_hash'][:16]}"  # documents of two versions of a task may have one number
        names = logged if isinstance(logged, list) else [key for key in row if key not in IDENTIFIERS]
        for metric in names:
            value = row.get(metric)
            if isinstance(value, bool | int | float):
                _refuse_no_number(value, f"{path}, line {number}: {metric}")
                of = f"{metric},{row['filter']}" if logged is not None and row.get("filter", "none") != "none" else metric
                found[of][item].append(float(value))
    return found


def _refuse_no_number(value: float, where: str) -> None:
    if not math.isfinite(value):
        raise DataError(f"{where} is {value}; leave out items without a finite number")


# ── inspect ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _inspect(path: Path) -> Values:
    found: Values = defaultdict(lambda: defaultdict(list))
    for sample in _inspect_samples(path):
        for scorer, score in (sample.get("scores") or {}).items():
            value = score.get("value") if isinstance(score, dict) else None
            parts = {f"{scorer}/{key}": part for key, part in value.items()} if isinstance(value, dict) else {scorer: value}
            for metric, part in parts.items():
                number = GRADES.get(part) if isinstance(part, str) else part
                if isinstance(number, bool | int | float):
                    _refuse_no_number(number, f"{path}, sample {sample['id']}: {metric}")
                    found[metric][str(sample["id"])].append(float(number))
    return found


def _inspect_samples(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if member.filename.startswith("samples/"):
                        yield json.loads(_member(path, archive, member))
            return
        log = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, NotImplementedError) as error:
        raise DataError(
            f"{path} cannot be read as a log of inspect ({error}); `inspect log convert --to json` writes one that can"
        ) from None
    samples = log.get("samples") if isinstance(log, dict) else None
    if not samples:
        raise DataError(f"{path} is no log of inspect with samples; rows of your own go into a .jsonl or .csv file")
    yield from samples


ZSTANDARD = 93  # how a zip file names it; inspect compresses by it, and Python's zipfile reads it from 3.14 on


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a file in a zip file."""
    if member.compress_type != ZSTANDARD:
        return archive.read(member)
    import pyarrow as pa

    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # of the local header: the lengths of the name and of the extra field end it
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        packed = file.read(member.compress_size)
    with pa.input_stream(pa.py_buffer(packed), compression="zstd") as stream:
        return bytes(stream.read())
