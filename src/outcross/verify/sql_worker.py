"""The process in which queries run, on a database that it can only read.

SQLite asks for leave for everything that a statement is about to do, and gets it for reading alone; DuckDB has no way out of its
database. Both are limited in what they hold, and the process in all else.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from outcross.verify.each import Finding
from outcross.verify.sql_rows import Row, compared
from outcross.verify.worker import Judge, serve

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_DENIED = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "fsdir", "lsmode", "zipfile", "sqlite_log"}
_SQLITE_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 10_000_000, sqlite3.SQLITE_LIMIT_SQL_LENGTH: 200_000, sqlite3.SQLITE_LIMIT_COLUMN: 1000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 500, sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 200, sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0, sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 5000,
}  # fmt: skip
_DUCKDB = {
    "enable_external_access": "false", "python_enable_replacements": "false", "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false", "allow_community_extensions": "false", "allow_persistent_secrets": "false",
    "max_temp_directory_size": "0B", "threads": "1", "lock_configuration": "true",
}  # fmt: skip


class Refused(Exception):
    """A statement that is not run, or did not run to its end: why, in a few fixed words, and what the database says."""


@dataclass(frozen=True)
class Result:
    """Names of the columns and rows of a query, at most as many as were asked for."""

    names: tuple[str, ...]
    rows: list[Row]


Query = Callable[[str, int], Result]
"""Run one statement and give at most so many rows. Raises `Refused`, and `MemoryError` beyond the limit on memory."""


# ── databases ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def sqlite(path: str, memory: int) -> Query:
    """A SQLite database that cannot be written: opened as immutable, and asked by an authorizer that allows nothing but reading."""
    connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
    for pragma in ("temp_store=MEMORY", "trusted_schema=OFF", "query_only=ON", "mmap_size=0"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    for limit, most in _SQLITE_LIMITS.items():
        connection.setlimit(limit, most)
    connection.set_authorizer(_leave)

    def query(statement: str, most: int) -> Result:
        try:
            found = connection.execute(statement)
            if found.description is None:
                raise Refused("no query", "the statement gives no rows")
            return Result(tuple(item[0] for item in found.description), found.fetchmany(most))
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise _refused(str(error)) from None

    return query


def _leave(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    function = action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _DENIED
    return sqlite3.SQLITE_OK if action in _ALLOWED or function else sqlite3.SQLITE_DENY


def duckdb(path: str, memory: int) -> Query:
    """A DuckDB database that cannot be written, with no way to files, extensions, the network or this process's variables."""
    import duckdb

    connection = duckdb.connect(path, read_only=True, config={**_DUCKDB, "memory_limit": f"{memory // 2**21}MB"})

    def query(statement: str, most: int) -> Result:
        try:
            statements = connection.extract_statements(statement)
            if len(statements) != 1:
                raise Refused("more than one statement" if statements else "no query", f"{len(statements)} statements")
            if statements[0].type.name != "SELECT":
                raise Refused("the statement is not allowed", f"a statement of type {statements[0].type.name}")
            found = connection.execute(statements[0])
            return Result(tuple(item[0] for item in found.description), [tuple(map(_plain, row)) for row in found.fetchmany(most)])
        except duckdb.OutOfMemoryException:
            raise MemoryError from None
        except (duckdb.Error, ValueError, OverflowError) as error:
            raise _refused(str(error)) from None

    return query


def _plain(value: Any) -> Any:
    """Lists and structures of DuckDB as text, and NaN too: rows are compared by value and put into sets."""
    return repr(value) if isinstance(value, list | dict) or (isinstance(value, float) and math.isnan(value)) else value


def _refused(said: str) -> Refused:
    if "one statement at a time" in said:
        return Refused("more than one statement", "")
    if any(words in said for words in ("not authorized", "prohibited", "Permission Error", "readonly", "read-only")):
        return Refused("the statement is not allowed", said)
    return Refused("the statement failed", said)


# ── judging ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Judging:
    """How answers are judged on one database; see `Sql`."""

    query: Query
    tolerance: float
    names: bool
    most: int

    def __call__(self, reference: str, rows: str, ordered: str, answer: str) -> Finding:
        try:
            expected = self._expected(reference, rows)
        except Refused as refused:
            return "error", "the reference query failed", ": ".join(map(str, refused.args))[:200]
        except ValueError as error:
            return "error", "the expected rows are not a JSON list of lists", str(error)[:200]
        if len(expected.rows) > self.most:
            return "error", "the expected result is too large", f"more than {self.most} rows"
        try:
            said = self.query(answer, len(expected.rows) + 1)
        except Refused as refused:
            return "fail", str(refused.args[0]), str(refused.args[1])[:200]
        if differs := self._columns(said, expected):
            return differs
        return compared(said.rows, expected.rows, ordered=bool(ordered), tolerance=self.tolerance)

    def _columns(self, said: Result, expected: Result) -> Finding | None:
        width = len(expected.names) or (len(expected.rows[0]) if expected.rows else len(said.names))
        if len(said.names) != width:
            return "fail", "a different number of columns", f"{len(said.names)}, expected {width}"
        if self.names and expected.names and [name.lower() for name in said.names] != [name.lower() for name in expected.names]:
            return "fail", "different names of columns", f"{said.names!r:.90}, expected {expected.names!r:.90}"
        return None

    @lru_cache(maxsize=64)  # noqa: B019  there is one for each worker
    def _expected(self, reference: str, rows: str) -> Result:
        return self.query(reference, self.most + 1) if reference else Result((), _listed(rows))


def _listed(rows: str) -> list[Row]:
    found: Sequence[Any] = json.loads(rows)
    if not isinstance(found, list) or not all(isinstance(row, list) for row in found):
        raise ValueError(rows[:100])
    return [tuple(map(_plain, row)) for row in found]


def prepare(settings: dict[str, Any]) -> Judge:
    """The judge of one database, opened before the limits hold."""
    opened = {"sqlite": sqlite, "duckdb": duckdb}[settings["engine"]](settings["path"], settings["memory"])
    return Judging(opened, settings["tolerance"], settings["names"], settings["most"])


if __name__ == "__main__":
    serve(prepare)
