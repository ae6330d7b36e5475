"""What an answer costs: prices by hand, what the server says about its cache, and a missing price that is never shown as free."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_server import Behaviour, Stub

from outcross.errors import ConfigError
from outcross.models import http_wire as wire
from outcross.models.http import Price, http
from outcross.types import Request

TOKENS = st.integers(0, 10**7)
MONEY = st.floats(0, 1e4)


def test_a_price_is_per_million_tokens() -> None:
    assert Price(2.5, 10).of(1_000_000, 0).money == 2.5
    assert Price(2.5, 10).of(200, 50).money == pytest.approx((200 * 2.5 + 50 * 10) / 1e6)
    assert Price(2.5, 10, cached=0.25).of(200, 50, 120).money == pytest.approx((80 * 2.5 + 120 * 0.25 + 50 * 10) / 1e6)
    assert Price(2.5, 10).of(200, 50, 120) == Price(2.5, 10).of(200, 50)  # no price of their own: they cost what the others do


@given(MONEY, MONEY, TOKENS, TOKENS, TOKENS, TOKENS)
def test_two_bills_add_up_to_the_bill_of_both(prompt: float, completion: float, a: int, b: int, c: int, d: int) -> None:
    price = Price(prompt, completion)
    assert price.of(a, b).money + price.of(c, d).money == pytest.approx(price.of(a + c, b + d).money, rel=1e-9, abs=1e-9)


def test_nothing_given_is_not_the_same_as_free() -> None:
    assert not Price().given and Price(0, 0).given
    assert Price().of(100, 100).money == 0


@pytest.mark.parametrize("values", [{"prompt": 1.0}, {"completion": 1.0}, {"cached": 1.0}])
def test_half_a_price_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="half a price; give `prompt` and `completion`"):
        Price(**values)


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_negative_price_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigError, match="is no price"):
        Price(1.0, wrong)


@pytest.mark.parametrize(
    ("details", "cached"),
    [({"cached_tokens": 7}, 7), ({"cached_tokens": 99}, 10), ({"cached_tokens": None}, 0), ({"cached_tokens": -3}, 0), (None, 0), ("?", 0)],
)
def test_cached_tokens_are_read_from_the_reply_and_are_never_more_than_the_prompts(details: Any, cached: int) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": details}
    reply = wire.parse(json.dumps({"choices": [{"message": {"content": "x"}}], "usage": usage}).encode())
    assert reply.usage is not None and reply.usage.cached_tokens == cached


class Caching(Stub):
    """A server that has found 6 of every 10 prompt tokens in its cache."""

    def _said(self, body: dict[str, Any], prompt: str, path: str) -> bytes:
        said = json.loads(super()._said(body, prompt, path))
        said["usage"]["prompt_tokens_details"] = {"cached_tokens": 6}
        return json.dumps(said).encode()


def test_the_price_of_cached_tokens_reaches_the_bill() -> None:
    with Caching(Behaviour(n=False)) as stub, closing(http(stub.url, "m", key_env=None, price=Price(10, 20, cached=1))) as model:
        usage = model.submit(Request("hello", n=3)).result(10).usage
        times = sum(stub.answered.values())
    assert times >= 3  # the server ignores n; what was sent to find out how it draws is paid for as well
    assert (usage.prompt_tokens, usage.completion_tokens) == (10 * times, 5 * times)
    assert usage.money == pytest.approx(times * (4 * 10 + 6 * 1 + 5 * 20) / 1e6)
