"""Near duplicates: documents per CPU-second, recall, precision and memory, side by side with rensa, datasketch and peers.

The corpus is made here: documents of about 100 words (one in ten has 3 to 12), two in five in families of planted edits (words replaced,
inserted, deleted; a digit changed) whose similarity runs from 1 to below 0.5. Shingles are word 5-grams, duplicates begin at Jaccard 0.8.
The truth is exact: similarities within a family by Python sets, and the greedy rule "drop what resembles a kept earlier document".

recall: of the documents that the truth drops, the share that a tool drops. precision: of the documents that a tool drops, the share that
truly resembles another one. lost: clusters of true duplicates of which a tool leaves nothing (flags mark the first copy too). Each tool runs in a process of its own on
texts that are already in memory (part of the peak); ours is the whole stage on one-sample groups, its files and records included.

Run: python benchmarks/near_dedup.py [--documents 200000] [--repeats 1] [--peers FOLDER]
FOLDER holds environments of text-dedup, datatrove and data-juicer, see dedup_peers.py; without them a line says how to make them;
or, for the memory of our stage on short documents that are made as it reads them: python benchmarks/near_dedup.py --short 2000000
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from dedup_peers import NEAR, interpreter

N, THRESHOLD, SEED = 5, 0.8, 11


def corpus(count: int) -> Iterator[tuple[int, str]]:
    """Family number and text, families scattered over windows of 1,000 documents."""
    rng = random.Random(SEED)
    vocabulary = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randrange(2, 11))) for _ in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    made: list[tuple[int, str]] = []
    family = total = 0
    while total < count:
        words = rng.choices(vocabulary, weights, k=rng.randrange(3, 13) if rng.random() < 0.1 else rng.randrange(60, 140))
        for place in range(0, len(words), 9):
            words[place] = str(rng.randrange(1000))
        members = [words]
        while len(members) < 6 and rng.random() < (0.35 if len(members) == 1 else 0.5):
            members.append(edited(rng, rng.choice(members), vocabulary))
        made += [(family, " ".join(member)) for member in members]
        family, total = family + 1, total + len(members)
        if len(made) >= 1000 or total >= count:
            rng.shuffle(made)
            yield from made[: len(made) - max(0, total - count)]
            made = []


def edited(rng: random.Random, words: list[str], vocabulary: list[str]) -> list[str]:
    found = list(words)
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 3, 4, 5, 8, 15])):
        place, kind = rng.randrange(len(found)), rng.randrange(4)
        if kind == 0:
            found[place] = rng.choice(vocabulary)
        elif kind == 1:
            found.insert(place, rng.choice(vocabulary))
        elif kind == 2 and len(found) > 3:
            del found[place]
        else:
            found[place - place % 9] = str(rng.randrange(1000))
    return found


def shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[i : i + N]) for i in range(len(words) - N + 1)] or [text]


# ── the tools: texts → numbers of the documents they drop ──────────────────────────────────────────────────────────────
def outcross(texts: Iterable[str]) -> list[int]:
    from outcross.curate.near_dedup import NearDedup
    from outcross.engine.past import Recorded
    from outcross.engine.store import RunDir
    from outcross.stages import Context
    from outcross.types import Completion, Drop, Group, Origin, Sample, Task, Turn

    origin, dropped = Origin("synthetic"), []

    def groups() -> Iterator[Group]:
        for number, text in enumerate(texts):
            name = f"{number:032x}"
            yield Group(Task(name, ""), (Sample(name, (Turn("", Completion(text)),), origin),))

    with tempfile.TemporaryDirectory() as folder:
        past = Recorded(RunDir(Path(folder)), (), (), Path(folder))
        ctx = Context({}, past, "phase/0000", 0, 0, lambda ctx, dialogues: iter(()))
        for item in NearDedup(THRESHOLD, n=N)(ctx, groups()):
            if isinstance(item, Drop):
                dropped += [int(sample.id, 16) for sample in item.group.samples]
    return dropped


def rensa_flags(texts: list[str]) -> list[int]:
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold=THRESHOLD, num_perm=128, num_bands=16)
    hashes = []
    for number, text in enumerate(texts):
        signature = RMinHash(num_perm=128, seed=42)
        signature.update(shingles(text))
        lsh.insert(number, signature)
        hashes.append(signature)
    return [number for number, flag in enumerate(lsh.query_duplicate_flags(hashes)) if flag]


def rensa_deduplicator(texts: list[str]) -> list[int]:
    from rensa import RMinHash, RMinHashDeduplicator

    kept, dropped = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=128, use_lsh=True, num_bands=16), []
    for number, text in enumerate(texts):
        signature = RMinHash(num_perm=128, seed=42)
        signature.update(shingles(text))
        if not kept.add(str(number), signature):
            dropped.append(number)
    return dropped


def datasketch(texts: list[str]) -> list[int]:
    from datasketch import MinHash, MinHashLSH

    lsh, dropped = MinHashLSH(threshold=THRESHOLD, num_perm=128), []
    for number, text in enumerate(texts):
        signature = MinHash(num_perm=128)
        signature.update_batch([item.encode() for item in shingles(text)])
        if lsh.query(signature):
            dropped.append(number)
        else:
            lsh.insert(number, signature)
    return dropped


TOOLS: dict[str, Callable[[list[str]], list[int]]] = {
    "outcross": outcross,
    "rensa_flags": rensa_flags,
    "rensa_deduplicator": rensa_deduplicator,
    "datasketch": datasketch,
}


# ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def measure(tool: str, path: Path) -> dict[str, object]:
    """Run a tool in this process on texts that are read before the clock starts; `before_mb` is the peak by then."""
    texts = [line.partition("\t")[2] for line in path.read_text().splitlines()]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    dropped = TOOLS[tool](texts)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rate": len(texts) / cpu, "wall": seconds, "before_mb": before / 1024, "peak_mb": peak / 1024, "dropped": dropped}


def short(count: int) -> None:
    """Documents of 8 to 16 words, one in ten the copy of the one before; only memory and wall time mean something here."""
    rng = random.Random(SEED)
    vocabulary = [f"w{number}" for number in range(5000)]

    def texts() -> Iterator[str]:
        text = ""
        for _ in range(count):
            text = text if text and rng.random() < 0.1 else " ".join(rng.choices(vocabulary, k=rng.randrange(8, 17)))
            yield text

    began = time.perf_counter()
    dropped = outcross(texts())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:,} short documents: {len(dropped):,} dropped, peak {peak:.0f} MB, {time.perf_counter() - began:.0f} s.")


def measured(command: list[str], peer: bool) -> dict[str, object] | None:
    """The JSON that a process prints last; None, with the end of what it said, if a peer's process fails."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([*command, *([folder] if peer else [])], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    print(done.stderr[-800:], file=sys.stderr)
    if not peer:
        raise SystemExit(1)
    return None


