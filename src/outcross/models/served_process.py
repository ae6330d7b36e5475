"""A server's process: its command filled in, started, waited for until it answers, and stopped with all its children."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import msgspec

from outcross.errors import ConfigError, ModelError
from outcross.models import served_watch
from outcross.types import content_hash

PLACEHOLDERS = ("folder", "file", "host", "port")
PORT_TRIES = 3
TAIL_LINES, TAIL_BYTES = 20, 8_000
_POLL_S = 0.05


@dataclass(frozen=True)
class ServerPlace:
    """Where a server runs; none of it enters a model's identity.

    devices: what it may see, as CUDA numbers them: "cuda:0", "cuda:0,1", "cpu" for none; empty: whatever this process sees.
    host: what it is told to listen on and asked at. port: 0 takes a free one.
    """

    devices: str = ""
    host: str = "127.0.0.1"
    port: int = 0

    def environment(self) -> Mapping[str, str]:
        if not self.devices:
            return {}
        return {"CUDA_VISIBLE_DEVICES": self.devices.removeprefix("cuda:") if self.devices.startswith("cuda:") else ""}


@dataclass(frozen=True)
class Command:
    """A command with placeholders, as a list of arguments: no shell sees it.

    `text` shapes answers and is part of the identity; `options` are appended and belong to the machine.
    """

    text: str
    options: str = ""
    words: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "words", (*shlex.split(self.text), *shlex.split(self.options)))
        except ValueError as error:
            raise ConfigError(f"the command {self.text!r} {self.options!r} cannot be read: {error}; check its quotes") from None
        named = {name for word in self.words for name in re.findall(r"\{([A-Za-z_]+)\}", word)}
        unknown = sorted(named - set(PLACEHOLDERS))
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ConfigError(f"the command {self.text!r} holds {{{unknown[0]}}}, which nothing fills in; there are {known}")
        if "port" not in named or not named & {"folder", "file"}:
            raise ConfigError(
                f"the command {self.text!r} must hold {{port}} and {{folder}} or {{file}}: where to listen and what to serve, for example "
                "`vllm serve {folder} --host {host} --port {port}`"
            )

    @property
    def name(self) -> str:
        """The program's name, for messages and logs."""
        return Path(self.words[0]).name

    @property
    def identity(self) -> str:
        """A hash of what shapes answers: not where the program lies, and not `options`."""
        first, *rest = shlex.split(self.text)
        return content_hash("command", Path(first).name, rest)

    def program(self) -> str:
        """The program's path; one beside this Python goes first. Raises `ConfigError` when there is none."""
        beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        found = shutil.which(self.words[0], path=beside)
        if found is None:
            raise ConfigError(
                f"the program {self.words[0]!r} of the command {self.text!r} is not installed here; install it, or give its path"
            )
        return found

    def filled(self, folder: Path | str, place: ServerPlace, port: int) -> list[str]:
        """The arguments to run. Raises `ModelError` when {file} is asked for and there is not exactly one GGUF file."""
        values = {"folder": str(folder), "host": place.host, "port": str(port)}
        if any("{file}" in word for word in self.words):
            values["file"] = str(_gguf(Path(folder)))
        rest = [re.sub(r"\{([A-Za-z_]+)\}", lambda match: values[match[1]], word) for word in self.words[1:]]
        return [self.program(), *rest]


def _gguf(folder: Path) -> Path:
    if folder.suffix == ".gguf":
        return folder
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"the command asks for {{file}}, and {folder} holds {len(found)} GGUF files; name the file, or use {{folder}}")
    return found[0]


