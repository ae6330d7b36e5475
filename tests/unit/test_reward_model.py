"""Reward models: numbers equal to transformers' own, in order, in bounded portions; and the verdicts read off them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import context, failed, group, sample
from hypothesis import given
from hypothesis import strategies as st
from tiny_lm import ALPHABET, LLAMA, tiny
from transformers import AutoConfig, AutoModelForSequenceClassification

import outcross
from outcross.errors import ConfigError, ModelError
from outcross.models.sequence_classifier import batches, sequence_classifier
from outcross.models.tabular import Tabular
from outcross.models.tokens import character_tokenizer
from outcross.stages import Values
from outcross.train.machine import Machine
from outcross.train.read_off import read_off
from outcross.types import Completion, Message, Turn
from outcross.verify.reward_model import RewardModel, rank, z_score

CPU = Machine(device="cpu", threads=1)
TURNS = [Turn("1+" * (i % 7) + "2=", Completion(str(i) * (1 + i % 5))) for i in range(40)]


def folder(path: Path, labels: int = 1, template: str | None = None) -> Path:
    tokenizer = character_tokenizer(ALPHABET)
    tokenizer.chat_template = template
    settings = {key: value for key, value in LLAMA.items() if key != "model_type"}
    config = AutoConfig.for_model("llama", **settings, vocab_size=len(tokenizer), num_labels=labels, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def loaded(path: Path, **more: Any) -> Any:
    return sequence_classifier(str(path), machine=CPU, **more)


def own_forward(path: Path, texts: Sequence[str]) -> list[list[float]]:
    """One text at a time, without padding."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(path).eval(), character_tokenizer(ALPHABET)
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]


@pytest.mark.parametrize("tokens", [1, 50, 8192])
def test_values_equal_transformers_whatever_the_batch_and_keep_their_order(tmp_path: Path, tokens: int) -> None:
    path = folder(tmp_path)
    model = loaded(path, batch_tokens=tokens)
    assert isinstance(model, Values)
    found = [value for (value,) in model.values(iter(TURNS))]
    expected = [row[0] for row in own_forward(path, [f"{turn.prompt}{turn.completion.content}" for turn in TURNS])]
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 4) for value in found}) > 10


def test_a_conversation_is_written_by_the_chat_template_and_loses_its_beginning_first(tmp_path: Path) -> None:
    path = folder(tmp_path, template="{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
    turn = Turn((Message("user", "1+1="), Message("assistant", "3"), Message("user", "a")), Completion("2"))
    (expected,), (cut,) = own_forward(path, ["1+1=\n3\na\n2\n", "a\n2\n"])
    assert next(iter(loaded(path).values([turn]))) == pytest.approx([expected], abs=1e-5)
    assert next(iter(loaded(path, max_length=4).values([turn]))) == pytest.approx([cut], abs=1e-5)
    plain = folder(tmp_path / "plain")
    with pytest.raises(ModelError, match="chat template"):
        list(loaded(plain).values([turn]))


def test_a_label_is_named_where_there_are_several(tmp_path: Path) -> None:
    path = folder(tmp_path, labels=3)
    with pytest.raises(ConfigError, match="LABEL_0, LABEL_1, LABEL_2"):
        loaded(path)
    (logits,) = own_forward(path, ["2=0"])
    share = torch.tensor(logits).softmax(0)[1].item()
    one = {
        output: next(iter(loaded(path, label="LABEL_1", output=output).values(TURNS[:1])))[0]
        for output in ("logit", "log_odds", "probability")
    }
    assert one == pytest.approx({"logit": logits[1], "log_odds": math.log(share / (1 - share)), "probability": share}, abs=1e-5)
    assert read_off(torch.tensor([[0.0]]), 0, "probability").item() == 0.5


def test_the_identity_follows_weights_and_what_is_read_off(tmp_path: Path) -> None:
    path = folder(tmp_path)
    assert loaded(path).id == loaded(path, batch_tokens=5).id != loaded(path, output="probability").id
    closed = loaded(path)
    closed.close()
    with pytest.raises(ModelError, match="closed"):
        list(closed.values(TURNS))


def test_a_causal_model_is_refused_for_its_head_would_be_random(tmp_path: Path) -> None:
    tiny().save(tmp_path)
    with pytest.raises(ModelError, match=r"drawn at random"):
        loaded(tmp_path)


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 100), st.none() | st.integers(1, 5))
def test_batches_hold_every_text_once_and_no_more_than_the_budget(lengths: list[int], tokens: int, rows: int | None) -> None:
    found = list(batches(lengths, tokens, rows))
    assert sorted(index for part in found for index in part) == list(range(len(lengths)))
    assert all(len(part) == 1 or len(part) * max(lengths[i] for i in part) <= tokens for part in found)
    assert all(len(part) <= (rows or 40) for part in found)


