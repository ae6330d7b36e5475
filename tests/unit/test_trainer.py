"""Training: what is learnt, in which order, independent of how a machine cuts it up, and never silently wrong."""

from __future__ import annotations

import logging
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from tiny_lm import LLAMA, SUMS, ask, fit, out_of_memory_above, teacher_forced, tiny, weights
from transformers import AutoModelForCausalLM

from outcross.errors import ConfigError, ModelError
from outcross.models.torch_lm import Lora
from outcross.stages import FitPlan
from outcross.train.encode import optimiser_steps
from outcross.train.trainer import learning_rate_factor
from outcross.types import Array, Example, Loss, Request, Sampling

MANY = tuple(Example(f"m{i}", f"{i}+{i * 7 % 10}=" + "1" * (i % 5), "2" * (1 + i % 6)) for i in range(21))


def loss(model, examples):
    total, tokens = 0.0, 0
    for example in examples:
        prompt, completion = model._tokens.prompts([example.prompt])[0], model._tokens.completions([example.completion])[0]
        total -= sum(teacher_forced(model, prompt, completion))
        tokens += len(completion)
    return total / tokens


@pytest.mark.parametrize("lora", [None, Lora(r=8, alpha=16)], ids=["full", "lora"])
def test_it_learns_a_few_examples_by_heart_and_says_them(lora):
    model = tiny(lora=lora)
    trained = fit(model, epochs=150.0, lr=1e-2 if lora is None else 3e-2)
    assert loss(model, SUMS) > 1.0
    assert loss(trained, SUMS) < 0.1
    found = ask(trained, [Request(example.prompt, sampling=Sampling(temperature=0)) for example in SUMS])
    assert [(one.completions[0].content, one.completions[0].finished) for one in found] == [(e.completion, True) for e in SUMS]


def test_the_first_step_is_that_of_a_plain_loop():
    """One optimiser step over one batch, against AdamW on the mean cross-entropy of completion tokens written out."""
    model = tiny()
    trained = fit(model, MANY, epochs=1.0, batch=len(MANY), lr=1e-3, warmup=0.0, weight_decay=0.1)
    plain = tiny()._model
    decayed = [value for name, value in plain.named_parameters() if "norm" not in name]
    kept = [value for name, value in plain.named_parameters() if "norm" in name]
    optimiser = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}], lr=1e-3)
    total, tokens = torch.zeros(()), 0
    for example in MANY:
        prompt, completion = model._tokens.prompts([example.prompt])[0], model._tokens.completions([example.completion])[0]
        logits = plain(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="sum")
        tokens += len(completion)
    (total / tokens).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
    optimiser.step()
    expected = torch.cat([value.flatten() for _, value in sorted(plain.state_dict().items())])
    assert torch.allclose(weights(trained), expected, atol=1e-6)
    assert not torch.allclose(weights(trained), weights(model), atol=1e-4)


@pytest.mark.parametrize("micro_batch", [1, 4, 16])
def test_cutting_a_batch_up_does_not_change_what_is_learnt(micro_batch):
    order, other = [], []
    whole = fit(tiny(), MANY, batch=16, lr=1e-3, order=order)
    cut = fit(tiny(micro_batch=micro_batch), MANY, batch=16, lr=1e-3, order=other)
    assert torch.allclose(weights(whole), weights(cut), atol=1e-6)
    assert order == other


def test_equal_fits_are_bitwise_equal_and_leave_everything_else_alone():
    model = tiny(lora=Lora(r=4, dropout=0.2))
    before, threads = weights(model), torch.get_num_threads()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first, again, other = fit(model, seed=1), fit(model, seed=1), fit(model, seed=2)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    assert torch.equal(weights(model), before) and torch.get_num_threads() == threads
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert not model._model.training and first._model.config.use_cache


def test_seen_gets_every_step_with_its_examples_once_per_epoch():
    order = []
    fit(tiny(), MANY, epochs=2.5, batch=8, order=order)
    assert [step for step, _ in order] == list(range(8))
    assert [len(ids) for _, ids in order] == [8, 8, 5, 8, 8, 5, 8, 2]
    first, second = ([name for _, ids in order[part] for name in ids] for part in (slice(0, 3), slice(3, 6)))
    assert Counter(first) == Counter(second) == Counter(example.id for example in MANY)
    assert first != second, "each epoch has an order of its own"
    assert len({name for _, ids in order[6:] for name in ids}) == 10


