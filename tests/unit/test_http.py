"""A model behind HTTP, over real sockets: answers, abilities, faults, keys, pools."""

from __future__ import annotations

import logging
import math
import re
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import pytest
import trustme
from stub_server import Behaviour, Stub

from outcross.errors import ConfigError, ModelError
from outcross.models.http import Endpoint, Http, HttpScorer, Limits, Price, http, pool
from outcross.stages import Completes, LogProbs
from outcross.types import Array, Completion, Message, Request, Response, Sampling, Turn


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        yield server


def model(stub: Stub, **limits: Any) -> Http:
    chosen = {"in_flight": 16, "deadline_s": 5.0, "retries": 3, "patience_s": 20.0} | limits
    return Http([Endpoint(stub.url)], "stub", limits=Limits(**chosen))


def ask(asked: Http, *requests: Request) -> list[Response]:
    futures: list[Future[Response]] = [asked.submit(request) for request in requests]
    asked.flush()
    return [future.result(30) for future in futures]


def texts(response: Response) -> list[str]:
    return [str(item.content) for item in response.completions]


# ── answers ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_is_asked_is_sent_and_what_comes_is_counted_and_priced(stub: Stub) -> None:
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=7, max_tokens=9, stop=("\n",))
    request = Request((Message("system", "s"), Message("user", "u")), n=2, sampling=sampling, seed=2**62 + 5)
    with closing(http(stub.url, "name", price=Price(prompt=3.0, completion=6.0))) as asked:
        assert isinstance(asked, Completes) and not isinstance(asked, LogProbs)
        (answer,) = ask(asked, request)
    assert texts(answer) == ["u -> 5/0", "u -> 5/1"]
    assert answer.usage.prompt_tokens == 10 and answer.usage.completion_tokens == 10
    assert answer.usage.money == pytest.approx((10 * 3 + 10 * 6) / 1e6)
    assert stub.bodies == [
        {
            "model": "name",
            "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 7,
            "stop": ["\n"],
            "n": 2,
            "seed": 5,
        }
    ]


def test_an_answer_at_the_token_limit_is_not_finished(stub: Stub) -> None:
    with closing(model(stub)) as asked:
        cut, whole = ask(asked, Request("a", sampling=Sampling(max_tokens=1)), Request("b"))
    assert not cut.completions[0].finished and whole.completions[0].finished


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request(Array("u1", (1,), b"a")), "is an array"),
        (Request("a", prefix=(1, 2)), "cannot continue token ids"),
        (Request("a", schema="{broken"), "not JSON"),
        (Request("a", n=0), "n is 0"),
    ],
)
def test_what_the_protocol_cannot_carry_is_a_failure_and_is_not_sent(stub: Stub, request_: Request, reason: str) -> None:
    with closing(model(stub)) as asked:
        (answer,) = ask(asked, request_)
    assert reason in answer.error and not answer.completions and not stub.asked


def test_connections_are_kept_and_the_number_in_flight_is_fixed() -> None:
    with Stub(Behaviour(median_ms=5)) as stub, closing(model(stub, in_flight=8)) as asked:
        answers = ask(asked, *(Request(str(index)) for index in range(200)))
        assert not any(answer.error for answer in answers)
        assert stub.most_open == 8
        assert len(stub.connections) == 8


def test_no_request_waits_for_a_batch(stub: Stub) -> None:
    with closing(model(stub, in_flight=2)) as asked:
        slow = asked.submit(Request("[hang]"))
        assert len([ask(asked, Request(str(index))) for index in range(20)]) == 20
        assert not slow.done()
    assert "closed before" in slow.result(5).error


def test_a_cancelled_request_is_not_sent(stub: Stub) -> None:
    with closing(model(stub, in_flight=1, deadline_s=0.3)) as asked:
        asked.submit(Request("[hang]"))
        waiting = asked.submit(Request("withdrawn"))
        assert waiting.cancel()
        ask(asked, Request("next"))
    assert stub.asked["next"] == 1 and not stub.asked["withdrawn"]


def test_a_closed_model_says_so(stub: Stub) -> None:
    asked = model(stub)
    ask(asked, Request("a"))
    asked.close()
    asked.close()
    with pytest.raises(ModelError, match="closed"):
        asked.submit(Request("a"))


