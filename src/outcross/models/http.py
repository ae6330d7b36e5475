"""Models behind any OpenAI-compatible endpoint: hosted ones, vLLM, SGLang, llama.cpp, Ollama.

    judge = http("https://host/v1", "model-name", key_env="HOST_API_KEY", in_flight=128)
    judge = pool([Endpoint("http://one:8000/v1", weight=2), Endpoint("http://two:8000/v1")], "model-name")

Keys come from the environment and stay in memory. Needs the extra `http`.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice

from outcross.errors import ConfigError, ModelError
from outcross.models import http_wire as wire
from outcross.models.http_abilities import Abilities
from outcross.models.http_ask import Asking
from outcross.models.http_endpoint import Api, Endpoint, Limits, Price, identity
from outcross.models.http_line import Line
from outcross.types import Request, Response, Turn

__all__ = ["Abilities", "Endpoint", "Http", "HttpScorer", "Limits", "Price", "http", "pool"]


class Http:
    """A model behind one endpoint or several that serve the same model (`outcross.stages`: Completes).

    A request is answered, or comes back as a response with its reason: of n completions, those that came are kept. Threads may
    share it. Nothing is sent before the first request.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        model: str,
        *,
        api: Api = "chat",
        limits: Limits = Limits(),
        price: Price = Price(),
        depth: int = 0,
    ) -> None:
        if not endpoints:
            raise ConfigError("a pool needs at least one endpoint; none was given")
        self._id, self._depth = identity(endpoints, model, api), depth
        self.api, self.price = api, price
        self.abilities = Abilities(f"{model} at {', '.join(endpoint.shown for endpoint in endpoints)}")
        self._line = Line(endpoints, model, api, limits)
        self._end = weakref.finalize(self, self._line.close)

    @property
    def id(self) -> str:
        """Hash of endpoints, accounts, model name and protocol."""
        return self._id

    @property
    def depth(self) -> int:
        """Generations of model-written training data behind it, as its user says."""
        return self._depth

    def submit(self, request: Request, /) -> Future[Response]:
        """Send a request as soon as a slot is free. A future that is cancelled before that is not sent.

        Without a schema or choices: texts, with neither tokens nor log-probabilities. `schema` goes to the server, which may
        ignore it (`abilities.schema`): validate the text. `choices` are scored by the first token's alternatives, or whole where plain
        completions echo; a server with no log-probabilities gives an error. Seeds are sent modulo 2**31.
        """
        future: Future[Response] = Future()
        reason = wire.refusal(request, self.api)
        if reason:
            future.set_result(Response(error=reason))
            return future
        self._line.hand(Asking(request, future, self.api, self.abilities, self.price, self._line.finished))
        return future

    def flush(self) -> None:
        """Requests are on their way already."""

    def close(self) -> None:
        """Let go of the connections. Open requests end with a reason; what is asked afterwards raises `ModelError`."""
        self._end()


class HttpScorer(Http):
    """A model behind plain completions, which can also score given text where the server echoes it (LogProbs)."""

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """Natural log-probabilities of each turn's completion, one per token of the server's, in order.

        The protocol scores no end token, so there is none here. Raises `ModelError` for messages, for what is not text, and for a
        server that does not echo with log-probabilities.
        """
        source = iter(turns)
        waiting: deque[Future[Response]] = deque()
        while True:
            for turn in islice(source, WINDOW - len(waiting)):
                waiting.append(self._score(turn))
            if not waiting:
                return
            found = waiting.popleft().result()
            if found.error or not found.completions[0].log_probs:
                raise ModelError(
                    f"{self.abilities.server} cannot score a given text: {found.error or 'it does not echo with log-probabilities'}"
                )
            yield found.completions[0].log_probs

    def _score(self, turn: Turn) -> Future[Response]:
        text = turn.completion.content
        if not isinstance(text, str) or not text:
            raise ModelError(f"the answer {text!r:.60} cannot be scored; an endpoint scores texts that are not empty")
        return self.submit(Request(turn.prompt, choices=(text,)))


WINDOW = 512  # turns that `log_probs` holds


def http(
    url: str,
    model: str,
    *,
    key_env: str | None = "OPENAI_API_KEY",
    headers_env: Mapping[str, str] | None = None,
    account: str = "",
    api: Api = "chat",
    in_flight: int = 64,
    deadline_s: float = 300.0,
    retries: int = 5,
    price: Price = Price(),
    depth: int = 0,
) -> Http:
    """A model behind one OpenAI-compatible endpoint.

    url: its base, for example `https://host/v1`. key_env: the environment variable with the key; None: no key.
    headers_env: further headers, each with the environment variable that holds its value.
    account: stands for the key in the model's identity, so that earlier answers survive a new key.
    api: chat, or plain completions; the latter can score given texts.
    in_flight, deadline_s, retries: see `Limits`. price: per million tokens. depth: generations of model-written training data
        behind the model; what nobody knows counts as 0.

    Raises `ConfigError`; `MissingExtra` without aiohttp when this module is imported.
    """
    endpoint = Endpoint(url, key_env, headers_env or {}, account=account)
    return pool((endpoint,), model, api=api, in_flight=in_flight, deadline_s=deadline_s, retries=retries, price=price, depth=depth)


def pool(
    endpoints: Sequence[Endpoint],
    model: str,
    *,
    api: Api = "chat",
    in_flight: int = 64,
    deadline_s: float = 300.0,
    retries: int = 5,
    price: Price = Price(),
    depth: int = 0,
) -> Http:
    """One model behind several endpoints: requests are shared by weight, and go to the others while one is slow, limited or down.

    `in_flight` counts over all endpoints. Answers are kept under the pool's identity: other endpoints make another model.
    """
    kind = HttpScorer if api == "completions" else Http
    limits = Limits(in_flight, deadline_s, retries)
    return kind(endpoints, model, api=api, limits=limits, price=price, depth=depth)
