"""A training step of `models/torch_lm` against a bare PyTorch loop and trl's trainers: tokens per second and peak memory.

A Llama of 15 M parameters is made on the spot, with a vocabulary of 4,098, and learns random texts of ragged length: `nll` beside a loop
written out (forward, cross-entropy of the completion, backward, clip, fused AdamW) and trl's SFTTrainer, `dpo` beside trl's DPOTrainer, in float32
and at the same rows a step, no checkpointing. Every contender is a process of its own with as many threads; runs are interleaved and medians of
ratios reported. Time is CPU time, which with one thread is the second of an idle machine; the first step is left out. Memory is
what the peak has above what was resident before training. `cached`: a step of `dpo` alone, the reference's answers at hand; `whole`: with the
reference asked once, before the first of `--epochs` epochs.
Run: python benchmarks/training.py [--repeats 3] [--steps 6]
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CONFIG = {"model_type": "llama", "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 7, "num_attention_heads": 6}
ALPHABET = "".join(chr(0x4E00 + i) for i in range(4096))
CONTENDERS = ("loop nll", "outcross nll", "trl nll", "outcross dpo", "trl dpo")
ROWS, LENGTH = 8, 128


def texts(count: int) -> list[tuple[str, str, str]]:
    """A prompt and two answers each, of 16 to 32 and 32 to 64 tokens."""
    rng = random.Random(0)

    def text(low: int, high: int) -> str:
        return "".join(rng.choices(ALPHABET, k=rng.randint(low, high)))

    return [(text(16, 32), text(32, 64), text(32, 64)) for _ in range(count)]


def made(seed: int = 0) -> Any:
    from outcross.models.torch_lm import Machine, from_config

    return from_config(
        CONFIG | {"max_position_embeddings": 256}, alphabet=ALPHABET, seed=seed, machine=Machine("cpu", micro_batch=ROWS, threads=1)
    )


def resident() -> int:
    """Bytes that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Clock:
    """CPU seconds at the end of each optimiser step."""

    def __init__(self) -> None:
        self.before = resident()
        self.start = time.process_time()
        self.ends: list[float] = []
        self.reference = 0.0

    def tick(self, *args: Any, **facts: float) -> None:
        self.ends.append(time.process_time())

    def report(self) -> dict[str, float]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        steps = len(self.ends)
        step = (self.ends[-1] - self.ends[0]) / (steps - 1)
        return {"step": step, "whole": (self.ends[-1] - self.start) / steps, "memory": peak - self.before, "reference": self.reference}


def ours(method: str, count: int, epochs: float) -> Clock:
    import outcross.train.trainer  # noqa: F401  loaded before the clock starts, as trl is
    from outcross.stages import FitPlan
    from outcross.types import Example, Loss

    model, dpo = made(), method == "dpo"
    loss = Loss("dpo", 0.1) if dpo else Loss()
    examples = [Example(f"{i}", prompt, one, loss, rejected=other if dpo else None) for i, (prompt, one, other) in enumerate(texts(count))]
    clock, plan = Clock(), FitPlan(batch=ROWS, max_length=LENGTH, lr=1e-4, epochs=epochs)
    model.fit(examples, plan=plan, reference=model if dpo else None, seed=0, seen=clock.tick)
    if dpo:
        clock.reference = reference_seconds(model, examples) * ROWS / count
    return clock


def reference_seconds(model: Any, examples: Sequence[Any]) -> float:
    """CPU seconds in which a reference reads both answers of all pairs."""
    from outcross.types import Completion, Turn

    turns = [Turn(example.prompt, Completion(said)) for example in examples for said in (example.completion, example.rejected)]
    start = time.process_time()
    list(model.log_probs(turns))
    return time.process_time() - start


