"""What is asked of the reference, what stands beside a row of "kto", how kinds of losses add up, and what is said of rows that teach little."""

from __future__ import annotations

import itertools
import logging
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_lm import LLAMA, tiny, weights

from outcross.errors import ModelError
from outcross.models.torch_lm import Lora
from outcross.stages import FitPlan
from outcross.train import encode as encoding
from outcross.train.encode import encode
from outcross.train.policy import PolicyCost
from outcross.types import Completion, Example, Loss, Turn

KTO, DPO = Loss("kto", 0.1), Loss("dpo", 0.1)
MODEL = tiny()


class Counting:
    """A reference that notes what it is asked."""

    id, depth = "counting", 0

    def __init__(self):
        self.turns = []

    def close(self):
        pass

    def log_probs(self, turns):
        turns = list(turns)
        self.turns += turns
        yield from MODEL.log_probs(turns)


def teach(model, examples, reference=None, **plan):
    plan = {"lr": 1e-3, "epochs": 1.0, "batch": 8} | plan
    return model.fit(examples, plan=FitPlan(**plan), reference=reference, seed=0, seen=lambda step, ids, **facts: None)


def text(numbers):
    return "".join(MODEL._tokens.tokenizer.convert_ids_to_tokens(list(numbers)[:-1]))


