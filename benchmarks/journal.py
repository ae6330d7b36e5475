"""The journal with many answers: how fast they are written, how long it takes to open it, to count and to look up, and what it holds in
memory.

Answers of about 300 bytes are committed in groups of 100 (many answers arrive together on a fast machine; each
commit waits for the disk). Then the journal is opened by a new process, counted, and asked for keys in random order, half of which it
holds. `--layout` holds the table as it is against one that lies in the order of its keys.

    python benchmarks/journal.py [--answers 10_000_000] [--folder FOLDER] [--layout]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

GROUP = 100
LOOKUPS = 20_000
TEXT = 240  # characters of an answer, which with tokens counted and its key make about 300 bytes


def key(number: int) -> bytes:
    return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).digest()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def text(number: int) -> str:
    return random.Random(number).randbytes(TEXT // 2).hex()


def write(path: Path, answers: int) -> None:
    """Fill a journal, a line every tenth of it (every million of ten million)."""
    from outcross.engine.journal import Journal
    from outcross.types import Completion, Response, Usage

    journal = Journal(path)
    step = max(GROUP, answers // 10)
    print(f"{'answers':>12}  {'rows/s':>8}  {'ms CPU':>7}  {'file':>9}  {'resident':>9}", flush=True)
    began, cpu = time.perf_counter(), time.process_time()
    made = 0.0
    for first in range(0, answers, GROUP):
        start = time.perf_counter()
        group = [(key(n), "model", Response((Completion(text(n)),), Usage(50, 60, 1e-6))) for n in range(first, first + GROUP)]
        made += time.perf_counter() - start
        journal.put(group)
        done = first + GROUP
        if done % step == 0:
            seconds, used = time.perf_counter() - began - made, time.process_time() - cpu - made
            size = path.stat().st_size / 2**20
            print(
                f"{done:>12,}  {step / seconds:>8,.0f}  {1000 * used / step:>7.3f}  {size:>6,.0f} MB  {resident_mb():>6,.0f} MB", flush=True
            )
            began, cpu, made = time.perf_counter(), time.process_time(), 0.0
    journal.close()


def read(path: Path, answers: int) -> None:
    """Open it, count, look up."""
    from outcross.engine.journal import Journal

    def timed(call: Callable[[], object]) -> tuple[object, float]:
        start = time.perf_counter()
        return call(), 1000 * (time.perf_counter() - start)

    opened, open_ms = timed(lambda: Journal(path))
    assert isinstance(opened, Journal)
    spent, spent_ms = timed(opened.spent)
    assert spent["model"][0] == answers  # type: ignore[index]
    rng = random.Random(0)
    single = [key(rng.randrange(2 * answers)) for _ in range(LOOKUPS)]
    _, one_ms = timed(lambda: [opened.get([item]) for item in single])
    numbers = [rng.randrange(2 * answers) for _ in range(LOOKUPS)]
    found, many_ms = timed(lambda: opened.get([key(number) for number in numbers]))
    assert len(found) == len({number for number in numbers if number < answers})  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"opened in {open_ms:.1f} ms; spent() in {spent_ms:.2f} ms")
    print(
        f"a lookup alone {1000 * one_ms / LOOKUPS:.0f} µs, {LOOKUPS:,} keys at once {1000 * many_ms / LOOKUPS:.0f} µs each; peak {peak:.0f} MB"
    )
    began = time.perf_counter()
    opened.close()
    print(f"closed in {1000 * (time.perf_counter() - began):.1f} ms")


def layouts(folder: Path, answers: int) -> None:
    """Rows in the order of their commits with an index of keys, against rows in the order of their keys."""
    tables = {
        "by commit, 4 kB": ("(key BLOB NOT NULL UNIQUE, asker INTEGER NOT NULL, answer BLOB NOT NULL)", 4096),
        "by commit, 8 kB": ("(key BLOB NOT NULL UNIQUE, asker INTEGER NOT NULL, answer BLOB NOT NULL)", 8192),
        "by key, 4 kB": ("(key BLOB PRIMARY KEY, asker INTEGER NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID", 4096),
        "by key, 8 kB": ("(key BLOB PRIMARY KEY, asker INTEGER NOT NULL, answer BLOB NOT NULL) WITHOUT ROWID", 8192),
    }
    for name, (columns, page) in tables.items():
        path = folder / "layout.db"
        db = sqlite3.connect(path, isolation_level=None)
        for pragma in (f"page_size={page}", "journal_mode=WAL", "synchronous=FULL", "cache_size=-16384"):
            db.execute(f"PRAGMA {pragma}")
        db.execute(f"CREATE TABLE answers {columns}")
        value, rates = os.urandom(TEXT + 40), []
        for part in range(5):
            began = time.perf_counter()
            for first in range(part * answers // 5, (part + 1) * answers // 5, GROUP):
                db.execute("BEGIN IMMEDIATE")
                db.executemany("INSERT INTO answers VALUES (?,1,?)", [(key(n), value) for n in range(first, first + GROUP)])
                db.execute("COMMIT")
            rates.append(answers / 5 / (time.perf_counter() - began))
        print(
            f"{name:<16} {path.stat().st_size / 2**20:>7,.0f} MB; rows/s by fifths: {', '.join(f'{rate:,.0f}' for rate in rates)}",
            flush=True,
        )
        db.close()
        for left in folder.glob("layout.db*"):
            left.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to measure; default a temporary one")
    parser.add_argument("--layout", action="store_true", help="compare table layouts instead")
    parser.add_argument("--read", type=Path, default=None, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.read:
        read(chosen.read, chosen.answers)
        sys.exit()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        if chosen.layout:
            layouts(Path(place), chosen.answers)
        else:
            write(Path(place) / "journal.db", chosen.answers)
            subprocess.run([sys.executable, __file__, "--read", Path(place) / "journal.db", "--answers", str(chosen.answers)], check=True)
