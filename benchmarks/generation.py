"""Generation over HTTP: the executor with its journal against a bare asyncio loop over aiohttp, and kill -9 on the way.

A local stub answers with log-normal latency (median 50 ms) and 1 % of 429 and 500. Every measurement is a process of its own; contenders
are interleaved and medians reported. Run: python benchmarks/generation.py [--repeats 5] [--kills 20]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STUB = Path(__file__).parent.parent / "tests" / "stub_server.py"
PROMPTS = 5_000
IN_FLIGHT = (64, 256)


def prompts(count: int) -> list[str]:
    return [f"Question {index}: what is {index} + {index % 97}?" for index in range(count)]


def outcross(url: str, count: int, in_flight: int, folder: Path) -> None:
    """All prompts through the executor, each answer committed to the journal in `folder`."""
    from outcross.engine.executor import Budget, Executor, Meter
    from outcross.engine.journal import Journal
    from outcross.models.http import http
    from outcross.stages import Ask, Context, Dialogue
    from outcross.types import Request

    def dialogue(prompt: str) -> Dialogue[str]:
        answer = yield Ask("policy", Request(prompt))
        return str(answer.completions[0].content) if answer.completions else ""

    model = http(url, "stub", key_env=None, in_flight=in_flight)
    with contextlib.closing(Journal(folder / "responses.db")) as journal, contextlib.closing(model):
        ctx = Context({"policy": model}, None, "r", 0, 0, Executor(journal, Meter(Budget(), journal)))  # type: ignore[arg-type]
        answered = sum(bool(text) for text in ctx.run(dialogue(prompt) for prompt in prompts(count)))
    assert answered == count, f"{answered} of {count} answered"


def bare(url: str, count: int, in_flight: int, folder: Path) -> None:
    """What a careful user writes: a semaphore, one session, a retry."""
    import aiohttp

    async def main() -> None:
        slots = asyncio.Semaphore(in_flight)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask(prompt: str) -> str:
                body = {
                    "model": "stub",
                    "messages": [{"role": "user", "content": prompt}],
                    "max_tokens": 256,
                    "temperature": 1.0,
                    "seed": 0,
                }
                async with slots:
                    while True:
                        async with session.post(f"{url}/chat/completions", json=body) as answer:
                            if answer.status == 200:
                                return str((await answer.json())["choices"][0]["message"]["content"])
                        await asyncio.sleep(0.1)

            texts = await asyncio.gather(*map(ask, prompts(count)))
        assert all(texts)

    asyncio.run(main())


CONTENDERS = {"bare": bare, "outcross": outcross}


def child(name: str, url: str, count: int, in_flight: int, folder: Path) -> None:
    """One measurement, printed as JSON: seconds of wall and CPU without the start of Python and its imports; peak memory with."""
    import aiohttp  # noqa: F401

    import outcross.engine.executor
    import outcross.models.http  # noqa: F401

    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    CONTENDERS[name](url, count, in_flight, folder)
    wall, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(json.dumps({"wall_s": wall, "cpu_ms": 1000 * cpu / count, "peak_mb": now.ru_maxrss / 1024}))


def command(name: str, url: str, count: int, in_flight: int, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--child", name, url, str(count), str(in_flight), str(folder)]


@contextlib.contextmanager
def stub(median_ms: float, errors: float) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(STUB), "--median-ms", str(median_ms), "--errors", str(errors)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as reply:
        return dict(json.load(reply))


def reset(url: str) -> None:
    urllib.request.urlopen(url.removesuffix("/v1") + "/reset", data=b"").close()


def kill_and_resume(url: str, count: int, in_flight: int, share: float, folder: Path) -> dict[str, int]:
    """kill -9 once `share` of the prompts is in the journal, then run again.

    in_flight: answers that the server gave and the journal had not yet; repeated: answers of the journal that were asked for again;
    lost: prompts with no answer in the end; doubled: prompts with more than one.
    """
    reset(url)
    process = subprocess.Popen(command("outcross", url, count, in_flight, folder), stdout=subprocess.DEVNULL)
    while journaled(folder) < share * count:
        assert process.poll() is None, "it came to its end before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept, given = journaled(folder), stats(url)["answered"]
    reset(url)
    subprocess.run(command("outcross", url, count, in_flight, folder), stdout=subprocess.DEVNULL, check=True)
    rows, missing = journaled(folder), count - kept
    return {
        "at": kept,
        "in_flight": given - kept,
        "repeated": stats(url)["answered"] - missing,
        "lost": max(0, count - rows),
        "doubled": max(0, rows - count),
    }


def journaled(folder: Path) -> int:
    """How many answers a journal holds, seen from outside."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder / 'responses.db'}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.Error:
        return 0


def compare(repeats: int) -> None:
    found: dict[tuple[str, int], list[dict[str, float]]] = {(name, size): [] for size in IN_FLIGHT for name in CONTENDERS}
    with stub(50, 0.01) as url:
        for _ in range(repeats):
            for (name, size), runs in found.items():
                reset(url)
                with tempfile.TemporaryDirectory() as folder:
                    run = subprocess.run(command(name, url, PROMPTS, size, Path(folder)), capture_output=True, text=True, check=True)
                runs.append(json.loads(run.stdout))
    for (name, size), runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        ratio = middle["wall_s"] / statistics.median(run["wall_s"] for run in found["bare", size])
        print(
            f"{name:<9} {size:>4} in flight  {middle['wall_s']:6.2f} s ({ratio:.2f} × bare)  "
            f"{middle['cpu_ms']:5.2f} ms CPU a request  {middle['peak_mb']:5.0f} MB",
            flush=True,
        )


def kills(points: int) -> None:
    chance = random.Random(0)
    with stub(20, 0.01) as url:
        for _ in range(points):
            share = chance.uniform(0.02, 0.95)
            with tempfile.TemporaryDirectory() as folder:
                print(f"killed at {share:.0%}:", kill_and_resume(url, 2_000, 64, share, Path(folder)), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, where, total, flight, place = sys.argv[2:]
        child(kind, where, int(total), int(flight), Path(place))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--repeats", type=int, default=5)
        parser.add_argument("--kills", type=int, default=20)
        chosen = parser.parse_args()
        if chosen.repeats:
            compare(chosen.repeats)
        kills(chosen.kills)
