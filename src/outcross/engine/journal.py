"""The journal: request key → raw answer, in SQLite (WAL). What has been answered once is never asked again.

The key covers everything that shapes an answer: the model's identity and the whole request, seed included. Answers are
committed before anybody parses them; the executor hands them over in groups at most 10 ms old, one transaction a group.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from outcross.errors import StoreError
from outcross.types import Request, Response, Usage

FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, answer BLOB NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, money REAL NOT NULL
) WITHOUT ROWID;
"""
_requests = msgspec.msgpack.Encoder(order="deterministic")
_encode = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(Response)
_LOOKUP = 500  # keys a query: SQLite allows 999 parameters on old builds


def request_key(model_id: str, request: Request) -> bytes:
    """128 bits of BLAKE2b over the model's identity and the whole request."""
    return hashlib.blake2b(_requests.encode((model_id, request)), digest_size=16).digest()


class Journal:
    """One SQLite file of raw answers. Safe to use from several threads of one process.

    Raises `StoreError` when the file is damaged, of another format, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, FORMAT):
                raise StoreError(f"{path} is a journal of format {found}; this version of Outcross reads format {FORMAT}")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={FORMAT}")
        except sqlite3.OperationalError as error:
            raise StoreError(f"the journal {path} cannot be written ({error}); free space or fix the permissions, then resume") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"the journal {path} cannot be used ({error}); move it away to start without earlier answers") from error

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Response]:
        """The stored answers among `keys`."""
        found: dict[bytes, Response] = {}
        with self._lock:
            for start in range(0, len(keys), _LOOKUP):
                part = keys[start : start + _LOOKUP]
                marks = ",".join("?" * len(part))
                for key, answer in self._db.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", part):
                    found[key] = _decode.decode(answer)
        return found

    def put(self, answers: Iterable[tuple[bytes, str, Response]]) -> None:
        """Commit answers (key, model id, answer) in one transaction. They are on disk when this returns."""
        rows = [
            (key, model, _encode.encode(answer), answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.money)
            for key, model, answer in answers
        ]
        if not rows:
            return
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?,?,?,?,?,?)", rows)
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error):  # Ctrl-C, for one
                    raise
                raise StoreError(f"the journal {self.path} cannot be written ({error}); free disk space, then `outcross resume`") from error

    def spent(self) -> Mapping[str, tuple[int, Usage]]:
        """By model: the number of requests answered and what they cost, over the whole life of the journal."""
        with self._lock:
            rows = self._db.execute(
                "SELECT model, count(*), sum(prompt_tokens), sum(completion_tokens), sum(money) FROM answers GROUP BY model"
            ).fetchall()
        return {model: (count, Usage(prompt, completion, money)) for model, count, prompt, completion, money in rows}

    def close(self) -> None:
        with self._lock:
            self._db.close()
