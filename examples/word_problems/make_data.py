"""Write three files of easy arithmetic word problems: train.jsonl, held_out.jsonl and real.jsonl.

The problems are made from sentence patterns and numbers. No problem of one file has the same names of things and numbers as
one of another: the split is by a hash of pattern and numbers. Run: python make_data.py [FOLDER]
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

NAMES = ("Ada", "Ben", "Cora", "Dan", "Eva", "Finn", "Gita", "Hugo", "Ines", "Jon", "Kim", "Lea", "Max", "Nora", "Omar", "Pia")
THINGS = ("apples", "books", "coins", "pencils", "stamps", "shells", "marbles", "cards", "eggs", "stickers")
PATTERNS = (  # so short that any 13 words in a row hold both numbers: no problem shares a 13-gram with one of another file
    ("{a} has {x} {t} and buys {y} more. How many now?", "+"),
    ("{a} found {x} {t}, then {y} more. How many in all?", "+"),
    ("{a} has {x} {t}. {b} has {y}. How many together?", "+"),
    ("{a} had {x} {t} and gave {b} {y}. How many are left?", "-"),
    ("A box holds {x} {t}. {a} takes {y}. How many stay?", "-"),
    ("{a} has {x} bags of {y} {t} each. How many {t}?", "*"),
)


def solve(x: int, operation: str, y: int) -> int:
    return {"+": x + y, "-": x - y, "*": x * y}[operation]


def problems(seed: int) -> Iterator[tuple[str, dict[str, str]]]:
    """(split, row) without end; a row is never given twice."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        number = rng.randrange(len(PATTERNS))
        pattern, operation = PATTERNS[number]
        x, y = (rng.randint(2, 9), rng.randint(2, 9)) if operation == "*" else (rng.randint(2, 40), rng.randint(2, 40))
        if operation == "-" and y >= x:
            x, y = y + 1, x
        names = rng.sample(NAMES, 2)
        question = pattern.format(a=names[0], b=names[1], x=x, y=y, t=rng.choice(THINGS))
        key = f"{number} {operation} {min(x, y)} {max(x, y)}"
        part = hashlib.blake2b(key.encode(), digest_size=2).digest()[0]
        split = "held_out" if part < 64 else "real" if part < 104 else "train"
        if question not in seen:
            seen.add(question)
            answer = solve(x, operation, y)
            yield split, {"question": question, "answer": str(answer), "solution": f" {x} {operation} {y} = {answer}"}


def main(folder: Path) -> None:
    wanted = {"train": 1200, "held_out": 600, "real": 300}
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in wanted}
    for split, row in problems(seed=0):
        if len(rows[split]) < wanted[split]:
            rows[split].append({"prompt": f"Question: {row['question']}\nAnswer:", "answer": row["answer"], "completion": row["solution"]})
        if all(len(rows[name]) == count for name, count in wanted.items()):
            break
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
