"""Runs dialogues by the thousand, and gives their results in the order in which they came.

What the window asks is looked up in the journal, the rest is submitted, and every answer is committed before a dialogue sees it
(`engine/commits.py`). With local models this goes in waves: the window is filled, everything it asks is submitted, the models are flushed,
and the wave is answered whole before anybody goes on. So the batches that a model sees depend on the input alone and never on timing; after
a kill within a wave, what was answered is not asked again, and the rest of that wave is a smaller batch, which a transformer answers with
the same draws up to rounding. With a model outside of this process (`stages.Remote`) nobody waits for another: input is pulled in a thread
of its own, so that a source that takes its time holds up no answer, and a turn costs what arrived in it, however many are open.

Dialogues of a stream that ask the same question at the same time share one request.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar

import msgspec

from outcross.engine.asked import Asked, Models
from outcross.engine.budget import Meter
from outcross.engine.commits import Arrival, Committer
from outcross.engine.journal import Journal, request_key
from outcross.engine.pipeline import Puller
from outcross.errors import BudgetReached, ModelError
from outcross.stages import Ask, Context, Dialogue
from outcross.text import prompt_text
from outcross.types import Request, Response, Usage

T = TypeVar("T")
DRAIN_SECONDS = 60.0  # how long a run that reached its budget waits for answers that are paid for already


@dataclass(eq=False)
class _Slot:
    """One dialogue in the window: what it asks now and the parts of that which are to be answered, or what it returned."""

    number: int
    dialogue: Dialogue[Any]
    ask: Ask | None = None
    parts: Sequence[_Part] = ()
    missing: int = 0
    result: Any = None

    def advance(self, answer: Response | None) -> None:
        self.parts = ()
        try:
            self.ask = next(self.dialogue) if answer is None else self.dialogue.send(answer)
        except StopIteration as stop:
            self.ask, self.result = None, stop.value


@dataclass(eq=False)
class _Part:
    """One request to a model, a dialogue's whole question or one of its samples, and the dialogues that wait for it."""

    model: Asked
    request: Request
    key: bytes
    slots: list[_Slot] = field(default_factory=list)
    future: Future[Response] | None = None
    response: Response | None = None


@dataclass(frozen=True)
class Executor:
    """The `Runner` of a run. `window` dialogues are open at once; results come in input order.

    When a stream ends early, requests that were not sent yet are withdrawn and answers that came are committed. With a journal that may
    not be written nothing is asked: a question that it cannot answer raises `ModelError`.
    """

    journal: Journal
    meter: Meter
    window: int = 1024
    _committer: Committer = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_committer", Committer(self.journal, self.meter))

    def __call__(self, ctx: Context, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]:
        stream = _Stream(ctx, dialogues, self)
        try:
            while stream.fill():
                stream.turn()
                yield from stream.results()
        except BaseException as error:
            stream.stop(error)
            raise


