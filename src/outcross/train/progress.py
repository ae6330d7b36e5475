"""Fits that go on where they were killed: one checkpoint at a time, on disk in one piece or not at all."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from outcross.stages import FitPlan
from outcross.train.machine import Lora, Machine
from outcross.train.rows import Rows
from outcross.types import content_hash

log = logging.getLogger(__name__)
SHARE = 0.02  # of the time, which writing checkpoints may take
RARELY = 30.0  # seconds between two at least, where the machine's settings name none


@dataclass(frozen=True)
class Checkpoint:
    """A fit after `step` optimiser steps.

    facts: of each step, as they were told. weights: those that learn, by name. best: those at the best value of an early stop so far, and `course`
    its values. random: states of the CPU's and the GPU's generators.
    """

    step: int
    facts: Sequence[Mapping[str, float]]
    micro_batch: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    random: tuple[Tensor, Tensor | None]
    best: Mapping[str, Tensor] = field(default_factory=dict)
    course: Sequence[float] = ()


@dataclass
class Progress:
    """Where the checkpoints of the fit that `fit` identifies are, and when to write the next.

    seconds: between two; None: as often as takes a fiftieth of the time. A checkpoint of another fit, or one that cannot be read, is left alone.
    """

    folder: Path
    fit: str
    seconds: float | None = None
    _since: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    @property
    def path(self) -> Path:
        """The file of the last checkpoint."""
        return self.folder / "checkpoint.pt"

    def last(self) -> Checkpoint | None:
        """The checkpoint to go on from, if there is one of this fit."""
        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            if found.pop("fit") == self.fit:
                return Checkpoint(**found)
        except Exception as error:  # whatever a damaged file makes of itself
            log.warning("%s cannot be read (%s); the fit begins anew", self.path, error)
        return None

    def due(self) -> bool:
        """Whether it is time for another checkpoint."""
        wait = max(RARELY, self._took / SHARE) if self.seconds is None else self.seconds
        return time.monotonic() - self._since >= wait

    def keep(self, found: Checkpoint) -> None:
        """Write a checkpoint in the place of the last one."""
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".tmp")
        with unfinished.open("wb") as file:
            torch.save({"fit": self.fit} | {item.name: getattr(found, item.name) for item in fields(found)}, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.path)
        self._since = time.monotonic()
        self._took = self._since - began


def progress_of(
    folder: Path, start: str, rows: Rows, plan: FitPlan, seed: int, lora: Lora | None, machine: Machine, device: str
) -> Progress:
    """That of the fit of `rows` from the model `start`. Two fits are the same if they also begin alike and compute alike."""
    looks = None if plan.stop is None else (plan.stop.probe.name, plan.stop.every, plan.stop.patience)
    fit = content_hash(
        start,
        rows.digest(),
        replace(plan, stop=None),
        looks,
        device,
        machine.packing,
        seed,
        lora,
        machine.dtype,
        machine.gradient_checkpointing,
        machine.threads,
        machine.processes,
    )
    return Progress(folder, fit, machine.checkpoint_seconds)
