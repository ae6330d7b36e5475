"""Generation over HTTP: the executor with its journal against a bare asyncio loop over aiohttp and against peers, and kill -9 on the way.

A local stub answers with log-normal latency (median 50 ms) and 1 % of 429 and 500. Every measurement is a process of its own; contenders
are interleaved and medians reported. Peers run in environments of their own, made under --peers at the first run (2.3 GB).
Memory is the largest sum over a contender's processes, shared pages split between them, seen four times a second.

    python benchmarks/generation.py [--repeats 5] [--kills 20] [--peers FOLDER] [--soak 1000000]
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

from generation_peers import PACKAGES, prompts

STUB = Path(__file__).parent.parent / "tests" / "stub_server.py"
PEERS = Path(__file__).parent / "generation_peers.py"
PROMPTS = 5_000
IN_FLIGHT = (64, 256)


def outcross(url: str, count: int, in_flight: int, folder: Path) -> None:
    """All prompts through the executor, each answer committed to the journal in `folder`."""
    from outcross.engine.budget import Budget, Meter
    from outcross.engine.executor import Executor
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
        answered = sum(bool(text) for text in ctx.run(map(dialogue, prompts(count))))
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
    print(json.dumps({"wall_s": wall, "cpu_ms": 1000 * cpu / count}))


def command(name: str, url: str, count: int, in_flight: int, folder: Path, peers: Path | None) -> list[str]:
    arguments = [name, url, str(count), str(in_flight), str(folder)]
    if name in PACKAGES:
        assert peers is not None
        return [str(environment(name, peers)), str(PEERS), *arguments]
    return [sys.executable, __file__, "--child", *arguments]


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

    kept: answers on disk once the journal has been opened again, which takes in what was noted on arrival; on_the_way: answers that the
    server had given and that were not on disk, in the socket for the most part; repeated: answers on disk that were asked for again; lost:
    prompts with no answer in the end; doubled: prompts with more than one.
    """
    from outcross.engine.journal import Journal

    reset(url)
    words = command("outcross", url, count, in_flight, folder, None)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while journaled(folder) < share * count:
        assert process.poll() is None, "it came to its end before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    Journal(folder / "responses.db").close()
    kept, given = journaled(folder), stats(url)["answered"]
    reset(url)
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    rows, missing = journaled(folder), count - kept
    return {
        "kept": kept,
        "on_the_way": given - kept,
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


def compare(repeats: int, peers: Path | None) -> None:
    names = [*CONTENDERS, *(PACKAGES if peers else ())]
    found: dict[tuple[str, int], list[dict[str, float]]] = {(name, size): [] for size in IN_FLIGHT for name in names}
    with stub(50, 0.01) as url:
        for _ in range(repeats):
            for (name, size), runs in found.items():
                reset(url)
                with tempfile.TemporaryDirectory() as folder:
                    runs.append(measured(command(name, url, PROMPTS, size, Path(folder), peers)) | {"most_open": stats(url)["most_open"]})
    for (name, size), runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        ours = {
            key: statistics.median(run[key] / own[key] for run, own in zip(runs, found["outcross", size])) for key in ("wall_s", "total_s")
        }
        print(
            f"{name:<13} {size:>4} in flight (most seen {middle['most_open']:.0f})  {middle['wall_s']:6.2f} s = {ours['wall_s']:5.2f} × ours"
            f"  with start {middle['total_s']:6.2f} s = {ours['total_s']:5.2f} × ours"
            f"  {middle['cpu_ms']:5.2f} ms CPU a request  {middle['peak_mb']:5.0f} MB",
            flush=True,
        )
    for size in IN_FLIGHT:
        ratio = statistics.median(own["wall_s"] / bare["wall_s"] for own, bare in zip(found["outcross", size], found["bare", size]))
        print(f"ours / bare aiohttp at {size}: {ratio:.2f}")


def measured(words: list[str]) -> dict[str, float]:
    """What a contender printed, with its peak memory and the seconds from its start to its end."""
    began, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(words, stdout=out, stderr=err, text=True)
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.25)
        total = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
        if process.returncode or not lines:
            raise SystemExit(f"{' '.join(words)} failed:\n{err.read()[-3000:]}")
    return {**json.loads(lines[-1]), "peak_mb": peak / 2**20, "total_s": total}


def tree_memory(pid: int) -> float:
    """Bytes that a process and those it started hold, each shared page counted once."""
    import psutil

    total = 0.0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


def environment(name: str, peers: Path) -> Path:
    """The Python of a peer's environment, which is made when it is not there."""
    folder = peers / name
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES[name].split()], check=True)
        (folder / "ready").touch()
    return folder / "bin" / "python"


def soak(count: int, in_flight: int = 512) -> None:
    """Many requests, and what the process holds meanwhile."""
    with stub(50, 0.01) as url, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command("outcross", url, count, in_flight, Path(folder), None), stdout=subprocess.PIPE, text=True)
        shown, began = 0, time.perf_counter()
        while process.poll() is None:
            time.sleep(1)
            done = journaled(Path(folder))
            if done >= shown:
                held, size = tree_memory(process.pid) / 2**20, sum(item.stat().st_size for item in Path(folder).iterdir()) / 2**20
                print(
                    f"{done:>9,} answered  {time.perf_counter() - began:6.0f} s  {held:6.0f} MB held  {size:6.0f} MB of journal", flush=True
                )
                shown += count // 20
        assert process.stdout is not None
        print(process.stdout.read().strip(), "; all answered:", process.returncode == 0)


def kills(points: int) -> None:
    chance = random.Random(0)
    with stub(20, 0.01) as url:
        for _ in range(points):
            share = chance.uniform(0.02, 0.95)
            with tempfile.TemporaryDirectory() as folder:
                print(f"killed at {share:.0%}:", kill_and_resume(url, 2_000, 64, share, Path(folder)), flush=True)


def peer_kills(peers: Path, count: int = PROMPTS) -> None:
    """kill -9 once the server has answered half, then the same command again: what was paid for twice, and what came of it."""
    for name in ("outcross", *PACKAGES):
        with stub(50, 0.01) as url, tempfile.TemporaryDirectory() as folder:
            words = command(name, url, count, 64, Path(folder), peers)
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            while stats(url)["answered"] < count / 2 and process.poll() is None:
                time.sleep(0.1)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(1)  # what was in flight arrives at the server
            before = stats(url)["answered"]
            reset(url)
            ended = "finished"
            process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            try:
                process.wait(180)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                ended = "hung for 180 s and was killed"
            again = before + stats(url)["answered"] - count
            print(
                f"{name:<13} killed after {before:,} answers, then run again: {again:,} paid for twice; {ended}, exit {process.wait()}",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, where, total, flight, place = sys.argv[2:]
        child(kind, where, int(total), int(flight), Path(place))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--repeats", type=int, default=5)
        parser.add_argument("--kills", type=int, default=20)
        parser.add_argument("--peers", type=Path, default=None, help="folder for the peers' environments; without it they are left out")
        parser.add_argument("--soak", type=int, default=0, help="that many requests at 512 in flight, memory over time")
        chosen = parser.parse_args()
        if chosen.repeats:
            compare(chosen.repeats, chosen.peers)
        kills(chosen.kills)
        if chosen.peers and chosen.kills:
            peer_kills(chosen.peers)
        if chosen.soak:
            soak(chosen.soak)