class Worth(Tabular):
    """Values each token by a number in the text, and notes how much it was offered at once."""

    def values(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        for turn in turns:
            yield [float(part) for part in str(turn.completion.content).split()]


def judged(stage: RewardModel, *texts: Any) -> list[Any]:
    (found,) = stage(context(Path(), {"reward": Worth(["1"])}), [group(*texts)])
    return [item.scores[-1] if item.scores else None for item in found.samples]


def test_verdicts_by_a_threshold_over_the_last_mean_or_least_token() -> None:
    for over, value in (("last", 3.0), ("mean", 1.0), ("min", -1.0)):
        (found,) = judged(RewardModel(passes_at=1.0, over=over), "1 -1 3")  # type: ignore[arg-type]
        assert (found.value, found.verdict) == (value, "pass" if value >= 1 else "fail")
    cut = sample("5", 7, finished=False)
    found = judged(RewardModel(), "nan", failed(3), "2", "", cut)
    assert [item and item.verdict for item in found] == ["error", None, "pass", "error", "fail"]
    assert [found[-1].value, judged(RewardModel(passes_at=-9), "-7", cut)[-1].value] == [0.0, -9.0]
    assert judged(RewardModel(), "-7", cut)[-1].value == -7.0, "no better than the worst that was finished"


def test_values_within_the_task() -> None:
    assert [item.value for item in judged(RewardModel(relative="rank", passes_at=0.5), "1", "9", "9")] == [0.0, 0.75, 0.75]
    assert [item.value for item in judged(RewardModel(relative="z"), "1", "3")] == [-1.0, 1.0]
    assert judged(RewardModel(relative="z"), "1")[0].verdict == "abstain"
    assert z_score(2.0, [2.0, 2.0]) == 0.0 and rank(2.0, [2.0, 2.0]) == 0.5
    with pytest.raises(ConfigError, match="allowed: none, z, rank"):
        RewardModel(relative="quantile")  # type: ignore[arg-type]


def test_it_streams_and_says_what_a_reward_model_is() -> None:
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        while True:
            read += 1
            yield group("1", "2")

    ctx = context(Path(), {"reward": Worth(["1"])})
    next(RewardModel()(ctx, endless()))
    assert read == 128
    with pytest.raises(ConfigError, match="sequence_classifier"):
        list(RewardModel()(context(Path(), {"reward": Tabular(["1"])}), [group("1")]))


def test_a_run_file_releases_rows_by_a_reward_model(tmp_path: Path) -> None:
    folder(tmp_path / "rm")
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt": "1+2=", "answer": "3"}\n')
    path = tmp_path / "run.yaml"
    path.write_text(
        """
models:
  policy: {use: tabular, answers: ["1", "2", "3", "22"]}
  reward: {use: sequence_classifier, path: rm}
bench: {tasks: {use: files, path: tasks.jsonl}}
recipe: {use: dataset, generate: {use: draw, n: 4}, verify: [{use: reward_model, relative: rank, passes_at: 0.5}], gate: observe}
unsafe: true
"""
    )
    run = outcross.run(path, out=tmp_path / "out")
    assert any("reward_model (trained)" in line for line in run.summary.headings)
    groups, drops = run.table("groups", engine="arrow"), run.table("drops", engine="arrow")
    assert set(groups.column("verdict").to_pylist()) == {"pass", "fail"} and groups.num_rows + drops.num_rows == 8