class Truth:
    """Exact similarities within families, and what the greedy rule makes of them."""

    def __init__(self, families: list[int], texts: list[str]) -> None:
        self.near: dict[int, set[int]] = {}
        self.drops: set[int] = set()
        by_family = sorted(range(len(texts)), key=lambda number: (families[number], number))
        for _, group in groupby(by_family, key=families.__getitem__):
            members = list(group)
            sets = {number: set(shingles(texts[number])) for number in members} if len(members) > 1 else {}
            for number, mine in sets.items():
                self.near[number] = {
                    other
                    for other, theirs in sets.items()
                    if other != number and len(mine & theirs) >= (THRESHOLD - 1e-9) * len(mine | theirs)
                }
                if any(other < number and other not in self.drops for other in self.near[number]):
                    self.drops.add(number)

    def judged(self, dropped: set[int]) -> tuple[float, float, int]:
        """Recall, precision, and the clusters of which nothing is left."""
        right = sum(1 for number in dropped if self.near.get(number))
        lost, seen = 0, set()
        for number in self.near:
            if number not in seen:
                cluster, front = {number}, [number]
                while front:
                    new = self.near[front.pop()] - cluster
                    cluster |= new
                    front += new
                seen |= cluster
                lost += len(cluster) > 1 and cluster <= dropped
        return len(dropped & self.drops) / len(self.drops), right / max(len(dropped), 1), lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--short", type=int)
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.short:
        short(given.short)
        return
    if given.one:
        print(json.dumps(measure(given.one[0], Path(given.one[1]))))
        return
    tools = {tool: [sys.executable, __file__, "--one", tool] for tool in TOOLS if importlib.util.find_spec(tool.partition("_")[0])}
    for tool in NEAR:
        if python := interpreter(tool, given.peers):
            tools[tool] = [str(python), str(Path(__file__).with_name("dedup_peers.py")), tool]
    found: dict[str, list[dict[str, object]]] = {tool: [] for tool in tools}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.txt"
        rows = list(corpus(given.documents))
        path.write_text("".join(f"{family}\t{text}\n" for family, text in rows))
        truth = Truth([family for family, _ in rows], [text for _, text in rows])
        words = statistics.mean(len(text.split()) for _, text in rows)
        del rows
        print(
            f"{given.documents:,} documents of {words:.0f} words on average; {len(truth.drops):,} to drop. Load {os.getloadavg()[0]:.1f}.\n"
        )
        for _ in range(given.repeats):
            for tool, command in tools.items():
                run = measured([*command, str(path)], tool in NEAR)
                if run:
                    found[tool].append(run)
                else:
                    print(f"{tool} failed")
    print("| tool | documents per CPU-second | wall s | peak MB (texts alone) | recall | precision | lost |\n|:--|--:|--:|--:|--:|--:|--:|")
    for tool, runs in found.items():
        if not runs:
            continue
        rate, wall, peak, before = (statistics.median(run[key] for run in runs) for key in ("rate", "wall", "peak_mb", "before_mb"))  # type: ignore[type-var]
        recall, precision, lost = truth.judged(set(runs[0]["dropped"]))  # type: ignore[call-overload]
        print(f"| {tool} | {rate:,.0f} | {wall:.1f} | {peak:.0f} ({before:.0f}) | {recall:.4f} | {precision:.5f} | {lost:,} |")


if __name__ == "__main__":
    main()
