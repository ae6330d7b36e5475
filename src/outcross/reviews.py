"""People's verdicts in files: how they are read, and what several reviewers of one answer say together."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

from outcross.errors import DataError, did_you_mean
from outcross.types import Record, Verdict

DATABASES = (".db", ".sqlite", ".sqlite3")
COLUMNS = ("sample_id", "task_id", "text", "reviewer", "verdict", "reason")


class Written(Record, frozen=True, omit_defaults=True):
    """A person's verdict on an answer, which is named by its sample's identifier, or by its task's and its text."""

    sample_id: str
    task_id: str
    text: str
    reviewer: str
    verdict: Verdict
    reason: str = ""


def read_reviews(path: Path) -> Iterator[Written]:
    """The verdicts in a file: JSON lines, CSV with a header, or the table `reviews` of an SQLite database. Their columns are `reviewer`,
    `verdict` (pass, fail or abstain), `reason`, and either `sample_id` or `task_id` and `text`; others are passed over, and so are
    rows whose verdict is still empty.

    Raises `DataError` naming file and row.
    """
    _refuse_absent(path)
    read = _database if path.suffix in DATABASES else _csv if path.suffix == ".csv" else _lines
    for number, row in read(path):
        found = _written(path, number, row)
        if found is not None:
            yield found


def digest_of(path: Path) -> str:
    """128 bits over the file's bytes. Raises `DataError` when there is none."""
    _refuse_absent(path)
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _refuse_absent(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"there is no review file {path}; `outcross review RUN --draw 50` writes one to fill in")


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}, line {number} is not JSON ({error}); a text takes quotation marks, and lines no comma at the end"
                ) from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is {line.strip()[:60]!r}; each line must be an object, {{…}}")
            yield number, row


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from enumerate(csv.DictReader(file), 2)


def _database(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    import sqlite3

    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
        base.row_factory = sqlite3.Row
        try:
            for number, row in enumerate(base.execute("SELECT * FROM reviews ORDER BY rowid"), 1):
                yield number, dict(row)
        except sqlite3.Error as error:
            columns = ", ".join(COLUMNS)
            raise DataError(f"{path} cannot be read as reviews ({error}); it needs a table `reviews` with columns of {columns}") from None


def _written(path: Path, number: int, row: Mapping[str, Any]) -> Written | None:
    values = {name: str(row.get(name) or "") for name in COLUMNS}
    verdict = values["verdict"].strip().lower()
    if not verdict:
        return None
    allowed = [item for item in get_args(Verdict) if item != "error"]
    if verdict not in allowed:
        raise DataError(f"{path}, row {number}: the verdict is {values['verdict']!r}; {did_you_mean(verdict, allowed)}")
    if not values["sample_id"] and not (values["task_id"] and values["text"]):
        raise DataError(f"{path}, row {number}: it names no answer; give `sample_id`, or `task_id` and `text`")
    if not values["reviewer"].strip():
        raise DataError(f"{path}, row {number}: the verdict {verdict!r} has no reviewer; write a name into `reviewer`")
    return Written(values["sample_id"], values["task_id"], values["text"], values["reviewer"].strip(), verdict, values["reason"])  # type: ignore[arg-type]


def last_words(reviews: Iterable[Written]) -> dict[str, Written]:
    """Each reviewer's last verdict, in the order of the first ones: who looks twice at an answer counts once."""
    return {item.reviewer: item for item in reviews}


def agreed(reviews: Iterable[Written]) -> Verdict:
    """What several reviewers say of one answer: what more than half of those with an opinion say; else they abstain."""
    said = Counter(item.verdict for item in last_words(reviews).values() if item.verdict != "abstain")
    return next((verdict for verdict, votes in said.items() if 2 * votes > said.total()), "abstain")
