"""What a check costs: programs in the warm sandbox against one bubblewrap a program, maths against math-verify in process.

Both sides run in turn in every repeat and medians of the ratios are printed, so that a busy machine slows both.
Run: python benchmarks/verification.py [--repeats 3] [--programs 60] [--answers 200]
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from outcross.stages import Context
from outcross.types import Completion, Group, Origin, Sample, Task, Turn
from outcross.verify.code import Code
from outcross.verify.math import Math
from outcross.verify.sandbox.levels import bubblewrap

PROGRAM = "def f(items):\n    return sorted(set(items))\n"
TEST = "def check(candidate):\n    for n in range(50):\n        assert candidate([n, 1, n]) == sorted({n, 1})\n"
SYMBOLIC = [
    ("$\\frac{{\\sqrt{{{n}}}}}{{{n}}}$", "so it is \\boxed{{\\frac{{1}}{{\\sqrt{{{n}}}}}}}"), ("$x^2-{n}^2$", "$(x-{n})(x+{n})$"), ("$2\\pi r+{n}$", "\\boxed{{{n}+2r\\pi}}"),
    ("$\\{{{n},2,3\\}}$", "$\\{{3,2,{n}\\}}$"), ("{n}", "Then 9 + 9 is not it.\n#### {n}"), ("$[0,{n}]$", "$[0,{n})$"), ("$x+{n}$", "$x+2{n}$"), ("{n}", "The total is 1{n}."),
]  # fmt: skip
T = TypeVar("T")


def groups(pairs: list[tuple[Task, str]]) -> Iterator[Group]:
    for index, (task, text) in enumerate(pairs):
        yield Group(task, (Sample(str(index), (Turn("", Completion(text)),), Origin("synthetic")),))


def passed(stage: Any, pairs: list[tuple[Task, str]]) -> int:
    ctx: Any = Context({}, None, "phase/0000", 0, 0, None)  # type: ignore[arg-type]
    return sum(group.samples[0].verdict == "pass" for group in stage(ctx, groups(pairs)))


def timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def onebubblewrap_each(count: int) -> int:
    """The usual way: every program with its test in a Python of its own in a bubblewrap of its own, as many at once as cores."""
    prefix = os.path.realpath(sys.base_prefix)
    python = Path("/python") / Path(os.path.realpath(sys.executable)).relative_to(prefix)
    line = [*bubblewrap(), "--ro-bind", prefix, "/python", "--", str(python), "-I", "-S", "-c", f"{PROGRAM}\n{TEST}\ncheck(f)"]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        runs = threads.map(lambda _: subprocess.run(line, check=False, capture_output=True, timeout=120).returncode == 0, range(count))
        return sum(runs)


def in_process(pairs: list[tuple[str, str]]) -> int:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return sum(verify(parse(gold), parse(answer)) for gold, answer in pairs)


def programs(count: int) -> tuple[float, float]:
    task = Task("t", "", columns=(("test", TEST), ("entry_point", "f")))
    ours, good = timed(lambda: passed(Code(), [(task, PROGRAM)] * count))
    theirs, also = timed(lambda: onebubblewrap_each(count))
    assert good == also == count
    return count / ours, count / theirs


def maths(pairs: list[tuple[str, str]]) -> tuple[float, float]:
    tasks = [(Task(str(index), "", gold), answer) for index, (gold, answer) in enumerate(pairs)]
    ours, good = timed(lambda: passed(Math(), tasks))
    theirs, also = timed(lambda: in_process(pairs))
    assert good == also
    return len(pairs) / ours, len(pairs) / theirs


def report(name: str, against: str, rates: list[tuple[float, float]]) -> None:
    ours, theirs = (statistics.median(rate[side] for rate in rates) for side in (0, 1))
    ratio = statistics.median(mine / other for mine, other in rates)
    print(f"| {name} | {ours:,.0f} | {against} | {theirs:,.0f} | {ratio:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--programs", type=int, default=60)
    parser.add_argument("--answers", type=int, default=200)
    given = parser.parse_args()
    numbers = [(str(n), str(n + n % 2)) for n in range(1000, 1000 + given.answers)]
    symbolic = [
        (gold.format(n=n + 5), answer.format(n=n + 5)) for n in range(given.answers) for gold, answer in SYMBOLIC[n % len(SYMBOLIC) :][:1]
    ]
    in_process(symbolic[:8])  # its imports and caches are paid
    print("| checks | a second | against | a second | median ratio |\n|---|--:|---|--:|--:|")
    report("programs", "one bubblewrap each", [programs(given.programs) for _ in range(given.repeats)])
    report("plain numbers", "math-verify in process", [maths(numbers) for _ in range(given.repeats)])
    report("expressions, start of workers included", "math-verify in process", [maths(symbolic) for _ in range(given.repeats)])


if __name__ == "__main__":
    main()
