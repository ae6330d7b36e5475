"""Answers between their arrival and their commit. Each is appended to a file the moment it comes: what the operating system was given
survives a killed process, and waits for no disk; the commit that follows a moment later survives a power cut as well.

Two files take turns: while the answers of one are being committed, those that come go to the other. What a killed process left there is
put into the journal when it is opened again.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from outcross.types import Response

Noted = tuple[str, bytes, str, Response]  # run, key, model, answer
_encode = msgspec.msgpack.Encoder()
_decode = msgspec.msgpack.Decoder(Noted)
_HEAD = 8  # bytes of length and checksum before each answer


class Arrivals:
    """The two files beside a journal; they are there only while it is written. Safe to use from several threads."""

    def __init__(self, journal: Path) -> None:
        self._paths = [journal.with_name(f"{journal.name}-new{number}") for number in (0, 1)]
        self._handles: list[int | None] = [None, None]
        self._active = 0
        self._closed = False
        self._lock = threading.Lock()

    def note(self, run: str, key: bytes, model: str, answer: Response) -> None:
        """Append an answer. A disk that is full is told by the commit, which follows in any case."""
        body = _encode.encode((run, key, model, answer))
        head = len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big")
        with self._lock, suppress(OSError):
            if self._closed:
                return
            handle = self._handles[self._active]
            if handle is None:
                handle = os.open(self._paths[self._active], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                self._handles[self._active] = handle
            os.write(handle, head + body)

    def turn(self) -> int:
        """Let what comes from now on go to the other file; the number of this one, for `clear` once its answers are committed."""
        with self._lock:
            old, self._active = self._active, 1 - self._active
            return old

    def clear(self, number: int) -> None:
        with self._lock, suppress(OSError):
            handle = self._handles[number]
            if handle is not None:
                os.ftruncate(handle, 0)

    def left(self) -> Iterator[Noted]:
        """What a killed process left, up to what was half written."""
        for path in self._paths:
            content = path.read_bytes() if path.exists() else b""
            start = 0
            while start + _HEAD <= len(content):
                size, checksum = (int.from_bytes(content[start + part : start + part + 4], "big") for part in (0, 4))
                body = content[start + _HEAD : start + _HEAD + size]
                if len(body) < size or zlib.crc32(body) != checksum:
                    break
                yield _decode.decode(body)
                start += _HEAD + size

    def forget(self) -> None:
        """Remove what was left, once it is committed."""
        for path in self._paths:
            if path.exists():
                path.unlink()

    def close(self) -> None:
        """Remove the files; nothing is noted any more."""
        with self._lock:
            self._closed = True
            for handle in self._handles:
                if handle is not None:
                    os.close(handle)
        self.forget()
