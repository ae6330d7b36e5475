"""How an endpoint is paced, what troubles mean, and the protocol's corners, without a server."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcross.models.http_endpoint import Endpoint
from outcross.models.http_pace import FAILURES_IN_A_ROW, LONGEST_REST_S, Outcome, Pace
from outcross.models.http_trouble import of_status, retry_after
from outcross.models.http_wire import Call, body, completions, echoed, first_token, of_choices, parse
from outcross.types import Request

END = Endpoint("http://host/v1")


def round_of(pace: Pace, outcome: Outcome, now: float = 0.0, wait: float = 0.0) -> None:
    for _ in range(max(1, math.ceil(pace.limit))):
        pace.sent()
        pace.back(outcome, now, wait)


def test_a_round_of_refusals_halves_the_limit_and_a_clean_one_adds_one() -> None:
    pace = Pace(64)
    for expected in (32, 16, 8, 4, 2, 1, 1):
        round_of(pace, "throttled")
        assert pace.limit == expected
    for expected in (2, 3, 4):
        round_of(pace, "fine")
        assert pace.limit == expected


def test_stray_refusals_cost_next_to_nothing() -> None:
    pace = Pace(64)
    for index in range(20_000):
        pace.sent()
        pace.back("throttled" if index % 100 == 0 else "fine", 0.0, 60.0)
        assert pace.free(0.0)  # one server's Retry-After on a stray refusal rests nobody else
    assert pace.limit > 60


def test_when_most_are_refused_the_wait_is_for_all() -> None:
    pace = Pace(4)
    for _ in range(20):
        pace.sent()
        pace.back("throttled", 100.0, 7.0)
    assert not pace.free(106.9) and pace.free(107.0)


def test_slow_answers_lower_the_limit() -> None:
    pace = Pace(8)
    for _ in range(8):
        pace.sent()
        pace.slow()
        pace.back("fine", 0.0)
    assert pace.limit < 8


def test_failures_in_a_row_rest_the_server_longer_each_time_and_then_one_tries() -> None:
    pace = Pace(16)
    for _ in range(16):
        pace.sent()
    for _ in range(FAILURES_IN_A_ROW - 1):
        pace.back("failed", 10.0)
    assert pace.down_since is None
    for _ in range(9):  # of those that fail together only one counts for the rest
        pace.back("failed", 10.0)
    assert pace.down_since == 10.0 and not pace.free(10.2) and pace.free(10.25)
    now, rests = 10.25, []
    for _ in range(10):
        pace.sent()
        assert not pace.free(now)  # one at a time
        pace.back("failed", now)
        rests.append(pace.rest_until - now)
        now = pace.rest_until
    assert rests == [0.5, 1, 2, 4, 8, 16, *[LONGEST_REST_S] * 4]
    pace.sent()
    pace.back("fine", now)
    assert pace.down_since is None and pace.free(now)


@given(st.lists(st.sampled_from(["fine", "throttled", "failed"]), max_size=300), st.integers(1, 40))
def test_the_limit_stays_between_one_and_the_most(outcomes: list[Outcome], most: int) -> None:
    pace = Pace(most)
    for now, outcome in enumerate(outcomes):
        pace.sent()
        pace.back(outcome, float(now), 1.0)
        assert 1 <= pace.limit <= most and pace.in_flight == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after-ms": "120"}, 0.12),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:10 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 10.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:10 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("status", "raw", "kind", "part"),
    [
        (429, b'{"error":{"message":"slow"}}', "throttled", "slow"),
        (503, b"", "throttled", "nothing"),
        (502, b"<html>", "failed", "<html>"),
        (400, b'{"error":"bad prompt"}', "fatal", "bad prompt"),
        (422, b'{"detail":[{"loc":["seed"]}]}', "refused", "seed"),
        (404, b'{"error":{"message":"no model"}}', "fatal", "check the url"),
        (403, b"{}", "fatal", "OPENAI_API_KEY"),
    ],
)
def test_a_status_says_whether_to_ask_again(status: int, raw: bytes, kind: str, part: str) -> None:
    found = of_status(status, {}, raw, END)
    assert found.kind == kind and part in found.reason


def test_replies_in_the_shapes_that_servers_use() -> None:
    called = parse(
        b'{"choices":[{"message":{"content":"I look.","tool_calls":[{"id":"r4nd0m","function":{"name":"f","arguments":"{\\"x\\": [1]}"}},'
        b'{"function":{"name":"g","arguments":"broken"}}]},"finish_reason":"tool_calls"}]}'
    )
    assert completions(called, 1)[0].finished and msgspec.json.decode(str(completions(called, 1)[0].content)) == {
        "content": "I look.",
        "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"x": [1]}}},
            {"type": "function", "function": {"name": "g", "arguments": "broken"}},
        ],
    }
    refused = parse(b'{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"content_filter"}]}')
    assert completions(refused, 1)[0].content == "no" and not completions(refused, 1)[0].finished
    swapped = parse(b'{"choices":[{"index":1,"text":"b"},{"index":0,"text":"a"},{"index":1,"text":"c"}]}')
    assert [item.content for item in completions(swapped, 2)] == ["a", "b"]  # duplicate indices and more than asked for
    llama = parse(
        b'{"choices":[{"text":"x","logprobs":{"content":[{"token":"x","logprob":-1,"top_logprobs":[{"token":" x","logprob":-1}]}]}}]}'
    )
    assert first_token(llama) == {"x": -1.0}
    with pytest.raises(ValueError, match="not what the protocol says"):
        parse(b'{"choices": 3}')


def test_log_probabilities_of_an_echo_are_cut_at_the_border() -> None:
    reply = parse(
        msgspec.json.encode(
            {"choices": [{"text": "ab cd!", "logprobs": {"tokens": ["a", "b c", "d", "!"], "token_logprobs": [None, -1.0, -2.0, -3.0]}}]}
        )
    )
    assert echoed(reply, "ab ", "cd") == (-1.0, -2.0)  # the token across the border counts, the one drawn after does not
    assert echoed(reply, "other", "cd") is None


def test_choices_of_several_tokens_are_refused() -> None:
    assert of_choices({"A": -0.1, "B": -3.0}, ("B", "A")) == (-3.0, -0.1)
    with pytest.raises(ValueError, match="more than one token"):
        of_choices({"1": -0.1, "2": -3.0}, ("1", "10"))


def test_the_texts_sampling_is_not_used_for_scoring() -> None:
    sent = msgspec.json.decode(body(Request("p", choices=("A",)), Call("first"), "m", "completions", {"seed"}))
    assert sent == {"model": "m", "prompt": "p", "max_tokens": 1, "temperature": 1.0, "logprobs": 20}
