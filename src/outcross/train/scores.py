"""What reference models said of answers, on disk: fits of a run that compare with the same model ask it about an answer once."""

from __future__ import annotations

import logging
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
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
        found = {}
        with self._open() as database:
            for key in keys:
                row = database.execute("SELECT numbers FROM scores WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = array("f", row[0])
        return found

    def add(self, scores: Mapping[Key, array[float]]) -> None:
        """Keep all of these."""
        with self._open() as database, database:
            database.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?, ?)", ((key, numbers.tobytes()) for key, numbers in scores.items())
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file; what goes wrong with it is said and no more."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self._path)) as database:
                database.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, numbers BLOB) WITHOUT ROWID")
                yield database
        except sqlite3.DatabaseError as error:  # damaged, or a full disk
            log.warning("%s cannot be used (%s): the reference is asked anew; remove the file if it is damaged", self._path, error)
