"""Decontamination: documents per CPU-second, recall and precision against a baseline of polars and a numpy rolling hash.

5,000 items of 30 to 90 words and documents of about 100 words are made here. One document in twenty holds 13 to 30 consecutive words of an item
in other case and punctuation, one in twenty a near miss of 12 words. Contaminated means a shared 13-gram. Both sides build their index
once and then read the documents in batches of 2,048; the baseline looks for 13-grams only, ours also finds every item's 7-gram overlap ratio,
the item and the passage. "from disk": the same with an index that an earlier process has kept. Runs are interleaved, one process each; medians are reported.

Run: python benchmarks/decontamination.py [--documents 200000] [--repeats 3] [--peers FOLDER]
FOLDER holds environments of lm-eval and datatrove, see dedup_peers.py; they read the first 20,000 documents, once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dedup_peers import CONTAMINATED, interpreter

ITEMS, BATCH, LONG, SEED = 5000, 2048, 13, 3
MARKS = (" ", " ", " ", " ", " ", ", ", ". ", "; ", " (", "\n")


def data(count: int) -> tuple[list[str], list[str], list[bool]]:
    """Items, documents, and which of them are contaminated."""
    rng = random.Random(SEED)
    vocabulary = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randrange(2, 11))) for _ in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    items = [rng.choices(vocabulary, weights, k=rng.randrange(30, 90)) for _ in range(ITEMS)]
    documents, planted = [], []
    for _ in range(count):
        words, kind, at = rng.choices(vocabulary, weights, k=rng.randrange(60, 140)), rng.random(), rng.randrange(60)
        if kind < 0.1:
            length = rng.randrange(13, 31) if kind < 0.05 else 12
            item = rng.choice(items)
            start = rng.randrange(len(item) - length + 1)
            words[at:at] = ["planted", *(w.title() if rng.random() < 0.2 else w for w in item[start : start + length]), "planted"]
        planted.append(kind < 0.05)
        documents.append("".join(word + rng.choice(MARKS) for word in words))
    return [" ".join(item) for item in items], documents, planted


def outcross(items: list[str]) -> Callable[[list[str]], list[bool]]:
    from outcross.curate.overlap import OverlapIndex

    index = OverlapIndex(items)
    return lambda texts: [found.item >= 0 for found in index.of(texts)]


def from_disk(items: list[str]) -> Callable[[list[str]], list[bool]]:
    from outcross.curate.overlap import OverlapIndex

    index = OverlapIndex.kept(Path(os.environ["KEPT"]), items)
    return lambda texts: [found.item >= 0 for found in index.of(texts)]


def baseline(items: list[str]) -> Callable[[list[str]], list[bool]]:
    """polars splits and hashes the words, numpy rolls over 13 of them and looks the sums up."""
    import numpy as np
    import polars as pl

    powers = np.array([pow(0x9E3779B97F4A7C15, k, 2**64) for k in range(LONG)], np.uint64)

    def grams(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        frame = pl.LazyFrame({"text": texts}).with_row_index("document")
        split = pl.col("text").str.to_lowercase().str.replace_all(r"\W+", " ").str.strip_chars().str.split(" ")
        found = frame.select("document", split.alias("word")).explode("word").with_columns(pl.col("word").hash(0)).collect()
        words, documents = found["word"].to_numpy(), found["document"].to_numpy()
        sums = np.zeros(len(words) - LONG + 1, np.uint64)
        for k in range(LONG):
            sums += words[k : len(words) - LONG + 1 + k] * powers[k]
        whole = documents[LONG - 1 :] == documents[: len(sums)]
        return sums[whole], documents[: len(sums)][whole]

    known = np.unique(grams(items)[0])

    def look(texts: list[str]) -> list[bool]:
        sums, documents = grams(texts)
        hits = known[np.minimum(np.searchsorted(known, sums), len(known) - 1)] == sums
        return [bool(flag) for flag in np.bincount(documents[hits], minlength=len(texts)) > 0]

    return look


TOOLS = {"outcross": outcross, "outcross, from disk": from_disk, "polars + numpy": baseline}


def measure(tool: str, count: int) -> dict[str, float]:
    items, documents, planted = data(count)
    cpu = time.process_time()
    look = TOOLS[tool](items)
    built, cpu = time.process_time() - cpu, time.process_time()
    found = [flag for begin in range(0, count, BATCH) for flag in look(documents[begin : begin + BATCH])]
    cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": count / cpu, "build": built, "peak_mb": peak, **judged(found, planted)}


def judged(found: list[bool], planted: list[bool]) -> dict[str, float]:
    hits = sum(a and b for a, b in zip(found, planted, strict=True))
    return {"recall": hits / sum(planted), "precision": hits / max(sum(found), 1)}


def peer(tool: str, python: Path, count: int) -> dict[str, float]:
    items, documents, planted = data(count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        path.write_text(json.dumps({"items": items, "documents": documents}))
        command = [str(python), str(Path(__file__).with_name("dedup_peers.py")), tool, str(path), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tool} failed: {done.stderr[-800:]}")
    run = json.loads(done.stdout.splitlines()[-1])
    return {**run, **judged(run.pop("found"), planted)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="folder of the peers' environments")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.documents)))
        return
    print(f"{given.documents:,} documents against {ITEMS:,} items. Load {os.getloadavg()[0]:.1f}.\n")
    found: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
    with tempfile.TemporaryDirectory() as kept:
        for _ in range(given.repeats):
            for tool, runs in found.items():
                command = [sys.executable, __file__, "--one", tool, "--documents", str(given.documents)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"KEPT": kept})
                runs.append(json.loads(done.stdout))
    for tool in CONTAMINATED:
        if python := interpreter(tool, given.peers):
            found[tool] = [peer(tool, python, min(given.documents, 20_000))]
    print("| tool | documents per CPU-second | index CPU s | peak MB | recall | precision |\n|:--|--:|--:|--:|--:|--:|")
    middle = {tool: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for tool, runs in found.items()}
    for tool, run in middle.items():
        print(f"| {tool} | {run['rate']:,.0f} | {run['build']:.2f} | {run['peak_mb']:.0f} | {run['recall']:.4f} | {run['precision']:.4f} |")
    print(f"\n{middle['outcross']['rate'] / middle['polars + numpy']['rate']:.1f} × the baseline.")


if __name__ == "__main__":
    main()
