"""Packed against padded training steps, and what a large vocabulary adds to memory: python benchmarks/packing.py [--repeats 5]

Packing: forward and backward passes of `nll` over 16 texts, 8 at a time and by length, of a Llama of 14 M parameters on one thread; CPU seconds, interleaved, medians of
ratios. Vocabulary: two texts of 2,048 tokens under 150,000 tokens of vocabulary and a model of one layer, each way in a process of its own: the peak's
growth when logits are made in pieces (ours), and when all are made at once.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ALPHABET = "".join(chr(code) for code in range(32, 127))
CONFIG = {"model_type": "llama", "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6}
LENGTHS: dict[str, Callable[[random.Random], int]] = {
    "20 to 600 tokens, log-uniform": lambda rng: int(20 * 30 ** rng.random()),
    "100 to 120 tokens": lambda rng: rng.randrange(100, 120),
}
VOCABULARY, LONG = 150_000, 2048


def rows_of(count: int, length: Callable[[], int], vocabulary: int) -> Any:
    from outcross.train.rows import Rows
    from outcross.types import Example

    rng, rows = random.Random(0), Rows()
    for number in range(count):
        rows.add(Example(f"{number}", "", ""), [5] * 8, [rng.randrange(5, vocabulary) for _ in range(length())])
    return rows


def packing(repeats: int) -> None:
    import torch

    from outcross.models.torch_lm import Machine, from_config
    from outcross.train.policy import PolicyCost

    machine = Machine(device="cpu", threads=1)
    model: Any = from_config(CONFIG | {"max_position_embeddings": 1024}, alphabet=ALPHABET, machine=machine)._model.train()
    print("| lengths | tokens a second, padded | packed | packed to padded |\n|---|--:|--:|--:|")
    for name, draw in LENGTHS.items():
        rng = random.Random(0)
        rows = rows_of(16, lambda draw=draw, rng=rng: draw(rng), 90)  # type: ignore[misc]
        order, tokens = sorted(range(16), key=rows.length), sum(map(rows.length, range(16)))
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for repeat in range(repeats + 1):
            for packed, spent in seconds.items():
                cost, began = PolicyCost(rows, torch.device("cpu"), packing=packed), time.process_time()
                for start in range(0, 16, 8):
                    cost.of(model, order[start : start + 8], range(16), torch.zeros(2)).backward()
                model.zero_grad()
                if repeat:  # the first warms up
                    spent.append(time.process_time() - began)
        speeds = [tokens / statistics.median(found) for found in seconds.values()]
        ratio = statistics.median(padded / packed for padded, packed in zip(*seconds.values(), strict=True))
        print(f"| {name} | {speeds[0]:,.0f} | {speeds[1]:,.0f} | {ratio:.2f} |")


def peak() -> int:
    """The most memory that this process has had, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def vocabulary(way: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from outcross.train import head, policy

    torch.set_num_threads(1)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=4096, **sizes)).train()
    rows = rows_of(2, lambda: LONG, VOCABULARY)
    if way == "at once":
        head.LOGITS = policy.LOGITS = 1 << 40  # type: ignore[attr-defined]
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew: a child's is its parent's at first
    before, began = peak(), time.process_time()
    policy.PolicyCost(rows, torch.device("cpu")).of(model, [0, 1], [0, 1], torch.zeros(2)).backward()
    print(f"| {way} | {(peak() - before) / 1024:,.0f} MiB | {time.process_time() - began:.1f} s |")


def main() -> None:
    reading = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reading.add_argument("--repeats", type=int, default=5)
    reading.add_argument("--way", help=argparse.SUPPRESS)
    given = reading.parse_args()
    if given.way:
        vocabulary(given.way)
        return
    packing(given.repeats)
    logits = 2 * LONG * VOCABULARY * 4 / 2**20
    print(f"\n2 × {LONG:,} tokens of a vocabulary of {VOCABULARY:,}: {math.ceil(logits):,} MiB of logits in float32\n")
    print("| logits | peak memory added | CPU |\n|---|--:|--:|")
    for way in ("in pieces", "at once"):
        done = subprocess.run([sys.executable, __file__, "--way", way], capture_output=True, text=True, check=True)
        print(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    main()
