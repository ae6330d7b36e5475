"""Processes that train one model together: who computes which rows of a step, and their gradients added up.

There is no wrapper around the model: one that averages gradients, or meets the others at each backward pass, would change what our steps mean. Every
process holds all of the weights; a step's losses are sums already, so its gradients are added up once, before they are clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import AllreduceOptions, BroadcastOptions, ReduceOp

from outcross.errors import ModelError, OutcrossError
from outcross.stages import seed_from

BUCKET = 1 << 25  # numbers added up at once: what the copy of gradients takes stays at 128 MiB
PIECE = 1 << 22  # bytes of weights that are compared at once


class Deserted(OutcrossError):
    """Another process has ended; what matters is why that one did."""


class Team:
    """Process `rank` of `size`, which speak through `group` (a torch process group that is not the default one, so that no library splits the work
    in its own way). Of one process, nothing is said to anybody. All must call the same methods in the same order."""

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None, seed: int = 0) -> None:
        self.rank, self.size, self._group, self._seed = rank, size, group, seed

    def mine(self, step: Sequence[int], work: Callable[[int], int]) -> list[int]:
        """The rows of `step` that this process computes; with more than one, shared out so that each has about as much `work`."""
        return list(step) if self.size == 1 else shares(step, self.size, work)[self.rank]

    def added(self, found: Tensor) -> Tensor:
        """The sum of what the processes found."""
        if self.size > 1:
            self._wait(self._group.allreduce([found]))
        return found

    def begin(self, parameters: Iterable[Tensor]) -> None:
        """Give all the weights of the first process."""
        if self.size > 1:
            for parameter in parameters:
                self._wait(self._group.broadcast([parameter.data], BroadcastOptions()))

    def _wait(self, work: Any) -> None:
        try:
            work.wait()
        except RuntimeError as error:  # gloo's and NCCL's: whoever was waited for is gone, and knows why
            raise Deserted("another process of this fit has ended") from error

    def draw_anew(self, step: int) -> None:
        """Random numbers of dropout that depend on the fit, the step and the process alone: each its own, and those of a fit gone on with the same."""
        if self.size > 1:
            torch.manual_seed(seed_from(self._seed, step, self.rank))

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Put the sum of the processes' gradients in the place of each one's own. What no process has a gradient of is left without one."""
        if self.size == 1:
            return
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        present = torch.tensor([parameter.grad is not None for parameter in learning], dtype=torch.int32, device=learning[0].device)
        options = AllreduceOptions()
        options.reduceOp = ReduceOp.MAX
        self._wait(self._group.allreduce([present], options))
        for bucket in _buckets([parameter for parameter, there in zip(learning, present.tolist(), strict=True) if there]):
            parts = [(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in bucket]
            flat = torch.cat(parts) if len(parts) > 1 else parts[0]  # a large one is added up where it is
            for one, part in zip(bucket, self.added(flat).split([one.numel() for one in bucket]), strict=True):
                if one.grad is None:
                    one.grad = part.view_as(one).clone()
                else:
                    one.grad.copy_(part.view_as(one))

    def check_equal(self, parameters: Iterable[Tensor]) -> None:
        """Raises `ModelError` where processes came to different weights, which nothing but a fault of the machine explains."""
        if self.size == 1:
            return
        own = torch.stack([_checksum(parameter) for parameter in parameters])
        total = self.added(own.clone())
        different = int((total != own * self.size).sum())
        if int(self.added(torch.tensor([different], device=own.device))[0]):
            raise ModelError(
                f"the {self.size} processes came to different weights; check the machine's memory and devices, and train again"
            )


def shares(step: Sequence[int], size: int, work: Callable[[int], int]) -> list[list[int]]:
    """`step` dealt out to `size`: the longest first, each to whom has the least so far. Some may get nothing."""
    found: list[list[int]] = [[] for _ in range(size)]
    loads = [0] * size
    for row in sorted(step, key=lambda row: -work(row)):
        place = loads.index(min(loads))
        found[place].append(row)
        loads[place] += work(row)
    return found


def _buckets(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters of one type that follow each other, at most `BUCKET` numbers together or one alone."""
    bucket: list[Tensor] = []
    for parameter in parameters:
        if bucket and (parameter.dtype != bucket[0].dtype or sum(one.numel() for one in bucket) + parameter.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _checksum(parameter: Tensor) -> Tensor:
    """Of all bits: equal numbers have equal ones. Small enough to be added up over processes. In pieces, since it takes many times their bytes."""
    bits = parameter.detach().contiguous().flatten().view(torch.uint8)
    found = torch.zeros((), dtype=torch.int64, device=bits.device)
    for index, piece in enumerate(bits.split(PIECE)):
        places = (torch.arange(piece.numel(), device=bits.device) + index * PIECE) % 65521 + 1
        found += (piece * places).sum()
    return found % (1 << 40)
