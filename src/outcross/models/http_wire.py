"""The OpenAI protocol as pure functions: requests to bodies, replies to completions and log-probabilities."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from typing import Any, Literal

import msgspec

from outcross.errors import ModelError
from outcross.models.http_endpoint import Api
from outcross.types import Array, Completion, Request, Response, Sampling, Turn

TOP = 20  # the most top log-probabilities that the protocol gives a token
SEEDS = 2**31  # servers disagree on wider seeds
VERSION = "1"  # of what is sent for a request, and of how its reply becomes content: raise it when either changes
_CUT_OFF = ("length", "content_filter")
_SCORING = Sampling(max_tokens=1)  # log-probabilities are those of the untempered distribution


class Call(msgspec.Struct, frozen=True):
    """One exchange for a request: `n` texts drawn with `seed`, the first token's alternatives, prompt and `suffix` scored, or
    the vectors of `texts`. `tool_choice` forces a call of a tool, where the server heeds it."""

    kind: Literal["text", "first", "echo", "embed"]
    n: int = 1
    seed: int = 0
    suffix: str = ""
    texts: tuple[str, ...] = ()
    tool_choice: str = ""


class Function(msgspec.Struct):
    name: str = ""
    arguments: Any = ""


class ToolCall(msgspec.Struct):
    function: Function | None = None


class Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Alternative(msgspec.Struct):
    token: str
    logprob: float


class Token(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[Alternative] = []


class LogProbabilities(msgspec.Struct):
    """`content` is the chat protocol's form, the rest that of plain completions; llama.cpp uses the first for both."""

    content: list[Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    text_offset: list[int] | None = None


class Choice(msgspec.Struct):
    message: Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: LogProbabilities | None = None
    index: int = 0


class Tokens(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Any = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the server found in its cache, where it says so."""
        details = self.prompt_tokens_details
        found = details.get("cached_tokens") if isinstance(details, dict) else None
        return min(found, self.prompt_tokens) if isinstance(found, int) and found > 0 else 0


class Reply(msgspec.Struct):
    choices: list[Choice]
    usage: Tokens | None = None


class Embedding(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class Vectors(msgspec.Struct):
    data: list[Embedding]
    usage: Tokens | None = None


_replies = msgspec.json.Decoder(Reply)
_vectors = msgspec.json.Decoder(Vectors)
_encode = msgspec.json.Encoder().encode


def refusal(request: Request, api: Api) -> str:
    """Why this protocol cannot carry `request`; empty when it can."""
    if api == "embeddings":
        return "an endpoint for embeddings answers no requests; use api='chat', or `embed`"
    if isinstance(request.prompt, Array):
        return "an endpoint reads text; this prompt is an array"
    if request.prefix:
        return f"an endpoint cannot continue token ids (prefix={request.prefix!r:.60}); leave `prefix` empty"
    if api == "completions" and not isinstance(request.prompt, str):
        return "plain completions cannot carry messages; use api='chat', or ask with a text"
    if api == "completions" and request.tools:
        return "plain completions cannot carry tools; use api='chat'"
    if request.sampling.beams > 1:
        return f"this protocol has no beam search (beams={request.sampling.beams}); leave `beams` out, or take a local model"
    if request.n < 1:
        return f"n is {request.n}; ask for at least 1 completion"
    for field in ("schema", "tools"):
        try:
            msgspec.json.decode(getattr(request, field) or "null")
        except msgspec.DecodeError as error:
            return f"{field} is {getattr(request, field)!r:.80}, which is not JSON: {error}"
    return ""


def singles(request: Request) -> Sequence[Request]:
    """The requests for one completion each, with seeds counting up, that stand for one of several; none for other requests."""
    if request.n < 2 or request.choices:
        return ()
    return [msgspec.structs.replace(request, n=1, seed=request.seed + index) for index in range(request.n)]


def body(request: Request, call: Call, model: str, api: Api, refused: Collection[str] = ()) -> bytes:
    """What is posted. `refused`: optional fields that this server has refused before: `n`, `seed`, `max_tokens` (renamed)."""
    if call.kind == "embed":
        return _encode({"model": model, "input": call.texts})
    found: dict[str, Any] = {"model": model}
    if api == "chat":
        given = request.prompt
        found["messages"] = [{"role": "user", "content": given}] if isinstance(given, str) else given
    else:
        found["prompt"] = f"{request.prompt}{call.suffix}"
    sampling = request.sampling if call.kind == "text" else _SCORING
    limit = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
    found[limit] = sampling.max_tokens
    found["temperature"] = sampling.temperature
    optional: Mapping[str, Any] = {
        "top_p": sampling.top_p if sampling.top_p < 1 else None,
        "top_k": sampling.top_k or None,
        "stop": sampling.stop or None,
        "n": call.n if call.n > 1 and "n" not in refused else None,
        "seed": call.seed % SEEDS if "seed" not in refused else None,
        "tools": msgspec.Raw(request.tools.encode()) if request.tools else None,
        "tool_choice": call.tool_choice or None,
        "response_format": _schema(request.schema) if request.schema else None,
        **_asked_log_probs(call, api),
    }
    found.update((name, value) for name, value in optional.items() if value is not None)
    return _encode(found)


def _schema(schema: str) -> Mapping[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": msgspec.Raw(schema.encode())}}


def _asked_log_probs(call: Call, api: Api) -> Mapping[str, Any]:
    if call.kind == "text":
        return {}
    if api == "chat":
        return {"logprobs": True, "top_logprobs": TOP}
    return {"logprobs": 1, "echo": True} if call.kind == "echo" else {"logprobs": TOP}


def largest(request: Request, call: Call, sent: int) -> int:
    """Bytes a sane reply has at most: what was asked for, written wastefully, and what may be echoed with log-probabilities."""
    return 1_000_000 + 256 * call.n * request.sampling.max_tokens + 64 * sent + 500_000 * len(call.texts)


def parse(raw: bytes, call: Call = Call("text")) -> Reply | Vectors:
    """Raises `ValueError` saying what the reply is instead."""
    return _embeddings(raw, call) if call.kind == "embed" else _reply(raw)


def _embeddings(raw: bytes, call: Call) -> Vectors:
    try:
        found = _vectors.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the reply is not what the protocol says ({error}): {raw[:80]!r}") from None
    found.data.sort(key=lambda item: item.index)
    if len(found.data) != len(call.texts) or len({len(item.embedding) for item in found.data}) != 1 or not found.data[0].embedding:
        sizes = sorted({len(item.embedding) for item in found.data})
        raise ValueError(f"the reply holds {len(found.data)} vectors of lengths {sizes} for {len(call.texts)} texts")
    return found


def _reply(raw: bytes) -> Reply:
    try:
        reply = _replies.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the reply is not what the protocol says ({error}): {raw[:80]!r}") from None
    if not reply.choices:
        raise ValueError(f"the reply holds no choices: {raw[:80]!r}")
    reply.choices.sort(key=lambda choice: choice.index)  # stable: equal indices keep their order
    return reply


def completions(reply: Reply, most: int) -> tuple[Completion, ...]:
    """The texts of a reply, at most `most`. A refusal is a text. A message that calls tools becomes JSON in the form of chat data:
    `{"content": …, "tool_calls": [{"type": "function", "function": {"name": …, "arguments": {…}}}]}`, `content` where there is
    any, arguments as an object unless they are not JSON, and without the server's random identifiers."""
    return tuple(Completion(_text(choice), finished=choice.finish_reason not in _CUT_OFF) for choice in reply.choices[:most])


def _text(choice: Choice) -> str:
    if choice.message is None:
        return choice.text or ""
    said = choice.message
    if said.tool_calls:
        content = {"content": said.content} if said.content else {}
        return _encode({**content, "tool_calls": [_called(call.function or Function()) for call in said.tool_calls]}).decode()
    return said.content or said.refusal or ""


def is_json(text: str) -> bool:
    """Whether the whole text is one JSON value."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    return True


def _called(function: Function) -> Mapping[str, Any]:
    arguments = function.arguments
    if isinstance(arguments, str):
        with suppress(msgspec.DecodeError):
            arguments = msgspec.json.decode(arguments)
    return {"type": "function", "function": {"name": function.name, "arguments": arguments}}


# ── log-probabilities ──────────────────────────────────────────────────────────────────────────────────────────────────
def first_token(reply: Reply) -> dict[str, float] | None:
    """Text → log-probability of the likeliest first tokens, spaces around them removed; None when the server gives none."""
    given = reply.choices[0].logprobs
    if given is None:
        return None
    pairs: list[tuple[str, float]] = []
    if given.content:
        pairs = [(item.token, item.logprob) for item in given.content[0].top_logprobs]
    elif given.top_logprobs and given.top_logprobs[0]:
        pairs = list(given.top_logprobs[0].items())
    if not pairs:
        return None
    found: dict[str, float] = {}
    for token, log_prob in pairs:
        text = token.strip()
        found[text] = _log_add(found.get(text, -math.inf), log_prob)
    return found


def of_choices(first: Mapping[str, float], choices: Sequence[str]) -> tuple[float, ...]:
    """The log-probability of each choice as a first token.

    A choice beyond those listed gets what it can have at most: the least of the listed, or the mass that is left. Raises
    `ValueError` for choices of several tokens, and when none is listed.
    """
    wanted = [choice.strip() for choice in choices]
    for choice in wanted:
        longer = choice not in first and any(token and choice.startswith(token) for token in first)
        if longer:
            raise ValueError(f"the choice {choice!r} is more than one token here; use choices of one token, such as A and B")
    if not any(choice in first for choice in wanted):
        raise ValueError(
            f"none of {wanted} is among the {len(first)} likeliest first tokens; ask so that the answer begins with one of them"
        )
    left = math.log(max(1 - sum(map(math.exp, first.values())), 1e-12))
    bound = min(*first.values(), left)
    return tuple(first.get(choice, bound) for choice in wanted)


def echoed(reply: Reply, prompt: str, suffix: str) -> tuple[float, ...] | None:
    """Natural log-probabilities of the tokens of `suffix` after `prompt`, without an end token; None when nothing was echoed.

    A token that straddles the border counts as the suffix's.
    """
    given, text = reply.choices[0].logprobs, reply.choices[0].text or ""
    if given is None or not given.tokens or not given.token_logprobs or not text.startswith(prompt + suffix):
        return None
    ends, end = [], 0
    for token in given.tokens:
        end += len(token)
        ends.append(end)
    if given.text_offset and len(given.text_offset) == len(given.tokens):  # tokens may be shown otherwise than they read
        ends = [*given.text_offset[1:], len(text)]
    starts = [0, *ends[:-1]]
    spans = zip(starts, ends, given.token_logprobs, strict=False)
    scored = [value for start, end, value in spans if end > len(prompt) and start < len(prompt) + len(suffix)]
    known = tuple(value for value in scored if value is not None)
    return known if known and len(known) == len(scored) else None


def scored(
    turns: Iterable[Turn], submit: Callable[[Request], Future[Response]], server: str, window: int = 512
) -> Iterator[Sequence[float]]:
    """Natural log-probabilities of each turn's completion, in order, at most `window` asked ahead. Raises `ModelError` for what cannot be
    scored; `server` names who could not."""
    source = iter(turns)
    waiting: deque[Future[Response]] = deque()
    while True:
        for turn in islice(source, window - len(waiting)):
            text = turn.completion.content
            if not isinstance(text, str) or not text:
                raise ModelError(f"the answer {text!r:.60} cannot be scored; an endpoint scores texts that are not empty")
            waiting.append(submit(Request(turn.prompt, choices=(text,))))
        if not waiting:
            return
        found = waiting.popleft().result()
        if found.error or not found.completions[0].log_probs:
            raise ModelError(f"{server} cannot score a given text: {found.error or 'it does not echo with log-probabilities'}")
        yield found.completions[0].log_probs


def _log_add(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
