"""What runs in a disposable worker: limits, then items judged one after the other until somebody kills it or has no more to ask.

Started as `python -m MODULE MEMORY`. The first line of its input is the verifier's settings as JSON, every other a list of items.
Its output is a line when it is ready and one a finding.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outcross.verify.each import Finding
from outcross.verify.sandbox.inside import confine, seccomp

Judge = Callable[..., Finding]
Answer = tuple[str, str, str] | list[str]


def serve(prepare: Callable[[Any], Judge]) -> None:
    """Judge items until the input ends. `prepare` makes the judge from the settings, before the limits hold; what it raises is said
    instead of "ready"."""
    memory = int(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")

    def say(answer: Answer) -> None:
        print(json.dumps(answer), file=replies, flush=True)

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        judge = prepare(json.loads(sys.stdin.readline()))
        _confine(memory)
    except Exception as error:
        say(["refused", f"{type(error).__name__}: {error}"[:300]])
        return
    say(["ready"])
    for line in sys.stdin:
        for item in json.loads(line):
            say(_finding(judge, item, memory))


def _finding(judge: Judge, item: list[str], memory: int) -> Finding:
    try:
        return judge(*item)
    except MemoryError:
        return "error", "out of memory", f"more than {memory // 2**20} MB"
    except Exception as error:
        return "error", "the check itself failed", f"{type(error).__name__}: {error}"[:200]


def _confine(memory: int) -> None:
    """`memory` bytes beyond what is mapped already, no file that can be written, no new descriptors to speak of; on Linux no capabilities and no sockets either, and
    an end with the process that started this one."""
    mapped = Path("/proc/self/statm")
    most = memory + (int(mapped.read_text().split()[0]) * resource.getpagesize() if mapped.exists() else 0)
    for which, limit in ((resource.RLIMIT_AS, most), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(which, (limit, limit))
    if sys.platform != "linux":
        return
    confine.die_with_parent()
    confine.drop_capabilities()
    if seccomp.available():
        seccomp.install()
