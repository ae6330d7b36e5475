"""The warm server: forks a tester for each program before the program is known, so that starting one costs nothing."""

from __future__ import annotations

import bisect  # noqa: F401  the modules that programs ask for most are imported once, here
import collections  # noqa: F401
import copy  # noqa: F401
import dataclasses  # noqa: F401
import datetime  # noqa: F401
import functools  # noqa: F401
import gc
import hashlib  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import math  # noqa: F401
import operator  # noqa: F401
import os
import resource
import signal
import socket
import statistics  # noqa: F401
import string  # noqa: F401
import typing  # noqa: F401
from typing import Any

from outcross.verify.sandbox.inside import confine, keeper, seccomp, tester
from outcross.verify.sandbox.inside.wire import receive, send

_DONE = 7  # exit status of a tester that found no further request
_TESTER_MEMORY = 2**30


def serve(options: dict[str, Any]) -> None:
    """Answer requests on standard input until it ends. Options: seconds, wall, memory, processes, namespaces, and `once`.

    The first frame says what this machine grants: {"fresh": …, "seccomp": …}.
    """
    requests, replies, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    confine.die_with_parent()
    if options["namespaces"]:
        confine.leave_root()
    options["fresh"] = bool(options["namespaces"]) and _works(confine.fresh_namespaces)
    options["filtered"] = seccomp.available() and _works(_filter)
    send(replies, {"fresh": options["fresh"], "seccomp": options["filtered"]})
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, _reap)
    once = options["namespaces"] and not options["fresh"]
    while True:
        waiting, taken = os.pipe()
        if not os.fork():
            code = 1
            try:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(waiting)
                code = _test_one(requests, replies, taken, options)
            finally:
                os._exit(code)
        os.close(taken)
        if not os.read(waiting, 1) or once:  # it found no further request, or no second one may be served here
            break
        os.close(waiting)
    while True:
        signal.pause()  # the last tester answers yet; `_reap` ends us, or whoever started us does


def _reap(number: int, frame: object) -> None:
    """A tester ended. One that failed, or found no further request, ends the server: who waits for an answer hears of it at once."""
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[1]:
                os._exit(1)
    except ChildProcessError:
        pass


def _filter() -> None:
    confine.drop_capabilities()
    seccomp.install()


def _works(attempt: Any) -> bool:
    child = os.fork()
    if not child:
        code = 1
        try:
            attempt()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def _test_one(requests: int, replies: int, taken: int, options: dict[str, Any]) -> int:
    confine.die_with_parent()
    confine.adopt()
    if options["fresh"]:
        confine.fresh_namespaces()
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if not child:
        try:
            keeper.keep(there, **{name: options[name] for name in ("seconds", "memory", "processes", "fresh", "filtered")})
        finally:
            os._exit(0)
    there.close()
    kept = tester.Keeper(here, child)
    try:
        confine.hide()
        resource.setrlimit(resource.RLIMIT_AS, (_TESTER_MEMORY, _TESTER_MEMORY))
        request = receive(requests, 2**26)
        os.write(taken, b"x")  # the next tester may be made ready: what this one leaves is cleared away beside it
        os.close(taken)
        request["seconds"] = options["seconds"]
        send(replies, tester.judge(kept, request, options["wall"]))
    except EOFError:
        return _DONE
    finally:
        kept.end()
        if not options["fresh"]:
            keeper.end_all()
    return 0
