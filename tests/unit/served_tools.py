"""What the tests of served models share: the command of the server program, and ways to see processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parent.parent
PROGRAM = f"{sys.executable} {TESTS / 'served_program.py'} {{folder}} --host {{host}} --port {{port}}"
LLAMA = f"{sys.executable} {TESTS / 'llama_program.py'} {{file}} --port {{port}}"


def lives(path: Path) -> list[tuple[int, int, str]]:
    """Process, port and CUDA_VISIBLE_DEVICES of each life of a server that was told `--lives PATH`."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(int(pid), int(port), devices) for pid, port, devices in lines]


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def until(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
