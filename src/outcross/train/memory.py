"""How much memory a fit takes, from the shapes of a model alone: its weights need not be there (`torch.device("meta")` does)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from outcross.stages import FitPlan
from outcross.train.forward import rows_that_fit
from outcross.train.head import LOGITS
from outcross.train.machine import Lora, Machine

LIBRARIES = 600 << 20  # of a process that has loaded PyTorch and transformers; on a GPU, their kernels and workspaces
HOLES, MORE_HOLES = 1.5, 2.25  # memory that a CPU's allocator keeps for what is live; the second with adapters, or layers computed again
LINEAR = (nn.Linear, Conv1D)  # what peft takes for linear layers; the second is GPT-2's
COPIES = (
    4  # of the logits at the height of a backward pass: log-probabilities, their gradient, that of the logits, and one that is put in order
)


@dataclass(frozen=True)
class Memory:
    """Bytes that a fit takes at its height, by what takes them.

    held: the model it starts from and others that stay loaded beside it, in the process that asks. libraries, weights (those that are trained, all of
    the model's), gradients, optimizer (two moments of AdamW), activations (of `rows` texts of `length` tokens, with the logits): of each of
    `processes`.
    """

    held: int
    libraries: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    rows: int
    length: int
    processes: int
    device: str

    @property
    def each(self) -> int:
        """Of a process that trains, what was held before left out."""
        return self.libraries + self.weights + self.gradients + self.optimizer + self.activations

    @property
    def total(self) -> int:
        """Of the memory that runs out first: of a machine, all processes and the one that waits for them; of a GPU, the first, where also is what
        was held before."""
        if self.device == "cuda":
            return self.held + self.each
        waiting = self.libraries + self.weights if self.processes > 1 else 0
        return self.held + waiting + self.processes * self.each


def forecast(
    model: Any, plan: FitPlan, machine: Machine, lora: Lora | None, device: torch.device, *, context: int, texts: int = 1, held: int = 1
) -> Memory:
    """What a fit of `model`, a causal model or sequence classifier of transformers, takes when texts are as long as the plan lets them be.

    texts: that a row has, 2 for pairs. held: models of its size that are loaded already, the one that the fit starts from among them.
    Activations are those of a decoder with attention that keeps no matrix of scores, counted by `per_token`. On a CPU the holes between tensors that
    were freed count too: as measured with the GNU C library (1.3 to 1.6 times what is live, and 1.8 to 2.7 with many small ones between).
    """
    config = model.config.get_text_config()
    length = min(plan.max_length, context)
    rows = machine.micro_batch or max(1, rows_that_fit(model.config, length, device) // texts)
    rows = min(rows, math.ceil(plan.batch / machine.processes))
    count = sum(parameter.numel() for parameter in model.parameters())
    size = model.dtype.itemsize if lora is not None else 4
    learning = count if lora is None else adapted(model, lora)
    mixed = device.type == "cuda" and machine.dtype != "float32"
    tokens = rows * texts * length
    head = logits(config.vocab_size, tokens) if model.get_output_embeddings() is not None else 0
    kept = tokens * per_token(config, half=mixed or size == 2, checkpointing=machine.gradient_checkpointing)
    if device.type == "cpu":
        kept = int(kept * (MORE_HOLES if lora is not None or machine.gradient_checkpointing else HOLES))
    cast = 2 * count if mixed and size == 4 else 0  # autocast keeps the weights it has cast
    gradients = 4 * learning
    best = 4 * learning if plan.stop is not None and device.type == "cpu" else 0  # the weights that an early stop liked best so far
    several = rows * machine.processes < plan.batch  # gradients of one micro-batch are there while the next is computed
    return Memory(
        held=held * count * model.dtype.itemsize,
        libraries=LIBRARIES,
        weights=size * count + (0 if lora is None else 4 * learning) + best,
        gradients=gradients,
        optimizer=8 * learning,
        activations=kept + head + cast if several else max(0, kept + head + cast - gradients),
        rows=rows,
        length=length,
        processes=machine.processes,
        device=device.type,
    )


def per_token(config: Any, *, half: bool, checkpointing: bool) -> int:
    """Bytes that the layers keep of a token for the backward pass.

    A layer keeps 6 vectors of the hidden size h (in and about its two norms), queries and what attention gives, keys and values, and 4 of its
    feed-forward network's inner size: 6 h + 2 q + 2 k + 4 i numbers. Of layers that are computed again, it is h of each and the whole of one. Added
    once: 2 h of the last norm, and 4 h + 3 i with which the backward pass of a layer works. `half`: matrices are multiplied in bfloat16. Counted so, a
    Llama's is met within a tenth; further norms in a layer (Qwen 3) and activation functions written in Python (GPT-2's) keep up to half as much again.
    """
    hidden, heads, layers = config.hidden_size, config.num_attention_heads, config.num_hidden_layers
    size = getattr(config, "head_dim", None) or hidden // heads
    keys = size * (getattr(config, "num_key_value_heads", None) or heads)
    inner = getattr(config, "moe_intermediate_size", None) or getattr(config, "intermediate_size", None) or 4 * hidden
    inner *= getattr(config, "num_experts_per_tok", None) or 1
    numbers = 2 if half else 4  # bytes of one that a matrix was multiplied with; norms are computed in float32 in any case
    layer = 4 * 4 * hidden + numbers * (2 * hidden + 2 * size * heads + 2 * keys + 4 * inner)
    working = int(4 * (6 * hidden + 3 * inner))
    return int(layers * numbers * hidden + layer if checkpointing else layers * layer) + working


def logits(vocabulary: int, tokens: int) -> int:
    """Bytes of the head at its height: of all tokens, or of a piece where they are computed in pieces (`outcross.train.head`)."""
    return 4 * COPIES * min(tokens * vocabulary, LOGITS)


def adapted(model: Any, lora: Lora) -> int:
    """How many numbers learn: the adapters', and all of a classifier's head."""
    head = model.get_output_embeddings()
    modules = {name: module for name, module in model.named_modules() if module is not head}
    trained = modules.pop("score", None)
    if lora.targets:
        ends = tuple(f".{target}" for target in lora.targets)
        chosen = [module for name, module in modules.items() if f".{name}".endswith(ends) and isinstance(module, (*LINEAR, nn.Embedding))]
    else:
        chosen = [module for module in modules.values() if isinstance(module, LINEAR)]
    found: int = sum(lora.r * sum(module.weight.shape) for module in chosen)
    return found + (0 if trained is None else sum(parameter.numel() for parameter in trained.parameters()))
