"""Warm sandboxes: started when first needed, asked over pipes with a deadline, and replaced when they fail."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from outcross.verify.each import Finding
from outcross.verify.sandbox.levels import Level, boot, command_line

_REPLY = 65_536  # bytes of a reply: a verdict and a little evidence
_START = 30.0  # seconds to start a sandbox
_GRACE = 5.0  # seconds beyond the program's own, before the whole sandbox is killed


class SandboxError(Exception):
    """A sandbox did not start, died, or did not answer in time."""


@dataclass(frozen=True)
class Limits:
    """What one program may use: seconds of CPU and on the clock, bytes of memory a process, processes and threads."""

    seconds: int
    wall: float
    memory: int
    processes: int


class Sandbox:
    """One warm sandbox. Used by one thread at a time."""

    def __init__(self, level: Level, limits: Limits, command: tuple[str, ...] = ()) -> None:
        self._wall = limits.wall
        options = {**vars(limits), "namespaces": level == "namespaces"}
        self._process = subprocess.Popen(
            command_line(level, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"} if level == "process" else None,
        )
        try:
            os.set_blocking(self._in, False)
            self.granted = self._exchange(boot(options), _START)
        except SandboxError:
            self.close()
            raise

    @property
    def _in(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def _out(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def check(self, request: Mapping[str, Any]) -> Finding:
        """Judge one program. Raises `SandboxError`; the sandbox is of no more use then."""
        body = json.dumps(request).encode()
        reply = self._exchange(len(body).to_bytes(8, "big") + body, self._wall + _GRACE)
        verdict, reason, evidence = reply
        return verdict, reason, evidence

    def _exchange(self, message: bytes, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        view, parts = memoryview(message), bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_WRITE)
            selector.register(self._out, selectors.EVENT_READ)
            while True:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise SandboxError(f"no answer within {seconds:g} s")
                for key, _ in ready:
                    if key.fd == self._in:
                        view = view[self._write(view) :]
                        if not view:
                            selector.unregister(self._in)
                    elif not (part := os.read(self._out, _REPLY)):
                        raise SandboxError("the sandbox ended")
                    else:
                        parts += part
                size = int.from_bytes(parts[:8], "big") if len(parts) >= 8 else _REPLY
                if size > _REPLY or len(parts) > size + 8:
                    raise SandboxError("the sandbox sent what is no answer")
                if len(parts) == size + 8:
                    return json.loads(parts[8:])

    def _write(self, view: memoryview) -> int:
        try:
            return os.write(self._in, view[:65_536])
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise SandboxError("the sandbox ended") from None

    def kill(self) -> None:
        """End its processes; whoever waits for an answer is told so."""
        if self._process.returncode is None:
            self._process.kill()

    def close(self) -> None:
        """Kill the sandbox and all that runs in it; with namespaces the kernel ends every process inside."""
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()


class Pool:
    """Two sandboxes for each usable core, one a thread, since one waits for the kernel's namespaces while another's program runs;
    `submit` never blocks and `close` leaves nothing behind."""

    def __init__(self, level: Level, limits: Limits, command: tuple[str, ...] = ()) -> None:
        self.size = 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        self._level, self._limits, self._command = level, limits, command
        self._threads = ThreadPoolExecutor(self.size, "sandbox")
        self._own = threading.local()
        self._open: list[Sandbox] = []

    def submit(self, request: Mapping[str, Any]) -> Future[Finding]:
        """Judge a program in the next free sandbox. A sandbox that fails gives an *error* and is replaced."""
        return self._threads.submit(self._check, request)

    def _check(self, request: Mapping[str, Any]) -> Finding:
        try:
            sandbox: Sandbox | None = getattr(self._own, "sandbox", None)
            if sandbox is None:
                sandbox = self._own.sandbox = Sandbox(self._level, self._limits, self._command)
                self._open.append(sandbox)
        except (SandboxError, OSError) as error:
            return "error", "no sandbox could be started", str(error)
        try:
            verdict, reason, evidence = sandbox.check(request)
        except SandboxError as error:
            self._drop(sandbox)
            return "error", "the sandbox failed", f"{self._level}; {error}"
        shared = self._level == "namespaces" and not sandbox.granted["fresh"]
        if shared:
            self._drop(sandbox)
        with_filter = ", seccomp" if sandbox.granted["seccomp"] else ""
        return verdict, reason, f"{self._level}{with_filter}" + (f"; {evidence}" if evidence else "")

    def _drop(self, sandbox: Sandbox) -> None:
        self._own.sandbox = None
        self._open.remove(sandbox)
        sandbox.close()

    def close(self) -> None:
        """Stop at once: what was not begun is dropped, and every sandbox is killed."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for sandbox in tuple(self._open):
            sandbox.kill()
        self._threads.shutdown(wait=True)
        for sandbox in self._open:
            sandbox.close()


def trial(level: Level) -> str:
    """Why a sandbox of this level cannot be started here; empty when it can."""
    try:
        Sandbox(level, Limits(1, 1.0, 2**28, 4)).close()
    except (SandboxError, OSError) as error:
        return str(error)
    return ""
