"""Whether the audit's points of harm predict the loss of a model: twelve sets with planted faults, one small model trained on each.

The text is cut into disjoint parts: a pool that the sets are made of, real rows that the audit compares with, and held-out rows on which the loss
is measured. Each set has the same number of rows and each model sees the same number of words, so that only the faults differ. The model is a
transformer of two layers over the commonest words, from random weights, on one thread. What is correlated is `Audit.model_harm`, the
points of all findings that harm the model, with the loss in nats a word, by ranks.

The weights of `outcross.audit.kinds` were fixed on the Wikipedia text (`--corpus wikitext`, other doses) before the stories were looked at.

Run: python benchmarks/audit_prediction.py [--corpus tinystories] [--seeds 2]        (needs ../shared/data)
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from outcross.audit.examine import Question, audit
from outcross.text import words

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
ROWS, VOCABULARY, CONTEXT, BATCH, WIDTH = 700, 1500, 48, 24, 64
Fault = Callable[[random.Random, list[str], list[str]], list[str]]


def corpus(name: str) -> tuple[list[str], list[str]]:
    """Texts of the corpus, and texts of the other one."""
    stories = [text.strip() for text in (SHARED / "tinystories/tinystories_sample.txt").read_text().split("<|endoftext|>")][:-1]
    lines = [line.strip() for file in ("valid", "test") for line in (SHARED / f"wikitext-2/{file}.txt").read_text().splitlines()]
    wiki = [line for line in lines if len(line.split()) >= 60]
    return (stories, wiki) if name == "tinystories" else (wiki, stories)


# ── faults: a part of the rows is replaced ─────────────────────────────────────────────────────────────────────────────
def replaced(dose: float, make: Callable[[random.Random, str, list[str]], str]) -> Fault:
    def fault(rng: random.Random, rows: list[str], other: list[str]) -> list[str]:
        first = int((1 - dose) * len(rows))
        return [*rows[:first], *(make(rng, row, other) for row in rows[first:])]

    return fault


def copied(dose: float, change: int = 0) -> Fault:
    """Copies of the rows that stay, with one word in `change` replaced."""

    def fault(rng: random.Random, rows: list[str], _: list[str]) -> list[str]:
        first = max(1, int((1 - dose) * len(rows)))
        stay = rows[:first]
        copies = []
        for _row in rows[first:]:
            said = rng.choice(stay).split(" ")
            for _time in range(len(said) // change if change else 0):
                said[rng.randrange(len(said))] = rng.choice(said)
            copies.append(" ".join(said))
        return [*stay, *copies]

    return fault


def looped(rng: random.Random, row: str, _: list[str]) -> str:
    said = row.split(" ")
    start = rng.randrange(max(1, len(said) - 8))
    return " ".join(said[start : start + 8] * (len(said) // 8 + 1))


def broken(rng: random.Random, row: str, _: list[str]) -> str:
    return " ".join(word.replace("e", "Ã©").replace("a", "â€™") if rng.random() < 0.7 else word for word in row.split(" "))


def shuffled(rng: random.Random, row: str, _: list[str]) -> str:
    said = row.split(" ")
    rng.shuffle(said)
    return " ".join(said)


def elsewhere(rng: random.Random, _: str, other: list[str]) -> str:
    return rng.choice(other)


def chained(dose: float, few: int) -> Fault:
    """Text of a word-pair model fitted to the first rows: fluent from word to word, the tails thinned by taking the commonest of `few` draws."""

    def fault(rng: random.Random, rows: list[str], _: list[str]) -> list[str]:
        after: dict[str, list[str]] = {}
        for row in rows:
            said = row.split(" ")
            for word, following in pairwise(said):
                after.setdefault(word, []).append(following)
        frequency = Counter(word for row in rows for word in row.split(" "))
        first = int((1 - dose) * len(rows))
        made = []
        for row in rows[first:]:
            said = [row.split(" ")[0]]
            for _word in row.split(" ")[1:]:
                draws = rng.choices(after.get(said[-1], [rng.choice(rng.choice(rows).split(" "))]), k=few)
                said.append(max(draws, key=frequency.__getitem__))
            made.append(" ".join(said))
        return [*rows[:first], *made]

    return fault


def narrow(share: float) -> Fault:
    """Only the rows with the commonest words, again and again with their sentences in another order."""

    def fault(rng: random.Random, rows: list[str], _: list[str]) -> list[str]:
        frequency = Counter(word for row in rows for word in words(row))
        ranked = sorted(rows, key=lambda row: -statistics.fmean(math.log(frequency[word]) for word in words(row)))
        stay = ranked[: int(share * len(rows))]
        made = list(stay)
        while len(made) < len(rows):
            sentences = rng.choice(stay).split(". ")
            rng.shuffle(sentences)
            made.append(". ".join(sentences))
        return made

    return fault


SETS: dict[str, dict[str, Fault]] = {
    "tinystories": {
        "sound": replaced(0, looped),
        "exact duplicates 50 %": copied(0.5),
        "exact duplicates 92 %": copied(0.92),
        "near duplicates 75 %": copied(0.75, 60),
        "loops 20 %": replaced(0.2, looped),
        "loops 70 %": replaced(0.7, looped),
        "broken characters 35 %": replaced(0.35, broken),
        "shuffled words 30 %": replaced(0.3, shuffled),
        "shuffled words 85 %": replaced(0.85, shuffled),
        "another domain 60 %": replaced(0.6, elsewhere),
        "word-pair model 70 %": chained(0.7, 3),
        "narrow 15 %": narrow(0.15),
    },
    "wikitext": {
        "sound": replaced(0, looped),
        "exact duplicates 30 %": copied(0.3),
        "exact duplicates 80 %": copied(0.8),
        "near duplicates 50 %": copied(0.5, 50),
        "loops 10 %": replaced(0.1, looped),
        "loops 45 %": replaced(0.45, looped),
        "broken characters 60 %": replaced(0.6, broken),
        "shuffled words 15 %": replaced(0.15, shuffled),
        "shuffled words 60 %": replaced(0.6, shuffled),
        "another domain 35 %": replaced(0.35, elsewhere),
        "word-pair model 40 %": chained(0.4, 2),
        "narrow 30 %": narrow(0.3),
    },
}


# ── the model ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def loss_of(rows: list[str], held_out: list[str], known: dict[str, int], steps: int, seed: int) -> float:
    """Nats a word on the held-out rows of a model trained for `steps` on the rows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=len(known) + 2, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(shape)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, betas=(0.9, 0.98))
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    text = _encoded(rows, known)
    for _ in range(steps):
        batch = _windows(text, torch.randint(0, len(text) - CONTEXT, (BATCH,)))
        optimiser.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rates.step()
    test = _encoded(held_out, known)
    with torch.no_grad():
        starts = torch.arange(0, len(test) - CONTEXT, CONTEXT)
        parts = [_windows(test, part) for part in starts.split(64)]
        return statistics.fmean(float(model(input_ids=part, labels=part).loss) for part in parts)


