"""Losses against closed forms and a reference implementation."""

from __future__ import annotations

import pytest
import torch

from outcross.errors import ConfigError
from outcross.train.losses import LOSSES, loss_function, nll


def test_nll_is_the_weighted_sum():
    log_probs = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -9.0, -9.0]])
    weights = torch.tensor([[1.0, 0.5, 0.0], [-2.0, 0.0, 0.0]])
    assert float(nll(log_probs, weights)) == pytest.approx(1.0 + 1.0 - 6.0)


def test_nll_over_tokens_is_cross_entropy():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6, 11), torch.randint(0, 11, (4, 6))
    mask = torch.rand(4, 6) < 0.6
    log_probs = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    labels = torch.where(mask, targets, -100)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert float(nll(log_probs, mask.float()) / mask.sum()) == pytest.approx(float(expected), rel=1e-6)


def test_nll_gradient_is_minus_the_weight():
    log_probs, weights = torch.zeros(2, 3, requires_grad=True), torch.arange(6.0).reshape(2, 3)
    nll(log_probs, weights).backward()
    assert torch.equal(log_probs.grad, -weights)


def test_a_loss_is_found_by_its_name_or_refused_with_those_there_are():
    assert loss_function("nll") is LOSSES["nll"]
    with pytest.raises(ConfigError, match=r"the loss 'nl'; did you mean 'nll'\?.*allowed: .*nll"):
        loss_function("nl")
