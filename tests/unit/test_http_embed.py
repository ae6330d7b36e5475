"""Texts to vectors over the same line as answers: order, batches, many at once, retries, reasons."""

from __future__ import annotations

from contextlib import closing
from itertools import count, islice
from typing import Any

import pytest
from stub_server import Behaviour, Stub

from outcross.errors import ModelError
from outcross.models.http import HttpEmbedder, http
from outcross.models.http_embed import BATCH, BATCHES
from outcross.models.http_wire import Call, parse
from outcross.stages import Embeds
from outcross.types import Request

WORDS = [f"{'x' * (index % 7)}{index}" for index in range(300)]


def model(stub: Stub, **settings: Any) -> HttpEmbedder:
    made = http(stub.url, "stub", key_env=None, api="embeddings", **({"in_flight": 4, "deadline_s": 5.0} | settings))
    assert isinstance(made, HttpEmbedder) and isinstance(made, Embeds)
    return made


def expected(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), float(ord(text[0]))] for text in texts]


def test_vectors_come_in_the_order_of_the_texts_in_batches_at_once() -> None:
    with Stub(Behaviour(median_ms=20, sigma=0.0)) as stub, closing(model(stub)) as asked:
        assert list(asked.embed(WORDS)) == expected(WORDS)
        assert [len(body["input"]) for body in stub.bodies] == [BATCH] * 4 + [300 - 4 * BATCH]
        assert stub.bodies[0].keys() == {"model", "input"} and stub.most_open == 4
        assert list(asked.embed([])) == []


def test_a_batch_is_asked_again_after_errors_and_rate_limits() -> None:
    with Stub(Behaviour(errors=0.4, retry_after="0.01")) as stub, closing(model(stub, retries=20)) as asked:
        assert list(asked.embed(WORDS * 4)) == expected(WORDS * 4)
        assert stub.statuses[429] + stub.statuses[500] > 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[hang]", "did not answer within 0.3 s"), ("[refuse]", "not allowed"), ("[garbage]", "not what the protocol"), ("", "empty text")],
)
def test_what_cannot_be_embedded_is_an_error_with_its_reason(text: str, reason: str) -> None:
    with Stub() as stub, closing(model(stub, deadline_s=0.3, retries=1)) as asked, pytest.raises(ModelError, match=reason):
        list(asked.embed([text]))


def test_an_endless_source_is_read_ahead_by_a_bounded_number() -> None:
    taken = count()
    with Stub() as stub, closing(model(stub)) as asked:
        stream = asked.embed(f"text {next(taken)}" for _ in count())
        assert len(list(islice(stream, 10))) == 10
        assert next(taken) <= BATCH * BATCHES + 1
        stream.close()  # type: ignore[attr-defined]
        assert list(asked.embed(["after"])) == expected(["after"])


def test_replies_with_too_few_or_ragged_vectors_are_refused_and_no_request_is_answered() -> None:
    call = Call("embed", texts=("a", "b"))
    for raw in (b'{"data":[{"index":0,"embedding":[1]}]}', b'{"data":[{"embedding":[1]},{"index":1,"embedding":[1,2]}]}'):
        with pytest.raises(ValueError, match=r"vectors of lengths .* for 2 texts"):
            parse(raw, call)
    with Stub() as stub, closing(model(stub)) as asked:
        assert "embeddings answers no requests" in asked.submit(Request("a")).result(5).error
        asked.close()
        with pytest.raises(ModelError, match="closed"):
            list(asked.embed(["a"]))