class Process:
    """A running server and everything it started. It ends when it is stopped, and however this process ends."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str], log: Path, grace_s: float) -> None:
        self.log, self.shown = log, shlex.join(arguments)
        watch = [sys.executable, "-I", "-S", str(Path(served_watch.__file__)), str(grace_s), str(os.getpid())]
        with log.open("ab") as sink:
            self.popen = subprocess.Popen(
                [*watch, *arguments],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C in a terminal is ours to handle: answers under way are waited for
            )
        assert self.popen.stdin is not None
        self._end = weakref.finalize(self, _end, self.popen, self.popen.stdin, grace_s)

    def alive(self) -> bool:
        return self.popen.poll() is None

    def wait(self) -> None:
        """Until it has ended."""
        self.popen.wait()

    def stop(self) -> None:
        """End it and all it started; returns when they are gone."""
        self._end()

    def ended(self) -> str:
        """How it ended, with the end of its log."""
        code = self.popen.poll()
        how = "is running" if code is None else f"was ended by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
        return f"`{self.shown}` {how}; {self.tail()}"

    def tail(self) -> str:
        """The last lines of the log, and where all of it is."""
        raw = self.log.read_bytes()[-TAIL_BYTES:]
        lines = raw.decode(errors="replace").splitlines()[-TAIL_LINES:]
        shown = "\n".join(f"    {line}" for line in lines) or "    (nothing)"
        return f"its log {self.log} ends with\n{shown}"


def _end(popen: subprocess.Popen[bytes], pipe: IO[bytes], grace_s: float) -> None:
    pipe.close()
    try:
        popen.wait(grace_s + 5.0)
    except subprocess.TimeoutExpired:  # the watcher itself hangs
        popen.kill()
        popen.wait()


# ── starting ───────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Patience:
    """start_s: how long a server may take until it answers. grace_s: how long it may take to end before it is killed."""

    start_s: float = 600.0
    grace_s: float = 10.0


def start(
    command: Command, folder: Path | str, place: ServerPlace, environment: Mapping[str, str], log: Path, patience: Patience
) -> tuple[Process, int]:
    """A server that answers, and its port. A port that somebody else took meanwhile is changed for another.

    Raises `ModelError` with the end of the log when it ends or is not ready in time.
    """
    tries = 1
    while True:
        port = place.port or _free_port(place.host)
        if place.port and _answers(place.host, port):
            raise ModelError(
                f"port {port} of {place.host} is taken by another program; end that, or give another port (0 finds a free one)"
            )
        process = Process(command.filled(folder, place, port), {**place.environment(), **environment}, log, patience.grace_s)
        try:
            _wait(process, place.host, port, patience.start_s)
        except ModelError:
            process.stop()
            if tries == PORT_TRIES or place.port or not _taken(place.host, port, process):
                raise
            tries += 1
        except BaseException:  # Ctrl-C
            process.stop()
            raise
        else:
            return process, port


def _wait(process: Process, host: str, port: int, start_s: float) -> None:
    deadline = time.monotonic() + start_s
    while process.alive():
        if healthy(host, port):
            if process.alive():
                return
            break
        if time.monotonic() > deadline:
            raise ModelError(f"`{process.shown}` was not ready within {start_s:g} s; {process.tail()}\nraise start_s, or fix the command")
        time.sleep(_POLL_S)
    raise ModelError(f"the server did not start: {process.ended()}")


def healthy(host: str, port: int) -> bool:
    """Whether the server says that it can be asked: /health, or where there is none the list of its models."""
    status, _ = get(host, port, "/health")
    return status == 200 or (status in (404, 405, 501) and get(host, port, "/v1/models")[0] == 200)


def get(host: str, port: int, path: str, posted: object = None, timeout: float = 5.0) -> tuple[int, bytes]:
    """Status and body of one request, by POST when something is `posted`; (0, reason) when nothing answers. No proxy is asked."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        body = None if posted is None else msgspec.json.encode(posted)
        connection.request("GET" if posted is None else "POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error).encode()
    finally:
        connection.close()


def _free_port(host: str) -> int:
    local = host if host in ("127.0.0.1", "localhost", "0.0.0.0", "::1") else ""
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    with socket.socket(family) as found:
        found.bind((local, 0))
        return int(found.getsockname()[1])


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2.0).close()
    except OSError:
        return False
    return True


def _taken(host: str, port: int, process: Process) -> bool:
    """Whether a server that ended had lost its port to somebody else."""
    return _answers(host, port) or re.search(r"address (is )?already in use|EADDRINUSE|couldn't bind", process.tail(), re.I) is not None
