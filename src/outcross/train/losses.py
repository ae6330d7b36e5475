"""Losses as pure functions on log-probabilities; the trainer picks one by `Loss.name`.

Every function takes natural log-probabilities of completion tokens and their weights, both of shape (rows, columns),
where weights are zero on padding, and gives a *sum*. The trainer divides that sum by the number of completion tokens in
the whole optimiser batch, so that neither the micro-batch nor gradient accumulation changes what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from outcross.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

LossFunction = Callable[["Tensor", "Tensor"], "Tensor"]


def nll(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Weighted negative log-likelihood, summed: L = − Σ_t w_t · log p(y_t | x, y_<t).

    With all weights 1 and the trainer's division this is the usual cross-entropy per completion token; with a weight
    per row it is reward-weighted maximum likelihood (Peters and Schaal 2007, ICML, equation 13; ReST, arXiv:2308.08998, equation 2).
    """
    return -(weights * log_probs).sum()


LOSSES: Mapping[str, LossFunction] = MappingProxyType({"nll": nll})


def loss_function(name: str) -> LossFunction:
    """The loss of that name. Raises `ConfigError` for one that a language model cannot be trained with."""
    if name not in LOSSES:
        raise ConfigError(f"a language model cannot be trained with the loss {name!r}; {did_you_mean(name, LOSSES)}")
    return LOSSES[name]
