"""Choices that belong to a machine or to how weights are kept, not to a recipe's identity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Where and in which portions a model computes. None of it enters a fingerprint.

    device: "auto" (a GPU if there is one), "cpu", "cuda" or "mps".
    dtype: of the weights: "auto" (bfloat16 on a GPU, the checkpoint's own on a CPU), "float32" or "bfloat16". Full
        fine-tuning always updates float32 weights; on a GPU it computes in bfloat16 unless "float32" was asked for.
    micro_batch: examples at once in a training step; None: as many as safely fit.
    sample_batch: completions drawn at once; None: as many as safely fit.
    gradient_checkpointing: recompute activations in the backward pass: a third slower, far less memory.
    threads: CPU threads for this process; None leaves PyTorch's choice.
    processes: that a language or reward model is trained in on this machine, each with its share of every step's examples: on GPUs one each,
        counted from the first; on a CPU, `threads` threads each, or their share of the cores. Each holds all of the weights. The result is that of
        one process up to rounding; with dropout it is as good and not the same.
    packing: whether the texts of a micro-batch stand one after the other in sequences, each blind to the others, instead of padded side by side:
        the same up to rounding, faster where lengths differ much, and slower where they hardly do.
    checkpoint_seconds: of training between two checkpoints, from which a run that was killed goes on; None: as often as takes a fiftieth
        of the time, every 30 seconds at most.
    """

    device: str = "auto"
    dtype: str = "auto"
    micro_batch: int | None = None
    sample_batch: int | None = None
    gradient_checkpointing: bool = False
    threads: int | None = None
    packing: bool = False
    checkpoint_seconds: float | None = None
    processes: int = 1


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al., arXiv:2106.09685): the weights W learn as W + (alpha / r) · B A.

    targets: names of the modules that get one; empty: every linear layer except the output head. The trained adapter
    is merged into the weights, so that every saved model is a plain Hugging Face folder which any tool loads, and so that
    rounds do not stack adapters upon adapters; the price is a full copy of the weights on disk per kept model.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
