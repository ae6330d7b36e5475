"""Reward models learn from comparisons and values, are kept as plain sequence classifiers, and refuse what they cannot learn."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lm import ALPHABET, LLAMA, tiny, weights
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from outcross.errors import ConfigError, ModelError
from outcross.models.sequence_classifier import classifier_from_config, sequence_classifier
from outcross.stages import FitPlan, Trainable, Values
from outcross.train.machine import Lora, Machine
from outcross.types import Completion, Example, Loss, Origin, Turn

CPU = Machine(device="cpu", threads=1)
BT = Loss("bt")
SIDES = [(f"{i}+{i}=", str(i), str(9 - i)) for i in range(8)]
LABELS = (0.9, 0.7, 0.6, 0.55, 0.95, 0.8, 0.5, 1.0)
PAIRS = [
    Example(f"p{i}", prompt, good, BT, rejected=bad, target=p) for i, ((prompt, good, bad), p) in enumerate(zip(SIDES, LABELS, strict=True))
]
HARD = [Example(f"h{i}", prompt, good, BT, rejected=bad) for i, (prompt, good, bad) in enumerate(SIDES)]


def small(*, seed: int = 0, lora: Lora | None = None, **machine: Any) -> Any:
    return classifier_from_config(LLAMA, alphabet=ALPHABET, seed=seed, machine=Machine(device="cpu", threads=1, **machine), lora=lora)


def teach(model: Any, examples: Any, *, order: list[Any] | None = None, **given: Any) -> Any:
    plan: dict[str, Any] = {"lr": 3e-3, "epochs": 60.0, "batch": 8, "schedule": "linear"} | given
    noted = [] if order is None else order
    return model.fit(examples, plan=FitPlan(**plan), reference=None, seed=0, seen=lambda step, ids, **facts: noted.append(tuple(ids)))


def gaps(model: Any, examples: Any = PAIRS) -> list[float]:
    turns = [Turn(example.prompt, Completion(said)) for example in examples for said in (example.completion, example.rejected)]
    found = [value for (value,) in model.values(turns)]
    return [found[place] - found[place + 1] for place in range(0, len(found), 2)]


def test_soft_labels_are_learnt_as_probabilities() -> None:
    model = small()
    assert isinstance(model, Trainable) and isinstance(model, Values)
    found = [1 / (1 + math.exp(-gap)) for gap in gaps(teach(model, PAIRS))]
    assert found[:-1] == pytest.approx(LABELS[:-1], abs=0.03)
    assert found[-1] > 0.9, "a label of 1 is followed as far as the steps go"


@pytest.mark.parametrize("lora", [None, Lora(r=8, alpha=16)], ids=["full", "lora"])
def test_hard_labels_order_the_answers(lora: Lora | None) -> None:
    found = teach(small(lora=lora), HARD, lr=3e-3 if lora is None else 1e-2)
    assert all(gap > 1 for gap in gaps(found, HARD))
    assert type(found._model).__name__ == "LlamaForSequenceClassification", "adapters are merged and taken off"


def test_values_are_learnt_by_regression() -> None:
    rated = [Example(f"v{i}", prompt, said, Loss("value"), target=i / 4 - 1) for i, (prompt, said, _) in enumerate(SIDES)]
    model = teach(small(), rated, epochs=150.0)
    found = [value for (value,) in model.values([Turn(example.prompt, Completion(example.completion)) for example in rated])]
    assert found == pytest.approx([example.target for example in rated], abs=0.1)


def test_the_first_step_is_that_of_a_plain_loop() -> None:
    """Rows one by one, without padding, the loss written out; weights and a regressed row in the same batch."""
    rows = [PAIRS[0], Example("w", "1+1=", "22", BT, 0.5, rejected="3"), Example("v", "2=", "7", Loss("value"), target=0.4)]
    found = teach(small(), rows, epochs=1.0, warmup=0.0, lr=1e-3)
    plain, tokenizer = small()._model, small()._tokenizer

    def reward(prompt: Any, said: Any) -> Any:
        return plain(**tokenizer(f"{prompt}{said}", return_tensors="pt")).logits[0, 0]

    total = torch.zeros(())
    for example, p in zip(rows[:2], (0.9, 1.0), strict=True):
        gap = reward(example.prompt, example.completion) - reward(example.prompt, example.rejected)
        total = total - example.weight * (p * torch.log(torch.sigmoid(gap)) + (1 - p) * torch.log(torch.sigmoid(-gap)))
    total = total + (reward("2=", "7") - 0.4) ** 2
    (total / 3).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
    torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0).step()
    expected = torch.cat([value.flatten() for _, value in sorted(plain.state_dict().items())])
    assert torch.allclose(weights(found), expected, atol=1e-6)


def test_neither_micro_batch_nor_checkpointing_changes_what_is_learnt_and_equal_fits_are_equal() -> None:
    order: list[Any] = []
    model = small()
    before = model.id
    whole, again = teach(model, PAIRS, epochs=2.0, order=order), teach(model, PAIRS, epochs=2.0)
    cut = teach(small(micro_batch=3, gradient_checkpointing=True), PAIRS, epochs=2.0)
    assert torch.equal(weights(whole), weights(again)) and whole.id == again.id != before == model.id
    assert torch.allclose(weights(whole), weights(cut), atol=1e-5)
    assert [sorted(ids) for ids in order] == [sorted(example.id for example in PAIRS)] * 2


def test_a_trained_one_is_a_plain_sequence_classifier_on_disk(tmp_path: Path) -> None:
    rows = [Example("d", "1=", "2", BT, rejected="3", origin=Origin("synthetic", depth=3)), *PAIRS]
    model = teach(small(), rows, epochs=1.0)
    model.save(tmp_path)
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = plain(**tokenizer("1=2", return_tensors="pt")).logits[0].tolist()
    turn = Turn("1=", Completion("2"))
    assert next(iter(model.values([turn]))) == pytest.approx(expected, rel=1e-5)
    again, by_name = model.load(tmp_path), sequence_classifier(str(tmp_path), machine=CPU)
    assert again.id == model.id == by_name.id
    assert again.depth == model.depth == 3 and json.loads((tmp_path / "outcross.json").read_text()) == {"depth": 3}
    fresh = model.fresh(5)
    assert fresh.depth == 0 and fresh.id == model.fresh(5).id != model.fresh(6).id
    assert model.disk_bytes == sum(item.numel() * 4 for item in plain.parameters())


def test_a_policys_folder_gets_a_new_head_and_nothing_else_does(tmp_path: Path) -> None:
    policy = tiny()
    policy.save(tmp_path / "policy")
    with pytest.raises(ModelError, match=r"no trained sequence classifier: it lacks score\.weight.*new_head: true"):
        sequence_classifier(str(tmp_path / "policy"), machine=CPU)
    made: Any = sequence_classifier(str(tmp_path / "policy"), new_head=True, machine=CPU)
    assert torch.equal(made._model.model.embed_tokens.weight, policy._model.model.embed_tokens.weight)
    assert made.id == sequence_classifier(str(tmp_path / "policy"), new_head=True, machine=CPU).id
    assert made.id != sequence_classifier(str(tmp_path / "policy"), new_head=True, seed=1, machine=CPU).id
    learnt = teach(made, HARD)
    assert all(gap > 0 for gap in gaps(learnt, HARD))
    learnt.save(tmp_path / "trained")
    with pytest.raises(ConfigError, match="has a trained head, which new_head would throw away"):
        sequence_classifier(str(tmp_path / "trained"), new_head=True, machine=CPU)


def test_random_numbers_of_the_process_are_left_alone() -> None:
    state = torch.get_rng_state()
    teach(small(), HARD, epochs=1.0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (Example("x", "1=", "2", BT), "no rejected answer"),
        (Example("x", "1=", "2", BT, rejected="2"), "no example to learn from: 1 pairs of two equal answers"),
        (Example("x", "1=", "2", BT, rejected="3", target=1.5), "the target 1.5"),
        (Example("x", "1=", "2", BT, rejected="3", target=math.nan), "the target nan"),
        (Example("x", "1=", "2", BT, (1.0, 1.0), rejected="3"), "one finite number per example"),
        (Example("x", "1=", "2", BT, 0.0, rejected="3"), "the weight 0"),
        (Example("x", "1=", "2", Loss("value")), "the target None"),
        (Example("x", "1=", "2", Loss("value"), target=math.inf), "the target inf"),
        (Example("x", "1=", "2" * 90, Loss("value"), target=1.0), "longer than max_length = 64 tokens .the longest has 92"),
    ],
)
def test_what_lacks_what_its_loss_reads_is_refused(example: Example, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        teach(small(), [example])


def test_losses_of_a_policy_and_nothing_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="the loss 'dpo', and a reward model learns by bt and value"):
        teach(small(), [Example("x", "1=", "2", Loss("dpo"), rejected="3")])
    with pytest.raises(ModelError, match="no example to learn from"):
        teach(small(), [])


def test_probabilities_are_not_compared(tmp_path: Path) -> None:
    small().save(tmp_path)
    with pytest.raises(ConfigError, match="output is 'probability', and the loss 'bt' compares logits"):
        teach(sequence_classifier(str(tmp_path), output="probability", machine=CPU), HARD)


def test_long_pairs_are_left_out_and_a_judge_without_opinion_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    even = [Example(f"e{i}", prompt, good, BT, rejected=bad, target=0.5) for i, (prompt, good, bad) in enumerate(SIDES)]
    long = Example("long", "1=", "2", BT, rejected="3" * 80, target=0.5)
    same = Example("same", "1=", "2", BT, rejected="2", target=0.7)
    with caplog.at_level(logging.WARNING):
        found = teach(small(), [*even, long, same], epochs=1.0)
    assert found.skipped == ("long", "same")
    assert "1 of 10 examples are pairs of two equal answers and are not learnt from" in caplog.text
    assert "1 of 10 examples are longer than 64 tokens" in caplog.text
    assert "all 8 examples of the loss 'bt' have the target 0.5: they cannot tell good from bad" in caplog.text


def test_a_loss_that_is_not_a_number_names_step_and_examples() -> None:
    model = small()
    with torch.no_grad():
        model._model.score.weight.fill_(math.inf)
    with pytest.raises(ModelError, match=r"the loss is .* in optimiser step 0, with the examples"):
        teach(model, HARD, epochs=1.0)
