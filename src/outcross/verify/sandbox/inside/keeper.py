"""Process 1 of a program's namespaces: confined like the program, it becomes the program when that is called, or starts it once a case,
says how it ended and ends what it left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

from outcross.verify.sandbox.inside import confine, seccomp
from outcross.verify.sandbox.inside.program import run_command, run_script, serve_calls


def keep(line: socket.socket, *, seconds: int, memory: int, processes: int, fresh: bool, filtered: bool) -> None:
    """Wait for orders on `line`, each with three descriptors (source or requests, input, output); one program at a time.

    With namespaces of its own the first program to be called takes this process's place: the kernel ends all others with it."""
    confine.die_with_parent()
    confine.adopt()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.closerange(3, line.fileno())
    os.closerange(line.fileno() + 1, 4096)
    shared = 0 if fresh else confine.tasks_of_user()
    confine.drop_capabilities()
    confine.limit(seconds, memory, shared + processes + 3)
    confine.hide()
    while True:
        order, descriptors, _, _ = socket.recv_fds(line, 64, 3)
        if not order:
            return
        child = 0 if fresh and order == b"calls" else os.fork()
        if not child:
            _become(order.decode(), line, descriptors, filtered)
        for descriptor in descriptors:
            os.close(descriptor)
        _, status, used = os.wait4(child, 0)
        end_all()
        cpu = used.ru_utime + used.ru_stime
        line.sendall(json.dumps({"status": os.waitstatus_to_exitcode(status), "cpu": cpu}).encode())


def _become(order: str, line: socket.socket, descriptors: list[int], filtered: bool) -> None:
    code = 1
    try:
        line.close()
        os.setsid()
        confine.die_with_parent()
        if filtered:
            seccomp.install()
        source, stdin, stdout = descriptors
        if order == "calls":
            serve_calls(source, stdout)
        elif order == "command":
            run_command(source, stdin, stdout)
        else:
            run_script(source, stdin, stdout)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        code = 1
    finally:
        os._exit(code & 255)


def end_all() -> None:
    """Kill every process that this one has below it: all of its namespace as process 1, else child after child, orphans included."""
    if os.getpid() == 1:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            return
        while _reaped():
            pass
        return
    listing = Path(f"/proc/self/task/{os.getpid()}/children")
    for _ in range(1000):
        for child in listing.read_text(encoding="ascii").split():
            os.kill(int(child), signal.SIGKILL)
        if not _reaped():
            return


def _reaped() -> bool:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return False
    return True
