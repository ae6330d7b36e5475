"""Models served by a command of the user's: `vllm serve`, SGLang, `llama-server`, `transformers serve` or any other OpenAI-compatible server.

    judge = served("vllm serve {folder} --host {host} --port {port}", folder="judge")
    policy = served("vllm serve {folder} --host {host} --port {port}", model=torch_lm("base"))     # trains here, generates there

The server is started at the first request and stopped before this process trains. Needs the extra `http`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Self

import msgspec

from outcross.errors import ConfigError, ModelError
from outcross.models import http_wire as wire
from outcross.models.fitting import Fits
from outcross.models.http_endpoint import Api
from outcross.models.served_adapters import ENVIRONMENT
from outcross.models.served_process import Command, Patience, ServerPlace
from outcross.models.served_station import Folder, Setup, Station
from outcross.models.served_weights import Held, Weights
from outcross.stages import CountsTokens, FitPlan, KeepsProgress, LogProbs, Model, Seen, StopsEarly, TokenIds, Trainable
from outcross.types import Completion, Example, Prompt, Request, Response, Turn, content_hash

__all__ = ["Served", "ServedLearner", "ServerPlace", "served"]


class Served:
    """A model that a server of its own answers for (`outcross.stages`: Completes). Threads may share it."""

    def __init__(self, weights: Weights | Folder, station: Station, depth: int) -> None:
        self._weights, self._station, self._depth, self._closed = weights, station, depth, False
        station.join(weights)

    @property
    def id(self) -> str:
        """Hash of the weights and of what serves them: command, without `options`, and protocol."""
        return "served:" + content_hash(self._weights.id, self._station.setup.command.identity, self._station.setup.api)

    @property
    def depth(self) -> int:
        """Generations of model-written training data behind it."""
        return self._depth

    @property
    def client_version(self) -> str:
        """Changes when the same request is sent otherwise, or its reply read otherwise, than before."""
        return wire.VERSION

    @property
    def in_flight(self) -> int:
        """Requests under way at once, at most."""
        return self._station.setup.in_flight

    @property
    def steps(self) -> Sequence[tuple[str, float]]:
        """What the server did so far and how many seconds each took: start, adapter, stop."""
        return tuple(self._station.log.steps)

    def log_to(self, folder: Path, /) -> None:
        """Where the server's output goes from its next start on."""
        self._station.log.folder = folder

    def submit(self, request: Request, /) -> Future[Response]:
        """As behind any endpoint (`models.http.Http`). The first request waits until the server answers; one under way when the server
        dies is asked again. Raises `ModelError`, with the end of the server's log, when it does not start or has died twice."""
        if self._closed:
            raise ModelError("this model was closed; make it again to use it")
        reason = wire.refusal(request, self._station.setup.api_for(request))
        if reason:
            refused: Future[Response] = Future()
            refused.set_result(Response(error=reason))
            return refused
        return self._station.ask(self._weights, request)

    def split(self, request: Request, /) -> Sequence[Request]:
        """The requests for one completion each that stand for `request`, where the server was seen to ignore `n`."""
        known = self._station.abilities.get(self._station.setup.api_for(request))
        if known is None or known.n is not False or request.n < 2 or request.choices:
            return ()
        return [msgspec.structs.replace(request, n=1, seed=request.seed + index) for index in range(request.n)]

    def flush(self) -> None:
        """Requests are on their way already."""

    def close(self) -> None:
        """Let go of it; the server stops when all models that share it are closed. What is asked afterwards raises `ModelError`."""
        if not self._closed:
            self._closed = True
            self._station.leave(self._weights)


