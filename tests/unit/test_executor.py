"""Dialogues by the thousand, pipelined stages, and budgets."""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from outcross.engine.budget import Budget, Meter
from outcross.engine.executor import Executor
from outcross.engine.journal import Journal
from outcross.engine.pipeline import pipelined
from outcross.errors import BudgetReached, ConfigError
from outcross.stages import Ask, Context, Dialogue
from outcross.types import Completion, Request, Response, Sampling, Usage


@dataclass
class Local:
    """Batches what was submitted; records the batches it saw."""

    id: str = "local"
    depth: int = 0
    pending: list[tuple[Request, Future[Response]]] = field(default_factory=list)
    batches: list[list[Any]] = field(default_factory=list)

    def submit(self, request: Request, /) -> Future[Response]:
        future: Future[Response] = Future()
        self.pending.append((request, future))
        return future

    def flush(self) -> None:
        if not self.pending:
            return
        batch, self.pending = self.pending, []
        self.batches.append([request.prompt for request, _ in batch])
        for request, future in batch:
            future.set_result(Response((Completion(f"{request.prompt}!"),), Usage(1, 1)))

    def close(self) -> None: ...


@dataclass
class Endpoint:
    """Answers from threads; requests whose prompt is in `held` wait for `release`."""

    held: str = ""
    money: float = 0.0
    id: str = "endpoint"
    depth: int = 0
    release: threading.Event = field(default_factory=threading.Event)
    answered: list[Any] = field(default_factory=list)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))

    def submit(self, request: Request, /) -> Future[Response]:
        return self.pool.submit(self._answer, request)

    def _answer(self, request: Request) -> Response:
        if request.prompt == "explode":
            raise ValueError("no such thing")
        if self.held and request.prompt == self.held:
            assert self.release.wait(20)
        if self.money:
            threading.Event().wait(0.1)  # as long as an answer takes, at the least
        self.answered.append(request.prompt)
        return Response((Completion(f"{request.prompt}!"),), Usage(1, 1, self.money))

    def flush(self) -> None: ...
    def close(self) -> None: ...


def context(model: Any, journal: Journal, window: int = 8, budget: Budget = Budget()) -> tuple[Context, Meter]:
    meter = Meter(budget, journal)
    return Context({"policy": model}, None, "r", 0, 0, Executor(journal, meter, window)), meter  # type: ignore[arg-type]


def asks(name: str, times: int = 1) -> Dialogue[str]:
    text = name
    for _ in range(times):
        answer = yield Ask("policy", Request(text))
        text = str(answer.completions[0].content) if answer.completions else answer.error
    return text


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "responses.db")


def test_results_come_in_input_order_whatever_the_number_of_turns(journal: Journal) -> None:
    ctx, meter = context(Local(), journal)
    found = list(ctx.run(asks(str(i), 1 + i % 5) for i in range(100)))
    assert found == [str(i) + "!" * (1 + i % 5) for i in range(100)]
    assert meter.requests == sum(1 + i % 5 for i in range(100))


def test_a_dialogue_that_asks_nothing_passes_through(journal: Journal) -> None:
    ctx, _ = context(Local(), journal)
    assert list(ctx.run([asks("a", 0), asks("b"), asks("c", 0)])) == ["a", "b!", "c"]
    assert list(ctx.run([])) == []


def test_batches_depend_on_the_input_alone_even_after_a_kill(journal: Journal) -> None:
    whole = Local()
    ctx, _ = context(whole, Journal(journal.path.with_name("other.db")))
    expected = list(ctx.run(asks(str(i), 1 + i % 3) for i in range(40)))
    first = Local()
    ctx, _ = context(first, journal)
    stream = ctx.run(asks(str(i), 1 + i % 3) for i in range(40))
    for _ in range(11):
        next(stream)
    again = Local()
    ctx, _ = context(again, journal)
    assert list(ctx.run(asks(str(i), 1 + i % 3) for i in range(40))) == expected
    assert first.batches + again.batches == whole.batches  # nothing asked twice, and the same batches


def test_the_window_bounds_what_is_open(journal: Journal) -> None:
    started = []

    def source() -> Iterator[Dialogue[str]]:
        for i in range(100):
            started.append(i)
            yield asks(str(i))

    ctx, _ = context(Local(), journal, window=8)
    stream = ctx.run(source())
    next(stream)
    assert len(started) == 8


def test_answers_are_in_the_journal_before_a_dialogue_sees_them(journal: Journal) -> None:
    held = []

    def look(name: str) -> Dialogue[None]:
        yield Ask("policy", Request(name))
        with closing(Journal(journal.path, writes=False)) as seen:  # as another process sees it
            held.append(sum(count for count, _ in seen.spent().values()))

    ctx, _ = context(Local(), journal)
    list(ctx.run(look(str(i)) for i in range(8)))
    assert held == [8] * 8


def test_one_slow_answer_of_an_endpoint_holds_up_no_other(journal: Journal) -> None:
    model = Endpoint(held="3")
    ctx, _ = context(model, journal, window=32)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(ctx.run(asks(str(i), 3) for i in range(30))))
    reader.start()
    deadline = time.monotonic() + 20
    while len(model.answered) < 29 * 3 and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert len(model.answered) == 29 * 3  # every other dialogue came to its end while "3" waited
    model.release.set()
    reader.join(20)
    assert found == [f"{i}!!!" for i in range(30)]


