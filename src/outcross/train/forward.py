"""One forward pass over given text: padding, log-probabilities of completions, and how many rows fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from outcross.errors import ConfigError
from outcross.train.machine import Machine

CPU_BYTES = 1 << 30  # working memory aimed at on a CPU; on a GPU a quarter of the card


@dataclass(frozen=True)
class Text:
    """Token ids of a prompt followed by its completion; the completion starts at `start`, which is at least 1."""

    ids: Sequence[int]
    start: int


@dataclass(frozen=True)
class Batch:
    """Texts as tensors. Column j of the completion part holds token `first` + 1 + j of each row.

    ids: (rows, length), padded on the right: under causal attention padding is then never seen and needs no mask.
    mask: (rows, length − 1 − first), true where a column holds a completion token.
    """

    ids: Tensor
    mask: Tensor
    first: int


def pad(texts: Sequence[Text], device: torch.device) -> Batch:
    """Put texts, of any lengths, into one batch."""
    lengths = torch.tensor([len(text.ids) for text in texts])
    starts = torch.tensor([text.start for text in texts])
    length, first = int(lengths.max()), int(starts.min()) - 1
    flat = torch.tensor([token for text in texts for token in text.ids])
    ids = torch.zeros((len(texts), length), dtype=torch.long)
    ids[torch.arange(length) < lengths[:, None]] = flat
    column = torch.arange(first + 1, length)
    mask = (column >= starts[:, None]) & (column < lengths[:, None])
    return Batch(ids.to(device), mask.to(device), first)


def log_probs(model: Any, batch: Batch) -> Tensor:
    """Natural log-probability of each token given those before it, (rows, length − 1 − first), in float32 or the float64
    of a model that computes in it.

    Logits are computed for completion columns only: with large vocabularies they are what fills the memory.
    """
    keep = torch.arange(batch.first, batch.ids.shape[1] - 1, device=batch.ids.device)
    logits = model(input_ids=batch.ids[:, :-1], use_cache=False, logits_to_keep=keep).logits
    targets = batch.ids[:, batch.first + 1 :]
    precise = logits if logits.dtype is torch.float64 else logits.float()
    return -functional.cross_entropy(precise.transpose(1, 2), targets, reduction="none")


def rows_that_fit(config: Any, length: int, device: torch.device) -> int:
    """How many rows of `length` tokens to work on at once: an estimate on the safe side, at least 1.

    It counts three copies of the logits and sixteen hidden vectors per layer, in float32, and depends on the kind of
    machine but not on what is free at the moment, so that equal runs split their work equally.
    """
    text = config.get_text_config()
    floats = length * (3 * text.vocab_size + 16 * text.hidden_size * text.num_hidden_layers)
    budget = torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else CPU_BYTES
    return max(1, int(budget // (4 * floats)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, of a GPU or of the host, raised `error`."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def device_named(name: str) -> torch.device:
    """The device for "auto", "cpu", "cuda", "cuda:1" or "mps". Raises `ConfigError` for another, or one that is absent."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if present["cuda"] else "cpu")
    kind, colon, number = name.partition(":")
    numbered = not colon or (kind == "cuda" and number.isdecimal() and int(number) < torch.cuda.device_count())
    if not (present.get(kind, False) and numbered):
        found = ", ".join(kind for kind, there in present.items() if there)
        raise ConfigError(f"device {name!r} cannot be used; here: auto, {found} ({torch.cuda.device_count()} of cuda)")
    return torch.device(name)


def check_processes(machine: Machine, device: torch.device) -> None:
    """Raises `ConfigError` where this machine cannot train in as many processes as asked for."""
    if machine.processes < 1:
        raise ConfigError(f"machine.processes is {machine.processes}; give a whole number from 1")
    if machine.processes == 1 or device.type == "cpu":
        return
    if device.type != "cuda" or device.index is not None:
        raise ConfigError(f"machine.processes is {machine.processes} on the device {str(device)!r}; several take device cuda, or cpu")
    if machine.processes > torch.cuda.device_count():
        raise ConfigError(
            f"machine.processes is {machine.processes}, one GPU each, and {torch.cuda.device_count()} are visible; lower it to that"
        )
