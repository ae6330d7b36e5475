"""Drawing one token per row from logits, with settings and random numbers of each row's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from outcross.types import Sampling


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
    log_probs = logits.log_softmax(-1)
    best = logits.argmax(-1)
    if greedy:
        return best, log_probs.gather(1, best[:, None])[:, 0]
    probs = (logits / settings.temperature[:, None]).softmax(-1)
    if filtered:
        probs, order = probs.sort(dim=-1, descending=True, stable=True)
        probs = _nucleus(probs, settings)
    cumulative = probs.cumsum(-1, dtype=torch.float64)
    threshold = random.double() * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, threshold[:, None], right=True).clamp(max=logits.shape[1] - 1)
    if filtered:
        drawn = order.gather(1, drawn)
    token = torch.where(settings.greedy, best, drawn[:, 0])
    return token, log_probs.gather(1, token[:, None])[:, 0]


def _nucleus(probs: Tensor, settings: Settings) -> Tensor:
    """Sorted probabilities with those outside of top_k, then of top_p, set to zero; the first one always stays."""
    rank = torch.arange(probs.shape[1], device=probs.device)
    probs = probs * (rank < settings.top_k[:, None])
    before = probs.cumsum(-1, dtype=torch.float64) - probs
    inside = before < settings.top_p[:, None] * probs.sum(-1, keepdim=True, dtype=torch.float64)
    return probs * (inside | (rank == 0))