def loop(method: str, count: int, epochs: float) -> Clock:
    """What anyone would write: batches padded ahead of time."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.nn.utils.rnn import pad_sequence

    found = made()
    prompts, answers = found._tokens.prompts([row[0] for row in texts(count)]), found._tokens.completions([row[1] for row in texts(count)])
    ids = [torch.tensor(prompt + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    batches = [
        (pad_sequence(ids[i : i + ROWS], batch_first=True), pad_sequence(labels[i : i + ROWS], batch_first=True, padding_value=-100))
        for i in range(0, count, ROWS)
    ] * int(epochs)
    model, clock = found._model.train(), Clock()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    for tokens, wanted in batches:
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
        cross_entropy(logits.flatten(0, 1), wanted[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        clock.tick()
    return clock


def theirs(method: str, count: int, epochs: float) -> Clock:
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    found, dpo = made(), method == "dpo"
    rows = [
        {"prompt": prompt, "chosen": one, "rejected": other} if dpo else {"prompt": prompt, "completion": one}
        for prompt, one, other in texts(count)
    ]
    name = "DPO" if dpo else "SFT"
    with tempfile.TemporaryDirectory() as folder:
        settings = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True}
        settings |= {"save_strategy": "no", "logging_strategy": "no", "max_length": LENGTH, "num_train_epochs": epochs}
        args = getattr(trl, f"{name}Config")(output_dir=folder, per_device_train_batch_size=ROWS, learning_rate=1e-4, **settings)
        reference = {"ref_model": made()._model} if dpo else {}
        data, tokenizer = Dataset.from_list(rows), found._tokens.tokenizer
        trainer = getattr(trl, f"{name}Trainer")(found._model, args=args, train_dataset=data, processing_class=tokenizer, **reference)
        clock = Clock()

        class Ticks(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                clock.tick()

        trainer.add_callback(Ticks())
        trainer.train()
    return clock


SIDES: dict[str, Callable[[str, int, float], Clock]] = {"outcross": ours, "loop": loop, "trl": theirs}


def child(contender: str, given: argparse.Namespace) -> None:
    import warnings

    warnings.filterwarnings("ignore")
    side, method = contender.split()
    print(json.dumps(SIDES[side](method, ROWS * given.steps, given.epochs).report()))


def measured(contender: str, given: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--contender", contender, "--steps", str(given.steps), "--epochs", str(given.epochs)]
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **single}, check=False)
    if done.returncode:
        sys.exit(f"{contender} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    reading = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reading.add_argument("--repeats", type=int, default=3)
    reading.add_argument("--steps", type=int, default=4, help="optimiser steps an epoch")
    reading.add_argument("--epochs", type=int, default=2)
    reading.add_argument("--contender", help=argparse.SUPPRESS)
    given = reading.parse_args()
    if given.contender:
        child(given.contender, given)
        return
    runs = [{name: measured(name, given) for name in CONTENDERS} for _ in range(given.repeats)]
    count = given.steps * ROWS
    answers = {
        "nll": sum(len(p) + len(a) + 1 for p, a, _ in texts(count)),
        "dpo": sum(2 * len(p) + len(a) + len(b) + 2 for p, a, b in texts(count)),
    }
    print("| contender | tokens/s a step | tokens/s whole | peak memory |\n|---|---|---|---|")
    for name in CONTENDERS:
        tokens = answers[name.split()[1]] / given.steps
        step, whole, memory = (statistics.median(run[name][what] for run in runs) for what in ("step", "whole", "memory"))
        print(f"| {name} | {tokens / step:,.0f} | {tokens / whole:,.0f} | {memory / 2**20:,.0f} MiB |")
    print("\n| ratio of | step | whole | memory |\n|---|---|---|---|")
    for one, other in (("outcross nll", "loop nll"), ("outcross nll", "trl nll"), ("outcross dpo", "trl dpo")):
        ratios = {what: [run[other][what] / run[one][what] for run in runs] for what in ("step", "whole")}
        ratios["memory"] = [run[one]["memory"] / run[other]["memory"] for run in runs]
        shown = " | ".join(f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})" for found in ratios.values())
        print(f"| {one} to {other} | {shown} |")
    gains = [1 + run["outcross dpo"]["reference"] / run["outcross dpo"]["step"] for run in runs]
    print(f"\nAn epoch of dpo that asks the reference anew takes {statistics.median(gains):.2f} × that of one with its answers at hand.")


if __name__ == "__main__":
    main()
