"""Answers are committed as they come, whoever is busy, and questions are asked no more often than they have to be."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from stub_server import Behaviour, Stub

from outcross.engine import commits
from outcross.engine.budget import Budget, Meter
from outcross.engine.executor import Executor
from outcross.engine.journal import Journal, request_key
from outcross.errors import BudgetReached, ModelError, StoreError
from outcross.models.http import http
from outcross.stages import Ask, Context, Dialogue
from outcross.types import Completion, Request, Response, Usage


@dataclass
class Server:
    """A model outside of this process, which may give one completion at a time. `hold` has its prompts wait, `fail` fails seeds."""

    one_by_one: bool = False
    known: bool = True
    fail: set[int] = field(default_factory=set)
    hold: Callable[[Request], bool] = lambda request: False
    id: str = "server"
    depth: int = 0
    client_version: str = "1"
    asked: list[Request] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16))

    def submit(self, request: Request, /) -> Future[Response]:
        return self.pool.submit(self._answer, request)

    def split(self, request: Request, /) -> Sequence[Request]:
        if not (self.one_by_one and self.known):
            return ()
        return [msgspec.structs.replace(request, n=1, seed=request.seed + index) for index in range(request.n)]

    def _answer(self, request: Request) -> Response:
        self.asked.append(request)
        if self.hold(request):
            assert self.release.wait(20)
        if request.seed in self.fail:
            return Response(usage=Usage(3, 0), error=f"seed {request.seed} is bad luck")
        said = tuple(Completion(f"{request.prompt}/{request.seed + index}") for index in range(request.n))
        return Response(said, Usage(3, request.n))

    def flush(self) -> None: ...
    def close(self) -> None: ...


@dataclass
class Batch:
    """A local model whose flush takes `seconds`, and is killed after `dies` answers."""

    seconds: float = 0.0
    dies: int = -1
    id: str = "batch"
    depth: int = 0
    pending: list[tuple[Request, Future[Response]]] = field(default_factory=list)
    answered: list[Any] = field(default_factory=list)
    between: Callable[[], None] = lambda: None

    def submit(self, request: Request, /) -> Future[Response]:
        future: Future[Response] = Future()
        self.pending.append((request, future))
        return future

    def flush(self) -> None:
        batch, self.pending = self.pending, []
        for request, future in batch:
            if len(self.answered) == self.dies:
                raise KeyboardInterrupt
            time.sleep(self.seconds / len(batch))
            self.answered.append(request.prompt)
            future.set_result(Response((Completion(f"{request.prompt}!"),), Usage(1, 1)))
            self.between()

    def close(self) -> None: ...


def context(model: Any, journal: Journal, window: int = 64, budget: Budget = Budget()) -> tuple[Context, Meter]:
    meter = Meter(budget, journal)
    return Context({"policy": model}, None, "train/0000", 0, 0, Executor(journal, meter, window)), meter  # type: ignore[arg-type]


def asks(prompt: str, n: int = 1, seed: int = 0) -> Dialogue[Response]:
    return (yield Ask("policy", Request(prompt, n, seed=seed)))


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        threading.Event().wait(0.002)
    return true()


def on_disk(journal: Journal) -> int:
    """How many answers another process would see."""
    with closing(Journal(journal.path, writes=False)) as reader:
        return sum(count for count, _ in reader.spent().values())


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "j.db")) as made:
        yield made


# ── soon ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_answers_are_committed_while_the_consumer_is_busy(journal: Journal) -> None:
    ctx, _ = context(Server(hold=lambda request: request.prompt != "0"), journal)
    model = ctx.models["policy"]
    stream = ctx.run(asks(str(i)) for i in range(10))
    assert next(stream).completions[0].content == "0/0"
    model.release.set()  # type: ignore[attr-defined]
    assert until(lambda: on_disk(journal) == 10)  # nobody reads the stream meanwhile
    assert len(list(stream)) == 9


def test_a_source_that_takes_its_time_holds_up_neither_commits_nor_dialogues(journal: Journal) -> None:
    more = threading.Event()

    def twice(name: str) -> Dialogue[str]:
        first = yield from asks(name)
        second = yield from asks(str(first.completions[0].content))
        return str(second.completions[0].content)

    def source() -> Iterator[Dialogue[str]]:
        yield from map(twice, "abc")
        assert more.wait(20)
        yield twice("d")

    model = Server()
    ctx, _ = context(model, journal)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(ctx.run(source())))
    reader.start()
    assert until(lambda: on_disk(journal) == 6 and len(found) == 3)  # both turns of the first three, while the source is blocked
    more.set()
    reader.join(20)
    assert found == ["a/0/0", "b/0/0", "c/0/0", "d/0/0"]


def test_the_window_bounds_what_is_pulled_in_a_thread_of_its_own(journal: Journal) -> None:
    pulled = []

    def source() -> Iterator[Dialogue[Response]]:
        for i in range(100):
            pulled.append(i)
            yield asks(str(i))

    model = Server(hold=lambda request: True)
    ctx, _ = context(model, journal, window=8)
    stream = iter(ctx.run(source()))
    reader = threading.Thread(target=lambda: next(stream))
    reader.start()
    assert until(lambda: len(model.asked) == 8)
    assert len(pulled) == 8
    model.release.set()
    reader.join(20)
    assert len(list(stream)) == 99


def test_what_the_source_raises_reaches_the_reader_and_what_came_is_kept(journal: Journal) -> None:
    def source() -> Iterator[Dialogue[Response]]:
        yield asks("a")
        assert until(lambda: on_disk(journal) == 1)
        raise StoreError("the disk is full")

    ctx, _ = context(Server(), journal)
    with pytest.raises(StoreError, match="the disk is full"):
        list(ctx.run(source()))
    assert on_disk(journal) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "outcross-stage"]


def test_a_long_flush_is_committed_as_it_goes_and_a_kill_within_it_loses_the_rest_alone(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "BATCH_SECONDS", 0.02)
    seen: list[int] = []
    model = Batch(seconds=0.5)
    model.between = lambda: seen.append(on_disk(journal))
    ctx, _ = context(model, journal)
    assert [answer.completions[0].content for answer in ctx.run(asks(str(i)) for i in range(50))] == [f"{i}!" for i in range(50)]
    assert seen == sorted(seen) and len(set(seen)) > 3 and seen[-1] > 10
    doomed, after = Batch(seconds=0.1, dies=30), Batch()
    names = [f"again {i}" for i in range(50)]
    ctx, _ = context(doomed, journal)
    with pytest.raises(KeyboardInterrupt):
        list(ctx.run(map(asks, names)))
    ctx, _ = context(after, journal)
    assert [answer.completions[0].content for answer in ctx.run(map(asks, names))] == [f"{name}!" for name in names]
    assert doomed.answered + after.answered == names


def test_a_commit_that_fails_is_raised_where_the_answers_are_read(journal: Journal) -> None:
    journal._db.execute("PRAGMA query_only=1")
    ctx, _ = context(Server(), journal)
    with pytest.raises(StoreError, match="cannot be written"):
        list(ctx.run(map(asks, "abc")))


def test_a_request_that_its_model_withdraws_ends_the_stream(journal: Journal) -> None:
    class Withdraws(Batch):
        def flush(self) -> None:
            for _, future in self.pending:
                future.cancel()

    ctx, _ = context(Withdraws(), journal)
    with pytest.raises(Exception, match="withdrawn"):
        list(ctx.run(map(asks, "abc")))


def test_answers_that_come_after_the_stream_was_left_are_kept(journal: Journal) -> None:
    model = Server(hold=lambda request: request.prompt != "a")
    ctx, meter = context(model, journal)
    stream = ctx.run(map(asks, "abc"))
    next(stream)
    assert until(lambda: len(model.asked) == 3)
    stream.close()  # type: ignore[attr-defined]
    model.release.set()
    assert until(lambda: on_disk(journal) == 3) and meter.requests == 3


# ── no more than needed ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("model", [Server(), Batch()], ids=["server", "batch"])
def test_one_question_asked_by_many_at_once_is_one_request(model: Any, journal: Journal) -> None:
    ctx, meter = context(model, journal)
    found = list(ctx.run(asks("same" if i % 2 else str(i), n=1) for i in range(40)))
    asked = [request.prompt for request in model.asked] if isinstance(model, Server) else model.answered
    assert Counter(asked) == Counter({"same": 1, **{str(i): 1 for i in range(0, 40, 2)}})
    assert len({found[i].completions[0].content for i in range(1, 40, 2)}) == 1
    assert meter.requests == on_disk(journal) == 21


def test_another_client_version_is_another_question(journal: Journal) -> None:
    for version in ("1", "2", "1"):
        model = Server(client_version=version)
        ctx, meter = context(model, journal)
        list(ctx.run(map(asks, "ab")))
    assert meter.requests == 4


# ── samples of one request ─────────────────────────────────────────────────────────────────────────────────────────────
def test_each_sample_of_a_server_that_gives_one_at_a_time_is_committed_by_itself(journal: Journal) -> None:
    model = Server(one_by_one=True, hold=lambda request: request.seed == 12)
    ctx, meter = context(model, journal)
    answers: list[Response] = []
    reader = threading.Thread(target=lambda: answers.extend(ctx.run([asks("a", 4, 10)])))
    reader.start()
    assert until(lambda: on_disk(journal) == 3) and not answers
    model.release.set()
    reader.join(20)
    assert [item.content for item in answers[0].completions] == ["a/10", "a/11", "a/12", "a/13"]
    assert answers[0].usage == Usage(12, 4) and meter.tokens == 16 and not answers[0].error
    assert sorted(request.seed for request in model.asked) == [10, 11, 12, 13]
    again = Server(one_by_one=True, known=False)
    ctx, _ = context(again, journal)
    assert list(ctx.run([asks("a", 4, 10)])) == answers and not again.asked


def test_siblings_that_an_earlier_attempt_left_are_not_asked_again_though_nothing_is_known_of_the_server_yet(journal: Journal) -> None:
    model = Server(one_by_one=True, fail={11, 13})
    ctx, meter = context(model, journal)
    (first,) = ctx.run([asks("a", 4, 10)])
    assert [item.content for item in first.completions] == ["a/10", "a/12"]
    assert first.error == "2 of 4 completions failed: seed 11 is bad luck; seed 13 is bad luck"
    assert meter.requests == 4 and meter.tokens == 14
    again = Server(one_by_one=True, known=False)
    ctx, meter = context(again, journal)
    assert meter.requests == 4  # failed requests of earlier attempts count
    (second,) = ctx.run([asks("a", 4, 10)])
    assert [item.content for item in second.completions] == ["a/10", "a/11", "a/12", "a/13"] and not second.error
    assert sorted(request.seed for request in again.asked) == [11, 13]


def test_where_all_samples_fail_the_reasons_stand(journal: Journal) -> None:
    ctx, _ = context(Server(one_by_one=True, fail={0, 1}), journal)
    (answer,) = ctx.run([asks("a", 2)])
    assert answer == Response(usage=Usage(6, 0), error="seed 0 is bad luck; seed 1 is bad luck")


def test_samples_count_one_by_one_against_a_cap_on_requests(journal: Journal) -> None:
    model = Server(one_by_one=True)
    ctx, _ = context(model, journal, budget=Budget(requests=6))
    with pytest.raises(BudgetReached):
        list(ctx.run(asks(name, 4) for name in "abc"))
    assert 6 <= on_disk(journal) == len(model.asked) <= 7
    ctx, _ = context(model, journal)
    assert all(len(answer.completions) == 4 for answer in ctx.run(asks(name, 4) for name in "abc"))
    assert len(model.asked) == 12


def test_the_real_client_splits_for_a_server_that_ignores_n(journal: Journal) -> None:
    with Stub(Behaviour(n=False)) as stub:
        for expected in (True, False):
            with closing(http(stub.url, "stub", key_env=None)) as model:
                ctx, _ = context(model, journal, window=2)
                answers = list(ctx.run(asks(f"q{i}", 3, seed=100 * i) for i in range(12)))
            assert all(len({item.content for item in answer.completions}) == 3 and not answer.error for answer in answers)
            assert (sum(stub.asked.values()) > 0) == expected
            stub.reset()
        request = Request("q11", 1, seed=1101)
        assert journal.get([request_key(model.id, request, model.client_version)])  # later ones are kept sample by sample


# ── offline ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("model", [Server(one_by_one=True), Batch()], ids=["server", "batch"])
def test_a_journal_for_reading_answers_what_it_holds_and_asks_nothing(model: Any, tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "j.db")) as journal:
        ctx, _ = context(model, journal)
        expected = list(ctx.run(asks(name, 1) for name in "abcd"))
    before = len(getattr(model, "asked", getattr(model, "answered", [])))
    with closing(Journal(tmp_path / "j.db", writes=False)) as journal:
        ctx, meter = context(model, journal)
        assert list(ctx.run(asks(name, 1) for name in "abcd")) == expected
        with pytest.raises(ModelError, match=r"offline: at least 3 questions in train/0000 to 'policy' from asks .*j\.db; the first: 'x'"):
            list(ctx.run(asks(name, 1) for name in "abxyz"))
        assert meter.requests == 4  # what the run of this name paid for
    assert len(getattr(model, "asked", getattr(model, "answered", []))) == before


# ── between arrival and commit ─────────────────────────────────────────────────────────────────────────────────────────
KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:2] + [str(Path(sys.argv[1]).parent)]
from test_commits import ANSWERS, Server, asks, context
from outcross.engine import commits
from outcross.engine.journal import Journal

journal = Journal(Path(sys.argv[2]), "mine")
commits.GROUP_SECONDS = 60
note, came = journal.arrivals.note, []

def noted(*arrival):
    note(*arrival)
    came.append(arrival)
    if len(came) == len(ANSWERS):
        os.kill(os.getpid(), 9)  # all have come, and none is committed

journal.arrivals.note = noted
ctx, _ = context(Server(), journal)
list(ctx.run(map(asks, ANSWERS)))
"""
ANSWERS = [f"question {i}" for i in range(12)]


