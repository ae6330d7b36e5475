"""Texts to vectors, over the same line as answers: deadlines, pacing and retries are its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

from outcross.errors import ModelError
from outcross.models.http_abilities import Exchange, Post
from outcross.models.http_wire import Call, Reply, Vectors
from outcross.types import Request

BATCH = 64  # texts a request
BATCHES = 256  # that are on their way or wait to be taken, at most

_NOTHING = Request("")


@dataclass(eq=False)
class Embedding:
    """One batch of texts from its submission to its vectors. Everything but the constructor runs in the line's thread."""

    texts: tuple[str, ...]
    future: Future[list[list[float]]]
    closed: Callable[[Embedding], None]
    running: bool = False

    def begin(self, post: Post) -> None:
        post(Exchange(_NOTHING, Call("embed", texts=self.texts), self._came, self.wanted))

    def wanted(self) -> bool:
        if not self.running:
            self.running = self.future.set_running_or_notify_cancel()
            if not self.running:
                self.closed(self)
        return self.running

    def fail(self, reason: str) -> None:
        if self.wanted() and not self.future.done():
            self.future.set_exception(ModelError(reason))

    def _came(self, call: Call, reply: Reply | Vectors | str) -> None:
        self.closed(self)
        if isinstance(reply, Vectors) and not self.future.done():
            self.future.set_result([item.embedding for item in reply.data])
        else:
            self.fail(f"{len(self.texts)} texts could not be embedded: {reply}")


def embedded(texts: Iterable[str], hand: Callable[[Embedding], None], closed: Callable[[Embedding], None]) -> Iterator[Sequence[float]]:
    """The vectors of `texts`, in order. Batches are handed over ahead of what is taken; those not sent are withdrawn at the end."""
    source = iter(texts)
    waiting: deque[Future[list[list[float]]]] = deque()
    try:
        while True:
            while len(waiting) < BATCHES and (batch := tuple(islice(source, BATCH))):
                waiting.append(_handed(batch, hand, closed))
            if not waiting:
                return
            yield from waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _handed(batch: tuple[str, ...], hand: Callable[[Embedding], None], closed: Callable[[Embedding], None]) -> Future[list[list[float]]]:
    empty = next((text for text in batch if not text), None)
    if empty is not None:
        raise ModelError("an empty text cannot be embedded by an endpoint; leave it out")
    future: Future[list[list[float]]] = Future()
    hand(Embedding(batch, future, closed))
    return future
