"""Drawing one token per row from logits, with settings and random numbers of each row's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from outcross.types import Sampling

BLOCK = 512  # probabilities added up at once


@dataclass(frozen=True)
class Settings:
    """Sampling settings of a batch, one entry per row; `temperature` is 1 where `greedy`."""

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    greedy: Tensor

    @staticmethod
    def of(samplings: Sequence[Sampling], vocabulary: int, device: torch.device) -> Settings:
        greedy = [sampling.temperature <= 0 for sampling in samplings]
        return Settings(
            torch.tensor([1.0 if cold else sampling.temperature for sampling, cold in zip(samplings, greedy)], device=device),
            torch.tensor([sampling.top_p for sampling in samplings], device=device),
            torch.tensor([sampling.top_k or vocabulary for sampling in samplings], device=device),
            torch.tensor(greedy, device=device),
        )


def uniforms(seed: int, sample: int, count: int) -> Tensor:
    """`count` numbers in [0, 1) that depend on `seed` and `sample` alone (Philox, a counter-based generator)."""
    key = np.array([seed & (2**64 - 1), sample], dtype=np.uint64)
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32))


def draw(logits: Tensor, random: Tensor, settings: Settings, *, filtered: bool, greedy: bool) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability under the model at temperature 1.

    logits: (rows, vocabulary) in float32. random: (rows,), in [0, 1). The token is the inverse of the cumulative
    distribution at the random number, so that a row's draw does not depend on its neighbours. top_k keeps the k most probable tokens; top_p
    (nucleus sampling, arXiv:1904.09751) the fewest whose probabilities, after temperature and top_k, add up to p.
    filtered: whether any row uses either; greedy: whether all rows take the most probable token.
    """
    if greedy:
        token = logits.argmax(-1)
        return token, _log_prob(logits, token)
    probs = (logits / settings.temperature[:, None]).softmax(-1)
    if filtered:
        probs, order = probs.sort(dim=-1, descending=True, stable=True)
        probs = _nucleus(probs, settings)
    drawn = _inverse(probs, random.double())
    if filtered:
        drawn = order.gather(1, drawn[:, None])[:, 0]
    token = torch.where(settings.greedy, logits.argmax(-1), drawn)
    return token, _log_prob(logits, token)


def _log_prob(logits: Tensor, token: Tensor) -> Tensor:
    return logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(-1)


def _inverse(probs: Tensor, random: Tensor) -> Tensor:
    """Where the cumulative sum of each row passes its share `random` of the total; never at a zero. Long rows are added up by blocks
    first, since a running sum over a whole vocabulary costs more than the softmax."""
    if probs.shape[1] % BLOCK or probs.shape[1] < 8 * BLOCK:
        return _passes(probs, random * probs.sum(-1, dtype=torch.float64))
    blocks = probs.view(len(probs), -1, BLOCK)
    sums = blocks.sum(-1)
    threshold = random * sums.sum(-1, dtype=torch.float64)
    at = _passes(sums, threshold)
    before = (sums.double() * (torch.arange(sums.shape[1], device=sums.device) < at[:, None])).sum(-1)
    inside = blocks[torch.arange(len(probs), device=probs.device), at]
    return at * BLOCK + _passes(inside, threshold - before)


def _passes(values: Tensor, threshold: Tensor) -> Tensor:
    """The first place of each row whose running sum exceeds the threshold, or comes as near as rounding lets it."""
    running = values.cumsum(-1, dtype=torch.float64)
    below = torch.minimum(threshold, running[:, -1] * (1 - 2**-50))
    return torch.searchsorted(running, below[:, None], right=True)[:, 0].clamp(max=values.shape[1] - 1)


def _nucleus(probs: Tensor, settings: Settings) -> Tensor:
    """Sorted probabilities with those outside of top_k, then of top_p, set to zero; the first one always stays."""
    rank = torch.arange(probs.shape[1], device=probs.device)
    probs = probs * (rank < settings.top_k[:, None])
    before = probs.cumsum(-1, dtype=torch.float64) - probs
    inside = before < settings.top_p[:, None] * probs.sum(-1, keepdim=True, dtype=torch.float64)
    return probs * (inside | (rank == 0))
