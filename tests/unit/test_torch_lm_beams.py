"""Beam search: what transformers' own search finds, one prompt at a time, and the requests that it cannot answer."""

from __future__ import annotations

import math

import pytest
import torch

from outcross.models.categorical import Categorical
from outcross.models.http_wire import refusal
from outcross.models.torch_lm import TorchLM
from outcross.recipe import canonical, fingerprint
from outcross.types import Completion, Request, Sampling
from tests.unit.tiny_lm import ask, fit, teacher_forced, tiny

PROMPTS = ("1+1=", "2+3=", "a", "12+", "cab+7")


@pytest.fixture(scope="module")
def model() -> TorchLM:
    return fit(tiny())


def beams(count: int, max_tokens: int = 6) -> Sampling:
    return Sampling(beams=count, max_tokens=max_tokens)


def searched_alone(model: TorchLM, prompt: str, count: int, limit: int) -> list[list[int]]:
    ids = torch.tensor([model._tokens.prompts([prompt])[0]])
    end = model._tokens.tokenizer.eos_token_id
    made = model._model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=count,
        num_return_sequences=count,
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=end,
        pad_token_id=end,
    )
    found = made[:, ids.shape[1] :].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in found]


@pytest.mark.parametrize("count", [2, 5])
def test_completions_are_those_of_transformers_whatever_shares_the_batch(model: TorchLM, count: int) -> None:
    answers = ask(model, [Request(prompt, count, beams(count)) for prompt in PROMPTS])
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert [list(item.tokens) for item in answer.completions] == searched_alone(model, prompt, count, 6)


def test_the_best_come_first_with_the_models_own_log_probabilities(model: TorchLM) -> None:
    (answer,) = ask(model, [Request("2+3=", 4, beams(4))])
    means = [math.fsum(item.log_probs) / len(item.log_probs) for item in answer.completions]
    assert means == sorted(means, reverse=True)
    assert len({item.content for item in answer.completions}) == 4
    prompt = model._tokens.prompts(["2+3="])[0]
    for item in answer.completions:
        assert item.log_probs == pytest.approx(teacher_forced(model, prompt, item.tokens), abs=1e-4)
        assert item.finished == (item.tokens[-1] in model._tokens.end_ids)
    assert answer.usage.completion_tokens == sum(len(item.tokens) for item in answer.completions)


def test_more_beams_find_what_is_at_least_as_likely_as_the_greedy_answer(model: TorchLM) -> None:
    greedy = ask(model, [Request(prompt, 1, Sampling(0.0, max_tokens=5)) for prompt in PROMPTS])
    found = ask(model, [Request(prompt, 1, beams(13, 5)) for prompt in PROMPTS])

    def mean(completion: Completion) -> float:
        return math.fsum(completion.log_probs) / len(completion.log_probs)

    pairs = [(mean(one.completions[0]), mean(other.completions[0])) for one, other in zip(found, greedy, strict=True)]
    assert all(best >= plain - 1e-4 for best, plain in pairs) and any(best > plain + 1e-4 for best, plain in pairs)


def test_a_seed_changes_nothing_and_drawn_requests_beside_it_stay_as_they_are(model: TorchLM) -> None:
    alone = ask(model, [Request("1+1=", 2, beams(3), seed=1)])
    mixed = ask(model, [Request("1+1=", 3, Sampling(max_tokens=6), seed=5), Request("1+1=", 2, beams(3), seed=2)])
    assert mixed[1].completions == alone[0].completions
    assert mixed[0] == ask(model, [Request("1+1=", 3, Sampling(max_tokens=6), seed=5)])[0]


def test_a_prefix_is_continued(model: TorchLM) -> None:
    prefix = tuple(model._tokens.texts(["12"])[0])
    (answer,) = ask(model, [Request("2+3=", 1, beams(3), prefix=prefix)])
    assert answer.completions[0].tokens[:2] == prefix and answer.completions[0].content.startswith("12")
    assert len(answer.completions[0].log_probs) == len(answer.completions[0].tokens)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Request("1", 4, beams(2)), "n is 4 and beams 2"),
        (Request("1", 1, Sampling(0.7, beams=2)), "leave temperature"),
        (Request("1", 1, Sampling(stop=("=",), beams=2)), "leave stop"),
    ],
)
def test_what_a_search_cannot_do_is_said(model: TorchLM, request_: Request, why: str) -> None:
    assert why in ask(model, [request_])[0].error


def test_models_without_a_search_refuse() -> None:
    assert "no beam search" in refusal(Request("1", 1, beams(2)), "chat")
    toy = Categorical({"a": 1.0, "b": 1.0})
    future = toy.submit(Request("1", 1, beams(2)))
    toy.flush()
    assert "no beam search" in future.result().error


def test_settings_without_beams_have_the_fingerprint_that_they_had() -> None:
    assert fingerprint(Sampling()) == fingerprint(Sampling(beams=1)) != fingerprint(Sampling(beams=2))
    assert "beams" not in canonical(Sampling()) and "beams" in canonical(Sampling(beams=2))
