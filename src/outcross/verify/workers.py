"""Disposable workers for what may hang or eat memory: batches go there, a worker that does not answer is killed and replaced."""

from __future__ import annotations

import json
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outcross.types import Group, Task
from outcross.verify.ahead import scored_ahead
from outcross.verify.each import Finding, Labelled

_BATCH = 16  # answers a trip
_START = 120.0  # seconds to start on a busy machine
_LONGEST = 65_536  # bytes of one reply

Item = tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """What a worker does: the module that it runs (see `worker.py`), with what settings (JSON), and what it may use.

    memory: bytes of address space beyond its start. seconds: of CPU time an item, and at most ten times as long on the clock.
    """

    module: str
    memory: int
    seconds: float
    settings: Any = None


class Worker:
    """One process at one job. Used by one thread at a time. Raises `OSError` when it cannot be started, with what it said."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"outcross.verify.{job.module}", str(job.memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
        )
        self._pending = b""
        try:
            self._send(job.settings)
            said = json.loads(self._line(_START))
        except (EOFError, TimeoutError):
            said = ["refused", "it did not start"]
        if said != ["ready"]:
            self.close()
            raise OSError(said[1])

    def judge(self, items: Sequence[Item]) -> list[Finding]:
        """Findings for `items`, in order. Fewer than asked: the last one ended the worker, which is closed; ask a new one the rest."""
        found: list[Finding] = []
        self._send(items)
        while len(found) < len(items):
            try:
                verdict, reason, evidence = json.loads(self._reply(self._job.seconds))
            except TimeoutError:
                self.close()
                return [*found, ("error", "timeout", f"no verdict within {self._job.seconds:g} s")]
            except EOFError:
                self.close()
                return [*found, ("error", "the worker died", "")]
            found.append((verdict, reason, evidence))
            if reason == "out of memory":  # what it holds may be half made
                self.close()
                return found
        return found

    def _send(self, message: Any) -> None:
        """Write one line; who reads the answer hears of a worker that is gone."""
        assert self._process.stdin is not None
        view = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while view:
                view = view[self._process.stdin.write(view) :]
        except BrokenPipeError:
            pass

    def _reply(self, seconds: float) -> bytes:
        """The next line. Raises `TimeoutError` after `seconds` of the worker's CPU time, or ten times as long on the clock: a busy
        machine is not a slow answer."""
        began = self._cpu()
        for last in (False,) * 9 + (True,):
            try:
                return self._line(seconds)
            except TimeoutError:
                if last or self._cpu() - began >= 0.9 * seconds:
                    raise
        raise AssertionError

    def _cpu(self) -> float:
        """Seconds of CPU time that the worker has used; the clock where the system does not say."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return time.monotonic()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def closed(self) -> bool:
        return self._process.returncode is not None

    def _line(self, seconds: float) -> bytes:
        """The next line. Raises `EOFError` when the worker ended or writes too much, `TimeoutError` when the clock says so."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(self._process.stdout.fileno(), _LONGEST)
                if not part or len(self._pending) > _LONGEST:
                    raise EOFError
                self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def kill(self) -> None:
        """End it; whoever waits for an answer is told so."""
        self._process.kill()

    def close(self) -> None:
        """Kill it and leave nothing behind."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class Workers:
    """As many workers as usable cores, started with the first items that need them."""

    def __init__(self, job: Job) -> None:
        self.size = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._job = job
        self._asked: queue.SimpleQueue[tuple[Item, Future[Finding]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._workers: dict[int, Worker] = {}
        self._stopped = False

    def submit(self, *item: str) -> Future[Finding]:
        """Judge one item; it travels with others that are waiting."""
        if len(self._threads) < self.size:
            thread = threading.Thread(target=self._serve, args=(len(self._threads),), daemon=True)
            self._threads.append(thread)
            thread.start()
        future: Future[Finding] = Future()
        self._asked.put((item, future))
        return future

    def _serve(self, place: int) -> None:
        while (first := self._asked.get()) is not None and not self._stopped:
            batch = [first]
            while len(batch) < _BATCH:
                try:
                    more = self._asked.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._asked.put(None)
                    break
                batch.append(more)
            self._judge(place, batch)

    def _judge(self, place: int, batch: list[tuple[Item, Future[Finding]]]) -> None:
        while batch and not self._stopped:
            try:
                worker = self._workers.get(place)
                if worker is None or worker.closed:
                    worker = self._workers[place] = Worker(self._job)
                found = worker.judge([item for item, _ in batch])
            except Exception as error:  # the caller waits for these futures
                found = [("error", "no worker could be used", f"{type(error).__name__}: {error}"[:200])] * len(batch)
            for (_, future), finding in zip(batch, found):
                future.set_result(finding)
            batch = batch[len(found) :]

    def close(self) -> None:
        """Stop at once: what was not begun is dropped, and every worker is killed."""
        self._stopped = True
        for _ in self._threads:
            self._asked.put(None)
        for worker in tuple(self._workers.values()):
            worker.kill()
        for thread in self._threads:
            thread.join()
        for worker in self._workers.values():
            worker.close()


def scored_by_workers(
    verifier: Labelled, groups: Iterable[Group], job: Job, ask: Callable[[Workers, Task, str], Future[Finding]]
) -> Iterator[Group]:
    """As `scored_ahead`, with workers that start when first asked and end with the stream."""
    workers = Workers(job)
    try:
        yield from scored_ahead(verifier, groups, lambda task, text: ask(workers, task, text), 2 * _BATCH * workers.size)
    finally:
        workers.close()
