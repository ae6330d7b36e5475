"""The process in which a program runs. Everything here is in its reach and nothing here is believed: it holds no test and no verdict.

It answers calls as data: whoever forges an answer has merely answered.
"""

from __future__ import annotations

import builtins
import os
import random
import signal
import sys
import types
from typing import Any

from outcross.verify.sandbox.inside.wire import Unsendable, decode, encode, receive, send

_MUTABLE = (list, dict, set, bytearray)


def serve_calls(requests: int, replies: int) -> None:
    """Run the program as a module, say which names can be called, then answer calls until the other side closes."""
    _streams(os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR))
    space = _module("program")
    try:
        exec(compile(receive(requests), "program.py", "exec"), space)  # the one thing this process is for
        send(replies, {"ready": [name for name, value in space.items() if callable(value) and isinstance(name, str)]})
    except BaseException as error:
        send(replies, {"died": _described(error)})
        return
    objects: list[Any] = []

    def keep(value: Any) -> Any:
        objects.append(value)
        return {"o": len(objects) - 1}

    def handle(data: Any) -> Any:
        return objects[data["o"]] if "o" in data else space[data["name"]]

    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        try:
            message = _answer(request, keep, handle)
        except BaseException as error:
            message = {"raise": _described(error)}
        send(replies, message)


def _answer(request: Any, keep: Any, handle: Any) -> dict[str, Any]:
    target = handle(request["on"])
    if "get" in request:
        return {"value": encode(getattr(target, request["get"]), keep)}
    arguments = decode(request["args"], handle)
    value = encode(target(*arguments, **decode(request["kwargs"], handle)), keep)
    changed = {}
    for index, (argument, before) in enumerate(zip(arguments, request["args"], strict=True)):
        if isinstance(argument, _MUTABLE) and (after := encode(argument, keep)) != before:
            changed[str(index)] = after
    return {"value": value, "changed": changed}


def run_script(source: int, stdin: int, stdout: int) -> None:
    """Run the program as `__main__` with its standard streams; how it ended is its exit status."""
    text = receive(source)
    os.close(source)
    _streams(stdin, stdout)
    code = compile(text, "program.py", "exec")
    exec(code, _module("__main__"))
    sys.stdout.flush()


def run_command(source: int, stdin: int, stdout: int) -> None:
    """Become another program: its words, folder, and whether errors are wanted with its output. Raises `OSError` when it is not there."""
    message = receive(source)
    folder, words = message["folder"], message["words"]
    os.chdir(folder)
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.dup2(stdout if message["told"] else os.open(os.devnull, os.O_RDWR), 2)
    os.closerange(3, 4096)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvpe(words[0], words, {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": folder, "TMPDIR": folder})


def _module(name: str) -> dict[str, Any]:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    random.seed(0)  # the same verdict every time
    return module.__dict__


def _streams(stdin: int, stdout: int) -> None:
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 2)
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.argv = ["program.py"]


def _described(error: BaseException) -> list[str]:
    try:
        said = str(error)[:200] if not isinstance(error, Unsendable) else f"a value that is not plain data: {error}"[:200]
    except BaseException:
        said = ""
    return [type(error).__name__[:60], said.encode("utf-8", "replace").decode()]