class ServedLearner(Fits, Served):
    """A model that is trained in this process and answers through a server (Completes, LogProbs, CountsTokens, Trainable).

    The model given is the learner's own from then on: its memory is freed while the server runs, and it is loaded from where it was saved.
    Texts are scored and tokens counted by the model itself, whatever the server can do.
    """

    def __init__(self, weights: Weights, station: Station) -> None:
        super().__init__(weights, station, weights.depth)
        self._learner = weights
        self.skipped = weights.skipped

    @property
    def disk_bytes(self) -> int:
        """About what one saved model takes."""
        found = self._learner.disk_bytes
        if found is None:
            raise AttributeError("the model does not say how large it is")
        return found

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """As the model's own; the server gives its memory back first where they share it. Raises `ModelError`."""
        self._station.make_room()
        model = self._learner.opened()
        if not isinstance(model, LogProbs):
            raise ModelError(f"a {type(model).__name__} cannot score given text")
        yield from model.log_probs(turns)

    def count_tokens(self, prompt: Prompt, /) -> int:
        """How many tokens a text or conversation has for the model itself."""
        model = self._learner.inner
        if not isinstance(model, CountsTokens):
            raise ModelError(f"a {type(model).__name__} cannot count tokens")
        return model.count_tokens(prompt)

    def token_ids(self, completion: Completion, /) -> Sequence[int]:
        """The ids that `log_probs` scores for a completion. Raises `ModelError`."""
        model = self._learner.inner
        if not isinstance(model, TokenIds):
            raise ModelError(f"a {type(model).__name__} does not name its tokens")
        return model.token_ids(completion)

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Self:
        """As the model's own, after the server has given its memory back where they share it; a low-rank fit is noted, so that a server
        that goes on can take it. Raises what the model's `fit` raises."""
        self._station.make_room()
        start = self._learner.opened()
        held_to = reference._learner.opened() if isinstance(reference, ServedLearner) else reference
        if self._kept is not None and isinstance(start, KeepsProgress):
            start = start.keeping(*self._kept)
        if self._better is not None and isinstance(start, StopsEarly):
            start = start.watched(self._better)
        learnt = start.fit(examples, plan=plan, reference=held_to, seed=seed, seen=seen)
        adapter = getattr(learnt, "adapter", None)
        if adapter is not None and self._station.setup.memory == "own":
            folder = self._station.scratch("adapter")
            adapter.save(folder)
            self._station.adapters.note(learnt.id, start.id, folder)
        return type(self)(Weights(learnt), self._station)

    def save(self, folder: Path, /) -> None:
        """As the model's own; the server reads it there."""
        self._learner.save(folder)

    def load(self, folder: Path, /) -> Self:
        """The model in `folder`, served by the same server. Raises `ModelError`."""
        return type(self)(Weights(self._learner.inner.load(folder), Held(folder)), self._station)

    def fresh(self, seed: int, /) -> Self:
        """The same architecture with new random weights."""
        model = self._learner.opened()
        if not hasattr(model, "fresh"):
            raise ConfigError(f"a {type(model).__name__} cannot start from scratch; use `start: first` or `start: champion`")
        return type(self)(Weights(model.fresh(seed)), self._station)

    def close(self) -> None:
        if not self._closed:
            super().close()
            self._learner.close()


def served(
    command: str,
    *,
    folder: str | None = None,
    model: Model | None = None,
    options: str = "",
    environment: Mapping[str, str] | None = None,
    api: Literal["chat", "completions"] | None = None,
    memory: Literal["shared", "own"] = "shared",
    place: ServerPlace = ServerPlace(),
    start_s: float = 600.0,
    grace_s: float = 10.0,
    in_flight: int = 64,
    deadline_s: float = 300.0,
    depth: int = 0,
) -> Model:
    """A model that is served by `command`, run without a shell and ended with all its children.

    command: with {folder} (a model folder, or the name of one on a hub) or {file} (the GGUF file in it), {port} and, unless it listens
        on 127.0.0.1 by itself, {host}. All of it shapes answers and is part of the model's identity. options: arguments that belong to
        the machine (memory, parallelism, logging) and are not. environment: variables for the server.
    folder: what is served, or `model`: one that is trained here; after each fit the candidate is served from where it was saved.
    api: chat or completions; None: as a local model reads prompts, texts as they are and conversations through the chat template.
    memory: "shared": the server stops while this process trains or scores, and the model in this process is put away while the server
        runs. "own": both stay (a GPU of its own, see `placement:`); then low-rank fits are loaded into a running vLLM or SGLang that was
        started with --enable-lora, and other weights cost a restart.
    start_s: how long it may take until it answers. grace_s: how long it may take to end before it is killed.
    in_flight, deadline_s: see `Limits` of models.http. depth: of what is in `folder`.

    Raises `ConfigError` for a command that cannot be run; `MissingExtra` without aiohttp when this module is imported.
    """
    if (folder is None) == (model is None):
        raise ConfigError("a served model needs either `folder`, what is served, or `model`, what is trained and served; give one of them")
    asked: Api | None = api
    setup = Setup(Command(command, options), place, Patience(start_s, grace_s), asked, memory, in_flight, deadline_s)
    setup.command.program()
    station = Station(setup, {**ENVIRONMENT, **(environment or {})})
    if folder is not None:
        return Served(Folder(content_id(folder), folder), station, depth)
    if not isinstance(model, Trainable):
        raise ConfigError(f"`model` is a {type(model).__name__}, which does not learn; serve its folder with `folder:`")
    return ServedLearner(Weights(model), station)


def content_id(name: str) -> str:
    """A hash of all that is in a folder or file; of the name for a model that a hub keeps. Files are read once, several at a time.

    Raises `ConfigError` for a path where nothing is.
    """
    place = Path(name)
    if not place.exists():
        if place.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise ConfigError(f"there is no model folder or file {name}; check the path")
        return content_hash("hub", name)
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file() and not _hidden(path, place))
    if not files:
        raise ConfigError(f"the model folder {name} is empty")
    with ThreadPoolExecutor(4) as readers:
        hashes = list(readers.map(_file_hash, files))
    return content_hash("folder", [(str(path.relative_to(place)), found) for path, found in zip(files, hashes, strict=True)])


def _hidden(path: Path, above: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(above).parts)


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
