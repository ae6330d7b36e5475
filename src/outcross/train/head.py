"""Log-probabilities of completions with no more logits than they need: none of prompts and padding, and not all at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from outcross.train.forward import Batch, log_probs

LOGITS = 1 << 24  # logits held at once, 64 MiB of float32: with fewer in all, pieces would only cost the second computation
LOUD = 100.0  # the largest logit with which a head is tried: the small ones of an untrained model would show no cap


def completion_log_probs(model: Any, batch: Batch) -> Tensor:
    """What `log_probs` gives, zero outside the mask, for a model that `has_plain_head`.

    Where there are more than `LOGITS` logits, the head is computed in pieces and each again in the backward pass, so that no more of them exist
    at any time, however large the vocabulary and long the texts are.
    """
    hidden = model.get_decoder()(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state[:, batch.first :][batch.mask]
    found = pieces(model, hidden, batch.ids[:, batch.first + 1 :][batch.mask])
    return torch.zeros(batch.mask.shape, dtype=found.dtype, device=found.device).masked_scatter(batch.mask, found)


def pieces(model: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities of `targets`, (tokens,), after hidden vectors, (tokens, width), in pieces of no more than `LOGITS` logits."""
    size, head = max(1, LOGITS // model.config.get_text_config().vocab_size), model.get_output_embeddings()
    if len(targets) <= size:
        return _piece(head, hidden, targets)
    parts = zip(hidden.split(size), targets.split(size), strict=True)
    return torch.cat([checkpoint(_piece, head, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def has_plain_head(model: Any) -> bool:
    """Whether the logits are the output head of what the decoder gives, nothing capped or scaled behind it: tried on three tokens, with logits as large
    as they may become."""
    if model.get_output_embeddings() is None or model.get_decoder() is None:
        return False
    training = model.training
    ids = torch.arange(3, device=model.device)[None] % model.config.get_text_config().vocab_size
    batch = Batch(ids, torch.ones(1, 2, dtype=torch.bool, device=model.device), 0)
    model.eval()
    try:
        with torch.no_grad(), _loud(model, batch):
            return bool(torch.allclose(completion_log_probs(model, batch), log_probs(model, batch), rtol=1e-3, atol=1e-3))
    except (AttributeError, TypeError):  # a decoder of another kind: one with an encoder before it, for instance
        return False
    finally:
        model.train(training)


@contextmanager
def _loud(model: Any, batch: Batch) -> Iterator[None]:
    """The output head multiplied, so that its largest logit is about `LOUD`."""
    most = model(input_ids=batch.ids, use_cache=False).logits.abs().max().clamp(min=1e-6)
    hook = model.get_output_embeddings().register_forward_hook(lambda module, given, found: found * (LOUD / most))
    try:
        yield
    finally:
        hook.remove()


def _piece(head: Any, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = head(hidden)
    return -functional.cross_entropy(logits if logits.dtype is torch.float64 else logits.float(), targets, reduction="none")
