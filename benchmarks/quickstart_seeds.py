"""The quickstart over several seeds and all six arms: the table of docs/log.md.

Runs `outcross quickstart --arms all` for each seed that has no report yet (about 4 minutes a seed on two quiet cores), then reads the
records. Run: python benchmarks/quickstart_seeds.py FOLDER 1 2 3 4 5
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from outcross.engine.store import RunDir
from outcross.quickstart import ARMS, PROBE, Arm, endings, replayed_gate
from outcross.report.intervals import Estimate, paired
from outcross.report.tracks import champion_measurements


def points(found: Estimate) -> str:
    assert found.low is not None and found.high is not None
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def difference(folder: Path, one: str, other: str) -> Estimate:
    arms = {arm.name: arm for arm in ARMS}
    last = [champion_measurements(RunDir(folder / arms[name].folder))[PROBE] for name in (one, other)]
    found = paired(*last)
    assert found is not None
    return found


def peak(folder: Path, arm: Arm) -> float:
    lines = (folder / arm.folder / "metrics.jsonl").read_text().splitlines()
    return max(float(json.loads(line)["rss_mb"]) for line in lines)


def main(root: Path, seeds: list[int]) -> None:
    for seed in seeds:
        if not (root / f"seed_{seed}" / "report.html").exists():
            command = [sys.executable, "-m", "outcross", "quickstart", "--arms", "all", "--seed", str(seed), "--out", str(root)]
            subprocess.run(command, check=True)
    folders = {seed: root / f"seed_{seed}" for seed in seeds}
    ends = {seed: endings(ARMS, folder) for seed, folder in folders.items()}
    print("Held-out problems solved, in per cent:\n")
    print("| seed | start | " + " | ".join(arm.name for arm in ARMS) + " | promoted | guarded − real-only |")
    print("|--:|--:|" + "--:|" * len(ARMS) + "--:|--:|")
    for seed, found in ends.items():
        row = " | ".join(f"{100 * item.end:.1f}" for item in found)
        gain = points(difference(folders[seed], "guarded", "real-only"))
        print(f"| {seed} | {100 * found[0].start:.1f} | {row} | {found[0].promoted} of {found[0].rounds} | {gain} |")
    print("\nWhat each guard added or cost, in points (mean over seeds, and the smallest and largest):\n")
    for name, one, other in (
        ("learning from verified output under all guards", "guarded", "real-only"),
        ("verification, under the floor", "guarded", "unverified with floor"),
        ("verification, without the floor", "verified without floor", "unverified accumulate"),
        ("floor and gate, on verified output", "guarded", "verified without floor"),
        ("floor, on unverified output", "unverified with floor", "unverified accumulate"),
        ("throwing real data away, on unverified output", "unverified replace", "unverified accumulate"),
    ):
        all_found = [100 * difference(folder, one, other).mean for folder in folders.values()]
        print(f"- {name} ({one} − {other}): {statistics.mean(all_found):+.1f} ({min(all_found):+.1f} to {max(all_found):+.1f})")
    print("\n| arm | seconds (median) | peak memory MB (largest) |\n|---|--:|--:|")
    for index, arm in enumerate(ARMS):
        seconds = statistics.median(found[index].seconds for found in ends.values())
        print(f"| {arm.name} | {seconds:.0f} | {max(peak(folder, arm) for folder in folders.values()):.0f} |")
    replays = {
        seed: sum(not decision.promote for _, decision in replayed_gate(RunDir(folder / "unverified_replace")))
        for seed, folder in folders.items()
    }
    print(f"\nThe gate, replayed on unverified replace, refuses {replays} of {ends[seeds[0]][0].rounds} rounds, by seed.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
