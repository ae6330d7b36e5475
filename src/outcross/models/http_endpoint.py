"""Where a model behind HTTP is, whose account pays, and what it costs. Secrets come from the environment and stay in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from outcross.errors import ConfigError
from outcross.types import Usage, content_hash

Api = Literal["chat", "completions", "embeddings"]
PATHS: Mapping[Api, str] = {"chat": "/chat/completions", "completions": "/completions", "embeddings": "/embeddings"}
SECRET_LENGTH = 12  # shorter ones ("EMPTY", "x") are placeholders that local servers take, and ordinary words of answers
_SECRET_NAMES = ("key", "token", "secret", "sig", "password")


@dataclass(frozen=True)
class Endpoint:
    """One OpenAI-compatible server.

    url: its base, for example `https://host/v1`; it may not hold a secret.
    key_env: the environment variable with the key; where it is not set, no key is sent.
    headers_env: further headers, each with the environment variable that holds its value.
    model: what this server calls the model, where it differs from the others of its pool.
    weight: its share of the requests of a pool.
    account: stands for the key in the model's identity, so that answers survive a new key; empty: a hash of the key does.
    ca_file: a PEM file with further certificate authorities to trust, beside the machine's (or those of SSL_CERT_FILE).

    HTTPS_PROXY, HTTP_PROXY and NO_PROXY are heeded as usual, except for servers on this machine. No .netrc is read.
    """

    url: str
    key_env: str | None = "OPENAI_API_KEY"
    headers_env: Mapping[str, str] = field(default_factory=dict)
    model: str = ""
    weight: float = 1.0
    account: str = ""
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"the endpoint's url is {self.shown!r}; give a base such as https://host/v1")
        secret = [name for name, _ in parse_qsl(parts.query) if any(word in name.lower() for word in _SECRET_NAMES)]
        if parts.username or parts.password or secret:
            raise ConfigError(f"the endpoint's url ({self.shown}) holds a secret; put it into the environment and name it by `key_env`")
        if self.weight <= 0:
            raise ConfigError(f"the endpoint {self.shown} has weight {self.weight}; give a positive number, or leave the endpoint out")

    @property
    def shown(self) -> str:
        """The URL without user and query, for messages."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def address(self, api: Api) -> str:
        """The URL that requests go to."""
        parts = urlsplit(self.url)
        return parts._replace(path=parts.path.rstrip("/") + PATHS[api]).geturl()

    def headers(self) -> dict[str, str]:
        """What is sent with every request. Raises `ConfigError` for a header whose variable is not set."""
        found = {"Content-Type": "application/json"}
        if key := self._key():
            found["Authorization"] = f"Bearer {key}"
        for name, variable in self.headers_env.items():
            if variable not in os.environ:
                raise ConfigError(f"the header {name!r} of {self.shown} comes from the environment variable {variable}, which is not set")
            found[name] = os.environ[variable]
        return found

    def secrets(self) -> tuple[str, ...]:
        """What may appear in no answer, message or file."""
        values = [self._key(), *(os.environ.get(variable, "") for variable in self.headers_env.values())]
        return tuple(value for value in values if len(value) >= SECRET_LENGTH)

    def identity(self) -> str:
        """A hash of address and account: other settings do not shape answers."""
        account = self.account or hashlib.blake2b(self._key().encode(), digest_size=16).hexdigest()
        return content_hash("endpoint", self.url.rstrip("/"), account, self.model)

    def _key(self) -> str:
        return os.environ.get(self.key_env, "").strip() if self.key_env else ""


@dataclass(frozen=True)
class Price:
    """Money per million tokens, in the currency of the budget. Without numbers no price is given: money is counted as 0 and shown so.

    cached: of prompt tokens that the server says it found in its cache; None: they cost what the others do.
    Raises `ConfigError` for half a price and for negative ones.
    """

    prompt: float | None = None
    completion: float | None = None
    cached: float | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) != (self.completion is None) or (self.cached is not None and not self.given):
            raise ConfigError(f"{self} is half a price; give `prompt` and `completion`, per million tokens, with 0 for what is free")
        if any(value is not None and not value >= 0 for value in (self.prompt, self.completion, self.cached)):
            raise ConfigError(f"{self} is no price; give numbers that are not negative, per million tokens")

    @property
    def given(self) -> bool:
        """Whether anybody said what an answer costs; 0 is a price too."""
        return self.prompt is not None

    def of(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> Usage:
        """What tokens cost; `cached_tokens` are among the prompt's."""
        prompt, completion = self.prompt or 0.0, self.completion or 0.0
        cached = prompt if self.cached is None else self.cached
        money = ((prompt_tokens - cached_tokens) * prompt + cached_tokens * cached + completion_tokens * completion) / 1e6
        return Usage(prompt_tokens, completion_tokens, money)


@dataclass(frozen=True)
class Limits:
    """What a machine allows itself; none of it enters the model's identity.

    in_flight: requests under way at once, over all endpoints.
    deadline_s: seconds one exchange may take; one that ran out of them is tried once more.
    retries: how often a request is sent again after a failure. A rate limit (429, 503) spends none of them.
    patience_s: how long a request waits in all for a rate limit to pass, or for a server that is down, before it fails.
    """

    in_flight: int = 64
    deadline_s: float = 300.0
    retries: int = 5
    patience_s: float = 1800.0

    def __post_init__(self) -> None:
        if self.in_flight < 1 or self.deadline_s <= 0 or self.retries < 0 or self.patience_s < 0:
            raise ConfigError(f"{self} cannot work; in_flight is at least 1, deadline_s positive, retries and patience_s not negative")


def identity(endpoints: Sequence[Endpoint], model: str, api: Api) -> str:
    """`http:` and a hash of endpoints (in any order), accounts, model name and protocol."""
    return "http:" + content_hash("http", sorted(endpoint.identity() for endpoint in endpoints), model, api)
