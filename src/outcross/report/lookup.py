"""Questions to a Parquet table of the record, answered column by column: nothing here holds a table as Python rows.

Each function answers with nothing when the file does not exist: a round that learnt nothing has no examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds


def _scan(path: Path, columns: Sequence[str], where: Any = None) -> pa.Table:
    if not path.exists():
        return None
    return ds.dataset(path, format="parquet").to_table(columns=list(columns), filter=where)


def starting(path: Path, column: str, prefix: str, where: Mapping[str, str] | None = None) -> set[str]:
    """The different values of a text column that start with `prefix`, in rows whose other columns equal `where`."""
    test = pc.starts_with(ds.field(column), prefix)
    for name, value in (where or {}).items():
        test = test & (ds.field(name) == value)
    found = _scan(path, [column], test)
    return set() if found is None else set(pc.unique(found[column]).to_pylist())


def rows(path: Path, columns: Sequence[str], where: Mapping[str, Iterable[Any]], limit: int | None = None) -> list[dict[str, Any]]:
    """Rows whose columns are among the given values, the first `limit` of them. A dot steps into a struct column."""
    listed = {name: list(values) for name, values in where.items()}
    if not path.exists() or not all(listed.values()):
        return []
    test = None
    for name, values in listed.items():
        one = ds.field(*name.split(".")).isin(values)
        test = one if test is None else test & one
    dataset = ds.dataset(path, format="parquet")
    kept = [name for name in columns if name in dataset.schema.names]
    table = dataset.to_table(columns=kept, filter=test) if limit is None else dataset.head(limit, columns=kept, filter=test)
    return list(table.to_pylist())


def count(path: Path, column: str, value: object) -> int:
    """How many rows hold `value`. A dot steps into a struct column."""
    if not path.exists():
        return 0
    return int(ds.dataset(path, format="parquet").count_rows(filter=ds.field(*column.split(".")) == value))


def children(path: Path, parents: Iterable[str]) -> list[str]:
    """The ids of rows that name one of `parents` among their `outcross.parents`, in the order of the table."""
    if not path.exists():
        return []
    ids: list[str] = []
    wanted = pa.array(list(parents), pa.string())
    columns = {"id": ds.field("id"), "parents": ds.field("outcross", "parents")}
    for batch in ds.dataset(path, format="parquet").to_batches(columns=columns):
        lists = batch.column("parents")
        match = pc.is_in(pc.list_flatten(lists), value_set=wanted)
        at = pc.unique(pc.list_parent_indices(lists).filter(match))
        ids.extend(batch.column("id").take(at).to_pylist())
    return ids


def spans(path: Path, ids: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    """By example id: how often the optimiser saw it, and the first and the last step that did."""
    wanted = list(ids)
    found = _scan(path, ["step", "id"], ds.field("id").isin(wanted)) if wanted else None
    if found is None:
        return {}
    table = found.group_by("id").aggregate([("step", "count"), ("step", "min"), ("step", "max")])
    return {row["id"]: (row["step_count"], row["step_min"], row["step_max"]) for row in table.to_pylist()}


def in_step(path: Path, step: int) -> list[str]:
    """The ids of the examples in one optimiser step, in their order."""
    found = _scan(path, ["id"], ds.field("step") == step)
    return [] if found is None else list(found["id"].to_pylist())


def last_step(path: Path) -> int | None:
    """The number of the last optimiser step; None without any."""
    found = _scan(path, ["step"])
    return None if found is None or not len(found) else int(pc.max(found["step"]).as_py())


def totals(path: Path, by: str, amount: str) -> dict[str, tuple[int, int]]:
    """By value of column `by`: the number of rows, and the sum of `amount` over them."""
    found = _scan(path, [by, amount])
    if found is None:
        return {}
    table = found.group_by(by).aggregate([(amount, "count"), (amount, "sum")])
    return {row[by]: (row[f"{amount}_count"], row[f"{amount}_sum"]) for row in table.to_pylist()}


def pairs(path: Path, first: str, second: str) -> list[tuple[str, str, int]]:
    """The combinations of two text columns and how often each occurs, the most frequent first."""
    found = _scan(path, [first, second])
    if found is None:
        return []
    table = found.group_by([first, second]).aggregate([([], "count_all")])
    listed = [(row[first], row[second], row["count_all"]) for row in table.to_pylist()]
    return sorted(listed, key=lambda item: (-item[2], item[0], item[1]))


def head(path: Path, columns: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """The first `limit` rows, in order."""
    return rows(path, columns, {}, limit)


def unjudged(path: Path, columns: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """The first `limit` samples without any verdict: failed requests, and all samples where nothing verifies."""
    if not path.exists():
        return []
    dataset = ds.dataset(path, format="parquet")
    kept = [name for name in columns if name in dataset.schema.names]
    return list(dataset.head(limit, columns=kept, filter=ds.field("verdict").is_null()).to_pylist())
