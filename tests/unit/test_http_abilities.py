"""What servers can do is seen, never believed: seeds, tools, `n`, schemas; and what finding out costs is counted."""

from __future__ import annotations

import json
import logging
from contextlib import closing
from typing import Any

import pytest
from stub_server import Behaviour, Stub

from outcross.models.http import Http, http
from outcross.stages import Remote
from outcross.types import Completion, Request, Response, Sampling

TOOLS = '[{"type":"function","function":{"name":"add","parameters":{"type":"object","properties":{"x":{"type":"integer"}}}}}]'
CALL = {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}]}


def model(stub: Stub, **settings: Any) -> Http:
    return http(stub.url, "stub", key_env=None, in_flight=8, deadline_s=5.0, **settings)


def ask(asked: Http, request: Request) -> Response:
    return asked.submit(request).result(30)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.partition(": ")[2] for record in caplog.records if record.levelno == logging.WARNING]


# ── tools ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_an_answer_that_calls_a_tool_is_json_and_needs_no_probe() -> None:
    with Stub() as stub, closing(model(stub)) as asked:
        first, second = (ask(asked, Request("Call add.", tools=TOOLS)) for _ in range(2))
        assert json.loads(str(first.completions[0].content)) == CALL
        assert first.completions == second.completions, "the server's random identifiers are left out"
        assert len(stub.bodies) == 2 and stub.bodies[0]["tools"] == json.loads(TOOLS) and "tool_choice" not in stub.bodies[0]
        assert asked.abilities.tools is True


@pytest.mark.parametrize(
    ("does", "found", "probes"),
    [
        (Behaviour(), (True, True), 1),
        (Behaviour(tool_choice=False), (True, False), 2),  # it ignores that a call is forced
        (Behaviour(tools=False), (False, False), 2),
    ],
)
def test_tools_are_probed_once_where_an_answer_calls_none(
    does: Behaviour, found: tuple[bool, bool], probes: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Stub(does) as stub, closing(model(stub)) as asked, caplog.at_level(logging.WARNING):
        first, second = (ask(asked, Request(prompt, tools=TOOLS)) for prompt in ("a", "b"))
        assert (asked.abilities.tools, asked.abilities.tool_choice) == found
        assert first.completions == (Completion("a -> 0/0"),) and not first.error
        assert len(stub.bodies) == 2 + probes and stub.bodies[1]["tool_choice"] == "required"
        assert first.usage.prompt_tokens == 10 * (1 + probes) and second.usage.prompt_tokens == 10, (
            "probes are paid for by who set them off"
        )
    assert len(warnings(caplog)) == found.count(False)


# ── n, seeds, schemas ──────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("able", [True, False])
def test_seeds_are_probed_when_they_alone_tell_samples_apart(able: bool) -> None:
    with Stub(Behaviour(n=False, seed=able)) as stub, closing(model(stub)) as asked:
        ask(asked, Request("a", seed=1))
        assert asked.abilities.seed is None
        ask(asked, Request("b", n=2))
        assert asked.abilities.seed is able


def test_a_request_is_split_once_the_server_was_seen_to_ignore_n() -> None:
    request = Request("a", n=3, sampling=Sampling(max_tokens=5), seed=2**62)
    with Stub(Behaviour(n=False)) as stub, closing(model(stub)) as asked:
        assert isinstance(asked, Remote) and asked.client_version
        assert asked.split(request) == ()
        ask(asked, Request("b", n=2))
        parts = asked.split(request)
        assert parts == [Request("a", 1, request.sampling, seed=2**62 + index) for index in range(3)]
        assert asked.split(parts[0]) == () and asked.split(Request("a", n=2, choices=("A",))) == ()


def test_a_server_that_refuses_n_is_asked_singly() -> None:
    with Stub(Behaviour(refuses="n", n=False)) as stub, closing(model(stub)) as asked:
        answer = ask(asked, Request("a", n=2, seed=4))
        assert [item.content for item in answer.completions] == ["a -> 4/0", "a -> 5/0"] and not answer.error
        assert asked.abilities.n is False and stub.statuses[400] == 1


def test_an_answer_to_a_schema_that_is_no_json_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    schema = '{"type":"object","properties":{"x":{"enum":["y"]}}}'
    for able in (True, False):
        with Stub(Behaviour(schema=able)) as stub, closing(model(stub)) as asked, caplog.at_level(logging.WARNING):
            answers = [ask(asked, Request(prompt, schema=schema)) for prompt in ("a", "b")]
            assert asked.abilities.schema is (None if able else False)
            assert [item.completions[0].content for item in answers] == (['{"x": "y"}'] * 2 if able else ["a -> 0/0", "b -> 0/0"])
            sent = stub.bodies[0]["response_format"]["json_schema"]
            assert sent["schema"] == json.loads(schema) and sent["strict"] is True
    assert warnings(caplog) == ["schema does not work; answers are not held to JSON schemas and must be validated"]


def test_plain_completions_carry_sampling_seed_and_n() -> None:
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=7, max_tokens=9, stop=("\n", "Q:"))
    with Stub() as stub, closing(model(stub, api="completions")) as asked:
        answer = ask(asked, Request("u", n=2, sampling=sampling, seed=5))
        assert [item.content for item in answer.completions] == ["u -> 5/0", "u -> 5/1"]
        assert stub.bodies == [
            {
                "model": "stub",
                "prompt": "u",
                "max_tokens": 9,
                "temperature": 0.5,
                "top_p": 0.9,
                "top_k": 7,
                "stop": ["\n", "Q:"],
                "n": 2,
                "seed": 5,
            }
        ]
        assert "api='chat'" in ask(asked, Request("u", tools=TOOLS)).error
