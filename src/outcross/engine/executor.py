"""Runs dialogues by the thousand, and the stages of a round as one pipelined stream.

Dialogues advance in waves: everything the window asks is looked up in the journal, the rest is submitted, local models
are flushed, and whatever has been answered is committed before any dialogue sees it. With local models a wave is answered
whole, so that the batches a model sees depend on the input alone and never on timing or on where an earlier attempt was
killed. With endpoints a wave is whatever has arrived within 10 ms: no dialogue waits for another.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

from outcross.engine.journal import Journal, request_key
from outcross.errors import BudgetReached, ConfigError
from outcross.stages import Ask, Completes, Context, Dialogue
from outcross.types import Response

T = TypeVar("T")
GROUP_SECONDS = 0.010


@dataclass(frozen=True)
class Budget:
    """Caps for a whole run; None is no cap. `tokens` counts prompt and completion tokens of every model asked, `seconds`
    the wall clock of all attempts together."""

    tokens: int | None = None
    requests: int | None = None
    seconds: float | None = None


class Meter:
    """What has been spent, held against the budget. Earlier attempts' tokens and requests come from the journal."""

    def __init__(self, budget: Budget, journal: Journal, seconds_before: float = 0.0) -> None:
        self.budget, self._before, self._start = budget, seconds_before, time.monotonic()
        self._lock = threading.Lock()
        spent = journal.spent().values()
        self.requests = sum(count for count, _ in spent)
        self.prompt_tokens = sum(usage.prompt_tokens for _, usage in spent)
        self.completion_tokens = sum(usage.completion_tokens for _, usage in spent)

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(self, response: Response) -> None:
        with self._lock:
            self.requests += 1
            self.prompt_tokens += response.usage.prompt_tokens
            self.completion_tokens += response.usage.completion_tokens

    def check(self) -> None:
        """Raises `BudgetReached` when a cap is reached; called before anything more is asked and between steps."""
        for name, spent, cap in (
            ("tokens", self.tokens, self.budget.tokens),
            ("requests", self.requests, self.budget.requests),
            ("seconds", self.seconds, self.budget.seconds),
        ):
            if cap is not None and spent >= cap:
                raise BudgetReached(
                    f"the budget of {cap:,} {name} is spent ({spent:,.0f} used); everything is on disk: "
                    f"raise it and resume, for example `outcross resume RUN --budget.{name} {2 * cap:g}`"
                )


@dataclass
class _Slot:
    """One dialogue in the window: what it asks now, or what it returned."""

    dialogue: Dialogue[Any]
    ask: Ask | None = None
    model: Completes | None = None
    key: bytes = b""
    future: Future[Response] | None = None
    result: Any = None

    def advance(self, answer: Response | None) -> None:
        try:
            self.ask = next(self.dialogue) if answer is None else self.dialogue.send(answer)
            self.future = None
        except StopIteration as stop:
            self.ask, self.result = None, stop.value


