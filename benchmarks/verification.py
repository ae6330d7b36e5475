"""What a check costs: programs in the warm sandbox against one bubblewrap a program, maths against math-verify in process.

Both sides run in turn in every repeat and medians of the ratios are printed, so that a busy machine slows both.
Run: python benchmarks/verification.py [--repeats 3] [--programs 164] [--answers 800]
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import resource
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

HUMANEVAL = Path(__file__).parents[2] / "shared" / "data" / "humaneval" / "HumanEval.jsonl.gz"
LIMITS = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))\nresource.setrlimit(resource.RLIMIT_CPU, (5, 5))\n"
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


def one_bubblewrap_each(problems: list[dict[str, str]]) -> int:
    """The usual way: every program with its test in a Python of its own in a bubblewrap of its own, as many at once as cores."""
    prefix = os.path.realpath(sys.base_prefix)
    python = Path("/python") / Path(os.path.realpath(sys.executable)).relative_to(prefix)
    line = [*bubblewrap(), "--ro-bind", prefix, "/python", "--", str(python), "-I", "-c"]

    def run(row: dict[str, str]) -> bool:
        code = f"{LIMITS}\n{row['prompt']}{row['canonical_solution']}\n{row['test']}\ncheck({row['entry_point']})"
        return subprocess.run([*line, code], check=False, capture_output=True, timeout=120).returncode == 0

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return sum(threads.map(run, problems))


def in_process(pairs: list[tuple[str, str]]) -> int:
    from math_verify import parse, verify

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return sum(verify(parse(gold), parse(answer)) for gold, answer in pairs)


def programs(problems: list[dict[str, str]]) -> tuple[float, float]:
    columns = [tuple({"test": row["test"], "entry_point": row["entry_point"], "setup": row["prompt"]}.items()) for row in problems]
    asked = [(Task("t", "", columns=one), row["canonical_solution"]) for one, row in zip(columns, problems, strict=True)]
    ours, good = timed(lambda: passed(Code(), asked))
    theirs, also = timed(lambda: one_bubblewrap_each(problems))
    assert good == also == len(problems)
    return len(problems) / ours, len(problems) / theirs


def maths(pairs: list[tuple[str, str]]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Answers a second, and answers a second of CPU time (all processes together): ours, and math-verify's in this process."""
    tasks = [(Task(str(index), "", gold), answer) for index, (gold, answer) in enumerate(pairs)]
    marks = [cpu()]
    ours, good = timed(lambda: passed(Math(), tasks))
    marks.append(cpu())
    theirs, also = timed(lambda: in_process(pairs))
    marks.append(cpu())
    assert good == also
    return (len(pairs) / ours, len(pairs) / theirs), (len(pairs) / (marks[1] - marks[0]), len(pairs) / (marks[2] - marks[1]))


def cpu() -> float:
    """Seconds of CPU time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in used)


def report(name: str, against: str, rates: list[tuple[float, float]]) -> None:
    ours, theirs = (statistics.median(rate[side] for rate in rates) for side in (0, 1))
    ratio = statistics.median(mine / other for mine, other in rates)
    print(f"| {name} | {ours:,.0f} | {against} | {theirs:,.0f} | {ratio:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--programs", type=int, default=164)
    parser.add_argument("--answers", type=int, default=800)
    given = parser.parse_args()
    in_process(symbolic(0, 8))  # its imports are paid
    print("| checks | a second | against | a second | median ratio |\n|---|--:|---|--:|--:|", flush=True)
    if HUMANEVAL.exists():
        with gzip.open(HUMANEVAL, "rt") as lines:
            problems = [json.loads(line) for line in lines][: given.programs]
        report("HumanEval programs", "one bubblewrap each", [programs(problems) for _ in range(given.repeats)])
    else:
        print("no programs: HumanEval is not under ../shared/data/humaneval")
    starts = [given.answers * turn for turn in range(1, given.repeats + 1)]  # new answers every time: both sides keep caches
    report("plain numbers", "math-verify in process", [maths(numbers(start, given.answers))[0] for start in starts])
    rates = [maths(symbolic(start, given.answers)) for start in starts]
    report("expressions, start of workers included", "math-verify in process", [wall for wall, _ in rates])
    report("the same by CPU time", "math-verify in process", [used for _, used in rates])


def numbers(start: int, count: int) -> list[tuple[str, str]]:
    return [(str(n), str(n + n % 2)) for n in range(start, start + count)]


def symbolic(start: int, count: int) -> list[tuple[str, str]]:
    chosen = [(n, *SYMBOLIC[n % len(SYMBOLIC)]) for n in range(start, start + count)]
    return [(gold.format(n=n + 5), answer.format(n=n + 5)) for n, gold, answer in chosen]


if __name__ == "__main__":
    main()
