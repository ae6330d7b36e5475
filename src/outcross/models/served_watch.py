"""Runs a server's command and ends all of it when whoever asked for it is gone, however that went.

    python -I -S served_watch.py GRACE PARENT COMMAND…      standard input: a pipe whose other end is held by the parent

The pipe closing means "stop": the parent says so by closing it, and the kernel when the parent was killed. It imports nothing of
Outcross, so that it costs some milliseconds and no memory worth speaking of.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

CANNOT_RUN = 127


def main(grace: float, parent: int, command: list[str]) -> int:
    """The exit code of the command; 128 and the signal's number when a signal ended it."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, _noted)
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        print(f"{command[0]} cannot be run: {error}", file=sys.stderr)  # noqa: T201  this is the server's log
        return CANNOT_RUN
    while server.poll() is None and os.getppid() == parent:
        ready, _, _ = select.select([sys.stdin.fileno(), told], [], [], 1.0)
        if sys.stdin.fileno() in ready:
            break
        if told in ready:
            os.read(told, 512)
    end(server, grace)
    code = server.wait()
    return code if code >= 0 else 128 - code


def end(server: subprocess.Popen[bytes], grace: float) -> None:
    """End the server's process group: politely, and after `grace` seconds not."""
    deadline = time.monotonic() + grace
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            server.poll()  # a leader that has ended counts as there until somebody has looked
            os.killpg(server.pid, 0)
            time.sleep(0.02)
        os.killpg(server.pid, signal.SIGKILL)


def _noted(number: int, frame: object) -> None:
    """Signals wake the loop and do nothing else; a handler, unlike SIG_IGN, is not inherited by the server."""


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
