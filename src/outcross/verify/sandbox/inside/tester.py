"""The process that holds the tests of one program. The program is another process in other namespaces, which was forked before the
tests were read: it can reach neither the tests nor the verdict, and what it sends is read as plain data."""

from __future__ import annotations

import array
import builtins
import json
import os
import random
import re
import signal
import socket
import sys
import tempfile
import types
from contextlib import suppress
from typing import Any, NoReturn

from outcross.verify.sandbox.inside.commands import missing, prepared
from outcross.verify.sandbox.inside.wire import TooMuch, Unsendable, decode, encode, receive, send

Finding = tuple[str, str, str]
_SHOWN = 120  # characters of evidence from the program
_MARGIN = 65_536  # bytes that a program may print beyond what is expected


class OutOfTime(BaseException):
    """The wall clock ran out."""


class Ended(BaseException):
    """The program ended, or sent what is no answer, while it was being asked."""


class ProgramError(Exception):
    """The program raised an exception of a class that only it knows."""


class Remote:
    """Something callable or opaque in the program. It can be called and its attributes read; it has no other operation."""

    def __init__(self, link: Link, target: dict[str, Any]) -> None:
        self.__dict__.update(_link=link, _target=target)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._link.call(self._target, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask({"on": self._target, "get": name})


class Keeper:
    """The tester's end of the line to the process that starts programs."""

    def __init__(self, line: socket.socket, process: int) -> None:
        self.line, self.process = line, process

    def start(self, mode: str, *descriptors: int) -> None:
        """Start a program and give away the descriptors."""
        socket.send_fds(self.line, [mode.encode()], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def ending(self) -> dict[str, Any]:
        """How the program ended; waits for it."""
        said = self.line.recv(4096)
        if said:
            return dict(json.loads(said))
        _, status, used = os.wait4(self.process, 0)
        self.process = 0
        return {"status": os.waitstatus_to_exitcode(status), "cpu": used.ru_utime + used.ru_stime}

    def end(self) -> None:
        """End the process there, and with it all that runs in its namespaces."""
        if self.process:
            with suppress(ProcessLookupError, ChildProcessError):  # the clock may have run out just when it was waited for
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)


class Link:
    """Calls into the program, one at a time."""

    def __init__(self, keeper: Keeper, program: str) -> None:
        self.calls = 0
        self.raised: BaseException | None = None
        self.ended = ""
        there, self._requests = os.pipe()
        self._replies, back = os.pipe()
        keeper.start("calls", there, os.open(os.devnull, os.O_RDONLY), back)
        self.first = self._exchange(program)

    def call(self, target: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls += 1
        sent = [encode(item, _handle) for item in args]
        named = encode(kwargs, _handle)
        reply = self._reply({"on": target, "args": sent, "kwargs": named})
        for index, data in reply.get("changed", {}).items():
            _overwrite(args[int(index)], decode(data, self._remote))
        return decode(reply["value"], self._remote)

    def ask(self, request: dict[str, Any]) -> Any:
        return decode(self._reply(request)["value"], self._remote)

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        reply = self._exchange(request)
        if "raise" in reply:
            self.raised = _exception(*reply["raise"])
            raise self.raised
        return reply

    def _exchange(self, message: Any) -> dict[str, Any]:
        try:
            send(self._requests, message)
            reply = receive(self._replies)
            if not isinstance(reply, dict):
                raise TypeError("no answer")
        except (EOFError, BrokenPipeError):
            self.ended = "the program ended before its tests did"
        except TooMuch:
            self.ended = "output beyond the limit"
        except (ValueError, TypeError, RecursionError, MemoryError):
            self.ended = "the program sent what is no answer"
        else:
            return reply
        raise Ended

    def _remote(self, data: Any) -> Remote:
        return Remote(self, {"o": int(data["o"])})


def _handle(value: Any) -> Any:
    if isinstance(value, Remote):
        return value._target
    raise Unsendable(type(value).__name__)


def _overwrite(argument: Any, after: Any) -> None:
    """A program may change a list, dictionary, set or byte array that it is given: tests see it."""
    if type(argument) is not type(after):
        return
    if isinstance(argument, list | bytearray | array.array):
        argument[:] = after
    elif isinstance(argument, dict | set):
        argument.clear()
        argument.update(after)


def _exception(name: str, said: str) -> Exception:
    kind = getattr(builtins, str(name), None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(said)
        except TypeError:  # UnicodeDecodeError and its like want more
            pass
    return ProgramError(f"{name}: {said}")


# ── judging ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def judge(keeper: Keeper, request: dict[str, Any], wall: float) -> Finding:
    """Verdict, reason and evidence for one program. Never raises."""
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_REAL, wall)
    try:
        found = by_cases(keeper, request) if "cases" in request else by_tests(keeper, request)
    except OutOfTime:
        found = ("error", "timeout", f"no end after {wall:g} s on the clock")
    except BaseException as error:
        found = ("error", "the check itself failed", _said(error))
    signal.setitimer(signal.ITIMER_REAL, 0)
    return found


def _alarm(number: int, frame: object) -> NoReturn:
    signal.setitimer(signal.ITIMER_REAL, 0.05)  # again, should somebody swallow it
    raise OutOfTime


def by_tests(keeper: Keeper, request: dict[str, Any]) -> Finding:
    """Run the test code here, with the program's function behind a proxy."""
    try:
        code = compile(request["test"], "tests.py", "exec")
        helpers = compile(request["setup"], "setup.py", "exec")
    except (SyntaxError, ValueError) as error:
        return "error", "the tests do not compile", _said(error)
    try:
        link = Link(keeper, request["program"])
        finding = _tested(link, request["entry_point"], code, helpers)
    except Ended:
        return _ending(keeper, locals().get("link"), request)
    if link.ended:
        return _ending(keeper, link, request)
    return finding


def _tested(link: Link, entry: str, code: types.CodeType, helpers: types.CodeType) -> Finding:
    if "died" in link.first:
        kind, said = map(str, link.first["died"])
        return _died(kind, said)
    names = [name for name in link.first.get("ready", ()) if isinstance(name, str)]
    if entry and entry not in names:
        return "fail", "the program does not define what is tested", entry
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    space = module.__dict__
    random.seed(0)
    try:
        exec(helpers, space)  # the task's own code, not the program's
        bound = [entry] if entry else [name for name in names if not hasattr(builtins, name)]
        space.update({name: Remote(link, {"name": name}) for name in bound})
        exec(code, space)
        if callable(space.get("check")) and entry:
            space["check"](space[entry])
    except (OutOfTime, Ended):
        raise
    except Unsendable as error:
        return "error", "the tests pass a value that cannot be sent to the program", _said(error)
    except BaseException as error:
        if error is link.raised:
            return "fail", "the program raised", _said(error)
        broken = isinstance(error, NameError | ImportError | SyntaxError)
        return ("error", "the tests could not run", _said(error)) if broken else ("fail", "a test failed", _said(error))
    if not link.calls:
        return "error", "the tests call nothing of the program", ""
    return "pass", "", ""


def _died(kind: str, said: str) -> Finding:
    text = f"{kind}: {said}"[:_SHOWN]
    if kind in ("SyntaxError", "IndentationError", "TabError"):
        return "fail", "the program does not compile", text
    if kind in ("ModuleNotFoundError", "ImportError"):
        return "fail", "the program imports what the sandbox does not have", text
    return "fail", "the program raised", text


def _ending(keeper: Keeper, link: Any, request: dict[str, Any]) -> Finding:
    reason = link.ended if link is not None else "the program ended before its tests did"
    if reason != "the program ended before its tests did":
        return "fail", reason, ""
    return _ended(keeper.ending(), request) or ("fail", reason, "")


def _ended(ending: dict[str, Any], request: dict[str, Any]) -> Finding | None:
    status = ending["status"]
    if status in (-signal.SIGXCPU, -signal.SIGKILL) and ending["cpu"] >= 0.5 * request["seconds"]:
        return "fail", "out of CPU time", f"{request['seconds']} s"
    if status < 0:
        return "fail", "the program was killed", signal.Signals(-status).name
    return None


def by_cases(keeper: Keeper, request: dict[str, Any]) -> Finding:
    """Run the program once a case, with its input, and compare what it prints: trailing white space of lines and of the text apart."""
    if "language" not in request:
        return _by_cases(keeper, request, "script", request["program"])
    if name := missing(request["language"]):
        return "error", "a command of the language is not in the sandbox", name[:_SHOWN]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        commands = prepared(request["language"], request["program"], folder)
        return _built(keeper, request, commands["build"]) or _by_cases(keeper, request, "command", commands["run"])


def _built(keeper: Keeper, request: dict[str, Any], command: dict[str, Any] | None) -> Finding | None:
    """Why the program cannot be built; None when it was."""
    if command is None:
        return None
    said = _run(keeper, "command", command, b"", _MARGIN)
    if said is None:
        return "fail", "output beyond the limit", "while it was built"
    ending = keeper.ending()
    if failed := _ended(ending, request):
        return failed[0], failed[1], f"while it was built: {failed[2]}"
    told = said.decode("utf-8", "replace").replace(f"{command['folder']}/", "")
    return ("fail", "the program does not compile", told.strip()[:_SHOWN]) if ending["status"] else None


def _by_cases(keeper: Keeper, request: dict[str, Any], order: str, message: Any) -> Finding:
    for number, (given, expected) in enumerate(request["cases"]):
        said = _run(keeper, order, message, given.encode(), len(expected.encode()) + _MARGIN)
        if said is None:
            return "fail", "output beyond the limit", f"case {number}"
        ending = keeper.ending()
        if failed := _ended(ending, request):
            return failed
        if ending["status"]:
            return "fail", "the program raised", f"case {number}: exit status {ending['status']}"
        text = said.decode("utf-8", "replace")
        if lines(text) != lines(expected):
            return "fail", "wrong output", f"case {number}: {text[:_SHOWN]!r}"
    return "pass", "", ""


def _run(keeper: Keeper, order: str, message: Any, given: bytes, most: int) -> bytes | None:
    """What the program prints on this input; None when that is more than `most` bytes."""
    with tempfile.TemporaryFile() as stdin:
        stdin.write(given)
        stdin.seek(0)
        source, feed = os.pipe()
        output, there = os.pipe()
        keeper.start(order, source, os.dup(stdin.fileno()), there)
    send(feed, message)
    os.close(feed)
    return _bounded(output, most)


def lines(text: str) -> list[str]:
    """The lines of an output, without white space at their ends and without empty ones at the end of the text."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _bounded(descriptor: int, most: int) -> bytes | None:
    parts = bytearray()
    with open(descriptor, "rb", buffering=0) as stream:
        while part := stream.read(65_536):
            parts += part
            if len(parts) > most:
                return None
    return bytes(parts)


def _said(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = type(error).__name__
    return re.sub(r"0x[0-9a-fA-F]+", "0x…", text)[:_SHOWN]
