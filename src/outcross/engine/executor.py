"""Runs dialogues by the thousand, and the stages of a round as one pipelined stream.

Dialogues advance in waves: everything the window asks is looked up in the journal, the rest is submitted, local models
are flushed, and whatever has been answered is committed before any dialogue sees it. With local models a wave is answered
whole, so that the batches a model sees depend on the input alone and never on timing or on where an earlier attempt was
killed. With endpoints a wave is whatever has arrived within 10 ms: no dialogue waits for another, and a wave costs what arrived in
it, however many are open.
"""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from outcross.engine.journal import Journal, request_key
from outcross.errors import BudgetReached, ConfigError
from outcross.stages import Ask, Completes, Context, Dialogue
from outcross.text import prompt_text
from outcross.types import Request, Response

T = TypeVar("T")
GROUP_SECONDS = 0.010
DRAIN_SECONDS = 60.0  # how long a run that reached its budget waits for answers that are paid for already


@dataclass(frozen=True)
class Budget:
    """Caps for a whole run; None is no cap. `tokens` counts prompt and completion tokens of every model asked, `seconds`
    the wall clock of all attempts together, `money` what models with a price have cost.

    Near a cap on tokens or requests fewer are asked at once, counting each answer as long as it may become, so that such a cap is
    passed by one answer a stage at most; one on seconds or money by what is under way, which is still waited for and kept."""

    tokens: int | None = None
    requests: int | None = None
    seconds: float | None = None
    money: float | None = None


class Meter:
    """What has been spent, held against the budget. Earlier attempts' tokens, requests and money come from the journal."""

    def __init__(self, budget: Budget, journal: Journal, seconds_before: float = 0.0) -> None:
        self.budget, self._before, self._start = budget, seconds_before, time.monotonic()
        self._lock = threading.Lock()
        spent = journal.spent().values()
        self.requests = sum(count for count, _ in spent)
        self.prompt_tokens = sum(usage.prompt_tokens for _, usage in spent)
        self.completion_tokens = sum(usage.completion_tokens for _, usage in spent)
        self.money = sum(usage.money for _, usage in spent)
        self._promised_requests = self._promised_tokens = 0

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def admit(self, requests: Sequence[Request], *, waiting: bool) -> int:
        """How many of `requests`, from the first on, may be asked now: what the caps hold even if every answer is as long as it may
        be, and at least one unless the stream is `waiting` for answers already. Each is promised until `add` or `withdraw`."""
        with self._lock:
            for count, request in enumerate(requests):
                tokens = most_tokens(request)
                if (count or waiting) and not self._holds(tokens):
                    return count
                self._promised_requests += 1
                self._promised_tokens += tokens
        return len(requests)

    def _holds(self, tokens: int) -> bool:
        caps = (
            (self.budget.tokens, self.tokens + self._promised_tokens + tokens),
            (self.budget.requests, self.requests + self._promised_requests + 1),
        )
        return all(cap is None or spent <= cap for cap, spent in caps)

    def add(self, request: Request, response: Response) -> None:
        with self._lock:
            self._give_back(request)
            self.requests += 1
            self.prompt_tokens += response.usage.prompt_tokens
            self.completion_tokens += response.usage.completion_tokens
            self.money += response.usage.money

    def withdraw(self, request: Request) -> None:
        """A request that was admitted will not be answered."""
        with self._lock:
            self._give_back(request)

    def _give_back(self, request: Request) -> None:
        self._promised_requests -= 1
        self._promised_tokens -= most_tokens(request)

    def check(self) -> None:
        """Raises `BudgetReached` when a cap is reached; called before anything more is asked and between steps."""
        for name, spent, cap in (
            ("tokens", self.tokens, self.budget.tokens),
            ("requests", self.requests, self.budget.requests),
            ("seconds", self.seconds, self.budget.seconds),
            ("money", self.money, self.budget.money),
        ):
            if cap is not None and spent >= cap:
                used = f"{spent:,.4f}" if name == "money" else f"{spent:,.0f}"
                more = f"{2 * spent:.4f}" if name == "money" else f"{2 * spent:.0f}"
                raise BudgetReached(
                    f"the budget of {cap:,} {name} is spent ({used} used); everything is on disk: "
                    f"raise it and resume, for example `outcross resume RUN --budget.{name} {more}`"
                )


def most_tokens(request: Request) -> int:
    """What a request can cost at most: a token of its prompt has at least one character."""
    written = 0 if request.choices else request.n * request.sampling.max_tokens
    return len(prompt_text(request.prompt)) + len(request.prefix) + written


@dataclass(eq=False)
class _Slot:
    """One dialogue in the window: what it asks now, or what it returned."""

    number: int
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
            self.ask, self.future, self.result = None, None, stop.value


@dataclass(frozen=True)
class Executor:
    """The `Runner` of a run. `window` dialogues are open at once; results come in input order.

    When it ends early, requests that were not sent yet are withdrawn and answers that came are committed.
    """

    journal: Journal
    meter: Meter
    window: int = 1024
    on_answers: Callable[[int], None] = field(default=lambda count: None)

    def __call__(self, ctx: Context, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]:
        source = enumerate(dialogues)
        slots: deque[_Slot] = deque()
        wave = _Wave(ctx, self.journal, self.meter, self.on_answers)
        try:
            while True:
                while len(slots) < self.window and (item := next(source, None)) is not None:
                    slot = _Slot(*item)
                    slot.advance(None)
                    slots.append(slot)
                    if slot.ask is not None:
                        wave.ready.append(slot)
                if not slots:
                    return
                wave.go()
                while slots and slots[0].ask is None:
                    yield slots.popleft().result
        except BaseException as error:
            wave.drain(slots, DRAIN_SECONDS if isinstance(error, BudgetReached) else 0.0)
            raise