def test_the_order_is_that_of_the_seed():
    assert optimiser_steps(10, 4, 1.0, 3) == optimiser_steps(10, 4, 1.0, 3) != optimiser_steps(10, 4, 1.0, 4)
    assert sum(map(len, optimiser_steps(10, 4, 0.01, 3))) == 1
    for batch, epochs in ((0, 1.0), (4, 0.0)):
        with pytest.raises(ConfigError, match="no steps"):
            optimiser_steps(10, batch, epochs, 0)


def test_the_learning_rate_rises_and_falls_as_planned():
    def rates(**plan):
        return [learning_rate_factor(step, steps=10, plan=FitPlan(**plan)) for step in range(10)]

    assert rates(schedule="constant", warmup=0.3) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)
    assert rates(schedule="linear", warmup=0.0) == pytest.approx([1.0 - step / 10 for step in range(10)])
    assert rates(schedule="cosine", warmup=0.0)[5] == pytest.approx(0.5)
    assert rates(schedule="cosine", warmup=0.5)[5] == 1.0
    assert learning_rate_factor(0, steps=1, plan=FitPlan(warmup=0.1)) == 1.0, "a single step is not wasted on warming up"


def test_weights_scale_what_is_learnt_from_a_token():
    model, plan = tiny(), {"epochs": 1.0, "batch": 4, "lr": 1e-3, "weight_decay": 0.0}
    one = Example("a", "1=", "23")
    nothing = fit(model, [one, Example("b", "2=", "34", weight=0.0)], **plan)
    masked = fit(model, [one, Example("b", "2=", "34", weight=(0.0, 0.0, 0.0))], **plan)
    assert torch.equal(weights(nothing), weights(masked))
    partly = fit(model, [one, Example("b", "2=", "34", weight=(1.0, 0.0, 0.0))], **plan)
    assert not torch.equal(weights(partly), weights(masked))
    with pytest.raises(ModelError, match="has 2 weights for 3 completion tokens"):
        fit(model, [Example("b", "2=", "34", weight=(1.0, 1.0))])


def test_an_example_of_negative_weight_becomes_less_likely():
    model = tiny()
    good, bad = Example("g", "1=", "23"), Example("b", "1=", "44", weight=-0.3)
    trained = fit(model, [good, bad], epochs=20.0, lr=1e-3)
    assert loss(trained, [good]) < loss(model, [good])
    assert loss(trained, [bad]) > loss(model, [bad])


def test_long_examples_are_left_out_named_and_never_cut(caplog):
    examples = [*SUMS, Example("long", "1=", "2" * 30)]
    with caplog.at_level(logging.WARNING, logger="outcross"):
        trained = fit(tiny(), examples, max_length=20, epochs=1.0)
    assert trained.skipped == ("long",)
    assert [record.getMessage()[:41] for record in caplog.records] == ["1 of 9 examples are longer than 20 tokens"]
    assert torch.equal(weights(trained), weights(fit(tiny(), SUMS, epochs=1.0)))
    assert fit(tiny(), [*SUMS, Example("huge", "1=", "2" * 80)]).skipped == ("huge",), "the context is a limit too"
    with pytest.raises(ModelError, match="all 1 examples are longer than max_length = 20 tokens"):
        fit(tiny(), examples[-1:], max_length=20)


@pytest.mark.parametrize(
    ("examples", "error", "said"),
    [
        ([], ModelError, "no example to learn from"),
        ([Example("p", "1=", Array("uint8", (1,), b"0"))], ModelError, "p has a completion that is not text"),
        ([Example("q", "1=", "2", loss=Loss("own"))], ConfigError, "cannot be trained with the loss 'own'"),
        ([Example("r", "1=", "xyz")], ModelError, "cannot be written in this model's vocabulary"),
    ],
)
def test_what_cannot_be_learnt_is_refused(examples, error, said):
    with pytest.raises(error, match=said):
        fit(tiny(), examples)


