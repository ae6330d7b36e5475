"""What training takes of memory: counted from shapes, against what real models keep, and said before anything is spent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_lm import ALPHABET, LLAMA, tiny
from transformers import AutoConfig, AutoModelForCausalLM

from outcross.cli import host, memory
from outcross.models.sequence_classifier import classifier_from_config
from outcross.stages import FitPlan
from outcross.train.machine import Lora, Machine
from outcross.train.memory import HOLES, LIBRARIES, adapted, forecast, per_token
from outcross.train.trainer import _adapted
from outcross.types import Loss

CPU = torch.device("cpu")
PLAN = FitPlan(batch=8, max_length=48)
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA | {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 2},
    "wide heads": LLAMA | {"hidden_size": 48, "intermediate_size": 128, "num_attention_heads": 4, "head_dim": 32, "model_type": "qwen3"},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64},
}


def kept_by(model: Any, rows: int, length: int) -> int:
    """Bytes that a forward pass of the decoder keeps for its backward pass, each storage once."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = model.get_decoder()(input_ids=torch.zeros((rows, length), dtype=torch.long), use_cache=False)
    assert found.last_hidden_state.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "computed again"])
def test_activations_are_those_that_a_model_keeps(name: str, checkpointing: bool) -> None:
    model = tiny(CONFIGS[name])._model
    if checkpointing:
        model.enable_input_require_grads()
        model.activation_checkpointing_enable()
    real = kept_by(model, 4, 48)
    config = model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys = size * (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    working = 4 * (4 * config.hidden_size + 3 * inner)  # of the backward pass, which has not been run
    again = 4 * (6 * config.hidden_size + 2 * size * config.num_attention_heads + 2 * keys + 4 * inner) if checkpointing else 0
    found = 4 * 48 * (per_token(config, half=False, checkpointing=checkpointing) - working - again)
    assert found == pytest.approx(real, rel=0.1 if name == "llama" or checkpointing else 0.35)


def test_shapes_are_enough() -> None:
    lm = tiny(CONFIGS["llama"], micro_batch=4)
    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(AutoConfig.for_model(**lm._model.config.to_dict()), dtype=torch.float32)
    machine = Machine(micro_batch=4)
    assert forecast(shapes, PLAN, machine, None, CPU, context=64) == lm.training_memory(PLAN)


def test_weights_gradients_and_moments_are_counted_to_the_byte() -> None:
    lm = tiny(micro_batch=4)
    count = sum(parameter.numel() for parameter in lm._model.parameters())
    found = lm.training_memory(PLAN, held=2)
    assert (found.held, found.weights, found.gradients, found.optimizer) == (8 * count, 4 * count, 4 * count, 8 * count)
    assert (found.rows, found.length, found.libraries) == (4, 48, LIBRARIES)
    assert found.total == found.held + found.each
    half = tiny(micro_batch=4, dtype="bfloat16").training_memory(PLAN)
    assert (half.held, half.weights) == (2 * count, 4 * count), "the copy that learns is in float32"


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # peft then sets it right
@pytest.mark.parametrize("config", [LLAMA, CONFIGS["gpt2"]], ids=["llama", "gpt2"])
@pytest.mark.parametrize("targets", [(), ("q_proj", "down_proj"), ("self_attn.q_proj", "embed_tokens")], ids=["all", "some", "paths"])
def test_adapters_are_counted_as_peft_makes_them(targets: tuple[str, ...], config: dict[str, Any]) -> None:
    if config is not LLAMA:  # its linear layers are of a class of their own
        targets = tuple(
            {"q_proj": "c_attn", "down_proj": "mlp.c_proj", "self_attn.q_proj": "attn.c_attn", "embed_tokens": "wte"}[x] for x in targets
        )
    lora = Lora(r=4, targets=targets)
    lm, reward = tiny(config, lora=lora), classifier_from_config(config, alphabet=ALPHABET, machine=Machine(device="cpu"), lora=lora)
    for model, task in ((lm._model, "CAUSAL_LM"), (reward._model, "SEQ_CLS")):  # type: ignore[attr-defined]
        expected = adapted(model, lora)
        learner = _adapted(model, lora, task)
        assert expected == sum(parameter.numel() for parameter in learner.parameters() if parameter.requires_grad)


def test_each_setting_moves_the_forecast_as_it_moves_memory() -> None:
    def of(plan: FitPlan = PLAN, lora: Lora | None = None, texts: int = 1, **machine: Any) -> Any:
        return tiny(CONFIGS["llama"], lora=lora, **({"micro_batch": 4} | machine)).training_memory(plan, texts=texts)

    usual = of()
    assert of(micro_batch=2).activations == pytest.approx(usual.activations / 2, rel=1e-3)
    assert of(texts=2).activations == pytest.approx(usual.activations * 2, rel=1e-3)
    assert of(FitPlan(batch=8, max_length=24)).activations == pytest.approx(usual.activations / 2, rel=1e-3)
    assert of(FitPlan(batch=8, max_length=4096)).length == 64, "the context is a limit too"
    assert of(gradient_checkpointing=True).activations / 1.5 < usual.activations
    low = of(lora=Lora(r=2))
    assert low.gradients < usual.gradients / 4 and low.optimizer == 2 * low.gradients
    assert of(micro_batch=None).rows == 8, "as many as fit, and no more than a step has"
    assert of(micro_batch=8).activations == 2 * usual.activations - usual.gradients, "gradients of one micro-batch come as activations go"
    two = of(processes=2)
    assert two.total == two.held + two.libraries + two.weights + 2 * two.each and of(processes=2, micro_batch=None).rows == 4
    assert HOLES > 1


def told(model: Any, free: int, total: int, monkeypatch: pytest.MonkeyPatch, rounds: int = 1) -> list[str]:
    monkeypatch.setattr(memory, "host_memory", lambda: (free, total))
    learn = SimpleNamespace(plan=PLAN, objective=SimpleNamespace(loss=Loss("dpo")))
    recipe: Any = SimpleNamespace(phases=[SimpleNamespace(learn={"policy": learn}, rounds=rounds, inner=1)] * 2)
    return list(memory.memory_lines(recipe, {"policy": model}))


def test_what_fits_is_said_once_and_what_does_not_with_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny(micro_batch=4)
    (line,) = told(model, 10**10, 10**11, monkeypatch)
    assert line.startswith("memory to train policy: about 63") and "of 100 GB" in line and "activations of 4 × 48 tokens" in line
    _, short = told(model, 10**8, 10**11, monkeypatch)
    assert short.startswith(
        "! training policy may not fit: 100 MB of memory are free now; end what else runs, or set machine.micro_batch below 4"
    )
    _, never = told(model, 10**8, 5 * 10**8, monkeypatch)
    assert never.startswith("! training policy will not fit into 500 MB of memory; set machine.micro_batch below 4, or machine.gradient")
    assert never.endswith("or a plan.max_length below 48, or lora on the model")
    state = tiny(CONFIGS["llama"] | {"hidden_size": 256}, micro_batch=1)
    assert "set lora on the model, or machine.gradient_checkpointing: true" in told(state, 10, 20, monkeypatch)[1]
    assert told(SimpleNamespace(), 1, 1, monkeypatch) == [], "toys train in no time and no space"


def test_the_limit_of_a_container_is_the_memory_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    assert host.host_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal:       8000 kB\nMemFree:   100 kB\nMemAvailable:    6000 kB\n")
    assert host.host_memory() == (6000 * 1024, 8000 * 1024)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1024\n")
    assert host.host_memory() == (6000 * 1024, 8000 * 1024)
    (tmp_path / "memory.max").write_text(f"{4096 * 1024}\n")
    assert host.host_memory() == (4095 * 1024, 4096 * 1024)
