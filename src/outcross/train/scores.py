"""What reference models said of answers, on disk: fits of a run that compare with the same model ask it about an answer once."""

from __future__ import annotations

import logging
import sqlite3
from array import array
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

log = logging.getLogger(__name__)
Key = bytes


class Scores:
    """Log-probabilities by key, 4 bytes a token, in one file of `folder`.

    It is a cache: without it, or with a file that cannot be used, everything is asked again. Numbers are added all at once or not at all, so that a fit
    that was killed in between asks the same questions in the same batches as before, and gets the same answers to the last bit.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "references.db"

    def read(self, keys: Iterable[Key]) -> dict[Key, array[float]]:
        """Those of `keys` that are known."""
        try:
            with closing(self._open()) as database:
                rows = [(key, database.execute("SELECT numbers FROM scores WHERE key = ?", (key,)).fetchone()) for key in keys]
        except sqlite3.DatabaseError as error:
            self._warn(error)
            return {}
        return {key: array("f", row[0]) for key, row in rows if row is not None}

    def add(self, scores: Mapping[Key, array[float]]) -> None:
        """Keep all of these."""
        rows = [(key, numbers.tobytes()) for key, numbers in scores.items()]
        try:
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", rows)
        except sqlite3.DatabaseError as error:
            self._warn(error)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path)
        database.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, numbers BLOB) WITHOUT ROWID")
        return database

    def _warn(self, error: sqlite3.DatabaseError) -> None:
        """Of a damaged file, or a full disk."""
        log.warning("%s cannot be used (%s), so the reference is asked again; if it is damaged, remove it", self._path, error)
