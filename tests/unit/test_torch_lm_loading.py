"""Models found, made, saved and refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch
from tiny_lm import ALPHABET, LLAMA, SUMS, ask, fit, tiny, weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from outcross.errors import ConfigError, ModelError
from outcross.models.torch_lm import Machine, from_config, torch_lm
from outcross.stages import Completes, CountsTokens, LogProbs, Trainable
from outcross.types import Example, Origin, Request, Sampling

CPU = Machine(device="cpu", threads=1)


@pytest.fixture
def saved(tmp_path):
    tiny().save(tmp_path / "model")
    return tmp_path / "model"


def test_importing_the_module_does_not_import_torch():
    code = "import sys, outcross.models.torch_lm; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_offers_what_the_loop_asks_for():
    model = tiny()
    assert all(isinstance(model, capability) for capability in (Completes, LogProbs, CountsTokens, Trainable))


def test_a_saved_model_is_the_same_model_and_a_plain_hugging_face_folder(saved):
    model = tiny()
    again = model.load(saved)
    assert again.id == model.id == torch_lm(str(saved), machine=CPU).id
    request = Request("1+1=", 3, Sampling(max_tokens=9), seed=1)
    assert ask(again, [request]) == ask(model, [request])
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    assert torch.equal(plain.lm_head.weight, model._model.lm_head.weight)
    assert plain.config.use_cache and tokenizer.eos_token == "<eos>"
    text = "0 1\n+= ab c"
    assert tokenizer(text)["input_ids"] == [ALPHABET.index(char) + 2 for char in text]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_id_is_the_content(saved):
    assert tiny(seed=1).id != tiny().id
    assert fit(tiny()).id != tiny().id
    assert from_config(LLAMA, alphabet=ALPHABET[::-1], machine=CPU).id != tiny().id, "the tokenizer counts"


def test_depth_is_that_of_the_deepest_example_and_is_saved(tmp_path):
    deep = [Example("d", "1+1=", "2", origin=Origin(kind="synthetic", depth=3)), *SUMS]
    model = fit(tiny(), deep)
    model.save(tmp_path)
    assert (model.depth, model.load(tmp_path).depth, fit(model).depth) == (3, 3, 3)


def test_making_a_model_leaves_the_random_generators_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(weights(tiny(seed=1)), weights(tiny(seed=1)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "has no tokenizer"),
        ("config.json", "has no config.json"),
    ],
)
def test_an_incomplete_folder_is_refused_by_what_it_lacks(saved, missing, said):
    (saved / missing).unlink()
    with pytest.raises(ModelError, match=said):
        torch_lm(str(saved), machine=CPU)


@pytest.mark.parametrize("path", ["nothing/here/at/all", "./nothing", "nothing.gguf"])
def test_a_missing_place_is_refused_by_its_name(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=path):
        torch_lm(path, machine=CPU)


def test_damaged_files_are_refused(saved):
    (saved / "outcross.json").write_text("{}")
    with pytest.raises(ModelError, match=r"outcross\.json is damaged"):
        torch_lm(str(saved), machine=CPU)
    (saved / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ModelError, match="cannot be loaded"):
        torch_lm(str(saved), machine=CPU)


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        (LLAMA, {}, "either an alphabet"),
        (LLAMA, {"alphabet": "aba"}, r"repeats \['a'\]"),
        ({"hidden_size": 8}, {"alphabet": "ab"}, "names no model_type"),
        ({"model_type": "lama"}, {"alphabet": "ab"}, "no model can be built"),
        (LLAMA, {"tokenizer": "./nothing"}, "no tokenizer can be loaded"),
        (LLAMA, {"alphabet": "ab", "machine": Machine(device="tpu")}, "device 'tpu' cannot be used; here: auto, cpu"),
        (LLAMA, {"alphabet": "ab", "machine": Machine(device="cpu", dtype="int3")}, "dtype 'int3' is unknown"),
    ],
)
def test_an_impossible_configuration_is_refused(config, options, said):
    with pytest.raises(ConfigError, match=said):
        from_config(config, **options)


def test_a_new_model_can_borrow_a_tokenizer(saved):
    model = from_config(LLAMA, tokenizer=str(saved), machine=CPU)
    assert model.id == tiny().id


def test_bfloat16_on_request():
    model = tiny(dtype="bfloat16")
    assert model._model.dtype == torch.bfloat16
    trained = fit(model)
    assert trained._model.dtype == torch.bfloat16 and trained.id != model.id


def test_a_closed_model_says_so():
    model = tiny()
    model.submit(Request("1"))
    model.close()
    with pytest.raises(ModelError, match="closed"):
        model.flush()


# ── GGUF ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def write_gguf(path, model):
    """A quantised GGUF file of a tiny llama with a byte-level tokenizer, as other tools write it."""
    state, size = model._model.state_dict(), LLAMA["hidden_size"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(size)
    writer.add_block_count(1)
    writer.add_feed_forward_length(LLAMA["intermediate_size"])
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<end>", *(chr(code) for code in range(33, 127)), "12"][: len(state["lm_head.weight"])])
    writer.add_token_merges(["1 2"])
    writer.add_eos_token_id(0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    inner = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output"}
    inner |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    inner |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names |= {f"model.layers.0.{theirs}": f"blk.0.{ours}" for theirs, ours in inner.items()}
    for name, tensor in state.items():
        value = tensor.numpy().astype(np.float32)
        kind = gguf.GGMLQuantizationType.F32 if value.ndim == 1 else gguf.GGMLQuantizationType.Q8_0
        raw = gguf.quants.quantize(value, kind)
        writer.add_tensor(names[name.removesuffix(".weight")] + ".weight", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_converted_once_to_a_plain_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTCROSS_CACHE", str(tmp_path / "cache"))
    config = LLAMA | {"num_hidden_layers": 1, "num_attention_heads": 1}
    source = from_config(config, alphabet="".join(map(chr, range(33, 127))), machine=CPU)
    write_gguf(tmp_path / "tiny.gguf", source)
    model = torch_lm(str(tmp_path / "tiny.gguf"), machine=CPU)
    (folder,) = (tmp_path / "cache" / "gguf").iterdir()
    assert folder.name.startswith("tiny-") and json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    embedded, given = model._model.get_input_embeddings().weight.float(), source._model.get_input_embeddings().weight
    assert torch.allclose(embedded, given, atol=0.02), "eight bits a weight, then bfloat16"
    before = folder.stat().st_mtime_ns
    shutil.copy(tmp_path / "tiny.gguf", tmp_path / "moved.gguf")
    assert torch_lm(str(tmp_path / "tiny.gguf"), machine=CPU).id == model.id and folder.stat().st_mtime_ns == before
    found = ask(model, [Request("12", 4, Sampling(max_tokens=8))])[0]
    assert all(done.tokens for done in found.completions)
    assert torch_lm(str(folder), machine=CPU).id == model.id


def test_a_damaged_gguf_file_is_refused_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTCROSS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(20))
    with pytest.raises(ModelError, match=r"bad\.gguf cannot be read"):
        torch_lm(str(tmp_path / "bad.gguf"), machine=CPU)
    assert not list((tmp_path / "cache" / "gguf").iterdir())


def test_a_fresh_model_has_the_same_shape_and_untrained_weights(saved):
    trained = fit(tiny(seed=3), epochs=5.0)
    fresh = trained.fresh(3)
    assert fresh.id == tiny(seed=3).id
    assert trained.fresh(4).id not in (fresh.id, trained.id)
    assert fresh.depth == 0


def test_the_size_on_disk_is_foretold(tmp_path):
    model = tiny()
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    written = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert abs(written - model.disk_bytes) < 8_192  # the file has a header
