"""Log-probabilities of given completions, in batches of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from outcross.errors import ModelError
from outcross.train.forward import Text, is_out_of_memory, log_probs, pad, rows_that_fit

CPU_TOKENS = 2048  # padded tokens of a batch on a CPU: more is slower, as the activations leave the processor's caches


def context_length(config: Any) -> int:
    """The most tokens the model can read; practically unlimited if its configuration does not say."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def score(model: Any, texts: Sequence[Text], at_once: int | None = None) -> list[list[float]]:
    """Natural log-probabilities of each text's completion tokens, in the order of `texts`; errors as for `scored`."""
    found: list[list[float]] = [[] for _ in texts]
    for index, values in scored(model, texts, at_once):
        found[index] = values
    return found


def scored(model: Any, texts: Sequence[Text], at_once: int | None = None) -> Iterator[tuple[int, list[float]]]:
    """Natural log-probabilities of the completion tokens, with the text's place in `texts`; batch by batch, longest texts first.

    `at_once` texts share a forward pass (None: as many of their length as fit); memory that runs out halves it. Raises
    `ModelError` for a text longer than the model's context, or when one alone does not fit into memory.
    """
    yield from ((index, []) for index, text in enumerate(texts) if len(text.ids) <= text.start)
    order = sorted((i for i, text in enumerate(texts) if len(text.ids) > text.start), key=lambda i: -len(texts[i].ids))
    if order and len(texts[order[0]].ids) > (limit := context_length(model.config)):
        raise ModelError(f"a text of {len(texts[order[0]].ids)} tokens cannot be scored: the model reads at most {limit}; shorten it")
    most = len(order)
    while order:
        longest = len(texts[order[0]].ids)
        part = order[: min(most, at_once or _rows(model, longest))]
        values = _try(model, [texts[i] for i in part])
        if values is None:
            if len(part) == 1:
                raise ModelError(f"out of memory while scoring a single text of {longest} tokens; shorten it")
            most = len(part) // 2
            continue
        yield from zip(part, values, strict=True)
        order = order[len(part) :]


def _rows(model: Any, longest: int) -> int:
    fitting = rows_that_fit(model.config, longest, model.device)
    return min(fitting, max(1, CPU_TOKENS // longest)) if model.device.type == "cpu" else fitting


def _try(model: Any, texts: Sequence[Text]) -> list[list[float]] | None:
    """The log-probabilities, or None if memory ran out."""
    try:
        with torch.inference_mode():
            batch = pad(texts, model.device)
            values = log_probs(model, batch)
            return [row[mask].tolist() for row, mask in zip(values.cpu(), batch.mask.cpu(), strict=True)]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None
