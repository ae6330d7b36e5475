"""Small data sets with known faults, made of words with Zipf's frequencies."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

VOCABULARY = [
    "".join([*random.Random(k).choices("bcdfghklmnprst", k=2), "aeiou"[k % 5], *random.Random(-k - 9999).choices("lmnrst", k=3)])
    for k in range(1, 2500)
]
WEIGHTS = [1 / (rank + 5) for rank in range(len(VOCABULARY))]
SECRET = "AKIA3XGQ7ZPL5RTKWM2D"
EMAIL = "jane.doe@acme-mail.com"


def texts(count: int, seed: int, vocabulary: Sequence[str] = VOCABULARY) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(vocabulary, WEIGHTS[: len(vocabulary)], k=rng.randrange(30, 60))).capitalize() + "." for _ in range(count)]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def planted(folder: Path, real: Sequence[str], held_out: Sequence[str]) -> tuple[Path, dict[str, set[int]]]:
    """A set of 200 sound rows, and which rows (from 1) have which planted fault."""
    sound = texts(200, 1)
    rows: list[dict[str, Any]] = [{"prompt": f"Go on, number {k}.", "completion": text} for k, text in enumerate(sound)]
    where: dict[str, set[int]] = {}

    def add(kind: str, completion: Any, prompt: str = "Go on.") -> None:
        rows.append({"prompt": prompt, "completion": completion})
        where.setdefault(kind, set()).add(len(rows))

    for k in range(8):
        add("duplicates", sound[k], f"Go on, number {k}.")
    for k in range(20, 25):
        said = sound[k].split(" ")
        add("near", " ".join([*said[:-1], "other"]), f"Go on, number {k}.")
    for k in range(6):
        add("contamination", f"{texts(1, 90 + k)[0]} {held_out[k]}")
    for k in range(4):
        add("memorised", real[k], "")
    add("repetition", "the cat sat down " * 20)
    add("secrets", f"{texts(1, 70)[0]} Log in with {SECRET} today.")
    add("personal", f"{texts(1, 71)[0]} Write to {EMAIL} today.")
    add("links", f"{texts(1, 72)[0]} See http://bit.ly/3xYz12 now.")
    add("unreadable", None)
    add("unreadable", "   ")
    add("boilerplate", "As an AI language model, I cannot write about that.")
    add("template", f"{texts(1, 73)[0]}<|im_end|>")
    add("garbled", f"{texts(1, 74)[0]} It wasnâ€™t.")
    return write(folder / "planted.jsonl", rows), where
