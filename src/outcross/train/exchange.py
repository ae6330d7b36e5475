"""The folder through which a fit is handed to other processes, and its weights come back.

Written by who asks: `start/` (a Hugging Face folder), `rows.npz`, `job.json`. Written by the first process that trains: `steps.jsonl` (a line per
optimiser step: its number, the ids of its examples, and facts), and at the end `weights.safetensors` and perhaps `adapter/`. Any of them may write
`error-RANK.json`, and each has its `log-RANK.txt`. Where a fit may end early, the first process writes `look.safetensors` and then `question`, and goes on when
`answer`, which holds a number, has been read.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.torch import save_file
from torch import Tensor

from outcross.stages import FitPlan
from outcross.train.forward import Text
from outcross.train.machine import Lora
from outcross.train.progress import Progress
from outcross.train.read_off import ReadOff
from outcross.train.rows import Rows
from outcross.types import Loss

START, ROWS, JOB, STEPS, WEIGHTS, ADAPTER = "start", "rows.npz", "job.json", "steps.jsonl", "weights.safetensors", "adapter"
LOOK, QUESTION, ANSWER = "look.safetensors", "question", "answer"
SOON = 0.05  # seconds between two looks for an answer
Columns = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """What is to be done besides the rows. `read_off`: how a reward model is read; None for a language model. `progress`: where checkpoints are, of
    which fit, and how often. `stop`: the probe that may end the fit, every how many steps it looks, and its patience."""

    plan: FitPlan
    stop: tuple[str, int, int] | None
    seed: int
    micro_batch: int
    lora: Lora | None
    task: Literal["CAUSAL_LM", "SEQ_CLS"]
    autocast: bool
    checkpointing: bool
    packing: bool
    device: str
    dtype: str
    attention: str | None
    threads: int | None
    read_off: ReadOff | None
    progress: tuple[str, str, float | None] | None


@dataclass(frozen=True)
class Step:
    """An optimiser step that was taken."""

    step: int
    ids: Sequence[str]
    facts: Mapping[str, float]


@dataclass(frozen=True)
class Fault:
    """What a process raised on purpose: the name of the error in `outcross.errors`, and what it said."""

    kind: str
    said: str


def write_job(folder: Path, job: Job) -> None:
    (folder / JOB).write_bytes(msgspec.json.encode(job))


def read_job(folder: Path) -> Job:
    return msgspec.json.decode((folder / JOB).read_bytes(), type=Job)


def line(step: Step) -> bytes:
    """A line of `steps.jsonl`."""
    return msgspec.json.encode(step) + b"\n"


def ask(folder: Path, weights: Mapping[str, Tensor]) -> float:
    """What the first process wants to know: the worth of these weights. Waits; who is asked ends the processes where it cannot answer."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, folder / LOOK)
    (folder / QUESTION).touch()
    while not (folder / ANSWER).exists():
        time.sleep(SOON)
    found = float((folder / ANSWER).read_text(encoding="ascii"))
    (folder / ANSWER).unlink()
    return found


def asked(folder: Path) -> bool:
    """Whether a question waits for its answer."""
    return (folder / QUESTION).exists()


def answer(folder: Path, worth: float) -> None:
    """Whole or not at all."""
    (folder / QUESTION).unlink()
    unfinished = folder / f"{ANSWER}.tmp"
    unfinished.write_text(repr(worth), encoding="ascii")
    unfinished.replace(folder / ANSWER)


def progress(job: Job, *, first: bool) -> Progress | None:
    """Where the fit's checkpoints are. All processes read the last one; only the first, whose weights are everybody's, ever finds that one is due."""
    if job.progress is None:
        return None
    folder, fit, seconds = job.progress
    return Progress(Path(folder), fit, seconds if first else math.inf)


def write_rows(folder: Path, rows: Rows) -> None:
    """Rows as columns: 4 bytes a token and little more."""
    kinds = list(dict.fromkeys(rows.losses))
    weights = [weight if isinstance(weight, tuple) else (weight,) for weight in rows.weights]
    others, referred = sorted(rows.others), sorted(rows.references)
    columns: dict[str, Any] = {
        "losses": np.array([kinds.index(loss) for loss in rows.losses], np.int32),
        "targets": np.array(rows.targets, np.float64),
        "by_token": np.array([isinstance(weight, tuple) for weight in rows.weights], np.bool_),
        "starts": np.array([rows.text(row).start for row in range(len(rows))], np.int32),
        "other_rows": np.array(others, np.int64),
        "other_starts": np.array([rows.others[row].start for row in others], np.int32),
        "reference_rows": np.array(referred, np.int64),
        "old_rows": np.array(sorted(rows.old), np.int64),
        **_ragged("weights", weights, np.float64),
        **_ragged("tokens", [rows.text(row).ids for row in range(len(rows))], np.int32),
        **_ragged("others", [rows.others[row].ids for row in others], np.int32),
        **_ragged("references", [part for row in referred for part in rows.references[row]], np.float32),
        **_ragged("old", [rows.old[row] for row in sorted(rows.old)], np.float32),
        "names": np.frombuffer(msgspec.json.encode((rows.ids, kinds)), np.uint8),
    }
    with (folder / ROWS).open("wb") as file:
        np.savez(file, **columns)


def read_rows(folder: Path) -> Rows:
    """What `write_rows` wrote: all that is learnt from, not what was skipped."""
    with np.load(folder / ROWS, allow_pickle=False) as file:
        columns: Columns = dict(file)
    ids, kinds = msgspec.json.decode(columns["names"].tobytes(), type=tuple[list[str], list[Loss]])
    weights = _parts(columns, "weights", "d")
    rows = Rows(
        ids=ids,
        weights=[tuple(part) if by_token else part[0] for part, by_token in zip(weights, columns["by_token"], strict=True)],
        losses=[kinds[place] for place in columns["losses"]],
        targets=columns["targets"].tolist(),
        _tokens=array("i", columns["tokens"].tobytes()),
        _starts=array("i", columns["starts"].tobytes()),
        _ends=array("q", columns["tokens_ends"].tobytes()),
    )
    others = zip(columns["other_rows"].tolist(), _parts(columns, "others", "i"), columns["other_starts"].tolist(), strict=True)
    rows.others.update((row, Text(part, start)) for row, part, start in others)
    parts = _parts(columns, "references", "f")
    rows.references.update(zip(columns["reference_rows"].tolist(), zip(parts[::2], parts[1::2], strict=True), strict=True))
    rows.old.update(zip(columns["old_rows"].tolist(), _parts(columns, "old", "f"), strict=True))
    return rows


def _ragged(name: str, parts: Iterable[Sequence[float]], kind: Any) -> Columns:
    """Lists of different lengths, one behind the other, and where each ends."""
    found = list(parts)
    ends = np.cumsum([0, *map(len, found)], dtype=np.int64)
    flat = np.concatenate([np.asarray(part, kind) for part in found]) if found else np.zeros(0, kind)
    return {name: flat, f"{name}_ends": ends}


def _parts(columns: Columns, name: str, code: str) -> list[array[Any]]:
    flat, ends = columns[name], columns[f"{name}_ends"].tolist()
    return [array(code, flat[begin:end].tobytes()) for begin, end in pairwise(ends)]
