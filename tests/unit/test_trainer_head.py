"""The output head for completions alone, in pieces: the same numbers and gradients, and not where it would be wrong."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_lm import LLAMA, SUMS, fit, tiny, weights

from outcross.models.torch_lm import Lora
from outcross.train import head, policy
from outcross.train.forward import Batch, Text, log_probs, pad
from outcross.train.head import completion_log_probs, has_plain_head

GEMMA = {**LLAMA, "model_type": "gemma2", "head_dim": 16, "final_logit_softcapping": 0.5}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}


def batch() -> Batch:
    rng = random.Random(0)
    texts = [Text([rng.randrange(2, 17) for _ in range(5 + 3 * i)], 2 + i) for i in range(5)]
    return pad(texts, torch.device("cpu"))


def slopes(model, function):
    given = batch()
    found = function(model, given) * given.mask
    found.sin().sum().backward()
    grads = torch.cat([item.grad.flatten() for item in model.parameters() if item.grad is not None])
    model.zero_grad()
    return found.detach(), grads


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
@pytest.mark.parametrize("logits", [1, 40, 1 << 24])
def test_pieces_give_the_same_numbers_and_gradients(config, logits, monkeypatch):
    monkeypatch.setattr(head, "LOGITS", logits)
    model = tiny(config)._model.double()
    whole, expected = slopes(model, log_probs)
    pieces, found = slopes(model, completion_log_probs)
    assert whole.dtype == pieces.dtype == torch.float64
    assert torch.allclose(whole, pieces, rtol=1e-12) and torch.allclose(expected, found, rtol=1e-9, atol=1e-12)


def test_a_head_with_something_behind_it_is_noticed():
    assert has_plain_head(tiny()._model) and has_plain_head(tiny(GPT2)._model)
    model = tiny(GEMMA)._model.train()
    assert not has_plain_head(model), "its logits are capped at one half"
    assert model.training
    assert not has_plain_head(tiny(GEMMA | {"final_logit_softcapping": 30.0})._model), "a cap that an untrained model does not reach"
    assert not has_plain_head(tiny(LLAMA | {"model_type": "granite", "logits_scaling": 1.01})._model)
    assert not model.lm_head._forward_hooks


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["full", "lora"])
def test_a_fit_in_pieces_learns_the_same(lora, monkeypatch):
    whole = fit(tiny(lora=lora))
    seen = []
    monkeypatch.setattr(head, "LOGITS", 64)
    monkeypatch.setattr(policy, "LOGITS", 64)
    monkeypatch.setattr(policy, "completion_log_probs", lambda *args: seen.append(1) or completion_log_probs(*args))
    assert torch.allclose(weights(whole), weights(fit(tiny(lora=lora))), atol=1e-5)
    assert seen
    capped = fit(tiny(GEMMA), SUMS)
    monkeypatch.undo()
    assert torch.equal(weights(capped), weights(fit(tiny(GEMMA), SUMS))), "the whole head, where pieces would leave the cap out"


def test_no_more_logits_than_allowed_are_held(monkeypatch):
    monkeypatch.setattr(head, "LOGITS", 100)
    model, sizes = tiny()._model, []
    model.lm_head.register_forward_hook(lambda module, args, found: sizes.append(found.numel()))
    completion_log_probs(model, batch()).sum().backward()
    assert max(sizes) <= 100 and len(sizes) > 4
