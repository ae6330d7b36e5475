"""How long a verifier took, in a pipeline where it waits for its input and others wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Stopwatch:
    """Seconds of wall clock in which somebody waited for a stage's output while the stage held input: neither the time that it waits for
    its own input in the same thread, nor the time in which nobody asks it for anything. Work that it does ahead in other processes is
    free as long as nobody waits for it. Two threads may use it."""

    seconds: float = 0.0
    _held: int = 0
    _asked: bool = False
    _starved: bool = False
    _since: float = 0.0
    _asker: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def into(self, items: Iterable[T]) -> Iterator[T]:
        """The same items, which the stage reads."""
        source = iter(items)
        while True:
            reader = threading.get_ident()
            self._turn(starved=self._asked and reader == self._asker)
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self._turn(starved=False)
            self._turn(held=1)
            yield item

    def out(self, items: Iterable[T]) -> Iterator[T]:
        """The same items, which the stage gives: one for each that went in."""
        source = iter(items)
        while True:
            self._asker = threading.get_ident()
            self._turn(asked=True)
            try:
                item = next(source)
            except StopIteration:
                return
            finally:
                self._turn(asked=False)
            self._turn(held=-1)
            yield item

    def _turn(self, *, held: int = 0, asked: bool | None = None, starved: bool | None = None) -> None:
        with self._lock:
            now = time.monotonic()
            if self._held and self._asked and not self._starved:
                self.seconds += now - self._since
            self._since = now
            self._held += held
            self._asked = self._asked if asked is None else asked
            self._starved = self._starved if starved is None else starved
