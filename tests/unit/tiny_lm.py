"""Language models small enough to make, train and compare within a test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from outcross.models.torch_lm import Lora, Machine, TorchLM, from_config
from outcross.stages import FitPlan
from outcross.types import Example, Request, Response

ALPHABET = "0123456789+= abc\n"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # far from uniform, so that a wrong token or position shows
}
SUMS = tuple(Example(f"e{i}", f"{i}+{i}=", str(2 * i)) for i in range(8))


def tiny(config: dict[str, Any] = LLAMA, *, seed: int = 0, lora: Lora | None = None, **machine: Any) -> TorchLM:
    return from_config(config, alphabet=ALPHABET, seed=seed, machine=Machine(device="cpu", threads=1, **machine), lora=lora)


def ask(model: TorchLM, requests: Iterable[Request]) -> list[Response]:
    futures = [model.submit(request) for request in requests]
    model.flush()
    return [future.result(timeout=0) for future in futures]


def fit(model: TorchLM, examples: Iterable[Example] = SUMS, *, seed: int = 0, order: list[Any] | None = None, **plan: Any) -> TorchLM:
    plan = {"lr": 1e-2, "epochs": 2.0, "batch": 4} | plan
    noted = [] if order is None else order
    return model.fit(
        examples, plan=FitPlan(**plan), reference=None, seed=seed, seen=lambda step, ids, **facts: noted.append((step, tuple(ids)))
    )


def weights(model: TorchLM) -> torch.Tensor:
    return torch.cat([value.flatten().float() for _, value in sorted(model._model.state_dict().items())])


def teacher_forced(model: TorchLM, prompt: Sequence[int], completion: Sequence[int]) -> list[float]:
    """Log-probabilities by the plainest way there is: one row, no cache, no padding."""
    with torch.no_grad():
        logits = model._model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0].double()
    found = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return [float(row[token]) for row, token in zip(found, completion, strict=True)]


def out_of_memory_above(model: TorchLM, rows: int) -> list[int]:
    """Make the model fail as a full GPU does whenever more than `rows` rows are computed at once; the list of refused sizes."""
    refused: list[int] = []

    def check(module: Any, args: Any, kwargs: Any) -> None:
        if len(kwargs["input_ids"]) > rows:
            refused.append(len(kwargs["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory (raised by a test)")

    model._model.register_forward_pre_hook(check, with_kwargs=True)
    return refused