# ── abilities ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_ignored_n_becomes_n_requests_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with Stub(Behaviour(n=False)) as stub, closing(model(stub)) as asked, caplog.at_level(logging.WARNING):
        first, second = (ask(asked, Request(name, n=3, seed=7))[0] for name in ("a", "b"))
        assert texts(first) == ["a -> 7/0", "a -> 8/0", "a -> 9/0"]
        assert first.usage.prompt_tokens == 60 and first.usage.completion_tokens == 30  # three answers, and three probes of the seed
        assert second.usage.prompt_tokens == 30 and second.usage.completion_tokens == 15
        assert texts(second) == ["b -> 7/0", "b -> 8/0", "b -> 9/0"]
        assert stub.asked["a"] == stub.asked["b"] == 3
        assert asked.abilities.n is False
    assert [record.message for record in caplog.records if " n does not work" in record.message] == [caplog.records[0].message]


def test_choices_are_the_first_tokens_alternatives_on_a_chat_endpoint(stub: Stub) -> None:
    with closing(model(stub)) as asked:
        known, unlisted, long, none = ask(
            asked, *(Request("q", choices=choices) for choices in (("A", "B"), ("A", "Z"), ("Ay", "B"), ("Y", "Z")))
        )
    a = math.log(math.exp(-0.2) + math.exp(-3.0))  # "A" and " A" are one answer
    assert known.completions[0].choice_log_probs == pytest.approx((a, -2.5))
    assert unlisted.completions[0].choice_log_probs == pytest.approx((a, -4.0))  # at most what the least of the listed has
    assert "more than one token" in long.error and "none of" in none.error


def test_a_server_without_log_probabilities_fails_choices_and_says_why() -> None:
    with Stub(Behaviour(log_probs=False)) as stub, closing(model(stub)) as asked:
        answers = [ask(asked, Request("q", choices=("A", "B")))[0] for _ in range(2)]
        assert all("gives no log-probabilities" in answer.error and "sampled answers" in answer.error for answer in answers)
        assert stub.asked["q"] == 1  # known by then


def test_plain_completions_score_given_texts(stub: Stub) -> None:
    def value(text: str) -> tuple[float, ...]:
        return tuple(-ord(char) / 100 for char in text)

    with closing(http(stub.url, "stub", api="completions")) as asked:
        assert isinstance(asked, HttpScorer) and isinstance(asked, LogProbs)
        (answer,) = ask(asked, Request("prompt ", choices=("yes", "no")))
        assert answer.completions[0].choice_log_probs == pytest.approx((sum(value("yes")), sum(value("no"))))
        found = list(asked.log_probs(Turn(f"p{index}", Completion("text")) for index in range(3)))
        assert found == [pytest.approx(value("text"))] * 3
        assert texts(ask(asked, Request("free"))[0]) == ["free -> 0/0"]
        assert "api='chat'" in ask(asked, Request((Message("user", "a"),)))[0].error


def test_plain_completions_without_echo_weigh_first_tokens_and_refuse_to_score() -> None:
    with Stub(Behaviour(echo=False)) as stub, closing(http(stub.url, "stub", api="completions")) as asked:
        (answer,) = ask(asked, Request("q", choices=("A", "B")))
        assert answer.completions[0].choice_log_probs[1] == -2.5
        assert isinstance(asked, HttpScorer)
        with pytest.raises(ModelError, match="cannot score a given text"):
            list(asked.log_probs([Turn("q", Completion("B"))]))


def test_optional_fields_that_a_server_refuses_are_left_out() -> None:
    with Stub(Behaviour(refuses="seed")) as stub, closing(model(stub)) as asked:
        stub.does.refuses = "max_tokens"
        assert texts(ask(asked, Request("a"))[0]) == ["a -> 0/0"]
        assert stub.bodies[-1]["max_completion_tokens"] == 256 and stub.asked["a"] == 2


def test_requests_under_way_when_a_field_is_refused_lose_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    with Stub(Behaviour(refuses="max_tokens", median_ms=5)) as stub, closing(model(stub)) as asked, caplog.at_level(logging.WARNING):
        answers = ask(asked, *(Request(str(index)) for index in range(40)))
    assert not [answer.error for answer in answers if answer.error]
    assert 1 < stub.statuses[400] <= 16 and len(caplog.records) == 1


