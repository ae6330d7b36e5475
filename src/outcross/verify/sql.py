"""Queries that must give the right rows, run on a database."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

from outcross.errors import ConfigError, DataError, MissingExtra
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Task
from outcross.verify.ahead import known
from outcross.verify.code import program_in
from outcross.verify.each import Finding
from outcross.verify.workers import Job, Workers, scored_by_workers

_LONGEST = 100_000  # characters of an answer
_OUTSIDE = re.compile(  # what is no statement, and the brackets that nest
    r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\$(\w*)\$.*?\$\1\$|[(\[{]|[)\]}]", re.DOTALL
)


@dataclass(frozen=True)
class Sql(Stage):
    """Passes a query that gives the expected rows on a SQLite or DuckDB database. The query is the answer's last fenced block, or the
    whole answer: one statement that reads, and nothing else.

    database: the file. It is part of what the verifier is by its content, not by its path, and is only ever read.
    expected: the task's column that holds the expected rows, as JSON `[[value, …], …]`; without it the task's reference answer is a
        query that gives them.
    ordered: whether the order of rows matters; none: where the reference query ends in an ORDER BY of its own. Rows that the
        reference orders no further are then expected in the order in which the database happens to give them.
    names: whether the columns must bear the same names, upper and lower case apart.
    tolerance: floating-point numbers this close are the same: relative, and absolute below 1. Whole numbers must be equal.
    rows: how many rows a reference may give; of an answer no more are ever read than are expected, and one.
    seconds: of CPU time an answer, ten times as much on the clock; beyond it the verdict is the *error* "timeout", and beyond
        memory_mb (of what the worker takes on top of its start) the *error* "out of memory": a query that is too slow here is not a wrong one.

    Queries run in worker processes that are thrown away when they hang: without capabilities and sockets on Linux, with limits on
    memory, and with a database that refuses to write, attach, load extensions or reach files. What the database itself refuses
    fails; a reference that does not run is an *error*. A task without a reference is abstained on. DuckDB needs the extra `tables`.
    """

    database: Path
    expected: str = ""
    ordered: bool | None = None
    names: bool = False
    tolerance: float = 1e-6
    rows: int = 10_000
    seconds: float = 5.0
    memory_mb: int = 512
    ground: ClassVar[Ground] = "executed"

    def __post_init__(self) -> None:
        for name, least in (("tolerance", 0), ("rows", 1), ("memory_mb", 64)):
            if getattr(self, name) < least:
                raise ConfigError(f"sql: {name} is {getattr(self, name)}; it is {least} or more")
        if not 0 < self.seconds <= 3600:
            raise ConfigError(f"sql: seconds is {self.seconds}; it is more than 0 and at most 3600")

    def identity(self) -> object:
        """The database by its content, with the settings."""
        path = Path(self.database)
        _engine(path)
        status = path.stat()
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "database"}
        return {"database": _digest(str(path), status.st_size, status.st_mtime_ns), "version": self.version, **settings}

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """A right query, a wrong one, one that writes, one that does not run, and a task without a reference."""
        queries = ("SELECT 42 AS x", "SELECT 41 AS x", "CREATE TABLE canary (x INTEGER)", "SELECT FROM")
        columns, answer = (((self.expected, "[[42]]"),), None) if self.expected else ((), "SELECT 42 AS x")
        return (
            Canary(Task("the same row", "", answer, columns=columns), queries, ("pass", "fail", "fail", "fail")),
            Canary(Task("no reference", ""), queries[:1], ("abstain",)),
        )

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        """Raises `DataError`, before anything is read, for a database that is missing, of another kind or still being written."""
        path = Path(self.database).absolute()
        settings = {"engine": _engine(path), "path": str(path), "memory": self.memory_mb * 2**20}
        settings |= {"tolerance": self.tolerance, "names": self.names, "most": self.rows}
        return scored_by_workers(self, groups, Job("sql_worker", self.memory_mb * 2**20, self.seconds, settings), self._ask)

    def _ask(self, workers: Workers, task: Task, text: str) -> Future[Finding]:
        rows = dict(task.columns).get(self.expected, "") if self.expected else ""
        reference = "" if self.expected else task.answer or ""
        if not rows and not reference:
            return known(("abstain", "the task has no reference query and no expected rows", ""))
        if len(text) > _LONGEST:
            return known(("fail", "the answer is too long", f"{len(text)} characters"))
        ordered = is_ordered(reference) if self.ordered is None else self.ordered
        return workers.submit(reference, rows, "ordered" if ordered else "", program_in(text))


@lru_cache(maxsize=1024)
def is_ordered(query: str) -> bool:
    """Whether a query orders its rows: has an ORDER BY outside of brackets, texts and comments."""
    depth, outside, place = 0, [], 0
    for found in _OUTSIDE.finditer(query):
        if depth == 0:
            outside.append(query[place : found.start()])
        place = found.end()
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(found.group(), 0)
    outside.append(query[place:] if depth == 0 else "")
    return re.search(r"\border\s+by\b", " ".join(outside), re.IGNORECASE) is not None


def _engine(path: Path) -> Literal["sqlite", "duckdb"]:
    """Which database a file is, by its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise DataError(f"sql: the database {path} cannot be read: {error.strerror}; give the path of a SQLite or DuckDB file") from None
    journals: tuple[str, ...]
    if start.startswith(b"SQLite format 3\0"):
        journals = ("-wal", "-journal")
    elif start[8:12] == b"DUCK":
        journals = (".wal",)
        if find_spec("duckdb") is None:
            raise MissingExtra("duckdb", "tables", "a DuckDB database for the verifier `sql`")
    else:
        raise DataError(f"sql: {path} is neither a SQLite nor a DuckDB database; its first bytes are {start!r}")
    for ending in journals:
        journal = path.with_name(path.name + ending)
        if journal.exists() and journal.stat().st_size:
            raise DataError(f"sql: {journal} holds changes that are not in the database yet; close whatever writes to it, so that they are")
    return "sqlite" if start.startswith(b"SQLite") else "duckdb"


@lru_cache(maxsize=64)
def _digest(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
