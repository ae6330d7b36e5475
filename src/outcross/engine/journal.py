"""The journal: request key → raw answer, in SQLite (WAL). What has been answered once is never asked again.

The key covers everything that shapes an answer: the model's identity, its client's version and the whole request, seed included. Answers
are committed before anybody parses them, in groups, one transaction a group (`engine/commits.py`). Runs may share a journal, one after
the other: what each of them paid for is counted beside the answers, in the same transaction.

    askers   id, run, model, requests, failed, prompt_tokens, completion_tokens, money      run "": the run whose folder holds the journal
    answers  key, asker, answer       a checksum and the MessagePack form of the Response; rows lie in the order of their commits,
                                      because a place by key costs twice the time of writing (benchmarks/journal.py)
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from outcross.engine.arrivals import Arrivals
from outcross.engine.locks import lock
from outcross.engine.mounts import refuse_network
from outcross.errors import StoreError
from outcross.types import Request, Response, Usage

FORMAT = 2
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS askers (id INTEGER PRIMARY KEY, run TEXT NOT NULL, model TEXT NOT NULL, requests INTEGER NOT NULL, "
    "failed INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, money REAL NOT NULL, UNIQUE (run, model))",
    "CREATE TABLE IF NOT EXISTS answers (key BLOB NOT NULL UNIQUE, asker INTEGER NOT NULL, answer BLOB NOT NULL)",
)
_ADD = (
    "INSERT INTO askers (run, model, requests, failed, prompt_tokens, completion_tokens, money) VALUES (?,?,?,?,?,?,?) "
    "ON CONFLICT (run, model) DO UPDATE SET requests = requests + excluded.requests, failed = failed + excluded.failed, "
    "prompt_tokens = prompt_tokens + excluded.prompt_tokens, completion_tokens = completion_tokens + excluded.completion_tokens, "
    "money = money + excluded.money"
)
_FROM_1 = (
    "ALTER TABLE answers RENAME TO answers_1",
    *_SCHEMA,
    "INSERT INTO askers (run, model, requests, failed, prompt_tokens, completion_tokens, money) "
    "SELECT '', model, count(*), 0, sum(prompt_tokens), sum(completion_tokens), sum(money) FROM answers_1 GROUP BY model",
    "INSERT INTO answers SELECT key, (SELECT id FROM askers WHERE askers.model = answers_1.model), sealed(key, answer) FROM answers_1",
    "DROP TABLE answers_1",
)
_AS_1 = (  # how a journal of format 1 is read without being changed
    "CREATE TEMP VIEW askers AS SELECT '' AS run, model, count(*) AS requests, 0 AS failed, sum(prompt_tokens) AS prompt_tokens, "
    "sum(completion_tokens) AS completion_tokens, sum(money) AS money FROM main.answers GROUP BY model",
    "CREATE TEMP VIEW answers AS SELECT key, sealed(key, answer) AS answer FROM main.answers",
)
CACHE_KB = 16_384  # pages that a connection keeps in memory
_LOOKUP = 500  # keys a query: SQLite allows 999 parameters on old builds
_requests = msgspec.msgpack.Encoder(order="deterministic")
_encode = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(Response)


def request_key(model_id: str, request: Request, client_version: str = "") -> bytes:
    """128 bits of BLAKE2b over the model's identity, the whole request and the version of the client that sends it, where it has one."""
    parts = (model_id, request, client_version) if client_version else (model_id, request)
    return hashlib.blake2b(_requests.encode(parts), digest_size=16).digest()