def test_a_model_that_raises_gives_a_failed_answer_and_is_asked_again_next_time(journal: Journal) -> None:
    ctx, _ = context(Endpoint(), journal)
    assert list(ctx.run([asks("explode"), asks("a")])) == ["ValueError: no such thing", "a!"]
    assert sum(count for count, _ in journal.spent().values()) == 1


def test_the_budget_stops_before_more_is_asked_and_resumes_with_a_higher_cap(journal: Journal) -> None:
    model = Local()
    ctx, _ = context(model, journal, window=4, budget=Budget(tokens=10))
    with pytest.raises(BudgetReached, match=r"budget of 10 tokens is spent \(10 used\).*--budget.tokens 20"):
        list(ctx.run(asks(str(i)) for i in range(100)))
    assert sum(map(len, model.batches)) == 5
    ctx, meter = context(model, journal, window=4, budget=Budget(tokens=10_000))
    assert meter.tokens == 10
    assert len(list(ctx.run(asks(str(i)) for i in range(100)))) == 100
    assert sum(map(len, model.batches)) == 100


def test_a_cap_is_passed_by_no_more_than_one_answer_and_shapes_no_batch_before_it_is_near(journal: Journal) -> None:
    def long(name: str) -> Dialogue[str]:
        answer = yield Ask("policy", Request(name, sampling=Sampling(max_tokens=9)))  # answers have 1 token, prompts 1 of 2 characters
        return str(answer.completions[0].content)

    names = [f"{i:02}" for i in range(100)]
    free = Local()
    ctx, _ = context(free, Journal(journal.path.with_name("other.db")), window=32)
    expected = list(ctx.run(map(long, names)))
    capped = Local()
    ctx, meter = context(capped, journal, window=32, budget=Budget(tokens=150))
    with pytest.raises(BudgetReached):
        list(ctx.run(map(long, names)))
    assert meter.tokens == 150
    assert list(chain(*capped.batches)) == names[:75]
    assert [len(batch) for batch in capped.batches[:3]] == [13, 11, 9]  # 150, 124 and 102 tokens left, for 11 at most each
    roomy = Local()
    ctx, _ = context(roomy, journal, window=32, budget=Budget(tokens=100_000))
    assert list(ctx.run(map(long, names))) == expected
    assert list(chain(*roomy.batches)) == names[75:]
    far = Local()
    ctx, _ = context(far, Journal(journal.path.with_name("third.db")), window=32, budget=Budget(tokens=600, requests=101))
    assert list(ctx.run(map(long, names))) == expected
    assert far.batches == free.batches


@pytest.mark.parametrize(("budget", "most"), [(Budget(requests=10), 10), (Budget(money=10.0), 900)], ids=["requests", "money"])
def test_what_waits_in_the_queue_of_an_endpoint_is_withdrawn(budget: Budget, most: int, journal: Journal) -> None:
    model = Endpoint(money=1.0)
    ctx, meter = context(model, journal, window=1000, budget=budget)
    with pytest.raises(BudgetReached, match="is spent"):
        list(ctx.run(asks(str(i)) for i in range(1000)))
    kept = sum(count for count, _ in journal.spent().values())
    assert 10 <= kept == len(model.answered) == meter.requests <= most


def test_a_role_without_a_model_or_without_answers_is_named(journal: Journal) -> None:
    ctx, _ = context(object(), journal)
    with pytest.raises(ConfigError, match="cannot answer requests"):
        list(ctx.run([asks("a")]))

    def wrong() -> Dialogue[None]:
        yield Ask("judge", Request("a"))

    with pytest.raises(ConfigError, match=r"no model plays the role 'judge'.*policy"):
        list(ctx.run([wrong()]))


def test_pipelined_keeps_order_and_lets_the_producer_run_ahead_only_so_far() -> None:
    made = []

    def produce() -> Iterator[int]:
        for i in range(10_000):
            made.append(i)
            yield i

    stream = pipelined(produce(), ahead=20)
    assert next(stream) == 0
    deadline = time.monotonic() + 5
    while len(made) < 30 and time.monotonic() < deadline:
        threading.Event().wait(0.005)
    assert 20 <= len(made) <= 50
    assert [0, *stream] == list(range(10_000))


def test_pipelined_raises_where_the_producer_did() -> None:
    def produce() -> Iterator[int]:
        yield 1
        raise ValueError("broken stage")

    stream = pipelined(produce())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="broken stage"):
        next(stream)


def test_a_consumer_that_leaves_ends_the_producer() -> None:
    closed = threading.Event()

    def produce() -> Iterator[int]:
        try:
            yield from range(1_000_000)
        finally:
            closed.set()

    stream = pipelined(produce(), ahead=1)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert closed.wait(5)


def test_ctrl_c_reaches_stages_that_are_at_work_in_threads_of_their_own() -> None:
    working = threading.Event()
    ended: list[str] = []

    def endless(name: str, given: Iterator[int]) -> Iterator[int]:
        try:
            for item in given:
                yield item
                working.set()
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:  # a wave of a local model: nobody is listening
                    pass
        except KeyboardInterrupt:
            ended.append(name)
            raise

    def interrupt() -> None:
        assert working.wait(20)
        _thread.interrupt_main()

    threads = set(threading.enumerate())
    stream = pipelined(iter(pipelined(endless("generate", iter(range(9))))))
    threading.Thread(target=interrupt).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert time.monotonic() - began < 20
    assert ended == ["generate"]
    assert not [thread for thread in threading.enumerate() if thread not in threads and thread.name == "outcross-stage"]