class _Stream:
    """One stream of dialogues: its input, its window, and what it has asked. All but `_answered` and `_settled` runs in the thread that
    reads the stream."""

    def __init__(self, ctx: Context, dialogues: Iterable[Dialogue[Any]], executor: Executor) -> None:
        self.journal, self.meter, self.window, self.committer = executor.journal, executor.meter, executor.window, executor._committer
        self.models = Models(ctx)
        self.slots: deque[_Slot] = deque()
        self.ready: list[_Slot] = []  # with a new question, in input order
        self.unsent: list[_Part] = []
        self.asked: dict[bytes, _Part] = {}  # not answered yet
        self.sent = 0  # of these, at a model
        self.events: queue.SimpleQueue[tuple[_Part, Response, BaseException | None] | None] = queue.SimpleQueue()
        self._numbers = count()
        self._source = iter(dialogues)
        self._puller: Puller[Dialogue[Any]] | None = None
        self._over = False
        self._thread = 0
        self._flushed = 0  # requests that were answered in this thread: by a local model's flush

    # ── input and results ──────────────────────────────────────────────────────────────────────────────────────────────
    def fill(self) -> bool:
        """Open dialogues while there is room: all there is room for with local models, else those that have come. False at the end."""
        while self._puller is None and not self._over and len(self.slots) < self.window and not self._remote:
            dialogue = next(self._source, None)
            if dialogue is None:
                self._over = True
            else:
                self._open(dialogue)
        if self._puller is None and self._remote and not self._over:
            self._puller = Puller(self._source, self.window - len(self.slots), lambda: self.events.put(None))
            self._puller.start()
        if self._puller is not None and not self._over:
            came, self._over = self._puller.take()
            for dialogue in came:
                self._open(dialogue)
        return bool(self.slots) or not self._over

    @property
    def _remote(self) -> bool:
        return self.journal.writes and (self.models.remote or self.sent > 0)

    def _open(self, dialogue: Dialogue[Any]) -> None:
        slot = _Slot(next(self._numbers), dialogue)
        slot.advance(None)
        self.slots.append(slot)
        if slot.ask is not None:
            self.models.of(slot.ask.role)
            self.ready.append(slot)

    def results(self) -> Iterator[Any]:
        """What the first dialogues of the window returned."""
        ended = []
        while self.slots and self.slots[0].ask is None:
            ended.append(self.slots.popleft().result)
        if self._puller is not None and ended:
            self._puller.free(len(ended))
        yield from ended

    # ── a turn: ask, take what has been answered, let those dialogues go on ────────────────────────────────────────────
    def turn(self) -> None:
        answered = self._look_up()
        self._send()
        self._flush()
        answered += self._taken(wait=not answered and not (self.slots and self.slots[0].ask is None))
        answered.sort(key=lambda item: item[0].number)  # arrival depends on timing; what is asked next may not
        for slot, response in answered:
            slot.advance(response)
            if slot.ask is not None:
                self.models.of(slot.ask.role)
                self.ready.append(slot)
        if self.sent:
            self.meter.check()  # or what waits in the queue of an endpoint would still be sent

    def _look_up(self) -> list[tuple[_Slot, Response]]:
        """Answer from the journal what it holds; the rest is to be sent."""
        ready, self.ready = self.ready, []
        if not ready:
            return []
        whole = [self._part(slot.ask.role, slot.ask.request) for slot in ready if slot.ask is not None]
        known = self.journal.get([part.key for part in whole])
        split = {part.key: self._samples(part) for part in whole if part.key not in known and part.key not in self.asked}
        known |= self.journal.get([sample.key for samples in split.values() for sample in samples])
        answered = []
        for slot, part in zip(ready, whole, strict=True):
            if part.key in known:
                answered.append((slot, known[part.key]))
                continue
            slot.parts = self._open_parts(part, split.get(part.key, []), known)
            slot.missing = sum(item.response is None for item in slot.parts)
            if not slot.missing:
                answered.append((slot, _joined(slot.parts)))
            for item in slot.parts:
                if item.response is None:
                    item.slots.append(slot)
        return answered

    def _part(self, role: str, request: Request) -> _Part:
        model = self.models.of(role)
        return _Part(model, request, request_key(model.id, request, model.version))

    def _samples(self, whole: _Part) -> list[_Part]:
        """The n requests for one completion each that a question may be answered by, where it is put to a server."""
        request = whole.request
        if not whole.model.remote or request.n < 2 or request.choices:
            return []
        each = [msgspec.structs.replace(request, n=1, seed=request.seed + index) for index in range(request.n)]
        return [_Part(whole.model, item, request_key(whole.model.id, item, whole.model.version)) for item in each]

    def _open_parts(self, whole: _Part, samples: list[_Part], known: dict[bytes, Response]) -> Sequence[_Part]:
        """What is to be answered for one question: the request as it is, or its samples where the server gives one at a time, as it says
        itself or as an earlier attempt left behind."""
        if whole.key in self.asked:
            return [self.asked[whole.key]]
        one_by_one = samples and (any(item.key in known for item in samples) or whole.model.splits(whole.request))
        parts = [self.asked.get(item.key, item) for item in (samples if one_by_one else [whole])]
        for item in parts:
            item.response = known.get(item.key)
            if item.response is None and item.key not in self.asked:
                self.asked[item.key] = item
                self.unsent.append(item)
        return parts

    def _send(self) -> None:
        """Submit what the budget surely holds of what is to be asked."""
        if not self.unsent:
            return
        if not self.journal.writes:
            raise ModelError(_not_held(self.unsent, self.journal, self.models.label))
        self.meter.check()
        self._thread = threading.get_ident()
        self.unsent.sort(key=lambda part: part.slots[0].number)
        admitted = self.meter.admit([part.request for part in self.unsent], waiting=self.sent > 0)
        now, self.unsent = self.unsent[:admitted], self.unsent[admitted:]
        for index, part in enumerate(now):
            try:
                part.future = part.model.model.submit(part.request)
            except BaseException:
                for left in now[index:]:
                    self.meter.withdraw(left.request)
                raise
            self.sent += 1
            part.future.add_done_callback(partial(self._answered, part))

    def _answered(self, part: _Part, future: Future[Response]) -> None:
        """In whatever thread the answer comes."""
        if future.cancelled():
            self.meter.withdraw(part.request)
            self.events.put((part, Response(), CancelledError("a request was withdrawn by its model")))
            return
        local = not part.model.remote and threading.get_ident() == self._thread
        self._flushed += local
        error = future.exception()
        response = future.result() if error is None else Response(error=f"{type(error).__name__}: {error}")
        fault = error if error is not None and not isinstance(error, Exception) else None
        told = partial(self._settled, part, fault)
        self.committer.take(Arrival(part.key, part.model.id, part.request, response, told), batch=local)

    def _settled(self, part: _Part, fault: BaseException | None, response: Response, error: BaseException | None) -> None:
        """In the committer's thread."""
        self.events.put((part, response, fault or error))

    def _flush(self) -> None:
        """Let local models answer, and wait until all of that is committed: a wave is answered whole."""
        self._thread = threading.get_ident()
        self.models.flush()
        if self._flushed:
            self._flushed = 0
            self.committer.settle()

    def _taken(self, *, wait: bool) -> list[tuple[_Slot, Response]]:
        """The dialogues whose question has been answered in full."""
        answered: list[tuple[_Slot, Response]] = []
        while True:
            try:
                event = self.events.get(timeout=0.1) if wait else self.events.get_nowait()
            except queue.Empty:
                if not wait:
                    return answered
                continue  # a thread that waits without end cannot be interrupted
            wait = False
            if event is not None:
                answered += self._done(*event)

    def _done(self, part: _Part, response: Response, error: BaseException | None) -> list[tuple[_Slot, Response]]:
        self.sent -= 1
        self.asked.pop(part.key, None)
        if error is not None:
            raise error
        part.response = response
        for slot in part.slots:
            slot.missing -= 1
        return [(slot, _joined(slot.parts)) for slot in part.slots if not slot.missing]

    # ── an early end ───────────────────────────────────────────────────────────────────────────────────────────────────
    def stop(self, error: BaseException) -> None:
        """Withdraw what was not sent, wait for the rest when the budget ended it, and commit what came."""
        if self._puller is not None:
            self._puller.stop(interrupt=isinstance(error, KeyboardInterrupt))
        for part in self.asked.values():
            if part.future is not None:
                part.future.cancel()
        if isinstance(error, BudgetReached):
            end = time.monotonic() + DRAIN_SECONDS
            while self.sent and (left := end - time.monotonic()) > 0:
                with suppress(queue.Empty):
                    event = self.events.get(timeout=min(left, 0.1))
                    self.sent -= event is not None
        self.committer.settle()
        if self._puller is not None:
            self._puller.join()


