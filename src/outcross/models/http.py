"""Models behind any OpenAI-compatible endpoint: hosted ones, vLLM, SGLang, llama.cpp, Ollama.

    judge = http("https://host/v1", "model-name", key_env="HOST_API_KEY", in_flight=128)
    judge = pool([Endpoint("http://one:8000/v1", weight=2), Endpoint("http://two:8000/v1")], "model-name")

Keys come from the environment and stay in memory. Needs the extra `http`.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from outcross.errors import ConfigError
from outcross.models import http_wire as wire
from outcross.models.http_abilities import Abilities
from outcross.models.http_ask import Asking
from outcross.models.http_embed import embedded
from outcross.models.http_endpoint import Api, Endpoint, Limits, Price, identity
from outcross.models.http_line import Line
from outcross.types import Request, Response, Turn

__all__ = ["Abilities", "Endpoint", "Http", "HttpEmbedder", "HttpScorer", "Limits", "Price", "http", "pool"]


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

    @property
    def client_version(self) -> str:
        """Changes when the same request is sent otherwise, or its reply read otherwise, than before."""
        return wire.VERSION

    @property
    def in_flight(self) -> int:
        """Requests under way at once, at most: forecasts of time rest on it."""
        return self._line.limits.in_flight

    def submit(self, request: Request, /) -> Future[Response]:
        """Send a request as soon as a slot is free. A future that is cancelled before that is not sent.

        Without a schema or choices: texts, with neither tokens nor log-probabilities. `schema` goes to the server, which may
        ignore it: validate the text. An answer that calls `tools` is JSON with `tool_calls`. `choices` are scored by the first token's
        alternatives, or whole where plain completions echo; a server with no log-probabilities gives an error. Seeds are sent
        modulo 2**31. The usage of a response holds the probes that its request set off.
        """
        future: Future[Response] = Future()
        reason = wire.refusal(request, self.api)
        if reason:
            future.set_result(Response(error=reason))
            return future
        self._line.hand(Asking(request, future, self.api, self.abilities, self.price, self._line.finished))
        return future

    def split(self, request: Request, /) -> Sequence[Request]:
        """The requests for one completion each that stand for `request`, with seeds counting up; empty unless it asks for several of a
        server that was seen to ignore `n`."""
        return wire.singles(request) if self.abilities.n is False else ()

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
        return wire.scored(turns, self.submit, self.abilities.server)


class HttpEmbedder(Http):
    """A model behind an endpoint for embeddings (Embeds). It answers no requests."""

    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        """One vector for each text, in order, all of one length; 64 texts a request, many requests at once, at most 16,384 texts held.

        Raises `ModelError` for an empty text, and when a batch stays without its vectors. What it costs is in no journal and no budget.
        """
        return embedded(texts, self._line.hand, self._line.finished)


KINDS: Mapping[Api, type[Http]] = {"chat": Http, "completions": HttpScorer, "embeddings": HttpEmbedder}


def http(
    url: str,
    model: str,
    *,
    key_env: str | None = "OPENAI_API_KEY",
    headers_env: Mapping[str, str] | None = None,
    account: str = "",
    api: Api = "chat",
    ca_file: Path | None = None,
    in_flight: int = 64,
    deadline_s: float = 300.0,
    retries: int = 5,
    patience_s: float = 1800.0,
    price: Price = Price(),
    depth: int = 0,
) -> Http:
    """A model behind one OpenAI-compatible endpoint.

    url: its base, for example `https://host/v1`. key_env: the environment variable with the key; None: no key.
    headers_env: further headers, each with the environment variable that holds its value.
    account: stands for the key in the model's identity, so that earlier answers survive a new key.
    api: chat, plain completions, which can score given texts, or embeddings, which give vectors.
    ca_file: see `Endpoint`. in_flight, deadline_s, retries, patience_s: see `Limits`.
    price: per million tokens. depth: generations of model-written training data behind the model; what nobody knows counts as 0.

    Raises `ConfigError`; `MissingExtra` without aiohttp when this module is imported.
    """
    endpoint = Endpoint(url, key_env, headers_env or {}, account=account, ca_file=ca_file)
    limits = Limits(in_flight, deadline_s, retries, patience_s)
    return KINDS[api]((endpoint,), model, api=api, limits=limits, price=price, depth=depth)


def pool(
    endpoints: Sequence[Endpoint],
    model: str,
    *,
    api: Api = "chat",
    in_flight: int = 64,
    deadline_s: float = 300.0,
    retries: int = 5,
    patience_s: float = 1800.0,
    price: Price = Price(),
    depth: int = 0,
) -> Http:
    """One model behind several endpoints: requests are shared by weight, and go to the others while one is slow, limited or down.

    `in_flight` counts over all endpoints. Answers are kept under the pool's identity: other endpoints make another model.
    """
    limits = Limits(in_flight, deadline_s, retries, patience_s)
    return KINDS[api](endpoints, model, api=api, limits=limits, price=price, depth=depth)
