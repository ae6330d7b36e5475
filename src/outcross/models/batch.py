"""The questions of a run that are asked by batch files: which were written where, and what became of them.

RUN/batches/questions.db     one row a question: its key, its batch, how often it failed
RUN/batches/0001/NAME-1.jsonl …    to be given to the provider: one file a model, a further one at the provider's limits
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from outcross.errors import StoreError
from outcross.models import http_wire as wire
from outcross.models.batch_files import MOST_BYTES, MOST_REQUESTS, Result, line, response, results
from outcross.models.http import Http
from outcross.models.http_endpoint import Price
from outcross.types import Request, Response

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS questions (key BLOB PRIMARY KEY, batch INTEGER NOT NULL, model TEXT NOT NULL, request BLOB NOT NULL, "
    "state TEXT NOT NULL, failures INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS models (id TEXT PRIMARY KEY, version TEXT NOT NULL, price BLOB NOT NULL)",
)
_encode = msgspec.msgpack.Encoder().encode
_request = msgspec.msgpack.Decoder(Request)


class Questions:
    """The book of a run's questions. One process at a time writes it: whoever holds the run, or its journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(folder / "questions.db", check_same_thread=False)
        try:
            for statement in _SCHEMA:
                self.db.execute(statement)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{folder / 'questions.db'} cannot be used ({error}); restore it, or move the folder away to ask anew"
            ) from error

    def close(self) -> None:
        """What was not committed is forgotten."""
        self.db.close()