@given(prompts=st.lists(st.integers(0, 3), min_size=2, max_size=12), chunk=st.sampled_from([1, 2, 5, 100]))
@settings(deadline=None, max_examples=20)
def test_the_answer_beside_a_verdict_is_one_to_another_prompt(prompts, chunk):
    """Whatever the order, and wherever chunks end."""
    examples = [Example(f"{i}", f"{p}+", str(i % 10) * (1 + i // 10), KTO, target=float(i % 2)) for i, p in enumerate(prompts)]
    was, encoding.CHUNK = encoding.CHUNK, chunk
    try:
        if len(set(prompts)) == 1:
            with pytest.raises(ModelError, match="has the only prompt; give at least 2"):
                encode(examples, MODEL._tokens, 64, MODEL)
            return
        rows = encode(examples, MODEL._tokens, 64, MODEL)
    finally:
        encoding.CHUNK = was
    assert sorted(rows.others) == list(range(len(examples)))
    for i, example in enumerate(examples):
        other = rows.others[i]
        assert text([*other.ids[: other.start], 0]) == example.prompt
        said = text(other.ids[other.start :])
        assert any(each.completion == said and each.prompt != example.prompt for each in examples)
        for numbers, words in zip(rows.references[i], (example.completion, said), strict=True):
            (expected,) = MODEL.log_probs([Turn(example.prompt, Completion(words))])
            assert list(numbers) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_rows_of_verdicts_may_stand_apart_and_be_too_long_together(monkeypatch):
    """One row a chunk, real rows between them; a long prompt and a long answer to another do not fit the context together."""
    monkeypatch.setattr(encoding, "CHUNK", 1)
    long = Example("a", "1+" * 20, "2", KTO, target=1.0)
    rows = encode(
        [long, Example("n", "1=", "1"), Example("b", "3=", "4" * 40, KTO, target=0.0), Example("m", "1=", "1")], MODEL._tokens, 64, MODEL
    )
    assert list(rows.others) == [2] and sorted(rows.references) == [0, 2] and rows.longest <= 64
    found = teach(MODEL, [long, Example("b", "3=", "4" * 40, KTO, target=0.0)], MODEL)
    assert not torch.equal(weights(found), weights(MODEL))


def test_an_answer_in_many_pairs_is_asked_about_once():
    """All pairs of five answers to a task: five answers, not twenty."""
    reference = Counting()
    pairs = [Example(f"{a}{b}", "1+1=", a, DPO, rejected=b) for a, b in itertools.combinations("23456", 2)]
    rows = encode(pairs, MODEL._tokens, 64, reference)
    assert sorted(turn.completion.content for turn in reference.turns) == list("23456")
    for row, example in enumerate(pairs):
        found = [math.fsum(values) for values in rows.references[row]]
        turns = [Turn("1+1=", Completion(said)) for said in (example.completion, example.rejected)]
        assert found == pytest.approx([math.fsum(values) for values in MODEL.log_probs(turns)], rel=1e-5)


def test_rows_that_compare_with_nothing_ask_nothing():
    reference = Counting()
    encode([Example("a", "1=", "2"), Example("b", "1=", "3", Loss("pg"), -1.0)], MODEL._tokens, 64, reference)
    assert not reference.turns


def test_a_reference_that_reads_other_tokens_is_refused():
    class Other(Counting):
        def log_probs(self, turns):
            yield from ([-1.0] for _ in turns)

    with pytest.raises(ModelError, match="as 1 and 1 tokens, the model that learns as 3 and 2; take a reference with the same tokenizer"):
        encode([Example("a", "1=", "22", DPO, rejected="3")], MODEL._tokens, 64, Other())


def test_kinds_of_losses_add_up_by_their_rows():
    """A step's loss is (rows of nll · mean over their tokens + sum over pairs) / rows: ten long real rows do not drown a pair, nor it them."""
    real = [Example(f"n{i}", f"{i}=", "7" * (1 + 3 * i)) for i in range(3)]
    pair = Example("p", "1+1=", "2", Loss("dpo", 0.1), rejected="3")
    rows = encode([*real, pair], MODEL._tokens, 64, tiny(seed=3))
    cost = PolicyCost(rows, torch.device("cpu"))

    def of(chosen, step):
        with torch.no_grad():
            return float(cost.of(MODEL._model, chosen, step, torch.zeros(2)))

    likelihood, preference = of([0, 1, 2], [0, 1, 2]), of([3], [3])
    found = MODEL.log_probs([Turn(example.prompt, Completion(example.completion)) for example in real])
    assert likelihood == pytest.approx(-sum(map(math.fsum, found)) / (2 + 5 + 8), rel=1e-5)
    assert of([0, 1, 2, 3], [0, 1, 2, 3]) == pytest.approx((3 * likelihood + preference) / 4, rel=1e-5)
    assert of([0, 2], range(4)) + of([3, 1], range(4)) == pytest.approx((3 * likelihood + preference) / 4, rel=1e-5)


@pytest.mark.parametrize("lora", [None, Lora(r=4)], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_pairs_are_learnt_against_the_start_model(lora, checkpointing):
    """At first π = π_ref, also under an adapter: the loss is log 2 and its first step is that of the bare margin."""
    model = tiny(LLAMA, lora=lora, gradient_checkpointing=checkpointing)
    examples = [Example(f"{i}", f"{i}=", str(i), DPO, rejected="9" * (1 + i)) for i in range(6)]
    rows = encode(examples, model._tokens, 64, model)
    with torch.no_grad():
        first = float(PolicyCost(rows, torch.device("cpu")).of(model._model, range(6), range(6), torch.zeros(2)))
    assert first == pytest.approx(math.log(2), rel=1e-5)
    found = teach(model, examples, model, epochs=6.0, lr=3e-3)
    with torch.no_grad():
        after = float(PolicyCost(rows, torch.device("cpu")).of(found._model, range(6), range(6), torch.zeros(2)))
    assert after < first - 0.02
    assert not torch.equal(weights(found), weights(model))


def test_empty_answers_are_not_learnt_by_heart_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        found = teach(MODEL, [Example("a", "1=", "2"), Example("e", "2=", ""), Example("l", "3=", "4" * 99)])
    assert found.skipped == ("e", "l")
    assert "1 of 3 examples are without an answer and are not learnt from" in caplog.text
    assert "1 of 3 examples are longer than 64 tokens" in caplog.text
    with pytest.raises(ModelError, match="no example to learn from"):
        teach(MODEL, [Example("e", "2=", "")])
    with pytest.raises(ModelError, match="no example to learn from: 1 without an answer, 1 longer than max_length = 64 tokens"):
        teach(MODEL, [Example("e", "2=", ""), Example("l", "3=", "4" * 99)])


def test_an_empty_answer_may_be_the_worse_one():
    rows = encode([Example("a", "1=", "2", DPO, rejected="")], MODEL._tokens, 64, MODEL)
    assert len(rows.references[0][1]) == 1, "the end token alone"


@pytest.mark.parametrize(("loss", "target"), [(Loss("sppo"), 0.5), (KTO, 1.0), (KTO, 0.0)])
def test_a_judge_that_always_says_the_same_is_reported(loss, target, caplog):
    with caplog.at_level(logging.WARNING):
        encode([Example(f"{i}", f"{i}=", "2", loss, target=target) for i in range(3)], MODEL._tokens, 64, MODEL)
    assert f"all 3 examples of the loss '{loss.name}' have the target {target:g}: they cannot tell good from bad" in caplog.text


def test_rewards_that_are_all_equal_teach_nothing_and_are_refused():
    with pytest.raises(ModelError, match="all 2 examples have the weight 0, which teaches nothing"):
        teach(MODEL, [Example("a", "1=", "2", Loss("pg"), 0.0), Example("b", "1=", "22", Loss("pg"), (0.0, 0.0, 0.0))])


@pytest.mark.parametrize("loss", [DPO, Loss("sppo"), Loss("pg", 0.05)], ids=str)
def test_a_loss_that_is_not_a_number_stops_the_fit(loss):
    class Broken(Counting):
        def log_probs(self, turns):
            yield from ([math.nan] * 2 for _ in turns)

    example = Example("nan-row", "1=", "2", loss, rejected="3" if loss.name == "dpo" else None, target=0.7)
    with pytest.raises(ModelError, match="the loss is nan in optimiser step 0, with the examples nan-row; the model was not changed"):
        teach(MODEL, [example], Broken())


@pytest.mark.parametrize("weight", [math.nan, (1.0, math.inf)], ids=str)
def test_a_weight_that_is_not_a_number_is_refused_before_the_first_step(weight):
    steps = []
    examples = [*(Example(f"e{i}", "1=", "2", Loss("pg"), 1.0) for i in range(3)), Example("wrong", "1=", "2", Loss("pg"), weight)]
    with pytest.raises(ModelError, match=r"example wrong has the weight .*; give finite numbers"):
        MODEL.fit(examples, plan=FitPlan(batch=1), reference=None, seed=0, seen=lambda step, ids, **facts: steps.append(step))
    assert not steps
