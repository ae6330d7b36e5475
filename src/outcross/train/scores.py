"""What reference models said of answers, on disk: fits of a run that compare with the same model ask it about an answer once."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

Key = bytes


class Scores:
    """Log-probabilities by key, 4 bytes a token, in one file of `folder`.

    It is a cache: without it everything is asked again. Numbers are added all at once or not at all, so that a fit that was killed in between
    asks the same questions in the same batches as before, and gets the same answers to the last bit.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, keys: Iterable[Key]) -> dict[Key, array[float]]:
        """Those of `keys` that are known."""
        found = {}
        with closing(self._open()) as database:
            for key in keys:
                row = database.execute("SELECT numbers FROM scores WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = array("f", row[0])
        return found

    def add(self, scores: Mapping[Key, array[float]]) -> None:
        """Keep all of these."""
        with closing(self._open()) as database, database:
            database.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?)", ((key, numbers.tobytes()) for key, numbers in scores.items())
            )

    def _open(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._folder / "references.db")
        database.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, numbers BLOB) WITHOUT ROWID")
        return database
