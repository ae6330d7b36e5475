"""The process in which math-verify runs. It can hang and it can eat memory there, and it is thrown away when it does.

Started as `python -m outcross.verify.math_worker MEMORY`; reads lines of JSON `[[gold, answer], …]` and writes one line a pair.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from functools import lru_cache
from typing import Any


class _Exhausted(logging.Handler):
    """math-verify reports what it swallowed to its log, and "not equal" to its caller: this hears of memory errors."""

    seen = False

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None and issubclass(record.exc_info[0], MemoryError):
            self.seen = True


@lru_cache(maxsize=256)
def read_gold(text: str) -> list[Any]:
    """The reference as math-verify reads it; as LaTeX without dollar signs when it reads nothing else."""
    from math_verify import parse

    found: list[Any] = parse(text, parsing_timeout=None) or parse(f"${text}$", parsing_timeout=None)
    return found


def judge(gold: str, answer: str) -> tuple[str, str, str]:
    """Verdict, reason and evidence by math-verify, without its own deadlines."""
    from math_verify import parse, verify

    expected = read_gold(gold)
    if not expected:
        return "error", "the reference answer cannot be read", gold[:200]
    said = parse(answer, parsing_timeout=None)
    if not said:
        return "fail", "no answer could be read", answer[-200:]
    if verify(expected, said, timeout_seconds=None):
        return "pass", "", ""
    return "fail", "differs from the reference answer", str(said[-1])[:200] if isinstance(said[-1], str) else ""


def main() -> None:
    memory = int(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import math_verify  # noqa: F401  paid before the first deadline begins

    for which, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(which, (most, most))
    exhausted = _Exhausted()
    for name in ("math_verify", "latex2sympy2_extended"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.level = [exhausted], False, logging.DEBUG
    print('["ready"]', file=replies, flush=True)
    for line in sys.stdin:
        for gold, answer in json.loads(line):
            exhausted.seen = False
            try:
                finding = judge(gold, answer)
            except MemoryError:
                exhausted.seen = True
            except Exception as error:
                finding = ("error", "math-verify raised", f"{type(error).__name__}: {error}"[:200])
            if exhausted.seen:
                finding = ("error", "out of memory", f"more than {memory // 2**20} MB")
            print(json.dumps(finding), file=replies, flush=True)


if __name__ == "__main__":
    main()
