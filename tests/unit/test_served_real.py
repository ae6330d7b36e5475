"""Real servers on a tiny model made on the spot: llama.cpp's own (wheel `xllamacpp`) and `transformers serve`.

What these servers can and cannot do is found out by asking them, and answers are held against the model itself.
"""

from __future__ import annotations

import importlib.util
import math
import os
import string
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from served_tools import LLAMA
from tiny_lm import LLAMA as CONFIG

from outcross.models.served import Served, served
from outcross.models.torch_lm import Machine, TorchLM, from_config
from outcross.types import Completion, Message, Request, Sampling, Turn

WORDS = string.ascii_letters + string.digits + string.punctuation + " "  # a server of transformers cannot read what its tokenizer does not
GREEDY = Sampling(temperature=0.0, max_tokens=6)


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed: pip install -e '.[dev]' runs this")


@pytest.fixture(scope="module")
def model() -> Iterator[TorchLM]:
    config = {**CONFIG, "max_position_embeddings": 128, "tie_word_embeddings": False}
    made = from_config(config, alphabet=WORDS, machine=Machine(device="cpu", threads=1))
    with closing(made):
        yield made


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTCROSS_CACHE", str(tmp_path / "cache"))


def greedy(model: TorchLM, prompts: list[str]) -> list[str]:
    """Without padding tokens, which an untrained model may well say and which servers do not show."""
    futures = [model.submit(Request(prompt, sampling=GREEDY)) for prompt in prompts]
    model.flush()
    return [str(future.result().completions[0].content).replace("<pad>", "") for future in futures]


# ── transformers serve ─────────────────────────────────────────────────────────────────────────────────────────────────
@needs("transformers", "fastapi", "uvicorn", "openai")
def test_transformers_serve_answers_as_the_model_and_is_found_out(model: TorchLM, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    assert model._tokens.tokenizer.chat_template is None
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    command = "transformers serve {folder} --host {host} --port {port} --device cpu"
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    with closing(served(command, folder=str(tmp_path / "model"), environment=environment)) as found:
        assert isinstance(found, Served)
        prompts = ["ab", "cd 1", "h"]
        answers = [found.submit(Request(prompt, sampling=GREEDY)).result(120) for prompt in prompts]
        assert [answer.error for answer in answers] == ["", "", ""]
        assert [answer.completions[0].content for answer in answers] == greedy(model, prompts)
        several = found.submit(Request("ab", 3, Sampling(max_tokens=4))).result(120)
        assert len(several.completions) == 3  # by three requests
        chosen = found.submit(Request("ab", choices=("c", "d"))).result(120)
        assert "gives no log-probabilities" in chosen.error
        schema = '{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}'
        talk = found.submit(Request((Message("user", "ab"),), sampling=GREEDY, schema=schema)).result(120)
        assert talk.error == "" and not str(talk.completions[0].content).startswith("{")
        known = found._station.abilities
        assert (known["completions"].n, known["completions"].log_probs, known["chat"].schema) == (False, False, False)
        assert found.split(Request("ab", 3)) and not found.split(Request("ab", 1))


# ── llama.cpp ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def written_as_gguf(model: TorchLM, path: Path) -> None:
    """The tiny model as llama.cpp reads it: rotary columns interleaved, one token per character."""
    import gguf

    config, tokenizer = model._model.config, model._tokens.tokenizer
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["Ġ" if text == " " else text for text, _ in vocabulary])
    writer.add_token_types([gguf.TokenType.CONTROL if text in special else gguf.TokenType.NORMAL for text, _ in vocabulary])
    writer.add_token_merges(["h h"])  # llama.cpp asks for one; no token is called hh, so it stays without effect
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in model._model.state_dict().items():
        values = tensor.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads:
            rows, columns = values.shape
            values = values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@needs("xllamacpp", "gguf", "transformers")
def test_llama_cpp_answers_as_the_model_and_gives_log_probabilities(model: TorchLM, tmp_path: Path) -> None:
    written_as_gguf(model, tmp_path / "tiny.gguf")
    with closing(served(f"{LLAMA} --context 512", folder=str(tmp_path / "tiny.gguf"))) as found:
        assert isinstance(found, Served)
        prompts = ["ab", "cd 1", "h"]
        answers = [found.submit(Request(prompt, sampling=GREEDY)).result(60) for prompt in prompts]
        assert [answer.completions[0].content for answer in answers] == greedy(model, prompts)
        several = found.submit(Request("ab", 3, Sampling(max_tokens=4), seed=1)).result(60)
        assert len(several.completions) == 3
        exact = {text: next(model.log_probs([Turn("ab", Completion(text, finished=False))]))[0] for text in WORDS.strip()}
        likeliest = sorted(exact, key=lambda text: -exact[text])[:4:3]
        chosen = found.submit(Request("ab", choices=tuple(likeliest))).result(60)
        assert not chosen.error and len(likeliest) == 2
        given, wanted = chosen.completions[0].choice_log_probs, [exact[text] for text in likeliest]
        assert all(math.isclose(a, b, abs_tol=0.02) for a, b in zip(given, wanted, strict=True)), (given, wanted)
        known = found._station.abilities["completions"]
        assert (known.n, known.log_probs, known.echo) == (True, True, False)


SMOL = os.environ.get("OUTCROSS_TEST_GGUF", "")


@needs("xllamacpp")
@pytest.mark.skipif(not SMOL, reason="OUTCROSS_TEST_GGUF names no GGUF file of a chat model; SmolLM2-135M-Instruct will do")
def test_llama_cpp_with_a_real_chat_model() -> None:
    with closing(served(f"{LLAMA} --threads 2", folder=SMOL)) as found:
        assert isinstance(found, Served)
        asked = Request("The capital of France is", sampling=Sampling(temperature=0.0, max_tokens=8))
        assert "Paris" in str(found.submit(asked).result(120).completions[0].content)
        scored = found.submit(Request("The capital of France is", choices=(" Paris", " London"))).result(60).completions[0].choice_log_probs
        assert scored[0] > scored[1] + 2
        schema = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
        held = Request((Message("user", "Name a city."),), sampling=Sampling(temperature=0.0, max_tokens=40), schema=schema)
        assert str(found.submit(held).result(60).completions[0].content).lstrip().startswith("{")
