"""Provider batch files as pure functions: questions to lines of JSON, lines of results to responses.

A batch API takes a file of requests, `{"custom_id", "method", "url", "body"}` a line, answers within a day for about half the
price, and gives back a file of results in any order: `{"custom_id", "response": {"status_code", "body"}, "error"}`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from outcross.errors import ConfigError, DataError
from outcross.models import http_wire as wire
from outcross.models.http import Http
from outcross.models.http_endpoint import Price
from outcross.models.http_wire import Call, Reply
from outcross.types import Completion, Request, Response

MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Answer(msgspec.Struct):
    status_code: int = 200
    body: msgspec.Raw = msgspec.Raw(b"null")


class Result(msgspec.Struct):
    """One line of a results file."""

    custom_id: str
    response: _Answer | None = None
    error: Any = None


_results = msgspec.json.Decoder(Result)


def line(custom_id: str, request: Request, model: Http) -> bytes:
    """One question as the live client would ask it. Raises `ConfigError` for a pool: a batch goes to one provider."""
    if len(model._line.servers) > 1:
        raise ConfigError(f"{model.abilities.server} is a pool, and a batch file goes to one provider; give this role one endpoint")
    server = model._line.servers[0]
    body = wire.body(request, _call(request), server.model, model.api, server.refused)
    return _encode(_Line(custom_id, "POST", urlsplit(server.address).path, msgspec.Raw(body))) + b"\n"


def _call(request: Request) -> Call:
    return Call("first") if request.choices else Call("text", request.n, request.seed)


def results(path: Path) -> Iterator[tuple[int, Result | None]]:
    """Number (from 1) and content of each line; None for one that is no result. Raises `DataError` when the file cannot be read."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield number, _decoded(raw)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; name the results file that the provider gave") from error


def _decoded(raw: bytes) -> Result | None:
    try:
        return _results.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def response(result: Result, request: Request, price: Price, factor: float) -> Response:
    """What a result says: completions and what they cost at `factor` times the price, or the reason in `error`."""
    if result.response is None or result.error or result.response.status_code != 200:
        return Response(error=_reason(result))
    try:
        reply = wire.parse(bytes(result.response.body), _call(request))
    except ValueError as error:
        return Response(error=str(error))
    assert isinstance(reply, Reply)
    used = reply.usage or wire.Tokens()
    usage = price.of(used.prompt_tokens, used.completion_tokens, used.cached_tokens)
    usage = msgspec.structs.replace(usage, money=usage.money * factor)
    if not request.choices:
        return Response(wire.completions(reply, request.n), usage)
    try:
        scores = wire.of_choices(wire.first_token(reply) or {}, request.choices)
    except ValueError as error:
        return Response(usage=usage, error=str(error))
    return Response((Completion("", choice_log_probs=scores),), usage)


def _reason(result: Result) -> str:
    """Why there is no answer, in the provider's words."""
    said: Any = result.error
    status = ""
    if result.response is not None and not said:
        status = f" {result.response.status_code}"
        try:
            said = msgspec.json.decode(result.response.body)
        except msgspec.DecodeError:
            said = bytes(result.response.body)
        said = said.get("error", said) if isinstance(said, dict) else said
    told = said.get("message") or said.get("code") or said if isinstance(said, dict) else said
    return f"the batch answered{status}: {str(told or 'nothing')[:300]}"
