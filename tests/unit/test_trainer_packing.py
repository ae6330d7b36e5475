"""Texts one after the other in one sequence: the same numbers and gradients as side by side, and refused where texts would see each other."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from tiny_lm import LLAMA, SUMS, fit, tiny, weights
from transformers import AutoConfig, AutoModelForCausalLM

from outcross.errors import ConfigError
from outcross.models.torch_lm import Lora, TorchLM
from outcross.stages import FitPlan
from outcross.train import head, packing
from outcross.train.forward import Text, log_probs, pad
from outcross.train.packing import check_apart, packed_log_probs, sequences
from outcross.types import Example, Loss

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
QWEN = {**LLAMA, "model_type": "qwen2"}
BLOOM = {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.3}
HYBRID = {
    "model_type": "jamba",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
HYBRID |= {
    "num_key_value_heads": 2,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
    "num_experts": 2,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
}
TWO = Text([*range(1, 9)], 1), Text([(3 * place + 2) % 40 for place in range(8)], 1)


def texts(count: int = 7) -> list[Text]:
    rng = random.Random(0)
    made = []
    for _ in range(count):
        length = rng.randrange(2, 20)
        made.append(Text([rng.randrange(2, 17) for _ in range(length)], rng.randrange(1, length)))
    return made


@pytest.mark.parametrize("config", [LLAMA, GPT2, QWEN], ids=["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize(("tokens", "logits"), [(2048, 1 << 24), (25, 1 << 24), (1, 1 << 24), (2048, 40)])
def test_packed_texts_have_the_same_numbers_and_gradients(
    config: dict[str, Any], tokens: int, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "TOKENS", {"cpu": tokens})
    monkeypatch.setattr(packing, "LOGITS", logits)
    monkeypatch.setattr(head, "LOGITS", logits)
    model = tiny(config)._model.double()
    batch = pad(texts(), torch.device("cpu"))
    found = []
    for numbers in (log_probs(model, batch), packed_log_probs(model, texts(), batch, plain=True)):
        (numbers * batch.mask).sin().sum().backward()
        grads = torch.cat([item.grad.flatten() for item in model.parameters() if item.grad is not None])
        found.append((numbers.detach() * batch.mask, grads))
        model.zero_grad()
    (alone, slopes), (packed, others) = found
    assert torch.allclose(alone, packed, rtol=1e-10, atol=1e-12) and torch.allclose(slopes, others, rtol=1e-9, atol=1e-12)


def test_sequences_hold_every_text_once_and_no_more_tokens_than_they_may() -> None:
    found = list(sequences(texts(20), 30))
    assert [text for part in found for text in part] == texts(20)
    assert all(len(part) == 1 or sum(len(text.ids) for text in part) <= 30 for part in found) and len(found) < 12


PAIRS = tuple(Example(f"p{i}", f"{i}+{i}=", str(2 * i), Loss("dpo", 0.3), rejected=str(i)) for i in range(1, 9))


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["full", "low rank"])
def test_a_packed_fit_learns_the_same(lora: Lora | None) -> None:
    assert torch.allclose(weights(fit(tiny(lora=lora))), weights(fit(tiny(lora=lora, packing=True))), atol=1e-5)

    def learnt(model: TorchLM) -> TorchLM:
        plan = FitPlan(lr=1e-2, epochs=2, batch=4)
        return model.fit((*PAIRS, *SUMS), plan=plan, reference=tiny(seed=3), seed=0, seen=lambda step, ids, **facts: None)

    assert torch.allclose(weights(learnt(tiny(lora=lora))), weights(learnt(tiny(lora=lora, packing=True))), atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of kernels that are not installed
def test_a_model_that_will_mix_texts_once_it_is_trained_is_refused() -> None:
    """Untrained, what it hands from one text to the next is lost among the rounding."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**HYBRID)).eval()
    (first, second), other = TWO, Text([*range(9, 17)], 1)

    def apart() -> float:
        with torch.no_grad():
            found = (packed_log_probs(model, [text, second], pad([text, second], model.device), plain=False) for text in (first, other))
            return float(torch.sub(*(numbers[1] for numbers in found)).abs().max())

    assert 0 < apart() < 4e-4
    with pytest.raises(ConfigError, match="a JambaForCausalLM cannot keep texts of one sequence apart"):
        check_apart(model)
    for weight in model.parameters():
        weight.data *= 8 if weight.dim() > 1 else 1
    assert apart() > 0.1


def test_a_model_that_mixes_texts_of_a_sequence_is_refused() -> None:
    check_apart(tiny()._model)
    with pytest.raises(ConfigError, match="a BloomForCausalLM cannot keep texts of one sequence apart; switch packing off"):
        fit(tiny(BLOOM, packing=True))
