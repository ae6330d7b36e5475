"""A real run of the engine over HTTP: no key on disk, the bill, kill -9 and resume."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from stub_server import Behaviour, Stub

from outcross.engine.budget import Budget, Meter
from outcross.engine.executor import Executor
from outcross.engine.journal import Journal
from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.errors import BudgetReached
from outcross.evaluate.pass_rate import PassRate
from outcross.gate.open import Open
from outcross.generate.draw import Draw
from outcross.models.http import Price, http
from outcross.recipe import Bench, Phase, Recipe
from outcross.stages import Ask, Context, Dialogue
from outcross.types import Request, Sampling, Task
from outcross.verify.exact import Exact

KEY = "sk-4f0c1d9a7be24c11-secret"
COUNT = 400

PROGRAM = f"""
import sys
from pathlib import Path
from outcross.engine.budget import Budget, Meter
from outcross.engine.executor import Executor
from outcross.engine.journal import Journal
from outcross.models.http import http
from outcross.stages import Ask, Context
from outcross.types import Request

def ask(index):
    answer = yield Ask("policy", Request(str(index)))
    return answer.completions[0].content

journal = Journal(Path(sys.argv[2]))
model = http(sys.argv[1], "stub", key_env=None, in_flight=16)
ctx = Context({{"policy": model}}, None, "r", 0, 0, Executor(journal, Meter(Budget(), journal)))
assert list(ctx.run(map(ask, range({COUNT})))) == [f"{{index}} -> 0/0" for index in range({COUNT})]
"""


def tasks(name: str, count: int) -> tuple[Task, ...]:
    return tuple(Task(f"{name}-{index}", f"{name} {index}", f"{name} {index}") for index in range(count))


def test_no_key_is_written_anywhere_and_failures_are_on_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    held_out = tasks("held", 4)
    asked = (*tasks("task", 20), Task("bad", "[refuse] this", "x"))
    bench = Bench(asked, held_out, None, (PassRate(held_out, Draw(n=1), Exact()),), Open())
    recipe = Recipe("data", "", bench, (Phase("made", Draw(n=2, sampling=Sampling(max_tokens=8)), {}, (Exact(),)),))
    with Stub(Behaviour(key=KEY, errors=0.05)) as stub, closing(http(stub.url, "stub", price=Price(1.0, 2.0))) as model:
        run(recipe, {"policy": model}, tmp_path / "run", options=Options(unsafe=True))
        assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"
        stub.does.key = "changed"  # from here on a refusal quotes the key
        again = run(recipe, {"policy": model}, tmp_path / "refused", options=Options(unsafe=True))
        assert again.rounds == 1
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path.name for path in files if KEY.encode() in path.read_bytes()]
    assert RunDir(tmp_path / "run").rounds()
    with closing(Journal(tmp_path / "run" / "responses.db")) as journal:
        ((count, usage),) = journal.spent().values()
    assert count == 20  # all but the refused one
    assert usage.money == pytest.approx((usage.prompt_tokens + 2 * usage.completion_tokens) / 1e6) and usage.money > 0


def test_no_key_is_written_by_structured_answers_either_however_the_server_quotes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, team = "sk/with/slashes-4f0c1d9a", "team-secret-0987654321"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("TEAM", team)
    quoted = f"key {key} or {key.replace('/', chr(92) + '/')} of {team}"
    held_out = tasks("held", 4)
    bench = Bench(tasks("task", 12), held_out, None, (PassRate(held_out, Draw(n=1), Exact()),), Open())
    draw = Draw(n=1, schema={"type": "object", "required": ["who"]})
    recipe = Recipe("data", "", bench, (Phase("made", draw, {}, (Exact(),)),))

    def says(prompt: str) -> str:
        return f'{{"who": "{quoted}"}}' if "task 1" in prompt else f"no JSON, {quoted}"

    with (
        Stub(Behaviour(key=key, schema=False, says=says)) as stub,
        closing(http(stub.url, "stub", headers_env={"X-Team": "TEAM"})) as model,
    ):
        run(recipe, {"policy": model}, tmp_path / "run", options=Options(unsafe=True))
        assert stub.headers[0]["X-Team"] == team
    (turn,) = RunDir(tmp_path / "run").rounds()
    samples = [sample for group in turn.groups() for sample in group.samples]
    assert [bool(sample.error) for sample in samples] == [index not in (1, 10, 11) for index in range(12)]
    assert all("[secret]" in turn.completion.content for sample in samples for turn in sample.turns)  # type: ignore[operator]
    for path in tmp_path.rglob("*"):
        for secret in (key, key.replace("/", "\\/"), team):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path.name


def asks(name: str) -> Dialogue[str]:
    answer = yield Ask("policy", Request(name))
    return str(answer.completions[0].content) if answer.completions else answer.error


def test_a_cap_on_money_stops_the_run_and_keeps_what_is_paid_for(tmp_path: Path) -> None:
    with Stub(Behaviour(median_ms=5)) as stub, closing(Journal(tmp_path / "j.db")) as journal:
        for cap, enough in ((0.004, False), (1.0, True)):
            with closing(http(stub.url, "stub", key_env=None, in_flight=8, price=Price(10.0, 0.0))) as model:
                meter = Meter(Budget(money=cap), journal)
                ctx = Context({"policy": model}, None, "r", 0, 0, Executor(journal, meter, window=32))  # type: ignore[arg-type]
                dialogues = (asks(str(index)) for index in range(200))
                if enough:
                    assert len(list(ctx.run(dialogues))) == 200
                    assert meter.money == pytest.approx(200 * 10 * 10 / 1e6)
                else:
                    with pytest.raises(BudgetReached, match=r"budget of 0.004 money is spent .*--budget.money"):
                        list(ctx.run(dialogues))
        assert sum(stub.answered.values()) == 200  # every answer that was paid for was kept, so none was asked for twice


def test_a_stream_that_is_left_withdraws_what_was_not_sent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    with Stub(Behaviour(median_ms=20)) as stub, closing(http(stub.url, "stub", key_env=None, in_flight=4)) as model, closing(journal):
        ctx = Context({"policy": model}, None, "r", 0, 0, Executor(journal, Meter(Budget(), journal)))  # type: ignore[arg-type]
        stream = ctx.run(asks(str(index)) for index in range(500))
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        seen = sum(stub.asked.values())
        assert not model.submit(Request("after")).result(10).error  # those in flight came before it
        assert sum(stub.asked.values()) <= seen + 4 + 1 < 500


def journaled(path: Path) -> int:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.Error:
        return 0


@pytest.mark.parametrize("share", [random.Random(seed).uniform(0.05, 0.9) for seed in range(3)])
def test_killed_on_the_way_and_run_again_nothing_answered_is_asked_again(tmp_path: Path, share: float) -> None:
    path = tmp_path / "j.db"
    with Stub(Behaviour(median_ms=15, errors=0.02)) as stub:
        command = [sys.executable, "-c", PROGRAM, stub.url, str(path)]
        process = subprocess.Popen(command)
        while journaled(path) < share * COUNT:
            assert process.poll() is None
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with closing(Journal(path)):  # recovers what was written and not yet announced to readers
            kept, given = journaled(path), sum(stub.answered.values())
        assert 0 <= given - kept <= 2 * 16  # in flight, or on its way into the journal within 10 ms
        stub.reset()
        subprocess.run(command, check=True, timeout=60)
        assert sum(stub.answered.values()) == COUNT - kept
        assert journaled(path) == COUNT