def _joined(parts: Sequence[_Part]) -> Response:
    """One response made of its samples', in their order; those that failed leave their reason."""
    found = [part.response for part in parts if part.response is not None]
    if len(found) == 1:
        return found[0]
    made = tuple(completion for response in found for completion in response.completions)
    usage = [response.usage for response in found]
    total = Usage(sum(u.prompt_tokens for u in usage), sum(u.completion_tokens for u in usage), sum(u.money for u in usage))
    reasons = "; ".join(dict.fromkeys(response.error for response in found if response.error))
    if reasons and made:
        reasons = f"{len(parts) - len(made)} of {len(parts)} completions failed: {reasons}"
    return Response(made, total, reasons)


def _not_held(unsent: Sequence[_Part], journal: Journal, label: str) -> str:
    first = unsent[0]
    asker = getattr(first.slots[0].dialogue, "__qualname__", "a stage").partition(".")[0]
    roles = sorted({slot.ask.role for part in unsent for slot in part.slots if slot.ask is not None})
    return (
        f"offline: at least {len(unsent):,} question{'s' * (len(unsent) > 1)} in {label} to {' and '.join(map(repr, roles))} from {asker} are not in "
        f"the journal {journal.path}; the first: {prompt_text(first.request.prompt)!r:.120}. The key of an answer covers the model, its account "
        "(`account:`, else the key in the environment), prompt, sampling, seed and version: undo what differs, or run without --offline to ask them"
    )