def test_what_a_killed_process_had_received_is_committed_when_the_journal_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(path)], check=False)
    assert done.returncode == -9
    files = [item for item in tmp_path.iterdir() if "-new" in item.name]
    assert files
    for item in files:
        with item.open("ab") as half:
            half.write(b"\x00\x00\x01\x00half of an answer")  # what was being written
    for _ in range(2):
        with closing(Journal(path, "another")) as journal:
            assert len(journal.get([request_key("server", Request(name), "1") for name in ANSWERS])) == 12
            assert journal.spent() == {} and journal.runs() == ["mine"]
    with closing(Journal(path, "mine")) as journal:
        assert journal.spent() == {"server": (12, Usage(36, 12))}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["j.db", "j.db.lock"]


def test_an_arrival_that_was_committed_before_the_kill_is_not_counted_twice(tmp_path: Path) -> None:
    path, key = tmp_path / "j.db", request_key("m", Request("a"))
    answer = Response((Completion("b"),), Usage(1, 1))
    journal = Journal(path)
    journal.arrivals.note("", key, "m", answer)
    journal.put([(key, "m", answer)])
    shutil.copytree(tmp_path, tmp_path / "as it was killed")
    journal.close()
    with closing(Journal(tmp_path / "as it was killed" / "j.db")) as again:
        assert again.spent() == {"m": (1, Usage(1, 1))}
