"""Learning from pairs, win rates, verdicts and advantages: in the right direction, whatever the micro-batch, and refused when it cannot be."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_lm import LLAMA, ask, teacher_forced, tiny, weights

from outcross.errors import ModelError
from outcross.stages import FitPlan
from outcross.train.encode import encode
from outcross.types import Completion, Example, Loss, Request, Sampling, Turn

TOPICS = [f"{i}+{i % 3}=" for i in range(6)]


def pairs(loss):
    return [Example(f"p{i}", prompt, str(i), loss, rejected="9" * (1 + i % 3)) for i, prompt in enumerate(TOPICS)]


def rated(loss):
    sides = [(prompt, said, good) for i, prompt in enumerate(TOPICS) for said, good in ((str(i), 1.0), ("9" * (1 + i % 3), 0.0))]
    return [Example(f"r{i}", prompt, said, loss, target=good) for i, (prompt, said, good) in enumerate(sides)]


def advantages(loss, model):
    made = []
    for example in rated(loss):
        (old,) = model.log_probs([Turn(example.prompt, Completion(example.completion))])
        weight = 1.0 if example.target else -1.0
        made.append(Example(example.id, example.prompt, example.completion, loss, weight, old_log_probs=tuple(old)))
    return made


def examples_for(loss, model):
    if loss.name == "pg":
        return advantages(loss, model)
    return pairs(loss) if loss.name in ("dpo", "ipo") else rated(loss)


def teach(model, examples, reference=None, **plan):
    plan = {"lr": 1e-3, "epochs": 4.0, "batch": 6} | plan
    return model.fit(examples, plan=FitPlan(**plan), reference=reference, seed=0, seen=lambda step, ids, **facts: None)


def likes(model):
    """How much more it likes good answers than bad ones, in nats."""
    good, bad = (
        [math.fsum(row) for row in model.log_probs([Turn(e.prompt, Completion(e.completion)) for e in rated(Loss()) if e.target == side])]
        for side in (1.0, 0.0)
    )
    return (sum(good) - sum(bad)) / len(good)


LOSSES = [Loss("dpo", 0.1), Loss("ipo", 0.1), Loss("ipo", 0.1, form="trl"), Loss("sppo", 0.05), Loss("kto", 0.1)]
LOSSES += [Loss("pg"), Loss("pg", 0.05), Loss("pg", 0.05, 0.2)]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_good_answers_gain_on_bad_ones_whatever_the_micro_batch(loss):
    model = tiny()
    examples = examples_for(loss, model)
    found = teach(model, examples, model)
    assert likes(found) > likes(model) + 0.1
    cut = teach(tiny(LLAMA, micro_batch=2), examples, model)
    assert torch.allclose(weights(found), weights(cut), atol=1e-5)


def test_the_first_step_on_pairs_is_that_of_a_plain_loop():
    """Plain rows, no padding, -logsigmoid written out, against a whole step."""
    model, reference, examples = tiny(), tiny(seed=3), pairs(Loss("dpo", 0.1))
    found = teach(model, examples, reference, epochs=1.0, warmup=0.0)
    plain = tiny()._model

    def ratio(prompt, said):
        start, end = model._tokens.prompts([prompt])[0], model._tokens.completions([said])[0]
        ids, sums = torch.tensor([start + end]), []
        for each in (plain, reference._model):
            logs = each(input_ids=ids).logits[0, len(start) - 1 : -1].log_softmax(-1)
            sums.append(logs.gather(1, torch.tensor(end)[:, None]).sum())
        return sums[0] - sums[1].detach()

    gaps = torch.stack([ratio(e.prompt, e.completion) - ratio(e.prompt, e.rejected) for e in examples])
    (-torch.nn.functional.logsigmoid(0.1 * gaps).mean()).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
    torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0).step()
    expected = torch.cat([value.flatten() for _, value in sorted(plain.state_dict().items())])
    assert torch.allclose(weights(found), expected, atol=1e-5)


def test_real_rows_keep_their_own_loss_beside_pairs():
    model = tiny()
    real = [Example(f"n{i}", prompt, "77") for i, prompt in enumerate(TOPICS)]
    found = teach(model, [*pairs(Loss("dpo", 0.1)), *real], model, batch=12)
    said = [Turn(e.prompt, Completion("77")) for e in real]
    assert sum(map(math.fsum, found.log_probs(said))) > sum(map(math.fsum, model.log_probs(said)))
    assert likes(found) > likes(model)


def test_the_reference_is_asked_once_however_many_epochs():
    model, reference, asked = tiny(), tiny(), []
    reference._model.register_forward_pre_hook(lambda module, args: asked.append(1))
    teach(model, pairs(Loss("dpo", 0.1)), reference, epochs=1.0)
    once = len(asked)
    teach(model, pairs(Loss("dpo", 0.1)), reference, epochs=5.0)
    assert len(asked) == 2 * once > 0


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (Example("x", "1=", "2", Loss("dpo", 0.1)), "no rejected answer"),
        (Example("x", "1=", "2", Loss("dpo", 0.1), rejected="2"), "no example to learn from: 1 pairs of two equal answers"),
        (Example("x", "1=", "2", Loss("sppo")), "the target None"),
        (Example("x", "1=", "2", Loss("kto"), target=math.nan), "the target nan"),
        (Example("x", "1=", "2", Loss("kto"), target=1.0), "the only prompt"),
        (Example("x", "1=", "2", Loss("pg", None, 0.2)), "0 old_log_probs for 2"),
        (Example("x", "1=", "2", Loss("sppo"), (1.0, 1.0), target=0.5), "weight per token"),
    ],
)
def test_what_lacks_what_its_loss_reads_is_refused(example, said):
    model = tiny()
    with pytest.raises(ModelError, match=said):
        teach(model, [example], model)


def test_a_loss_that_compares_needs_a_reference():
    with pytest.raises(ModelError, match="looks at a reference model"):
        teach(tiny(), pairs(Loss("dpo", 0.1)))


def test_pairs_beyond_the_context_are_left_out_and_named():
    model = tiny()
    examples = [*pairs(Loss("dpo", 0.1)), Example("long", "1=", "2", Loss("dpo", 0.1), rejected="3" * 70)]
    same = Example("same", "1=", "2", Loss("dpo", 0.1), rejected="2")
    assert teach(model, [*examples, same], model).skipped == ("long", "same")


def test_clipping_compares_the_tokens_that_were_drawn_though_a_stop_string_ended_them() -> None:
    """Before the first step every ratio is 1: what the policy says of the row's tokens now is what it said when it drew them."""
    model = tiny()
    drawn = Sampling(1.0, max_tokens=12, stop=("1", "+2"))
    answers = [
        (prompt, said)
        for prompt, one in zip(TOPICS, ask(model, [Request(p, n=8, sampling=drawn, seed=3) for p in TOPICS]), strict=True)
        for said in one.completions
    ]
    made = [
        Example(
            f"{i}", prompt, said.content, Loss("pg", 0.05, 0.2), (-1.0) ** i, old_log_probs=tuple(said.log_probs), tokens=tuple(said.tokens)
        )
        for i, (prompt, said) in enumerate(answers)
        if said.finished and said.content
    ]
    stopped = [example for example in made if list(example.tokens) != model._tokens.completions([example.completion])[0]]
    assert len(stopped) > 5 and len(made) > len(stopped)
    rows = encode(made, model._tokens, 64, model)
    for row in range(len(rows)):
        text = rows.text(row)
        now = teacher_forced(model, text.ids[: text.start], text.ids[text.start :])
        assert now == pytest.approx(list(rows.old[row]), abs=1e-4)
        assert list(rows.references[row][0]) == pytest.approx(now, abs=1e-4)
    assert torch.isfinite(weights(teach(model, made, model))).all()
    with pytest.raises(ModelError, match="drawn as 2 tokens that do not read as its text here"):
        teach(model, [Example("e", "1=", "3", Loss("pg", 0.05, 0.2), old_log_probs=(-1.0, -1.0), tokens=(9, 9))], model)
