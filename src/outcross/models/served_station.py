"""One server and the models that share it: whoever is asked has its weights served, one set after the other or as adapters side by side.

    asked ─▶ Station.ask ─▶ served already? ─▶ Http client ─▶ answer
                            no: load an adapter, or wait for what is under way, stop, start with the other weights

A server that ends by itself is started once more and what was under way is asked again; the second time everybody is told.
"""

from __future__ import annotations

import logging
import subprocess
import tempfile
import threading
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from outcross.errors import ModelError, OutcrossError
from outcross.models.http import Http, pool
from outcross.models.http_abilities import Abilities
from outcross.models.http_endpoint import Api, Endpoint
from outcross.models.served_adapters import Adapters
from outcross.models.served_log import ServerLog
from outcross.models.served_process import Command, Patience, Process, ServerPlace, get, start
from outcross.models.served_weights import Weights
from outcross.types import Request, Response

log = logging.getLogger("outcross.models.served")
PATIENCE_S = 120.0  # with a server of our own that lives and answers nothing of use
_LOOK_S = 0.2  # waits are short, so that Ctrl-C is heard in every thread


@dataclass(frozen=True)
class Setup:
    """How models are served.

    memory: "shared": the server and the model in this process never hold memory at the same time. "own": the server has memory of its
        own, so that it goes on while a model is trained and may take new weights without a restart.
    """

    command: Command
    place: ServerPlace
    patience: Patience
    api: Api | None
    memory: Literal["shared", "own"]
    in_flight: int
    deadline_s: float

    def api_for(self, request: Request) -> Api:
        """Texts go as they are and conversations through the server's chat template, unless one protocol was asked for."""
        return self.api or ("completions" if isinstance(request.prompt, str) else "chat")


@dataclass(frozen=True)
class Folder:
    """Weights that nobody here trains: a folder, a file, or a name that the server knows."""

    id: str
    path: str

    def folder(self, scratch: object) -> str:
        return self.path


class Answer(Future[Response]):
    """A response to come. What has been sent to the server cannot be cancelled."""

    inner: Future[Response] | None = None

    def cancel(self) -> bool:
        inner = self.inner
        if inner is not None and not inner.done() and not inner.cancel():
            return False
        return super().cancel()


@dataclass(eq=False)
class Asked:
    """One request under way; `server` is the life of the server that it was sent to last."""

    weights: Weights | Folder
    request: Request
    answer: Answer = field(default_factory=Answer)
    server: Server | None = None


@dataclass(eq=False)
class Server:
    """One life of a server: from its start with the weights `base` to its end."""

    process: Process
    place: ServerPlace
    port: int
    base: Weights | Folder
    life: int
    names: dict[str, str]  # weights that it answers for → what it calls them
    clients: dict[tuple[str, Api], Http] = field(default_factory=dict)
    stopping: bool = False

    @property
    def gone(self) -> bool:
        return not self.stopping and not self.process.alive()