@dataclass
class Writer:
    """Writes the questions that nobody has been asked yet into a batch of its own, which appears whole at `finish`, or not at all.
    Use as a context manager.

    names: what to call the files of a model, by its identity. again: also questions that wait for an answer to an earlier batch.
    tries: a question that failed so often is not written again; it is answered by its last failure.
    """

    questions: Questions
    names: Mapping[str, str]
    again: bool = False
    tries: int = 3
    most_requests: int = MOST_REQUESTS
    most_bytes: int = MOST_BYTES
    written: int = 0
    awaited: int = 0
    given_up: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _files: dict[str, _Chunks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (last,) = self.questions.db.execute("SELECT coalesce(max(batch), 0) FROM questions").fetchone()
        self.number = last + 1
        self._unfinished = self.questions.folder / f".{self.number:04d}.unfinished"

    @property
    def folder(self) -> Path:
        return self.questions.folder / f"{self.number:04d}"

    def put_aside(self, model: Http, request: Request, key: bytes) -> Response | None:
        """Write a question, unless it is on its way or cannot be asked at all; then, why. Safe to call from several threads."""
        reason = wire.refusal(request, model.api)
        if reason:
            return Response(error=reason)
        with self._lock:
            row = self.questions.db.execute("SELECT batch, state, failures, reason FROM questions WHERE key = ?", (key,)).fetchone()
            batch, state, failures, reason = row or (0, "", 0, "")
            if batch == self.number:
                return None
            if state == "failed" and failures >= self.tries:
                self.given_up += 1
                return Response(error=f"{reason} ({failures} times)")
            if state == "awaited" and not self.again and (self.questions.folder / f"{batch:04d}").exists():
                self.awaited += 1
                return None
            self._write(model, request, key, failures)
        return None

    def _write(self, model: Http, request: Request, key: bytes, failures: int) -> None:
        files = self._files.get(model.id)
        if files is None:
            if not self._files:
                shutil.rmtree(self._unfinished, ignore_errors=True)
                self._unfinished.mkdir()
            files = self._files[model.id] = _Chunks(self._unfinished / self.names[model.id], self.most_requests, self.most_bytes)
            price = _encode([model.price.prompt, model.price.completion, model.price.cached])
            self.questions.db.execute("INSERT OR REPLACE INTO models VALUES (?, ?, ?)", (model.id, model.client_version, price))
        files.add(line(key.hex(), request, model))
        row = (key, self.number, model.id, _encode(request), "awaited", failures, "")
        self.questions.db.execute("INSERT OR REPLACE INTO questions VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self.written += 1

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for files in self._files.values():
            files.close()
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def finish(self) -> list[Path]:
        """The files to give to the provider; none when there was nothing to ask."""
        names = [path.name for files in self._files.values() for path in files.close()]
        if names:
            shutil.rmtree(self.folder, ignore_errors=True)  # of a command that was killed before it told anybody
            self._unfinished.rename(self.folder)
        self.questions.db.commit()
        return [self.folder / name for name in names]


class _Chunks:
    """Lines in files of at most so many lines and bytes."""

    def __init__(self, stem: Path, most_lines: int, most_bytes: int) -> None:
        self._stem, self._most_lines, self._most_bytes = stem, most_lines, most_bytes
        self._paths: list[Path] = []
        self._file: BinaryIO | None = None
        self._lines = self._bytes = 0

    def add(self, raw: bytes) -> None:
        if self._file is None or self._lines >= self._most_lines or self._bytes + len(raw) > self._most_bytes:
            self.close()
            self._paths.append(self._stem.with_name(f"{self._stem.name}-{len(self._paths) + 1}.jsonl"))
            self._file = self._paths[-1].open("wb")
            self._lines = self._bytes = 0
        self._file.write(raw)
        self._lines += 1
        self._bytes += len(raw)

    def close(self) -> list[Path]:
        if self._file is not None:
            self._file.close()
            self._file = None
        return self._paths


@dataclass
class Report:
    """What was read: answers for the journal, failures by their reason, and lines that told nothing new."""

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    unknown: int = 0
    damaged: list[str] = field(default_factory=list)
    awaited: int = 0


Keep = Callable[[list[tuple[bytes, str, Response]]], None]
KeyOf = Callable[[str, Request, str], bytes]
_GROUP = 1000


def read(questions: Questions, paths: Iterable[Path], keep: Keep, key_of: KeyOf, factor: float = 0.5) -> Report:
    """Take in results files, in any order, whole or in part; a question answered already is left as it is.

    keep: commits answers (key, model's identity, response) to the journal; failed ones too, which it counts. key_of: the journal's key.
    factor: what a batch costs, as a share of the model's price.
    """
    report = Report()
    reader = _Reader(questions, report, keep, key_of, factor)
    for path in paths:
        for number, result in results(path):
            if result is None:
                report.damaged.append(f"{path.name}, line {number}")
            else:
                reader.take(result)
    reader.commit()
    (report.awaited,) = questions.db.execute("SELECT count(*) FROM questions WHERE state = 'awaited'").fetchone()
    return report


class _Reader:
    def __init__(self, questions: Questions, report: Report, keep: Keep, key_of: KeyOf, factor: float) -> None:
        self.db, self.report, self.keep, self.key_of, self.factor = questions.db, report, keep, key_of, factor
        self.models = {
            id_: (version, Price(*msgspec.msgpack.decode(price)))
            for id_, version, price in self.db.execute("SELECT id, version, price FROM models")
        }
        self.waiting: list[tuple[bytes, str, Response]] = []

    def take(self, result: Result) -> None:
        key = bytes.fromhex(result.custom_id) if _is_key(result.custom_id) else b""
        row = self.db.execute("SELECT model, request, state, failures FROM questions WHERE key = ?", (key,)).fetchone()
        if row is None:
            self.report.unknown += 1
            return
        model, raw, state, failures = row
        if state != "awaited" and (state == "answered" or result.error is not None or _failed(result)):
            self.report.repeated += 1
            return
        request = _request.decode(raw)
        version, price = self.models[model]
        found = response(result, request, price, self.factor)
        short = not found.error and not request.choices and len(found.completions) < request.n
        if found.error:
            self.report.failed[found.error] += 1
            self._settle(key, "failed", failures + 1, found.error)
            self.waiting.append((key, model, found))
        else:
            self.report.answered += 1
            self._settle(key, "answered", failures, "")
            self.waiting += self._samples(model, request, found, version) if short else [(key, model, found)]
        if len(self.waiting) >= _GROUP:
            self.commit()

    def _samples(self, model: str, request: Request, found: Response, version: str) -> Iterable[tuple[bytes, str, Response]]:
        """A server that gave fewer completions than were asked for answered the first samples; the others will be asked singly."""
        usage = found.usage
        for index, completion in enumerate(found.completions):
            one = msgspec.structs.replace(request, n=1, seed=request.seed + index)
            yield self.key_of(model, one, version), model, Response((completion,), usage)
            usage = msgspec.structs.replace(usage, prompt_tokens=0, completion_tokens=0, money=0.0)

    def _settle(self, key: bytes, state: str, failures: int, reason: str) -> None:
        self.db.execute("UPDATE questions SET state = ?, failures = ?, reason = ? WHERE key = ?", (state, failures, reason, key))

    def commit(self) -> None:
        """The journal first: what it holds is never asked again, whatever the book says."""
        if self.waiting:
            self.keep(self.waiting)
        self.waiting = []
        self.db.commit()


def _is_key(text: str) -> bool:
    return len(text) == 32 and all(char in "0123456789abcdef" for char in text)


def _failed(result: Result) -> bool:
    return result.response is None or result.response.status_code != 200