def _encoded(rows: list[str], known: dict[str, int]):  # type: ignore[no-untyped-def]
    import torch

    return torch.tensor([number for row in rows for number in (*(known.get(word, 0) for word in words(row)), 1)])


def _windows(text, starts):  # type: ignore[no-untyped-def]
    import torch

    return text[starts[:, None] + torch.arange(CONTEXT)]


# ── the comparison ─────────────────────────────────────────────────────────────────────────────────────────────────────
def spearman(a: list[float], b: list[float]) -> tuple[float, float, float]:
    """The rank correlation and its 95 % interval (Bonett & Wright, Psychometrika 65, 2000)."""
    from scipy.stats import spearmanr

    found = float(spearmanr(a, b).statistic)
    half = 1.96 * math.sqrt((1 + found * found / 2) / (len(a) - 3))
    centre = math.atanh(min(found, 0.9999))
    return found, math.tanh(centre - half), math.tanh(centre + half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", choices=sorted(SETS), default="tinystories")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=350)
    asked = parser.parse_args()
    began = time.perf_counter()
    texts, other = corpus(asked.corpus)
    random.Random(7).shuffle(texts)
    pool, real, held_out = texts[:ROWS], texts[ROWS : ROWS + 600], texts[ROWS + 600 : ROWS + 900]
    counts = Counter(word for row in real for word in words(row))
    known = {word: place + 2 for place, (word, _) in enumerate(counts.most_common(VOCABULARY))}
    harms, losses = [], []
    print(f"{asked.corpus}: {ROWS} rows a set, {asked.steps * BATCH * CONTEXT:,} words of training, {asked.seeds} seeds")
    print(f"{'set':<26}{'points':>9}{'loss':>9}  findings that harm the model")
    for number, (name, fault) in enumerate(SETS[asked.corpus].items()):
        rows = fault(random.Random(number), list(pool), other)
        found = _audited(rows, real)
        loss = statistics.fmean(loss_of(rows, held_out, known, asked.steps, seed) for seed in range(asked.seeds))
        harms.append(found.model_harm)
        losses.append(loss)
        told = ", ".join(f"{item.kind} {item.harm:.1f}" for item in found.findings if item.about.harms == "model")
        print(f"{name:<26}{found.model_harm:>9.1f}{loss:>9.3f}  {told}", flush=True)
    rho, low, high = spearman(harms, losses)
    print(f"Spearman {rho:.2f}, 95 % interval {low:.2f} to {high:.2f}, over {len(harms)} sets; {time.perf_counter() - began:.0f} s")


def _audited(rows: list[str], real: list[str]):  # type: ignore[no-untyped-def]
    with tempfile.TemporaryDirectory() as folder:
        for name, texts in (("set", rows), ("real", real)):
            Path(folder, f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        return audit(Question(Path(folder, "set.jsonl"), Path(folder, "real.jsonl")))


if __name__ == "__main__":
    main()