class _Wave:
    """What one stream of dialogues has asked. `ready` holds those with a new question, in input order."""

    def __init__(self, ctx: Context, journal: Journal, meter: Meter, on_answers: Callable[[int], None]) -> None:
        self.journal, self.meter, self.on_answers = journal, meter, on_answers
        self.asked = _Asked(ctx)
        self.ready: list[_Slot] = []
        self._open = 0
        self._came: queue.SimpleQueue[_Slot] = queue.SimpleQueue()

    def go(self) -> None:
        """Ask what is ready, take what has been answered, and let those dialogues go on."""
        ready, self.ready = self.ready, []
        answered = self._submit(ready) if ready else []
        self.asked.flush()
        answered += self._commit(self._arrived(block=not answered))
        answered.sort(key=lambda item: item[0].number)  # arrival depends on timing; what is asked next may not
        for slot, response in answered:
            slot.advance(response)
            if slot.ask is not None:
                self.ready.append(slot)
        self.ready.sort(key=lambda slot: slot.number)
        if self._open:
            self.meter.check()  # or what waits in the queue of an endpoint would still be sent

    def drain(self, slots: Iterable[_Slot], seconds: float) -> None:
        """The stream ends early: withdraw what was not sent, wait this long for the rest, and commit what came."""
        sent = []
        for slot in slots:
            if slot.future is not None and not slot.future.cancel():
                sent.append(slot)
            elif slot.future is not None and slot.ask is not None:
                self.meter.withdraw(slot.ask.request)
        wait([slot.future for slot in sent if slot.future is not None], timeout=seconds)
        self._commit([slot for slot in sent if slot.future is not None and slot.future.done()])

    def _submit(self, slots: list[_Slot]) -> list[tuple[_Slot, Response]]:
        """Answer from the journal what it holds; submit the rest, or what the budget surely holds of it."""
        for slot in slots:
            assert slot.ask is not None
            slot.model = self.asked.model(slot.ask.role)
            slot.key = request_key(slot.model.id, slot.ask.request)
        known = self.journal.get([slot.key for slot in slots])
        missing = [slot for slot in slots if slot.key not in known]
        if missing:
            self.meter.check()
        admitted = self.meter.admit([slot.ask.request for slot in missing if slot.ask is not None], waiting=self._open > 0)
        self.ready += missing[admitted:]
        for slot in missing[:admitted]:
            assert slot.ask is not None and slot.model is not None
            slot.future = slot.model.submit(slot.ask.request)
            slot.future.add_done_callback(partial(_put, self._came, slot))
            self._open += 1
        return [(slot, known[slot.key]) for slot in slots if slot.key in known]

    def _arrived(self, *, block: bool) -> list[_Slot]:
        """The slots whose answer has come. A wave that some are missing from is given a moment to gather more."""
        if not self._open:
            return []
        found = self._taken()
        if not found and block:
            found.append(self._came.get())
        if found and len(found) < self._open:
            time.sleep(GROUP_SECONDS)
            found += self._taken()
        self._open -= len(found)
        return found

    def _taken(self) -> list[_Slot]:
        return [self._came.get_nowait() for _ in range(self._came.qsize())]

    def _commit(self, slots: list[_Slot]) -> list[tuple[_Slot, Response]]:
        """The answers, committed to the journal. Failed answers are not kept: resuming asks again."""
        answers: list[tuple[_Slot, Response]] = []
        rows = []
        for slot in slots:
            assert slot.ask is not None and slot.model is not None and slot.future is not None
            response = _result(slot.future)
            answers.append((slot, response))
            self.meter.add(slot.ask.request, response)
            if not response.error:
                rows.append((slot.key, slot.model.id, response))
        self.journal.put(rows)
        if answers:
            self.on_answers(len(answers))
        return answers


def _put(came: queue.SimpleQueue[_Slot], slot: _Slot, future: Future[Response]) -> None:
    came.put(slot)


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


def pipelined(items: Iterable[T], capacity: int = 32, chunk: int = 64, seconds: float = 0.05) -> Generator[T, None, None]:
    """Pull `items` in a thread of its own, through a bounded queue, so that a slow consumer does not stall the producer
    until `capacity` chunks wait, nor the other way round. Order is kept; an exception is raised where it would have been.

    Whoever leaves early waits until the thread has ended; Ctrl-C is passed on to it, so that nobody waits for a whole wave."""
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
    try:
        thread.start()
        while True:
            for item in _next(hand):
                if item is _END:
                    return
                if isinstance(item, _Raised):
                    raise item.error
                yield item
    except KeyboardInterrupt:
        stop.set()
        _interrupt(thread)
        raise
    finally:
        stop.set()
        if thread.ident is not None:  # it may have been interrupted before it began
            thread.join()


def _next(hand: queue.Queue[list[Any]]) -> list[Any]:
    while True:
        try:
            return hand.get(timeout=0.1)  # a thread that waits without end cannot be interrupted
        except queue.Empty:
            continue


def _interrupt(thread: threading.Thread) -> None:
    """Raise KeyboardInterrupt in a thread, between two of its instructions: signals reach the main thread alone."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt))


@dataclass(frozen=True)
class _Raised:
    error: BaseException
