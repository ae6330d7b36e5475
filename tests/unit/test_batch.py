"""Batch files: a run asked by letter ends as the same run asked at once; nothing is asked twice, lost or answered by a wrong line."""

from __future__ import annotations

import json
import random
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
import yaml
from stub_server import Behaviour, Stub
from typer.testing import CliRunner

from outcross.cli.main import app
from outcross.engine.budget import Budget, Meter
from outcross.engine.collect import AnswersAwaited, Collector
from outcross.engine.executor import Executor
from outcross.engine.journal import Journal, request_key
from outcross.errors import ConfigError, DataError, StoreError
from outcross.models.batch import Questions, Writer, read
from outcross.models.batch_files import Result, line, response, results
from outcross.models.http import Endpoint, Http, Price, http, pool
from outcross.models.scripted import Scripted
from outcross.stages import Ask, Context, Dialogue
from outcross.types import Array, Completion, Message, Request, Response, Sampling

Line = dict[str, Any]


def posted(stub: Stub, item: Line) -> Line:
    """What a provider writes for one line of a batch file: the stub's answer to its body."""
    where = f"http://127.0.0.1:{stub.port}{item['url']}"
    request = urllib.request.Request(where, json.dumps(item["body"]).encode(), {"Content-Type": "application/json"}, method=item["method"])
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status, body = 200, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        status, body = error.code, json.loads(error.read())
    return {"id": "r", "custom_id": item["custom_id"], "response": {"status_code": status, "body": body}, "error": None}


def lines_of(folder: Path) -> list[Line]:
    return [json.loads(raw) for path in sorted(folder.glob("*.jsonl")) for raw in path.read_text().splitlines()]


def given(path: Path, items: list[Any]) -> Path:
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return path


def call(*words: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, list(words))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == code, found.stderr
    return found.stdout + found.stderr


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(Behaviour()) as found:
        yield found


def run_file(folder: Path, stub: Stub, generate: dict[str, Any], tasks: int = 6) -> str:
    given(folder / "tasks.jsonl", [{"prompt": f"question {index}", "answer": "x"} for index in range(tasks)])
    model = {"use": "http", "url": stub.url, "model": "m", "key_env": None, "price": {"prompt": 1.0, "completion": 2.0}}
    bench = {"tasks": {"use": "files", "path": "tasks.jsonl"}, "held_out": "none", "real": "none"}
    recipe = {"use": "dataset", "generate": generate, "curate": []}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"models": {"policy": model}, "bench": bench, "recipe": recipe}))
    return str(path)


def until_done(folder: Path, file: str, stub: Stub, answer: Callable[[list[Line]], list[Any]] | None = None) -> int:
    """Write and read until the run is complete; how many batches it took."""
    run = folder / "run"
    for number in range(1, 20):
        call("batch", "write", file, "--out", str(run), "-q")
        if (run / "dataset" / "0000" / "round.json").exists():
            return number - 1
        asked = lines_of(run / "batches" / f"{number:04d}")
        said = [posted(stub, item) for item in asked] if answer is None else answer(asked)
        call("batch", "read", str(run), str(given(folder / f"results-{number}.jsonl", said)))
    raise AssertionError("the run does not end")


# ── the same run, asked at once and by letter ──────────────────────────────────────────────────────────────────────────
REVISE = {"use": "revise", "steps": 2, "n": 2, "constitution": "general", "sampling": {"max_tokens": 99}}


def test_equal_requests_have_one_key_however_they_were_read() -> None:
    made = Request("x", sampling=Sampling(max_tokens=99))
    read_back = msgspec.convert(json.loads('{"prompt": "x", "sampling": {"temperature": 1.0, "top_p": 1.0, "max_tokens": 99}}'), Request)
    changed = msgspec.structs.replace(made, sampling=msgspec.structs.replace(made.sampling, temperature=float("1.0")))
    assert made == read_back == changed
    assert request_key("m", made) == request_key("m", read_back) == request_key("m", changed)


def test_a_run_by_batches_is_the_run_asked_at_once(tmp_path: Path, stub: Stub) -> None:
    file = run_file(tmp_path, stub, REVISE)
    call("run", file, "--out", str(tmp_path / "live"), "-q")
    asked = sum(stub.asked.values())
    stub.reset()
    assert until_done(tmp_path, file, stub, lambda items: [posted(stub, item) for item in random.Random(0).sample(items, len(items))]) == 5
    assert sum(stub.asked.values()) == asked == 6 * 2 * 5, "each question once"
    live, batch = (pq.read_table(tmp_path / name / "dataset" / "0000" / "groups.parquet") for name in ("live", "run"))
    assert live.equals(batch) and live.num_rows == 12
    with closing(Journal(tmp_path / "run" / "responses.db")) as journal, closing(Journal(tmp_path / "live" / "responses.db")) as other:
        ((count, usage),), ((again, full),) = journal.spent().values(), other.spent().values()
    assert count == again == 60 and usage.money == pytest.approx(full.money / 2) and usage.money > 0
    assert usage.prompt_tokens == full.prompt_tokens


