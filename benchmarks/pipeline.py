"""The loop's own cost: generate (scripted) → verify → dedup → learn → mix in one process, Parquet writes and the journal included.

Prints samples per CPU-second and the growth of peak memory from 10,000 to 100,000 groups of 4 samples. Each size runs in a process of
its own; sizes are interleaved and medians are reported. Run: python benchmarks/pipeline.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SIZES = (10_000, 100_000)
SAMPLES = 4


def measure(groups: int) -> dict[str, float]:
    """One round of `groups` tasks, in this process."""
    from outcross.curate.dedup import Dedup
    from outcross.engine.budget import Budget, Meter
    from outcross.engine.executor import Executor
    from outcross.engine.guards import BenchFacts
    from outcross.engine.journal import Journal
    from outcross.engine.past import Recorded
    from outcross.engine.steps import Part, generate, learn, mix
    from outcross.engine.store import RunDir
    from outcross.engine.watch import Silent
    from outcross.gate.open import Open
    from outcross.generate.draw import Draw
    from outcross.models.scripted import Scripted
    from outcross.recipe import Bench, Learn, Mixture, Phase
    from outcross.stages import Context
    from outcross.text import HeldOutIndex
    from outcross.train.objectives import Imitate
    from outcross.types import Example, Origin, Task
    from outcross.verify.exact import Exact

    @dataclass(frozen=True)
    class Sums:
        count: int

        def __iter__(self) -> Iterator[Task]:
            return (Task(f"sum-{i}", f"{i}+{i % 97}=", str(i + i % 97)) for i in range(self.count))

    @dataclass(frozen=True)
    class Real:
        count: int

        def __iter__(self) -> Iterator[Example]:
            origin = Origin("real", "attested", "people")
            return (Example(f"real-{i}", f"{i}-{i % 89}=", str(i - i % 89), origin=origin) for i in range(self.count))

    def answers(request: object) -> list[str]:
        left, _, right = request.prompt.rstrip("=").partition("+")  # type: ignore[attr-defined]
        total = int(left) + int(right)
        return [str(total), str(total), str(total + 1), f"{total} "]

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "steps").mkdir()
        bench = Bench(Sums(groups), (), Real(2 * groups), (), Open())
        phase = Phase("train", Draw(n=SAMPLES), {"policy": Learn(Imitate())}, (Exact(),), (Dedup(),), mix=Mixture())
        journal = Journal(root / "responses.db")
        part = Part(phase, bench, BenchFacts(groups, 0, 0, HeldOutIndex(())), root, "train/0000", (), frozenset(), Silent())
        models = {"policy": Scripted(answers, name="sums")}
        past = Recorded(RunDir(root), (), bench.real or (), root)
        ctx = Context(models, past, "train/0000", 0, 0, Executor(journal, Meter(Budget(), journal)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, cpu = time.perf_counter(), time.process_time()
        counts = generate(part, ctx)
        learn(part, ctx, "policy", phase.learn["policy"])
        mixed, _ = mix(part, ctx, "policy")
        seen = sum(1 for _ in mixed)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        journal.close()
    made = counts[0]["in"]
    assert made == groups * SAMPLES
    assert counts[-1]["kept"] + counts[-1]["dropped"] == made
    assert seen > groups
    return {"samples": made, "rate": made / cpu, "wall": seconds, "cpu": cpu, "peak_mb": peak / 1024, "before_mb": before / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one)))
        return
    found: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    for _ in range(given.repeats):
        for size in SIZES:
            out = subprocess.run([sys.executable, __file__, "--one", str(size)], capture_output=True, text=True, check=True).stdout
            found[size].append(json.loads(out))
    print("| groups of 4 | samples per CPU-second | wall s | peak memory MB |\n|--:|--:|--:|--:|")
    middle = {size: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for size, runs in found.items()}
    for size, run in middle.items():
        print(f"| {size:,} | {run['rate']:,.0f} | {run['wall']:.1f} | {run['peak_mb']:.0f} |")
    small, large = (middle[size] for size in SIZES)
    growth = (large["peak_mb"] - small["peak_mb"]) * 2**20 / (large["samples"] - small["samples"])
    print(f"\nPeak memory grows by {growth:.0f} bytes per sample (median of {given.repeats} interleaved runs).")


if __name__ == "__main__":
    main()
