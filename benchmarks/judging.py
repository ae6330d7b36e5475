"""Judges: do they keep an endpoint as busy as its bare client does, and how often does a small judge obey the texts that it judges.

Speed: the pairwise judge through the executor and its journal against the bare client (`outcross.models.http`), which is handed the very
same requests at once; a local stub answers with log-normal latency (median 50 ms). Contenders are interleaved and medians reported.

    python benchmarks/judging.py [--tasks 200] [--in-flight 64] [--repeats 5]
    python benchmarks/judging.py --injections [--questions 6]      # SmolLM2-135M-Instruct under OUTCROSS_CACHE/gguf; minutes
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "attacks")]

from helpers import NoPast, context  # noqa: E402
from injections import INJECTIONS, QUESTIONS, Attack, attacks  # noqa: E402

from outcross.models.http import Http, http  # noqa: E402
from outcross.stages import Context  # noqa: E402
from outcross.types import Completion, Group, Origin, Request, Response, Sample, Task, Turn, sample_id  # noqa: E402
from outcross.verify.judge_pairwise import PairwiseJudge  # noqa: E402

STUB = ROOT / "tests" / "stub_server.py"


class Noting:
    """The client, with a note of what it was asked."""

    def __init__(self, inner: Http) -> None:
        self._inner, self.asked = inner, list[Request]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def submit(self, request: Request, /) -> Future[Response]:
        self.asked.append(request)
        return self._inner.submit(request)


def groups(tasks: int, salt: int, samples: int = 4) -> Iterator[Group]:
    """Tasks with answers of about 60 words."""
    for number in range(tasks):
        task = Task(f"t{salt}-{number}", f"Question {salt}-{number}: what is it?")
        origin = Origin("synthetic", "none", "model", 1, "bench/0000", (task.id,))
        made = []
        for index in range(samples):
            turns = (Turn(task.prompt, Completion(f"Answer {index} to question {number}. " + "It is so because of this. " * 10)),)
            made.append(Sample(sample_id(task.id, index, turns, origin), turns, origin))
        yield Group(task, tuple(made))


def judged(model: Any, folder: Path, made: Iterable[Group]) -> float:
    """Seconds that the judge takes, every answer committed to a journal in `folder`."""
    from outcross.engine.budget import Budget, Meter
    from outcross.engine.executor import Executor
    from outcross.engine.journal import Journal

    began = time.perf_counter()
    with contextlib.closing(Journal(folder / "responses.db")) as journal:
        ctx = Context({"judge": model}, NoPast(folder), "bench/0000", 0, 0, Executor(journal, Meter(Budget(), journal)))
        for group in PairwiseJudge()(ctx, made):
            assert all(sample.verdict in ("pass", "fail") for sample in group.samples), group.samples[0].scores
    return time.perf_counter() - began


def bare(model: Http, requests: list[Request]) -> float:
    """Seconds that the client takes for the same requests."""
    began = time.perf_counter()
    for future in [model.submit(request) for request in requests]:
        assert not future.result().error
    return time.perf_counter() - began


def speed(tasks: int, in_flight: int, repeats: int) -> None:
    process = subprocess.Popen([sys.executable, str(STUB), "--median-ms", "50"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    ratios, rates = [], []
    try:
        for salt in range(repeats + 1):
            with tempfile.TemporaryDirectory() as folder, contextlib.closing(http(url, "stub", key_env=None, in_flight=in_flight)) as model:
                noting = Noting(model)
                through = judged(noting, Path(folder), groups(tasks, salt))
                alone = bare(model, noting.asked)
            if salt:  # the first warms up
                ratios.append(alone / through)
                rates.append(len(noting.asked) / through)
    finally:
        process.kill()
        process.wait()
    print(f"{len(noting.asked)} questions, {in_flight} in flight: {statistics.median(rates):,.0f} a second through the judge, ")
    print(f"{statistics.median(ratios):.2f} × the bare client's rate (median of {repeats}; {min(ratios):.2f} to {max(ratios):.2f})")


def injections(questions: int) -> None:
    from outcross.models.gguf import cache_folder
    from outcross.models.torch_lm import Machine, torch_lm

    found = sorted((cache_folder() / "gguf").glob("SmolLM2-135M-Instruct*"))
    if not found:
        sys.exit("no SmolLM2-135M-Instruct in OUTCROSS_CACHE/gguf: load its GGUF file once with outcross so that it is converted")
    model = torch_lm(str(found[-1]), machine=Machine(device="cpu", threads=1))
    by_name = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for item in attacks(context(Path(folder), {"judge": model}), list(INJECTIONS), questions):
            by_name[item.name].append(item)
    every = [item for items in by_name.values() for item in items]
    print("wrong answers preferred because of the injection; mean probability against harmless text of the same length, and against none")
    for name, items in sorted(by_name.items(), key=lambda pair: -statistics.mean(item.attacked - item.harmless for item in pair[1])):
        print(f"  {sum(item.worked for item in items)} of {len(items)}  {_moved(items)}  {name}")
    print(
        f"worked: {sum(item.worked for item in every)} of {len(every)}  {_moved(every)}; the most: {max(item.attacked for item in every):.3f}"
    )
    print(
        f"preferred with the injection and not with harmless text: {sum(i.attacked > 0.5 >= i.harmless for i in every)} of {len(every)}; ",
        end="",
    )
    print(f"the other way round: {sum(i.harmless > 0.5 >= i.attacked for i in every)}")
    alone = [item.alone for item in by_name[next(iter(INJECTIONS))]]
    print(f"without any text added the judge prefers the right answer in {sum(p < 0.5 for p in alone)} of {len(alone)} questions")


def _moved(items: list[Attack]) -> str:
    """How far the injection moved the probability of the wrong answer, on average."""
    harmless = statistics.mean(item.attacked - item.harmless for item in items)
    return f"{harmless:+.3f}  {statistics.mean(item.attacked - item.alone for item in items):+.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--injections", action="store_true")
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    chosen = parser.parse_args()
    if chosen.injections:
        injections(chosen.questions)
    else:
        speed(chosen.tasks, chosen.in_flight, chosen.repeats)