def test_what_waits_is_not_written_again_unless_it_is_asked_for(tmp_path: Path, stub: Stub) -> None:
    file, run = run_file(tmp_path, stub, REVISE), tmp_path / "run"
    first = call("batch", "write", file, "--out", str(run), "-q")
    assert "policy-1.jsonl  12 questions" in first and "outcross batch read" in first
    told = call("batch", "write", file, "--out", str(run), "-q")
    assert "12 questions of earlier batches wait" in told and not (run / "batches" / "0002").exists()
    told = call("batch", "write", str(run), "-q")
    assert "12 questions of earlier batches wait" in told, "the plan from the record asks the same questions"
    some = [posted(stub, item) for item in lines_of(run / "batches" / "0001")[:5]]
    assert "5 answered, 0 failed, 7 still awaited" in call("batch", "read", str(run), str(given(tmp_path / "part.jsonl", some)))
    told = call("batch", "write", file, "--out", str(run), "-q")
    assert "5 questions" in told and "7 questions of earlier batches wait" in told
    asked_again = [item["custom_id"] for item in lines_of(run / "batches" / "0002")]
    assert not set(asked_again) & {item["custom_id"] for item in lines_of(run / "batches" / "0001")}
    call("batch", "write", file, "--out", str(run), "-q", "--again")
    assert len(lines_of(run / "batches" / "0003")) == 12


def test_errors_are_told_asked_again_and_in_the_end_failed_samples(tmp_path: Path, stub: Stub) -> None:
    file, run = run_file(tmp_path, stub, {"use": "draw", "n": 1}), tmp_path / "run"
    call("batch", "write", file, "--out", str(run), "-q")
    error = {"response": None, "error": {"code": "expired", "message": "took too long"}}
    for number in (1, 2, 3):
        items = lines_of(run / "batches" / f"{number:04d}")
        bad = next(item for item in items if item["body"]["messages"][0]["content"] == "question 3")
        rest = [posted(stub, item) for item in items if item is not bad]
        said = [{"custom_id": bad["custom_id"], **error}, *rest, *rest[:2], '{"custom_id": "cut', {"custom_id": "of another", **error}]
        told = call("batch", "read", str(run), str(given(tmp_path / "results.jsonl", said)))
        assert "1 failed, 0 still awaited" in told and "1 × the batch answered: took too long" in told
        assert "1 lines answer no question" in told and f"results.jsonl, line {len(said) - 1}: no result" in told
        written = call("batch", "write", file, "--out", str(run), "-q")
        assert len(items) == (6 if number == 1 else 1)
    assert "Released" in written
    rows = pq.read_table(run / "dataset" / "0000" / "groups.parquet").to_pylist()
    assert [row["error"] for row in rows] == ["", "", "", "the batch answered: took too long (3 times)", "", ""]
    assert max(stub.asked.values()) == 1


@pytest.mark.parametrize("given_of_three", [1, 2])
def test_a_provider_that_gives_fewer_than_n_is_asked_for_the_other_samples(given_of_three: int, tmp_path: Path, stub: Stub) -> None:
    def cut(items: list[Line]) -> list[Line]:
        said = [posted(stub, item) for item in items]
        for item in said:
            del item["response"]["body"]["choices"][given_of_three:]
        return said

    file = run_file(tmp_path, stub, {"use": "draw", "n": 3}, tasks=2)
    assert until_done(tmp_path, file, stub, cut) == 2
    first, second = (lines_of(tmp_path / "run" / "batches" / f"000{number}") for number in (1, 2))
    assert [item["body"]["n"] for item in first] == [3, 3] and not any("n" in item["body"] for item in second)
    wanted = [item["body"]["seed"] + index for item in first for index in range(given_of_three, 3)]
    assert sorted(item["body"]["seed"] for item in second) == sorted(wanted)
    rows = pq.read_table(tmp_path / "run" / "dataset" / "0000" / "groups.parquet").to_pylist()
    assert len(rows) == 6 and len({row["completion"] for row in rows}) == 6 and not any(row["error"] for row in rows)


