"""One process at a time: an exclusive lock on a file that says who holds it."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from outcross.errors import RunLocked, StoreError


def lock(path: Path, what: str, holder: str, advice: str) -> int:
    """Lock `path`, which is made if it is not there, for this process's `holder`; the handle, which holds the lock until it is closed.

    Raises `RunLocked` naming who holds `what` already, or `StoreError` when the file cannot be written. The lock ends with its
    process, however that ends, and the file stays.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StoreError(
            f"{what} cannot be locked ({path}: {error.strerror}); free space or fix the permissions of its folder, then resume"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}, {holder}\n".encode(), 0)
    except BlockingIOError:
        other = os.pread(handle, 4096, 0).decode(errors="replace").strip() or "another process"
        os.close(handle)
        raise RunLocked(f"{what} is being written by {other}; {advice}") from None
    except OSError as error:
        os.close(handle)
        raise StoreError(f"{what} cannot be locked ({path}: {error.strerror}); free space or keep it on another disk") from error
    return handle
