"""`outcross audit` on a million rows: wall time, memory of all processes together, and whether what was planted is found.

The rows are made here: 30 to 90 words of a vocabulary of 30,000 with Zipf's frequencies, as prompt and completion. Planted are exact copies, copies with
a changed word, secrets, addresses, loops and passages of the evaluation set; the real data are 50,000 further rows. Memory is the sum of the
proportional set sizes of the command and its children, read five times a second.

Run: python benchmarks/audit.py [--rows 1000000]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EVERY = {"copy": 50, "near": 70, "secret": 10_000, "email": 5_000, "loop": 400, "evaluated": 1_000}


def texts(rng: random.Random):  # type: ignore[no-untyped-def]
    """Endless texts."""
    import numpy as np

    draw = np.random.default_rng(rng.randrange(2**32))
    letters = "abcdefghijklmnoprstuvw"
    vocabulary = np.array(["".join(rng.choices(letters, k=rng.randrange(2, 11))) for _ in range(30_000)])
    shares = 1 / (np.arange(30_000) + 8.0)
    sums = np.cumsum(shares / shares.sum())
    while True:
        sizes = draw.integers(30, 90, 4096)
        words = vocabulary[np.minimum(np.searchsorted(sums, draw.random(int(sizes.sum()))), 29_999)].tolist()
        at = 0
        for size in sizes.tolist():
            yield " ".join(words[at : at + size]).capitalize() + "."
            at += size


def build(folder: Path, rows: int) -> dict[str, int]:
    """Write the set, the real data and the evaluation set; how often each fault was planted."""
    rng = random.Random(5)
    source = texts(rng)
    evaluated = [next(source) for _ in range(2000)]
    for name, found in (("eval", evaluated), ("real", [next(source) for _ in range(50_000)])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in found))
    planted = dict.fromkeys(EVERY, 0)
    earlier: list[str] = []
    with (folder / "set.jsonl").open("w") as file:
        for number in range(rows):
            text, kind = next(source), next((name for name, every in EVERY.items() if rng.randrange(every) == 0), "")
            if kind in ("copy", "near") and len(earlier) < 1000:
                kind = ""
            if not kind and len(earlier) < 100_000:
                earlier.append(text)
            if kind:
                planted[kind] += 1
                text = faulty(rng, kind, text, earlier, evaluated)
            file.write(json.dumps({"prompt": f"Task {number}: go on.", "completion": text, "source": f"generator {number % 3}"}) + "\n")
    return planted


def faulty(rng: random.Random, kind: str, text: str, earlier: list[str], evaluated: list[str]) -> str:
    words = text.split(" ")
    match kind:
        case "copy":
            return rng.choice(earlier)
        case "near":
            words = rng.choice(earlier).split(" ")
            return " ".join([*words[:-1], "changed."])
        case "secret":
            return f"{text} The key is AKIA{''.join(rng.choices('ABCDEFGHIJKLMNOPQRSTUVWXYZ234567', k=16))} today."
        case "email":
            return f"{text} Write to {words[0].lower()}.{words[1]}@acme-mail.com today."
        case "loop":
            return " ".join(words[:6] * 10)
        case _:
            return f"{text} {' '.join(rng.choice(evaluated).split(' ')[:25])}"


def memory(pid: int) -> int:
    """Bytes of a process and its children, shared pages shared out."""
    import psutil

    total = 0
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        planted = build(folder, asked.rows)
        print(f"{asked.rows:,} rows, {(folder / 'set.jsonl').stat().st_size / 1e6:.0f} MB; planted: {planted}", flush=True)
        words = ["audit", "set.jsonl", "--real", "real.jsonl", "--eval", "eval.jsonl", "--json"]
        began, most = time.perf_counter(), 0
        with (folder / "found.json").open("w") as out:
            process = subprocess.Popen([sys.executable, "-m", "outcross", *words], cwd=folder, stdout=out)
            while process.poll() is None:
                try:
                    most = max(most, memory(process.pid))
                except Exception:  # the process ended meanwhile
                    break
                time.sleep(0.2)
        process.wait()
        seconds = time.perf_counter() - began
        found = json.loads((folder / "found.json").read_text())
    print(f"{seconds:.0f} s of wall time, {asked.rows / seconds:,.0f} rows/s, {most / 1e9:.2f} GB at most")
    print(f"verdict: {found['answer']}: {found['headline']}")
    for item in found["findings"]:
        print(f"  {item['kind']:<14}{item['rows']:>9,}  {item['harm']:>7.2f} points")


if __name__ == "__main__":
    main()
