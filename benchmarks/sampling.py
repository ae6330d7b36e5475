"""Local sampling: `models/torch_lm` against `transformers.generate`, prompt by prompt and at its best batch size.

Models of 1 M and 5 M parameters are made on the spot; SmolLM2-135M-Instruct is a Hugging Face folder (`--folder`, else the converted one under
OUTCROSS_CACHE/gguf) and reads questions of GSM8K (`--questions`). Every contender is a process of its own with as many threads, and draws at
temperature 1 with the same end token and `max_new_tokens`; runs are interleaved, medians of ratios reported, and rates are per CPU-second, which
with one thread is the second of an idle machine. Ragged: answers end by themselves; even: the end token is taken away.
Run: python benchmarks/sampling.py [--repeats 3] [--models 1M 5M smollm2]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

SIZES = {"1M": (128, 448, 4), "5M": (256, 768, 6)}  # hidden, intermediate, layers
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"  # with pad and end 64 tokens: mean length about 64
QUESTIONS = Path(__file__).parent.parent.parent / "shared" / "data" / "gsm8k" / "test.jsonl"
SMOL = "smollm2"


@dataclasses.dataclass(frozen=True)
class Load:
    """What is drawn: `count` prompts, `few` of them prompt by prompt, each answer of at most `limit` tokens."""

    count: int
    few: int
    limit: int
    batches: tuple[int, ...]


LOADS = {
    ("small", "ragged"): Load(256, 24, 192, (16, 32, 64, 128, 256)),
    ("small", "even"): Load(256, 24, 64, (16, 32, 64, 128, 256)),
    (SMOL, "ragged"): Load(24, 2, 256, (4, 8, 24)),
    (SMOL, "even"): Load(24, 2, 32, (4, 8, 24)),
}


def load_of(model: str, kind: str) -> Load:
    return LOADS[(SMOL if model == SMOL else "small", kind)]


def folder_found(given: argparse.Namespace) -> Path:
    from outcross.models.gguf import cache_folder

    found = [Path(given.folder)] if given.folder else sorted((cache_folder() / "gguf").glob("SmolLM2-135M-Instruct*"))
    if not found or not found[0].is_dir():
        sys.exit("no folder of SmolLM2-135M-Instruct: give --folder, or load the GGUF file once with outcross so that it is converted")
    return found[0]


def opened(given: argparse.Namespace, *, dtype: str = "auto") -> Any:
    """The model named on the command line, as a `TorchLM`."""
    from outcross.models.torch_lm import Machine, from_config, torch_lm

    machine = Machine(device="cpu", dtype=dtype, threads=given.threads)
    if given.model == SMOL:
        return torch_lm(str(folder_found(given)), machine=machine)
    hidden, inner, layers = SIZES[given.model]
    config = {"model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return from_config(config | {"num_attention_heads": 4, "max_position_embeddings": 512}, alphabet=ALPHABET, machine=machine)


def prompts(given: argparse.Namespace, count: int) -> list[Any]:
    from outcross.types import Message

    if given.model == SMOL:
        with Path(given.questions).open(encoding="utf-8") as lines:
            asked = [json.loads(line)["question"] for line, _ in zip(lines, range(count), strict=False)]
        return [(Message("user", question),) for question in asked]
    rng = random.Random(0)
    return ["".join(rng.choices(ALPHABET, k=rng.randint(8, 40))) for _ in range(count)]


# ── Contenders: each a process that draws once for every line it reads ─────────────────────────────────────────────────
Drawn = list[list[int]]


def ours(model: Any, asked: Sequence[Any], limit: int, seed: int, temperature: float = 1.0) -> Drawn:
    from outcross.types import Request, Sampling

    sampling = Sampling(temperature=temperature, max_tokens=limit)
    futures = [model.submit(Request(prompt, 1, sampling, seed=seed + index)) for index, prompt in enumerate(asked)]
    model.flush()
    return [list(future.result().completions[0].tokens) for future in futures]


def generate(model: Any, asked: Sequence[Any], limit: int, seed: int, batch: int, temperature: float = 1.0) -> Drawn:
    """As a careful user calls it: sorted by length, padded on the left, the cache on, the text decoded."""
    import torch

    ids = model._tokens.prompts(asked)
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    ends, found = sorted(model._tokens.end_ids), [[] for _ in ids]
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if temperature else {"do_sample": False}
    torch.manual_seed(seed)
    for first in range(0, len(order), batch):
        part = order[first : first + batch]
        width = len(ids[part[0]])
        padded = torch.tensor([[0] * (width - len(ids[i])) + ids[i] for i in part])
        mask = torch.tensor([[0] * (width - len(ids[i])) + [1] * len(ids[i]) for i in part])
        with torch.inference_mode():
            out = model._model.generate(padded, attention_mask=mask, max_new_tokens=limit, eos_token_id=ends or None, pad_token_id=0, **how)
        for i, row in zip(part, out[:, width:].tolist(), strict=True):
            end = next((at + 1 for at, token in enumerate(row) if token in ends), len(row))
            found[i] = row[:end]
            model._tokens.decode(found[i])
    return found


def contender(given: argparse.Namespace) -> None:
    """Draw once for every batch size and number of prompts read from standard input (0: ours); print tokens, CPU seconds, mean / longest and peak memory."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    model, load = opened(given), load_of(given.model, given.kind)
    if given.kind == "even":
        model._tokens.end_ids = frozenset()
        model._model.generation_config.eos_token_id = None
    asked = prompts(given, load.count)
    for turn, line in enumerate(sys.stdin):
        batch, count = map(int, line.split())
        mine = asked[:count]
        start = time.process_time()
        found = generate(model, mine, load.limit, turn, batch) if batch else ours(model, mine, load.limit, turn * len(asked))
        seconds = time.process_time() - start
        lengths = [len(row) for row in found]
        print(json.dumps([sum(lengths), seconds, statistics.mean(lengths) / max(lengths), peak_mb()]), flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Process:
    """A contender that waits for its turn."""

    def __init__(self, given: argparse.Namespace, model: str, kind: str) -> None:
        line = [sys.executable, __file__, "--part", "contender", "--model", model, "--kind", kind, "--threads", str(given.threads)]
        line += ["--questions", str(given.questions), *(["--folder", given.folder] if given.folder else [])]
        self.running = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def turn(self, batch: int, count: int) -> tuple[float, float, float]:
        """Tokens a CPU-second, mean / longest answer, peak memory in MB."""
        assert self.running.stdin and self.running.stdout
        print(batch, count, file=self.running.stdin, flush=True)
        tokens, seconds, ragged, peak = json.loads(self.running.stdout.readline())
        return tokens / seconds, ragged, peak

    def end(self) -> None:
        self.running.communicate()


def race(given: argparse.Namespace, model: str, kind: str) -> None:
    """One line of the table: ours, `generate` prompt by prompt, `generate` at the batch size that a search finds best."""
    load = load_of(model, kind)
    searching = Process(given, model, kind)
    searching.turn(2, 2)
    best = max(load.batches, key=lambda batch: searching.turn(batch, load.count)[0])
    searching.end()
    batches = (0, 1, best)
    processes = [Process(given, model, kind) for _ in batches]
    for process, batch in zip(processes, batches, strict=True):
        process.turn(batch, 2)
    counts = (load.count, load.few, load.count)
    turns = [
        [process.turn(batch, count) for process, batch, count in zip(processes, batches, counts, strict=True)] for _ in range(given.repeats)
    ]
    for process in processes:
        process.end()
    rates = [statistics.median(turn[side][0] for turn in turns) for side in range(3)]
    gains = [statistics.median(turn[0][0] / turn[side][0] for turn in turns) for side in (1, 2)]
    peaks = [turns[-1][side][2] for side in range(3)]
    wanted = 1.3 if kind == "ragged" and model != SMOL else 1.0
    print(
        f"| {model} {kind} ({turns[-1][0][1]:.2f}) | {rates[0]:,.0f} | {rates[1]:,.0f} | {gains[0]:.1f} (3) "
        f"| {best}: {rates[2]:,.0f} | {gains[1]:.2f} ({wanted}) | {peaks[0]:,.0f} / {peaks[1]:,.0f} / {peaks[2]:,.0f} |",
        flush=True,
    )


# ── Single measurements, each in a process of its own ──────────────────────────────────────────────────────────────────
def greedy(given: argparse.Namespace) -> None:
    """Ours in a ragged, refilled batch against `generate` prompt by prompt, in float32 at temperature 0."""
    import torch

    model = opened(given, dtype="float32")
    count, limit = (12, 48) if given.model == SMOL else (64, 96)
    asked = prompts(given, count)
    model.machine = dataclasses.replace(model.machine, sample_batch=5)
    mine, theirs = ours(model, asked, limit, 0, temperature=0.0), generate(model, asked, limit, 0, 1, temperature=0.0)
    same, gaps = 0, []
    for ids, one, other in zip(model._tokens.prompts(asked), mine, theirs, strict=True):
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        same += one == other
        if at is not None:
            with torch.inference_mode():
                top = model._model(input_ids=torch.tensor([ids + one[:at]])).logits[0, -1].topk(2).values
            gaps.append(float(top[0] - top[1]))
    assert all(gap <= 1e-3 for gap in gaps), f"tokens differ where the top two logits are {max(gaps)} apart"
    tail = f"; the others where the top two logits are at most {max(gaps):.1e} apart" if gaps else ""
    print(
        f"- temperature 0, {given.model}, float32, batch of 5 refilled: {same} of {count} answers equal to `generate`'s{tail}", flush=True
    )


def ratio(one: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of other / one."""
    pairs = [(timed(one), timed(other)) for _ in range(repeats + 1)][1:]
    return *(statistics.median(column) for column in zip(*pairs, strict=True)), statistics.median(b / a for a, b in pairs)  # type: ignore[return-value]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def prefix(given: argparse.Namespace) -> None:
    """Prompts with 300 tokens in common, read once or again for every prompt."""
    from outcross.models import prefill

    model = opened(given)
    with Path(given.questions).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(40), strict=False)]
    shots = "\n\n".join(f"Question: {row['question']}\nAnswer: {row['answer']}" for row in rows[:4])
    shared = model._tokens.decode(model._tokens.texts([shots])[0][:300])
    asked = [f"{shared}\n\nQuestion: {row['question']}\nAnswer:" for row in rows[-32:]]
    least = prefill.LEAST_SAVED

    def drawn(saved: int) -> Drawn:
        prefill.LEAST_SAVED = saved
        return ours(model, asked, 16, 0)

    once, again, gain = ratio(lambda: drawn(least), lambda: drawn(1 << 60), given.repeats)
    print(
        f"- 32 prompts with a beginning of 300 tokens in common, 16 tokens each, {given.model}: {once:.1f} s; read anew {again:.1f} s: {gain:.2f} ×"
    )


def scoring(given: argparse.Namespace) -> None:
    """Log-probabilities of ragged answers, batched and one turn after another."""
    from outcross.types import Completion, Turn

    model = opened(given)
    rng = random.Random(1)
    if given.model == SMOL:
        with Path(given.questions).open(encoding="utf-8") as lines:
            turns = [Turn(row["question"], Completion(row["answer"])) for row in map(json.loads, [next(lines) for _ in range(24)])]
    else:
        turns = [Turn("ab", Completion("".join(rng.choices(ALPHABET, k=rng.randint(8, 200))))) for _ in range(200)]

    def apart() -> list[Sequence[float]]:
        return [next(model.log_probs([turn])) for turn in turns]

    batched, one, gain = ratio(lambda: list(model.log_probs(turns)), apart, given.repeats)
    print(f"- `log_probs` of {len(turns)} ragged answers, {given.model}: {batched:.2f} s; one by one {one:.2f} s: {gain:.1f} ×", flush=True)


def memory(given: argparse.Namespace) -> None:
    """Peak memory of 64 answers of 512 tokens."""
    model = opened(given)
    model._tokens.end_ids = frozenset()
    asked, loaded = prompts(given, 64), peak_mb()
    found = ours(model, asked, 512, 0)
    print(f"- {len(found)} × {len(found[0])} tokens, {given.model}: {loaded:,.0f} MB loaded, {peak_mb():,.0f} MB at the peak", flush=True)


def rounds(given: argparse.Namespace) -> None:
    """Resident size after each round of sampling, fitting and replacing the model."""
    from outcross.stages import FitPlan
    from outcross.types import Example

    model, asked, sizes = opened(given), prompts(given, 128), []
    for turn in range(8):
        texts = ours(model, asked, 32, turn)
        rows = [Example(str(i), asked[i], model._tokens.decode(ids)) for i, ids in enumerate(texts)]
        replaced, model = model, model.fit(rows, plan=FitPlan(batch=32), reference=None, seed=turn, seen=lambda step, ids, **facts: None)
        replaced.close()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
    print(f"- resident MB after each of 8 rounds of sampling and fitting, {given.model}: {', '.join(f'{size:,.0f}' for size in sizes)}")


PARTS = {"contender": contender, "greedy": greedy, "prefix": prefix, "scoring": scoring, "memory": memory, "rounds": rounds}


def singles(models: Sequence[str]) -> Iterator[tuple[str, str]]:
    for model in models:
        yield "greedy", model
        yield "scoring", model
        if model == SMOL:
            yield from (("prefix", model), ("memory", model))
        if model == "5M":
            yield "rounds", model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=[*SIZES, SMOL], default=[*SIZES, SMOL])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="of SmolLM2-135M-Instruct")
    parser.add_argument("--questions", default=QUESTIONS)
    parser.add_argument("--part", choices=PARTS, help="one measurement in this process")
    parser.add_argument("--model", choices=[*SIZES, SMOL])
    parser.add_argument("--kind", choices=["ragged", "even"])
    given = parser.parse_args()
    if given.part:
        PARTS[given.part](given)
        return
    print(f"{given.threads} threads, {given.repeats} repeats; asked for in brackets", flush=True)
    print(
        "| model, answers (mean / longest) | ours, tokens a CPU-second | prompt by prompt | × | best batch | × | peak MB: ours / one / batch |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for model in given.models:
        for kind in ("ragged", "even"):
            race(given, model, kind)
    print(flush=True)
    for part, model in singles(given.models):
        line = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--model", model]
        subprocess.run(line, check=True)


if __name__ == "__main__":
    main()