def test_a_late_answer_after_an_error_counts_and_a_second_answer_does_not(tmp_path: Path, stub: Stub) -> None:
    file, run = run_file(tmp_path, stub, {"use": "draw", "n": 1}, tasks=1), tmp_path / "run"
    call("batch", "write", file, "--out", str(run), "-q")
    (item,) = lines_of(run / "batches" / "0001")
    refused = {"custom_id": item["custom_id"], "response": {"status_code": 500, "body": {"error": {"message": "oops"}}}, "error": None}
    good = posted(stub, item)
    other = json.loads(json.dumps(good).replace("question 0 ->", "something else"))
    first, second = given(tmp_path / "errors.jsonl", [refused, refused]), given(tmp_path / "output.jsonl", [good, other, refused])
    told = call("batch", "read", str(run), str(first), str(second))
    assert "1 answered, 1 failed, 0 still awaited" in told and "3 lines repeat" in told and "answered 500: oops" in told
    call("batch", "write", file, "--out", str(run), "-q")
    (row,) = pq.read_table(run / "dataset" / "0000" / "groups.parquet").to_pylist()
    assert row["completion"].startswith("question 0 ->")


def test_commands_that_make_no_sense_are_refused(tmp_path: Path, stub: Stub) -> None:
    file = run_file(tmp_path, stub, {"use": "draw", "n": 1})
    assert "no model plays it" in call("batch", "write", file, "--out", str(tmp_path / "r"), "--role", "teacher", code=2)
    call("run", file, "--out", str(tmp_path / "live"), "-q")
    assert "asked nothing by batch" in call("batch", "read", str(tmp_path / "live"), file, code=5)
    toy = tmp_path / "toy"
    toy.mkdir()
    call("init", str(toy))
    assert "nothing to ask by batch files" in call("batch", "write", str(toy / "run.yaml"), "--out", str(toy / "run"), code=2)


# ── the files ──────────────────────────────────────────────────────────────────────────────────────────────────────────
MODEL = {"key_env": None, "price": Price(1.0, 2.0)}


@pytest.fixture
def model() -> Iterator[Http]:
    with closing(http("https://host.invalid/v1", "m", **MODEL)) as found:  # type: ignore[arg-type]
        yield found


def key(model: Http, request: Request) -> bytes:
    return request_key(model.id, request, model.client_version)


def test_a_line_is_what_the_live_client_sends(model: Http) -> None:
    request = Request((Message("user", "hi"),), 2, Sampling(0.5, 0.9, 3, 7, ("\n",)), schema='{"type":"object"}', seed=2**31 + 5)
    found = json.loads(line("ab", request, model))
    assert (found["custom_id"], found["method"], found["url"]) == ("ab", "POST", "/v1/chat/completions")
    body = found["body"]
    assert (body["n"], body["temperature"], body["seed"], body["stop"], body["max_tokens"]) == (2, 0.5, 5, ["\n"], 7)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"} and body["messages"] == [
        {"role": "user", "content": "hi"}
    ]
    weighed = json.loads(line("ab", Request("A or B?", choices=("A", "B")), model))["body"]
    assert (weighed["logprobs"], weighed["top_logprobs"], weighed["max_tokens"]) == (True, 20, 1)
    with closing(pool([Endpoint("http://a"), Endpoint("http://b")], "m")) as many, pytest.raises(ConfigError, match="one provider"):
        line("ab", request, many)


def test_choices_are_weighed_from_a_result(stub: Stub) -> None:
    request = Request("A or B?", choices=("A", "B"))
    with closing(http(stub.url, "m", key_env=None)) as model:
        said = posted(stub, json.loads(line("ab", request, model)))
        live = model.submit(request).result(10)
    path = json.dumps(said).encode()
    assert response(msgspec.json.decode(path, type=Result), request, Price(), 1.0).completions == live.completions
    silent = {"choices": [{"message": {"content": "A"}}]}
    found = msgspec.json.decode(json.dumps({"custom_id": "a", "response": {"body": silent}}).encode(), type=Result)
    assert "none of ['A', 'B']" in response(found, request, Price(), 1.0).error


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"response": {"status_code": 200, "body": {"choices": []}}}, "no choices"),
        ({"response": {"status_code": 200, "body": "what"}}, "not what the protocol says"),
        ({"response": {"status_code": 429, "body": {"error": {"message": "slow"}}}}, "the batch answered 429: slow"),
        ({"error": {"code": "batch_expired"}}, "batch_expired"),
        ({}, "the batch answered: nothing"),
    ],
)
def test_results_that_are_no_answer_say_why(answer: Line, told: str, tmp_path: Path) -> None:
    ((_, found),) = results(given(tmp_path / "r.jsonl", [{"custom_id": "a", **answer}]))
    assert found is not None and told in response(found, Request("x"), Price(), 1.0).error
    with pytest.raises(DataError, match="cannot be read"):
        list(results(tmp_path / "missing.jsonl"))


