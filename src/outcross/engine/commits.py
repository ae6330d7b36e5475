"""Answers on their way into the journal, committed in groups by a thread of its own: however busy those are who asked, an answer that
has come is on disk a moment later.

An answer that came by itself is noted at once (`engine/arrivals.py`), so that a kill does not lose it, and waits 2 ms for others of its
group. One of a local model's batch waits up to a second: while a long batch goes on, a kill loses the last second of it. Whoever asked
is told after the commit, never before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from outcross.engine.budget import Meter
from outcross.engine.journal import Journal
from outcross.types import Request, Response

GROUP_SECONDS = 0.002
BATCH_SECONDS = 1.0
IDLE_SECONDS = 1.0  # the thread ends when nothing comes for so long


@dataclass(frozen=True, eq=False)
class Arrival:
    """An answer, and who is told when it is committed, or why it could not be."""

    key: bytes
    model_id: str
    request: Request
    response: Response
    told: Callable[[Response, BaseException | None], None]


class Committer:
    """Takes answers from any thread. Failed ones pass through it as well: they are counted, and not kept."""

    def __init__(self, journal: Journal, meter: Meter) -> None:
        self._journal, self._meter = journal, meter
        self._changed = threading.Condition()
        self._came: list[Arrival] = []
        self._due = 0.0
        self._noted = 0  # the file of arrivals that holds the group being committed
        self._taken = self._told = 0  # arrivals so far, and those that were committed
        self._thread: threading.Thread | None = None

    def take(self, arrival: Arrival, *, batch: bool) -> None:
        """Commit an answer soon; `batch`: it is one of a local model's, which comes with many others."""
        due = time.monotonic() + (BATCH_SECONDS if batch else GROUP_SECONDS)
        with self._changed:
            if not batch and not arrival.response.error:
                self._journal.arrivals.note(self._journal.run, arrival.key, arrival.model_id, arrival.response)
            sooner = not self._came or due < self._due
            self._came.append(arrival)
            self._taken += 1
            if sooner:
                self._due = due
                self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="outcross-journal")
                self._thread.start()

    def settle(self) -> None:
        """Commit at once what has come, and wait for that."""
        with self._changed:
            self._due = 0.0
            self._changed.notify_all()
            until = self._taken
            while self._told < until:
                self._changed.wait(0.1)

    def _work(self) -> None:
        while group := self._next_group():
            error = self._commit(group)
            for arrival in group:
                arrival.told(arrival.response, error)
            with self._changed:
                self._told += len(group)
                self._changed.notify_all()

    def _next_group(self) -> list[Arrival]:
        """What is due, as soon as it is; nothing when the thread should end."""
        with self._changed:
            if not self._came:
                self._changed.wait_for(lambda: self._came, IDLE_SECONDS)
            if not self._came:
                self._thread = None
                return []
            while (left := self._due - time.monotonic()) > 0:
                self._changed.wait(left)
            group, self._came = self._came, []
            self._noted = self._journal.arrivals.turn()
            return group

    def _commit(self, group: list[Arrival]) -> BaseException | None:
        for arrival in group:
            self._meter.add(arrival.request, arrival.response)
        try:
            self._journal.put((arrival.key, arrival.model_id, arrival.response) for arrival in group)
            self._journal.arrivals.clear(self._noted)
        except BaseException as error:  # whoever asked raises it
            return error
        return None