class Station:
    """Starts the server at the first request, and stops it when the last of its models is closed. Threads may share it."""

    def __init__(self, setup: Setup, environment: dict[str, str]) -> None:
        self.setup, self.environment = setup, environment
        self.log = ServerLog(setup.command.name)
        self.adapters = Adapters()
        self.abilities: dict[Api, Abilities] = {}
        self._turn = threading.RLock()  # held by whoever starts, switches or stops the server
        self._state = threading.Condition()  # guards `_open`
        self._open: set[Asked] = set()
        self._server: Server | None = None
        self._family: list[Weights | Folder] = []  # models that have not left
        self._broken = ""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    # ── the models that share it ───────────────────────────────────────────────────────────────────────────────────────
    def join(self, weights: Weights | Folder) -> None:
        """Another model shares the server from now on, until it leaves."""
        with self._turn:
            self._family.append(weights)

    def leave(self, weights: Weights | Folder) -> None:
        """The last model to leave stops the server."""
        with self._turn:
            self._family.remove(weights)
            if not self._family:
                self._stop()
                if self._scratch is not None:
                    self._scratch.cleanup()
                    self._scratch = None

    def make_room(self) -> None:
        """Before this process computes: the server gives its memory back where both share it."""
        if self.setup.memory == "shared":
            with self._turn:
                self._drain()
                self._stop()

    def scratch(self, name: str) -> Path:
        """A new folder of the station's own; it goes when the last model leaves."""
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="outcross-served-")
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._scratch.name))

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def ask(self, weights: Weights | Folder, request: Request) -> Future[Response]:
        """Send a request, starting the server if need be. Raises `ModelError` when it cannot be started or has died twice."""
        asked = Asked(weights, request)
        with self._turn:
            self._send(asked)
        return asked.answer

    def _send(self, asked: Asked) -> None:
        server = self._serving(asked.weights)
        client = self._client(server, asked)
        with self._state:
            self._open.add(asked)
            asked.server = server
        try:
            inner = client.submit(asked.request)
        except ModelError:
            if server.process.alive():
                raise
            return  # it died this moment; whoever starts it again asks again
        asked.answer.inner = inner
        inner.add_done_callback(partial(self._came, asked, server))

    def _client(self, server: Server, asked: Asked) -> Http:
        api = self.setup.api_for(asked.request)
        key = (asked.weights.id, api)
        found = server.clients.get(key)
        if found is None:
            name = server.names[asked.weights.id]
            endpoint = Endpoint(f"http://{server.place.host}:{server.port}/v1", key_env=None)
            found = pool(
                (endpoint,), name, api=api, in_flight=self.setup.in_flight, deadline_s=self.setup.deadline_s, patience_s=PATIENCE_S
            )
            if api not in self.abilities:
                self.abilities[api] = Abilities(f"{self.setup.command.name} ({api})")
            found.abilities = self.abilities[api]  # what was learnt holds for the next life of the server too
            server.clients[key] = found
        return found

    def _came(self, asked: Asked, server: Server, inner: Future[Response]) -> None:
        """A client is done with a request. Runs in the client's thread."""
        response = None if inner.cancelled() else inner.result()
        with self._state:
            if asked.server is not server or (response is not None and response.error and server.gone):
                return  # it is asked again
            self._open.discard(asked)
            self._state.notify_all()
        if response is not None and asked.answer.set_running_or_notify_cancel():
            asked.answer.set_result(response)

    # ── serving these weights now ──────────────────────────────────────────────────────────────────────────────────────
    def _serving(self, weights: Weights | Folder) -> Server:
        if self._server is not None and self._server.gone:
            self.died(self._server)
        if self._broken:
            raise ModelError(self._broken)
        server = self._server
        if server is not None and weights.id in server.names:
            return server
        if server is not None and self._load_adapter(server, weights):
            return server
        self._drain()
        self._stop()
        return self._start(weights, life=1)

    def _load_adapter(self, server: Server, weights: Weights | Folder) -> bool:
        """Give the running server what these weights learnt since its own, where it takes that."""
        unused = set(server.names) - {server.base.id} - {item.id for item in self._family}
        with self.log.timed("adapter", weights.id) as noted:
            name = self.adapters.load(server.place.host, server.port, server.names, server.base.id, weights.id, unused, self.scratch)
            noted.done = name is not None
        if name is None:
            return False
        server.names[weights.id] = name
        return True

    def _start(self, weights: Weights | Folder, life: int) -> Server:
        setup = self.setup
        folder = weights.folder(self.scratch)
        if setup.memory == "shared":
            for member in self._family:
                if isinstance(member, Weights):
                    member.let_go(self.scratch)
        with self.log.timed("start", weights.id):
            process, port = start(setup.command, folder, setup.place, self.environment, self.log.new(), setup.patience)
        server = self._server = Server(
            process, setup.place, port, weights, life, {weights.id: _model_name(setup.place.host, port, str(folder))}
        )
        watch = threading.Thread(
            target=_watch, args=(weakref.ref(self), weakref.ref(server), process.popen), daemon=True, name="outcross-served"
        )
        watch.start()
        return server

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.stopping = True
        for client in server.clients.values():
            client.close()
        with self.log.timed("stop", server.base.id):
            server.process.stop()

    def _drain(self) -> None:
        """Wait for what is under way at the server that runs now."""
        while self._server is not None:
            if self._server.gone:
                self.died(self._server)
                continue
            with self._state:
                if not any(asked.server is self._server for asked in self._open):
                    return
                self._state.wait(_LOOK_S)

    # ── a server that ended by itself ──────────────────────────────────────────────────────────────────────────────────
    def died(self, server: Server) -> None:
        """Start it once more and ask again what it was asked; the second time, tell everybody who waits and asks."""
        for client in list(server.clients.values()):
            client.close()  # ends what is open there; it stays in `_open`
        with self._turn:
            if self._server is not server or server.stopping:
                return
            self._server = None
            told = server.process.ended()
            with self._state:
                waiting = [asked for asked in self._open if asked.server is server]
            if server.life > 1:
                self._break(f"the server died again after it had been started anew: {told}", waiting)
                return
            log.warning("%s\nIt is started once more, and %d requests are asked again.", told, len(waiting))
            try:
                self._start(server.base, life=2)
                for asked in waiting:
                    self._send_again(asked)
            except OutcrossError as error:
                self._break(f"the server died ({told}) and could not be started again: {error}", waiting)

    def _send_again(self, asked: Asked) -> None:
        if asked.answer.done():  # cancelled meanwhile
            with self._state:
                self._open.discard(asked)
            return
        self._send(asked)

    def _break(self, reason: str, waiting: list[Asked]) -> None:
        self._broken = reason
        log.error("%s", reason)
        self._stop()
        with self._state:
            self._open.difference_update(waiting)
            self._state.notify_all()
        for asked in waiting:
            if not asked.answer.done() and asked.answer.set_running_or_notify_cancel():
                asked.answer.set_result(Response(error=reason))


def _watch(station: weakref.ref[Station], server: weakref.ref[Server], process: subprocess.Popen[bytes]) -> None:
    """Wait in a thread for a server's end; holds neither station nor server, so that both can be forgotten."""
    process.wait()
    ours, its = station(), server()
    if ours is not None and its is not None and not its.stopping:
        ours.died(its)


class _Listed(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Listed] = []


def _model_name(host: str, port: int, folder: str) -> str:
    """What the server calls its model: the only one it lists, or the folder's own name."""
    status, raw = get(host, port, "/v1/models")
    try:
        listed = [item.id for item in msgspec.json.decode(raw, type=_Models).data] if status == 200 else []
    except msgspec.DecodeError:
        listed = []
    return listed[0] if len(listed) == 1 else folder