@pytest.mark.parametrize("value", [(1e39, -1e39), 1e39], ids=["nan", "inf"])  # beyond float32
def test_a_loss_that_is_not_finite_stops_training_and_names_step_and_examples(value):
    order, model = [], tiny()
    before = weights(model)
    with pytest.raises(ModelError, match=r"the loss is (nan|inf|-inf) in optimiser step \d, with the examples .*bad"):
        fit(model, [*SUMS, Example("bad", "1=", "2", weight=value)], batch=3, order=order)
    assert all("bad" not in ids for _, ids in order), "a step that was not taken is not reported"
    assert torch.equal(weights(model), before)


def test_a_gradient_that_is_not_finite_stops_training():
    model = tiny()
    model._model.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)

    def poison(module, args, output):
        output.logits.register_hook(lambda gradient: gradient * math.inf) if output.logits.requires_grad else None

    model._model.register_forward_hook(poison)
    with pytest.raises(ModelError, match="the gradient norm is nan in optimiser step 0"):
        fit(model)


@pytest.mark.parametrize("limit", [1, 5])
def test_full_memory_halves_the_micro_batch_and_repeats_the_step(limit):
    order, other = [], []
    expected = fit(tiny(), MANY, batch=16, lr=1e-3, order=order)
    model = tiny(micro_batch=16)
    refused = out_of_memory_above(model, limit)
    found = fit(model, MANY, batch=16, lr=1e-3, order=other)
    assert refused == {1: [16, 8, 4, 2], 5: [16, 8]}[limit], "the smaller micro-batch stays for later steps"
    assert torch.allclose(weights(found), weights(expected), atol=1e-6)
    assert order == other


def test_memory_that_runs_out_half_way_through_a_step_leaves_no_trace():
    model, calls = tiny(micro_batch=8), []

    def fail_once(module, args, kwargs):
        calls.append(len(kwargs["input_ids"]))
        if len(calls) == 2:  # the second micro-batch: gradients of the first are there already
            raise torch.OutOfMemoryError

    model._model.register_forward_pre_hook(fail_once, with_kwargs=True)
    found = fit(model, MANY[:16], epochs=1.0, batch=16, lr=1e-3)
    assert calls == [8, 8, 4, 4, 4, 4]
    assert torch.allclose(weights(found), weights(fit(tiny(), MANY[:16], epochs=1.0, batch=16, lr=1e-3)), atol=1e-6)


def test_one_example_that_does_not_fit_is_an_error_and_other_errors_pass():
    model = tiny()
    out_of_memory_above(model, 0)
    with pytest.raises(ModelError, match="out of memory in optimiser step 0 with a single example"):
        fit(model)

    def broken(module, args, kwargs):
        raise RuntimeError("some other fault")

    model = tiny()
    model._model.register_forward_pre_hook(broken, with_kwargs=True)
    with pytest.raises(RuntimeError, match="some other fault"):
        fit(model)


def test_lora_is_merged_into_a_plain_model(tmp_path):
    model = tiny(lora=Lora(r=4, targets=("q_proj", "v_proj")))
    trained = fit(model)
    changed = {name for name, value in trained._model.state_dict().items() if not torch.equal(value, model._model.state_dict()[name])}
    assert changed == {f"model.layers.{layer}.self_attn.{part}_proj.weight" for layer in (0, 1) for part in "qv"}
    trained.save(tmp_path)
    assert not list(tmp_path.glob("adapter*"))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(plain.state_dict()["model.layers.0.self_attn.q_proj.weight"], trained._model.model.layers[0].self_attn.q_proj.weight)
    assert fit(trained).lora == trained.lora == model.lora, "the next round trains the same way"


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["full", "lora"])
def test_gradient_checkpointing_changes_memory_and_not_the_result(lora):
    expected = fit(tiny(lora=lora), lr=1e-3)
    found = fit(tiny(lora=lora, gradient_checkpointing=True), lr=1e-3)
    assert torch.allclose(weights(found), weights(expected), atol=1e-6)
    assert not found._model.is_activation_checkpointing


def test_small_steps_add_up_in_bfloat16_too():
    """Updates far below the spacing of bfloat16 near a weight must not vanish step by step."""
    model = tiny(LLAMA, dtype="bfloat16")
    trained = fit(model, epochs=60.0, lr=1e-4, schedule="constant", warmup=0.0)
    assert loss(trained, SUMS) < loss(model, SUMS) - 0.1


def test_training_prints_nothing(capsys):
    fit(tiny())
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