# ── faults ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hang", r"did not answer within 1 s.*2 attempts"),
        ("half", "payload.*4 attempts"),
        ("garbage", "not what the protocol says.*not json.*4 attempts"),
        ("no_choices", "no choices.*4 attempts"),
        ("huge", "longer than the .* bytes"),
        ("error", "500.*4 attempts"),
        ("drop", "4 attempts"),
        ("refuse", "400: this prompt is not allowed"),
        ("quota", "you have no money left"),
        ("moved", "points elsewhere"),
    ],
)
def test_a_fault_that_stays_is_a_failure_with_its_reason_and_costs_no_other(stub: Stub, fault: str, reason: str) -> None:
    with closing(model(stub, deadline_s=1.0)) as asked:
        broken, *others = ask(asked, Request(f"[{fault}]"), *(Request(str(index)) for index in range(30)))
    assert not broken.completions
    assert re.search(reason, broken.error, re.DOTALL), broken.error
    assert [texts(answer) for answer in others] == [[f"{index} -> 0/0"] for index in range(30)]


@pytest.mark.parametrize("fault", ["hang", "half", "garbage", "no_choices", "error", "drop", "limit", "limit_date"])
def test_a_fault_that_passes_is_an_answer(fault: str) -> None:
    with Stub(Behaviour(once=True)) as stub, closing(model(stub, deadline_s=1.0)) as asked:
        (answer,) = ask(asked, Request(f"[{fault}] q"))
    assert texts(answer) == [f"[{fault}] q -> 0/0"] and not answer.error


def test_a_rate_limit_spends_no_retry() -> None:
    with Stub(Behaviour(capacity=2, median_ms=2, retry_after="0.01")) as stub, closing(model(stub, retries=0, in_flight=32)) as asked:
        answers = ask(asked, *(Request(str(index)) for index in range(150)))
        assert not [answer.error for answer in answers if answer.error]
        assert stub.statuses[429] > 10


def test_every_request_ends_under_many_errors() -> None:
    with Stub(Behaviour(errors=0.2)) as stub, closing(model(stub, retries=10)) as asked:
        answers = ask(asked, *(Request(str(index)) for index in range(200)))
    assert len(answers) == 200 and all(len(answer.completions) == 1 and not answer.error for answer in answers)


def test_of_several_completions_those_that_came_are_kept() -> None:
    with Stub(Behaviour(n=False, bad_seed=8)) as stub, closing(model(stub)) as asked:
        (answer,) = ask(asked, Request("a", n=3, seed=7))
    assert texts(answer) == ["a -> 7/0", "a -> 9/0"]
    assert answer.error.startswith("1 of 3 completions failed: ") and "not this one" in answer.error


def test_a_server_that_is_down_is_noticed_and_patience_ends() -> None:
    with Stub(Behaviour(down=True)) as stub, closing(model(stub, patience_s=0.4)) as asked:
        answers = ask(asked, *(Request(str(index)) for index in range(300)))
        assert len(answers) == 300 and all("500" in answer.error for answer in answers)
        assert sum(stub.asked.values()) < 300  # most were never sent
        stub.does.down = False
        deadline = time.monotonic() + 10
        while ask(asked, Request("back"))[0].error and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not ask(asked, Request("again"))[0].error


def test_a_server_that_comes_back_costs_no_answer() -> None:
    with Stub(Behaviour(down=True)) as stub, closing(model(stub, retries=1)) as asked:
        futures = [asked.submit(Request(str(index))) for index in range(300)]
        while sum(stub.asked.values()) < 16:
            time.sleep(0.005)
        stub.does.down = False
        failed = [future for future in futures if future.result(30).error]
    assert len(failed) <= 7  # those whose own retries were spent before eight failures in a row told that the server is down


def test_prompts_that_break_a_server_do_not_pass_for_an_outage_and_knocking_is_paid_for() -> None:
    with Stub() as stub, closing(model(stub, retries=3, in_flight=12)) as asked:
        answers = ask(asked, *(Request(f"[error] {index}") for index in range(12)))  # nothing else is asked between them
        assert all("500" in answer.error and "4 attempts" in answer.error for answer in answers)
        knocks = stub.asked["hello"]
        assert knocks > 0 and {body["max_tokens"] for body in stub.bodies if body["messages"][0]["content"] == "hello"} == {1}
        stub.does.down = True
        futures = [asked.submit(Request(str(index))) for index in range(40)]
        while not stub.asked["hello"] > knocks:
            time.sleep(0.005)
        stub.does.down = False
        found = [future.result(30) for future in futures]
        assert sum(answer.usage.prompt_tokens for answer in found) == 10 * (sum(not answer.error for answer in found) + 1)