@dataclass(frozen=True)
class Executor:
    """The `Runner` of a run. `window` dialogues are open at once; results come in input order."""

    journal: Journal
    meter: Meter
    window: int = 1024
    on_answers: Callable[[int], None] = field(default=lambda count: None)

    def __call__(self, ctx: Context, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]:
        source = iter(dialogues)
        slots: deque[_Slot] = deque()
        asked = _Asked(ctx)
        while True:
            while len(slots) < self.window and (dialogue := next(source, None)) is not None:
                slot = _Slot(dialogue)
                slot.advance(None)
                slots.append(slot)
            if not slots:
                return
            waiting = [slot for slot in slots if slot.ask is not None]
            if waiting:
                self._wave(asked, waiting)
            while slots and slots[0].ask is None:
                yield slots.popleft().result

    def _wave(self, asked: _Asked, waiting: list[_Slot]) -> None:
        answered = self._submit(asked, [slot for slot in waiting if slot.future is None])
        asked.flush()
        arrived = self._arrived(waiting, block=not answered)
        for slot, response in answered + arrived:
            slot.advance(response)

    def _submit(self, asked: _Asked, slots: list[_Slot]) -> list[tuple[_Slot, Response]]:
        """Answer from the journal what it holds; submit the rest."""
        for slot in slots:
            assert slot.ask is not None
            slot.model = asked.model(slot.ask.role)
            slot.key = request_key(slot.model.id, slot.ask.request)
        known = self.journal.get([slot.key for slot in slots])
        missing = [slot for slot in slots if slot.key not in known]
        if missing:
            self.meter.check()
        for slot in missing:
            assert slot.ask is not None and slot.model is not None
            slot.future = slot.model.submit(slot.ask.request)
        return [(slot, known[slot.key]) for slot in slots if slot.key in known]

    def _arrived(self, waiting: list[_Slot], *, block: bool) -> list[tuple[_Slot, Response]]:
        """What has been answered, committed to the journal. Failed answers are not kept: resuming asks again."""
        open_slots = [slot for slot in waiting if slot.future is not None]
        if not open_slots:
            return []
        if not all(slot.future.done() for slot in open_slots if slot.future is not None):
            futures = [slot.future for slot in open_slots if slot.future is not None]
            done = wait(futures, timeout=None if block else 0, return_when=FIRST_COMPLETED).done
            if done:
                time.sleep(GROUP_SECONDS)
        arrived = [(slot, _result(slot.future)) for slot in open_slots if slot.future is not None and slot.future.done()]
        rows = []
        for slot, response in arrived:
            assert slot.model is not None
            self.meter.add(response)
            if not response.error:
                rows.append((slot.key, slot.model.id, response))
        self.journal.put(rows)
        if arrived:
            self.on_answers(len(arrived))
        return arrived


class _Asked:
    """The models that one stream of dialogues has asked, by role."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._models: dict[str, Completes] = {}

    def model(self, role: str) -> Completes:
        found = self._models.get(role)
        if found is None:
            model = self._ctx.model(role)
            if not isinstance(model, Completes):
                raise ConfigError(
                    f"the model in role {role!r} ({type(model).__name__}) cannot answer requests; it needs submit() and flush()"
                )
            found = self._models[role] = model
        return found

    def flush(self) -> None:
        for model in self._models.values():
            model.flush()


def _result(future: Future[Response]) -> Response:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return Response(error=f"{type(error).__name__}: {error}")
    raise error


_END = object()


def pipelined(items: Iterable[T], capacity: int = 32, chunk: int = 64, seconds: float = 0.05) -> Iterator[T]:
    """Pull `items` in a thread of its own, through a bounded queue, so that a slow consumer does not stall the producer
    until `capacity` chunks wait, nor the other way round. Order is kept; an exception is raised where it would have been."""
    hand: queue.Queue[list[Any]] = queue.Queue(maxsize=capacity)
    stop = threading.Event()

    def offer(block: list[Any]) -> bool:
        while not stop.is_set():
            try:
                hand.put(block, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def produce() -> None:
        block: list[Any] = []
        since = time.monotonic()
        source = iter(items)
        try:
            for item in source:
                block.append(item)
                if len(block) >= chunk or time.monotonic() - since > seconds:
                    if not offer(block):
                        return
                    block, since = [], time.monotonic()
            offer([*block, _END])
        except BaseException as error:
            offer([*block, _Raised(error)])
        finally:
            if stop.is_set() and hasattr(source, "close"):
                source.close()

    thread = threading.Thread(target=produce, daemon=True, name="outcross-stage")
    thread.start()
    try:
        while True:
            for item in hand.get():
                if item is _END:
                    return
                if isinstance(item, _Raised):
                    raise item.error
                yield item
    finally:
        stop.set()
        thread.join()


@dataclass(frozen=True)
class _Raised:
    error: BaseException