class Journal:
    """One SQLite file of raw answers, for one run. Safe to use from several threads of one process.

    run: under what name its spending is counted; empty for the run whose folder holds the journal. writes: whether anything may be
    added; if not, any number of processes may read it, and nothing can be asked. holder: the run's folder, for whoever finds the journal locked.

    Raises `RunLocked` naming the process that writes it already, and `StoreError` when the file is damaged, of a later format, on a
    network file system, or cannot be written.
    """

    def __init__(self, path: Path, run: str = "", *, writes: bool = True, holder: Path | None = None) -> None:
        self.path, self.run, self.writes = path, run, writes
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._unlock: Callable[[], object] = lambda: None
        self.arrivals = Arrivals(path)
        if writes:
            self._lock((holder or path.parent).resolve())
        elif not path.exists():
            raise StoreError(f"there is no journal at {path}; name the responses.db of a run that holds the answers")
        try:
            self._open()
        except BaseException:
            self._unlock()
            raise

    def _open(self) -> None:
        with self._told("opened"):
            self._db = self._connect()
            found = self._prepare()
            self._reader = self._connect()
            if self.writes:
                self._recover()
            if found == 1 and not self.writes:
                self._reader.create_function("sealed", 2, _sealed, deterministic=True)
                for statement in _AS_1:
                    self._reader.execute(statement)

    def _recover(self) -> None:
        """Commit what a killed process had received, and had not committed yet."""
        left = list(self.arrivals.left())
        known = self.get([key for _, key, _, _ in left])
        for run in dict.fromkeys(run for run, _, _, _ in left):
            self._write(run, [(key, model, answer) for of, key, model, answer in left if of == run and key not in known])
        self.arrivals.forget()

    def _lock(self, holder: Path) -> None:
        refuse_network(self.path)
        file = self.path.resolve() if self.path.is_file() else self.path  # one file has one lock, by whatever name it is opened
        handle = lock(
            file.with_name(f"{file.name}.lock"),
            f"the journal {self.path}",
            f"for the run in {holder}",
            "two runs cannot write one journal at once: wait for it, stop it, or give this run another with --journal",
        )
        self._unlock = weakref.finalize(self, os.close, handle)

    def _connect(self) -> sqlite3.Connection:
        if self.writes:
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        else:
            path = self.path.resolve()
            still = not path.with_name(f"{path.name}-wal").exists() and not os.access(path.parent, os.W_OK)  # a folder that cannot change
            words = "mode=ro&immutable=1" if still else "mode=ro"
            db = sqlite3.connect(f"{path.as_uri()}?{words}", uri=True, isolation_level=None, check_same_thread=False)
        db.execute(f"PRAGMA cache_size=-{CACHE_KB}")
        return db

    def _prepare(self) -> int:
        """Bring the file to this format, and look for signs of damage that cost nothing to see. Returns the format that it had."""
        found: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > FORMAT:
            raise StoreError(
                f"{self.path} is a journal of format {found}; this version of Outcross reads formats up to {FORMAT}: use the version that wrote it"
            )
        if found == 0 and self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError("it is a database of something else")
        if found == 0 and not self.writes:
            raise sqlite3.DatabaseError("it is empty")
        if self.writes:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._check_length()
        if found < FORMAT and self.writes:
            self._db.create_function("sealed", 2, _sealed, deterministic=True)
            with self._transaction():
                for statement in _FROM_1 if found == 1 else _SCHEMA:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={FORMAT}")
        return found

    def _check_length(self) -> None:
        """Raises `sqlite3.DatabaseError` when the file is shorter than it says. What a killed process left beside it is moved into it first."""
        _, waiting, moved = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if waiting != moved:  # a reader is in the way
            return
        pages, size = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        there = self.path.stat().st_size
        if there < pages * size:
            raise sqlite3.DatabaseError(f"it is cut off: {there:,} bytes of {pages * size:,} are there")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Response]:
        """The stored answers among `keys`."""
        found: dict[bytes, Response] = {}
        with self._reading, self._told("read"):
            for start in range(0, len(keys), _LOOKUP):
                part = keys[start : start + _LOOKUP]
                marks = ",".join("?" * len(part))
                for key, answer in self._reader.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", part):
                    found[key] = _opened(key, answer)
        return found

    def put(self, answers: Iterable[tuple[bytes, str, Response]]) -> None:
        """Commit answers (key, model id, answer) and what they cost, in one transaction. They are on disk when this returns.

        Failed answers are counted and not kept: they will be asked again. Of two answers to one question the first one is kept.
        """
        self._write(self.run, answers)

    def _write(self, run: str, answers: Iterable[tuple[bytes, str, Response]]) -> None:
        spent: dict[str, list[float]] = {}
        rows = []
        for key, model, answer in answers:
            total = spent.setdefault(model, [0, 0, 0, 0, 0.0])
            usage = answer.usage
            step = (not answer.error, bool(answer.error), usage.prompt_tokens, usage.completion_tokens, usage.money)
            total[:] = [old + more for old, more in zip(total, step, strict=True)]
            if not answer.error:
                rows.append((key, model, _sealed(key, _encode.encode(answer))))
        if not spent:
            return
        with self._writing, self._told("written"), self._transaction():
            self._db.executemany(_ADD, [(run, model, *total) for model, total in spent.items()])
            askers = dict(self._db.execute("SELECT model, id FROM askers WHERE run = ?", (run,)))
            self._db.executemany(
                "INSERT OR IGNORE INTO answers (key, asker, answer) VALUES (?,?,?)",
                [(key, askers[model], sealed) for key, model, sealed in rows],
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException:  # Ctrl-C, for one
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def spent(self) -> Mapping[str, tuple[int, Usage]]:
        """By model: the requests that this run had answered, and what all of its requests cost, over all its attempts."""
        with self._reading, self._told("read"):
            rows = self._reader.execute(
                "SELECT model, requests, prompt_tokens, completion_tokens, money FROM askers WHERE run = ?", (self.run,)
            ).fetchall()
        return {model: (count, Usage(prompt, completion, money)) for model, count, prompt, completion, money in rows}

    def failed(self) -> int:
        """How many requests of this run ended without an answer, over all its attempts."""
        with self._reading, self._told("read"):
            return int(self._reader.execute("SELECT coalesce(sum(failed), 0) FROM askers WHERE run = ?", (self.run,)).fetchone()[0])

    def runs(self) -> list[str]:
        """The names of the runs that have asked."""
        with self._reading, self._told("read"):
            return [run for (run,) in self._reader.execute("SELECT DISTINCT run FROM askers ORDER BY run")]

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Tell what SQLite raises in words, with the next step: a disk that is full and a damaged file are different troubles."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise  # a fault of the caller's, not of the file
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"the journal {self.path} cannot be {'written' if self.writes else what} ({error}); free space or fix the permissions, then resume"
            ) from error
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            raise StoreError(
                f"the journal {self.path} cannot be used ({error}): the file is damaged, or not a journal. Restore it from a copy, or move it away, "
                "with the files of its name that end in -wal and -shm, to start without earlier answers; they are then asked again"
            ) from error

    def close(self) -> None:
        """Leave one file, which can be read wherever it is; where a reader is in the way, its -wal and -shm stay beside it."""
        with self._writing, self._reading:
            self._reader.close()
            if self.writes:
                self.arrivals.close()
                with suppress(sqlite3.Error):
                    self._db.execute("PRAGMA journal_mode=DELETE")
            self._db.close()
        self._unlock()


def _sealed(key: bytes, answer: bytes) -> bytes:
    """An answer with a checksum in front, so that a bit that a disk lost is not taken for a model's word."""
    return zlib.crc32(answer, zlib.crc32(key)).to_bytes(4, "big") + answer


def _opened(key: bytes, sealed: bytes) -> Response:
    if _sealed(key, sealed[4:]) != sealed:
        raise sqlite3.DatabaseError(f"the answer {key.hex()} does not match its checksum")
    return _decode.decode(sealed[4:])
