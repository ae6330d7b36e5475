"""Log-probabilities of given completions, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from outcross.errors import ModelError
from outcross.train.forward import Text, is_out_of_memory, log_probs, pad, rows_that_fit


def context_length(config: Any) -> int:
    """The most tokens the model can read; practically unlimited if its configuration does not say."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 1 << 30)


def score(model: Any, texts: Sequence[Text], at_once: int | None = None) -> list[list[float]]:
    """Natural log-probabilities of each text's completion tokens, in the order of `texts`.

    `at_once` texts share a forward pass (None: as many as fit); memory that runs out halves it. Raises `ModelError` for a
    text longer than the model's context, or when one alone does not fit into memory.
    """
    found: list[list[float]] = [[] for _ in texts]
    order = sorted((i for i, text in enumerate(texts) if len(text.ids) > text.start), key=lambda i: -len(texts[i].ids))
    if not order:
        return found
    longest, limit = len(texts[order[0]].ids), context_length(model.config)
    if longest > limit:
        raise ModelError(f"a text of {longest} tokens cannot be scored: the model reads at most {limit}; shorten it")
    rows = at_once or rows_that_fit(model.config, longest, model.device)
    while order:
        part = order[:rows]
        values = _try(model, [texts[i] for i in part])
        if values is None:
            if rows == 1:
                raise ModelError(f"out of memory while scoring a single text of {len(texts[part[0]].ids)} tokens; shorten it")
            rows = max(1, min(rows, len(part)) // 2)
            continue
        for index, row in zip(part, values, strict=True):
            found[index] = row
        order = order[rows:]
    return found


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