def test_files_end_at_the_providers_limits(tmp_path: Path, model: Http) -> None:
    requests = [Request(f"question {index}") for index in range(10)]
    size = max(len(line("0" * 32, request, model)) for request in requests)
    for limits, sizes in (({"most_requests": 4}, [4, 4, 2]), ({"most_bytes": 3 * size}, [3, 3, 3, 1])):
        folder = tmp_path / str(sizes[0])
        with closing(Questions(folder)) as questions, Writer(questions, {model.id: "policy"}, **limits) as writer:  # type: ignore[arg-type]
            assert [writer.put_aside(model, request, key(model, request)) for request in requests] == [None] * 10
            assert writer.put_aside(model, requests[0], key(model, requests[0])) is None, "the same question again"
            files = writer.finish()
        assert [path.name for path in files] == [f"policy-{number + 1}.jsonl" for number in range(len(sizes))]
        assert [len(path.read_text().splitlines()) for path in files] == sizes and writer.written == 10


def test_a_batch_that_was_not_finished_leaves_no_trace(tmp_path: Path, model: Http) -> None:
    for _ in range(2):
        with closing(Questions(tmp_path)) as questions, Writer(questions, {model.id: "p"}) as writer:
            assert writer.put_aside(model, Request("x"), key(model, Request("x"))) is None
    assert [path.name for path in tmp_path.iterdir()] == ["questions.db"]
    with closing(Questions(tmp_path)) as questions, Writer(questions, {model.id: "p"}) as writer:
        assert writer.put_aside(model, Request("x"), key(model, Request("x"))) is None and writer.written == 1
        (path,) = writer.finish()
    assert path.parent.name == "0001" and len(path.read_text().splitlines()) == 1
    path.unlink()
    path.parent.rmdir()
    with closing(Questions(tmp_path)) as questions, Writer(questions, {model.id: "p"}) as writer:
        writer.put_aside(model, Request("x"), key(model, Request("x")))
        assert (writer.written, writer.awaited) == (1, 0), "a batch whose files are gone is not waited for"
        refused = writer.put_aside(model, Request(Array("uint8", (1,), b"x")), b"other")
        assert refused is not None and "array" in refused.error
    (tmp_path / "questions.db").write_bytes(b"not a database, not at all" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        Questions(tmp_path)


def test_the_journal_is_told_before_the_book(tmp_path: Path, model: Http) -> None:
    request = Request("x")
    with closing(Questions(tmp_path)) as questions, Writer(questions, {model.id: "p"}) as writer:
        writer.put_aside(model, request, key(model, request))
        writer.finish()
    body = {"choices": [{"message": {"content": "y"}}], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}
    path = given(tmp_path / "r.jsonl", [{"custom_id": key(model, request).hex(), "response": {"status_code": 200, "body": body}}])

    def full(rows: Any) -> None:
        raise sqlite3.OperationalError("disk full")

    with closing(Questions(tmp_path)) as questions, pytest.raises(sqlite3.OperationalError):
        read(questions, [path], full, request_key)
    kept: list[tuple[bytes, str, Response]] = []
    with closing(Questions(tmp_path)) as questions:
        assert read(questions, [path], kept.extend, request_key, 0.5).answered == 1
    ((_, _, found),) = kept
    assert found.completions[0].content == "y" and found.usage.money == pytest.approx(0.5 * (4 * 1.0 + 2 * 2.0) / 1e6)


# ── the runner ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def two_steps(index: int) -> Dialogue[str]:
    """A question to a model at hand, then one to a model that is asked by letter."""
    first = yield Ask("near", Request(f"near {index}"))
    second = yield Ask("far", Request(f"far {index} {first.completions[0].content}", 2))
    return second.error or str(second.completions[0].content)


def test_the_runner_goes_as_far_as_it_can_and_asks_local_models_at_once(tmp_path: Path, model: Http) -> None:
    near = Scripted(["yes"])
    aside: list[str] = []

    def put_aside(asked: Http, request: Request, key: bytes) -> Response | None:
        aside.append(str(request.prompt))
        return Response(error="never") if "far 2 " in str(request.prompt) else None

    with closing(Journal(tmp_path / "j.db")) as journal:
        collector = Collector(Executor(journal, Meter(Budget(), journal), window=4), lambda item: item is model, put_aside)
        ctx = Context({"near": near, "far": model}, None, "r/0", 0, 0, collector)  # type: ignore[arg-type]
        known = [Request(f"far {index} yes", 2) for index in (0, 1, 7)]
        journal.put([(key(model, request), model.id, Response((Completion("a"), Completion("b")))) for request in known])
        results_: list[str] = []
        with pytest.raises(AnswersAwaited, match="16 dialogues of r/0"):
            results_.extend(ctx.run(two_steps(index) for index in range(20)))
        assert near.requests == 20 and len(aside) == 17, "all questions, whatever the window, and none that the journal answers"
        stream = ctx.run(two_steps(index) for index in range(20))
        assert [next(stream) for _ in range(3)] == ["a", "a", "never"]
        with pytest.raises(AnswersAwaited):
            next(stream)
