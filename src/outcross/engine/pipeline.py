"""Pulling from an iterable in a thread of its own: how the stages of a round work at the same time."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Puller(Generic[T]):
    """Pulls `items` in a thread, at most `ahead` items further than `free` has been told. Order is kept.

    told: called by the thread when something can be taken again: an item, the end or an error.
    """

    def __init__(self, items: Iterable[T], ahead: int, told: Callable[[], None] = lambda: None) -> None:
        self._items, self._told = items, told
        self._changed = threading.Condition()
        self._room = ahead
        self._came: list[T] = []
        self._over = self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="outcross-stage")

    def start(self) -> None:
        self._thread.start()

    def take(self) -> tuple[list[T], bool]:
        """The items that have come, without waiting, and whether they are the last ones. Raises what the source raised, where it did."""
        with self._changed:
            came, self._came = self._came, []
            if came or self._error is None:
                return came, self._over
        raise self._error

    def wait(self) -> None:
        """Wait until there is something to take."""
        with self._changed:
            while not (self._came or self._over or self._error):
                self._changed.wait(0.1)  # a thread that waits without end cannot be interrupted

    def free(self, count: int) -> None:
        """So many of the items taken are done with."""
        with self._changed:
            self._room += count
            self._changed.notify_all()

    def stop(self, interrupt: bool = False) -> None:
        """Pull no more. With `interrupt`, what the source is at is ended as by Ctrl-C, so that nobody waits for a whole batch."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if interrupt and self._thread.is_alive() and self._thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread.ident), ctypes.py_object(KeyboardInterrupt))

    def join(self) -> None:
        if self._thread.ident is not None:  # it may have been interrupted before it began
            self._thread.join()

    def _work(self) -> None:
        source = iter(self._items)
        try:
            while self._may_pull():
                self._give(next(source))
        except StopIteration:
            self._end(None)
        except BaseException as error:
            self._end(error)
        finally:
            if self._stopped and hasattr(source, "close"):
                source.close()

    def _may_pull(self) -> bool:
        with self._changed:
            while not self._room and not self._stopped:
                self._changed.wait(0.1)
            self._room -= 1
            return not self._stopped

    def _give(self, item: T) -> None:
        with self._changed:
            self._came.append(item)
            first = len(self._came) == 1
            if first:
                self._changed.notify_all()
        if first:
            self._told()

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._over, self._error = error is None, error
            self._changed.notify_all()
        self._told()


def pipelined(items: Iterable[T], ahead: int = 1024) -> Generator[T, None, None]:
    """The same items, pulled in a thread, so that a slow consumer does not stall the producer until `ahead` items wait, nor the other
    way round; as many may be in the consumer's hands. Order is kept; an exception is raised where it would have been.

    Whoever leaves early waits until the thread has ended; Ctrl-C is passed on to it."""
    puller = Puller(items, ahead)
    try:
        puller.start()
        over = False
        while not over:
            puller.wait()
            came, over = puller.take()
            puller.free(len(came))
            yield from came
    except KeyboardInterrupt:
        puller.stop(interrupt=True)
        raise
    finally:
        puller.stop()
        puller.join()