def test_an_untrusted_certificate_is_a_failure_with_advice() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Stub(tls=context) as stub, closing(model(stub)) as asked:
        (answer,) = ask(asked, Request("a"))
    assert "certificate" in answer.error and "SSL_CERT_FILE" in answer.error and not stub.asked


def test_a_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(0, 10**12, 86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    with Stub(Behaviour(errors=0.2, median_ms=2, retry_after="0.01")) as stub, closing(model(stub, retries=10)) as asked:
        assert not any(answer.error for answer in ask(asked, *(Request(str(index)) for index in range(100))))


# ── keys and identity ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_keys_and_headers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret-key")
    monkeypatch.setenv("MY_TEAM", "team-very-secret")
    with Stub(Behaviour(key="sk-very-secret-key")) as stub:
        with closing(http(stub.url, "m", key_env="MY_KEY", headers_env={"X-Team": "MY_TEAM"})) as asked:
            assert not ask(asked, Request("a"))[0].error
            assert stub.headers[0]["X-Team"] == "team-very-secret"
        stub.does.key = "another"
        with closing(http(stub.url, "m", key_env="MY_KEY")) as asked:
            (answer,) = ask(asked, Request("a"))
        assert "401" in answer.error and "MY_KEY" in answer.error and "[secret]" in answer.error and "sk-very" not in answer.error


def test_a_missing_header_variable_or_a_secret_in_the_url_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="NOT_SET, which is not set"):
        http("http://host/v1", "m", headers_env={"X": "NOT_SET"})
    for url in ("http://user:pass@host/v1", "http://host/v1?api_key=abc"):
        with pytest.raises(ConfigError, match="holds a secret") as caught:
            http(url, "m")
        assert "pass" not in str(caught.value) and "abc" not in str(caught.value)
    with pytest.raises(ConfigError, match="give a base"):
        http("localhost:8000", "m")


def test_the_identity_is_endpoint_account_and_model_and_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(**change: Any) -> str:
        given: dict[str, Any] = {"url": "http://host/v1", "model": "m"} | change
        return http(**given).id

    assert made() == made(in_flight=3, deadline_s=1.0, retries=0, price=Price(1.0, 2.0)) == made(url="http://host/v1/")
    account = made(account="team")
    others = {made(), made(url="http://other/v1"), made(model="n"), made(api="completions"), account}
    monkeypatch.setenv("OPENAI_API_KEY", "another-account-key")
    assert made() not in others and len(others) == 5
    assert made(account="team") == account  # a new key of the same account
    assert "another-account-key" not in made()


# ── pools ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_pool_shares_by_weight_and_goes_on_when_an_endpoint_dies() -> None:
    with Stub(Behaviour(median_ms=5, sigma=0.0)) as one, Stub(Behaviour(median_ms=5, sigma=0.0)) as two:
        ends = [Endpoint(one.url, weight=3), Endpoint(two.url, model="other")]
        with closing(pool(ends, "m", in_flight=8, retries=2)) as asked:
            assert not any(answer.error for answer in ask(asked, *(Request(str(index)) for index in range(200))))
            first, second = sum(one.asked.values()), sum(two.asked.values())
            assert 2 < first / second < 4
            assert {body["model"] for body in one.bodies} == {"m"} and {body["model"] for body in two.bodies} == {"other"}
            one.does.down = True
            assert not any(answer.error for answer in ask(asked, *(Request(f"x{index}") for index in range(200))))
            assert sum(one.asked.values()) - first < 40  # rested
        assert pool(ends[::-1], "m").id == asked.id != pool(ends[:1], "m").id


def test_a_pool_needs_an_endpoint_and_settings_that_can_work() -> None:
    with pytest.raises(ConfigError, match="at least one endpoint"):
        pool([], "m")
    with pytest.raises(ConfigError, match="positive number"):
        Endpoint("http://host", weight=0)
    with pytest.raises(ConfigError, match="in_flight is at least 1"):
        http("http://host", "m", in_flight=0)
