"""Kill a run at its n-th write, for every n: the writes are found by watching the interpreter, not by choosing them.

Run as a program: `killer.py WORKDIR FIRST STEP` prints one JSON line per fault point that it tried (FIRST, FIRST + STEP, …), until the
run comes to its end unharmed. Each point is tried in a forked child that starts the run and dies by SIGKILL just before its n-th
write; a second child resumes. Both share this process's imports, so a point costs milliseconds.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate", "os.link", "shutil.rmtree", "shutil.copytree"}


def watch_writes(on_write: Callable[[str], None]) -> None:
    """Call `on_write` just before every write of this process: files opened for writing, renamed, removed, made durable, batches of
    tables, statements of the journal."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in WRITES:
            on_write(event)
        elif event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            on_write(f"open {args[0]}")

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if not sql.startswith("SELECT"):
                on_write(f"sqlite {sql[:20]}")
            return super().execute(sql, *parameters)

        def executemany(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            on_write(f"sqlite {sql[:20]}")
            return super().executemany(sql, *parameters)

    def before(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            on_write(name)
            return function(*args, **kwargs)

        return wrapped

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **kwargs: connect(*args, **kwargs, factory=Connection)  # type: ignore[assignment]
    os.fsync = before(os.fsync, "fsync")
    os.write = before(os.write, "write")
    pq.ParquetWriter.write_batch = before(pq.ParquetWriter.write_batch, "write_batch")
    sys.addaudithook(hook)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a forked child; its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def main(workdir: Path, first: int, step: int) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from toy_run import start

    start(workdir / f"warm_{first}")  # imports and caches are paid once, before any fork
    point = first
    while True:
        folder = workdir / f"point_{point}"
        seen = 0

        def on_write(name: str, target: int = point) -> None:
            nonlocal seen
            seen += 1
            if seen == target:
                os.kill(os.getpid(), signal.SIGKILL)

        def doomed(path: Path = folder) -> None:
            watch_writes(on_write)
            start(path)

        status = in_child(doomed)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        resumed = in_child(lambda path=folder: start(path)) if killed else 0  # type: ignore[misc]
        print(json.dumps({"point": point, "killed": killed, "status": status, "resumed": resumed, "folder": str(folder)}), flush=True)
        if not killed:
            return
        point += step


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
