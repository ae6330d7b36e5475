"""Batches that change on the way: equal to `transformers.generate`, shared beginnings read once, answers handed over as they come."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_torch_lm_sampling import GPT2, HYBRID, SLIDING
from tiny_lm import ALPHABET, LLAMA, ask, teacher_forced, tiny

from outcross.errors import ModelError
from outcross.models import prefill
from outcross.models.draw import Settings, draw, uniforms
from outcross.models.prefill import shared_prefixes
from outcross.models.torch_lm import TorchLM
from outcross.types import Completion, Request, Sampling, Turn

LONG = {"max_position_embeddings": 160, "n_positions": 160}


def text(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(ALPHABET) for _ in range(length))


def with_templates(count: int, *, n: int = 1, temperature: float = 1.0) -> list[Request]:
    """Two templates of 40 and 56 characters, ends of 1 to 20, and a few prompts that share nothing; answers of at most 2 to 24 tokens."""
    rng = random.Random(1)
    templates = [text(rng, 40), text(rng, 56), ""]
    prompts = [templates[min(i % 5, 2) if i % 5 > 3 else i % 2] + text(rng, rng.randint(1, 20)) for i in range(count)]
    limits = [2 + 7 * i % 23 for i in range(count)]
    return [Request(prompt, n, Sampling(temperature=temperature, max_tokens=limits[i]), seed=i) for i, prompt in enumerate(prompts)]


def tokens_read(model: TorchLM) -> list[int]:
    """The size of every forward pass from now on: rows × columns."""
    sizes: list[int] = []
    model._model.register_forward_pre_hook(lambda module, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True)
    return sizes


def generated(model: TorchLM, prompt: str, limit: int) -> list[int]:
    ids = torch.tensor(model._tokens.prompts([prompt]))
    found = model._model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit, pad_token_id=0)
    return found[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("config", [LLAMA, GPT2, SLIDING, HYBRID], ids=lambda config: str(config["model_type"]))
def test_greedy_answers_are_those_of_generate(config):
    model = tiny(config | LONG, sample_batch=4)
    requests = with_templates(25, temperature=0)
    found = [response.completions[0] for response in ask(model, requests)]
    assert len({len(done.tokens) for done in found}) > 3, "answers are to end at different times, so that slots are refilled"
    equal = 0
    for request, done in zip(requests, found, strict=True):
        theirs, mine = generated(model, request.prompt, request.sampling.max_tokens), list(done.tokens)
        equal += mine == theirs
        if mine != theirs:
            at = next(i for i, (one, other) in enumerate(zip(mine, theirs, strict=False)) if one != other)
            ids = torch.tensor([model._tokens.prompts([request.prompt])[0] + mine[:at]])
            top = model._model(input_ids=ids).logits[0, -1].topk(2).values
            assert top[0] - top[1] <= 1e-3, f"{request.prompt!r}: {mine} against {theirs}"
    assert equal >= 20


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=lambda config: str(config["model_type"]))
def test_a_shared_beginning_is_read_once_and_changes_nothing(config, monkeypatch):
    model = tiny(config | LONG, sample_batch=6)
    requests = with_templates(30, n=2)
    sizes = tokens_read(model)
    shared = ask(model, requests)
    with_sharing = sum(sizes)
    sizes.clear()
    monkeypatch.setattr(prefill, "LEAST_SAVED", 1 << 60)
    apart = ask(model, requests)
    assert with_sharing < sum(sizes) - 600, "most of 24 beginnings of 40 or 56 tokens, each read anew in every batch"
    assert [[done.tokens for done in one.completions] for one in shared] == [[done.tokens for done in one.completions] for one in apart]
    for request, response in zip(requests, shared, strict=True):
        prompt = model._tokens.prompts([request.prompt])[0]
        for done in response.completions:
            assert done.log_probs == pytest.approx(teacher_forced(model, prompt, done.tokens), abs=1e-4)


def test_samples_of_a_prompt_read_it_once_even_when_they_start_at_different_times():
    model = tiny(LLAMA | LONG, sample_batch=4)
    sizes = tokens_read(model)
    (found,) = ask(model, [Request("1" * 100, 24, Sampling(max_tokens=8), seed=2)])
    assert len(found.completions) == 24 and [size for size in sizes if size >= 100] == [100]


@pytest.mark.parametrize("config", [LLAMA, SLIDING, HYBRID], ids=lambda config: str(config["model_type"]))
def test_prompts_read_in_several_passes_make_one_batch(config, monkeypatch):
    monkeypatch.setattr(prefill, "PREFILL_TOKENS", 50)
    model = tiny(config | LONG, sample_batch=9)
    requests = with_templates(15, n=2)
    for request, response in zip(requests, ask(model, requests), strict=True):
        prompt = model._tokens.prompts([request.prompt])[0]
        for done in response.completions:
            assert done.log_probs == pytest.approx(teacher_forced(model, prompt, done.tokens), abs=1e-4)


def test_kept_beginnings_are_bounded(monkeypatch):
    monkeypatch.setattr(prefill, "KEPT_TOKENS", 100)
    rng = random.Random(3)
    templates = [tuple(rng.choices(range(2, 18), k=40)) for _ in range(6)]
    prompts = [(*template, end, 5) for template in templates for end in range(2, 14)]
    reader = prefill.Reader(tiny(LLAMA | LONG)._model, prompts)
    for ids in prompts:
        reader.read([ids], None)
        assert sum(map(len, reader._prefixes)) <= 100
    assert len(reader._prefixes) == 2


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(33, 60), st.lists(st.integers(0, 2), max_size=4)), max_size=40))
def test_prefixes_are_common_to_their_group_and_worth_it(drawn):
    prompts = [(template,) * length + tuple(end) for template, length, end in drawn]
    found = shared_prefixes(prompts)
    groups = Counter((ids[:length], length) for ids, length in found.items())
    for (beginning, length), members in groups.items():
        assert length >= prefill.LEAST_PREFIX and members > 1 and len(beginning) == length
    assert all(len(ids) > length for ids, length in found.items()), "each prompt keeps a token of its own, which gives the logits"
    assert set(found) <= set(prompts)


def test_a_template_of_all_prompts_is_found_beside_longer_accidents():
    template = tuple(range(300))
    prompts = [(*template, i % 7, i) for i in range(50)] + [(9, 9, i) for i in range(50)]
    found = shared_prefixes(prompts)
    assert found == dict.fromkeys(prompts[:50], 300)


# ── Handed over as they come ───────────────────────────────────────────────────────────────────────────────────────────
def test_answers_are_handed_over_during_the_flush():
    model, passes, done_at = tiny(sample_batch=4), [], []
    model._model.register_forward_pre_hook(lambda module, args: passes.append(1))
    requests = [Request(f"{i}+", 2, Sampling(max_tokens=6), seed=i) for i in range(9)]
    for request in requests:
        model.submit(request).add_done_callback(lambda future: done_at.append(len(passes)))
    model.flush()
    assert len(done_at) == 9 and done_at == sorted(done_at)
    assert done_at[0] < len(passes) / 2 and len(set(done_at)) > 3


def test_scored_choices_are_handed_over_batch_by_batch():
    model, passes, done_at = tiny(sample_batch=4), [], []
    model._model.register_forward_pre_hook(lambda module, args: passes.append(1))
    for i in range(8):
        model.submit(Request(f"{i}+", choices=("1", "2"))).add_done_callback(lambda future: done_at.append(len(passes)))
    model.flush()
    assert done_at == [1, 1, 2, 2, 3, 3, 4, 4]


def test_an_interrupted_flush_keeps_finished_answers_and_leaves_nobody_waiting():
    model, passes = tiny(sample_batch=2), []

    def interrupt(module, args):
        passes.append(1)
        if len(passes) == 12:
            raise KeyboardInterrupt

    requests = [Request(f"{i}+", sampling=Sampling(max_tokens=6), seed=i) for i in range(8)]
    whole = ask(tiny(sample_batch=2), requests)
    hook = model._model.register_forward_pre_hook(interrupt)
    futures = [model.submit(request) for request in requests]
    with pytest.raises(KeyboardInterrupt):
        model.flush()
    hook.remove()
    assert all(future.done() for future in futures)
    kept = [i for i, future in enumerate(futures) if future.exception() is None]
    assert 0 < len(kept) < 8
    assert all(futures[i].result().completions[0].tokens == whole[i].completions[0].tokens for i in kept)
    with pytest.raises(ModelError, match="interrupted before this answer was complete"):
        next(future for future in futures if future.exception()).result(timeout=0)
    again = ask(model, [requests[i] for i in range(8) if i not in kept])
    assert [one.completions[0].tokens for one in again] == [whole[i].completions[0].tokens for i in range(8) if i not in kept]


# ── What draws depend on ───────────────────────────────────────────────────────────────────────────────────────────────
def test_draws_do_not_depend_on_what_else_is_in_the_batch():
    requests = with_templates(12, n=2)
    whole = ask(tiny(LLAMA | LONG, sample_batch=5), requests)
    rng = random.Random(5)
    for size in (1, 3, 16):
        chosen = rng.sample(range(12), 6)
        found = ask(tiny(LLAMA | LONG, sample_batch=size), [requests[i] for i in chosen])
        for i, response in zip(chosen, found, strict=True):
            assert [done.tokens for done in response.completions] == [done.tokens for done in whole[i].completions]


def test_the_client_version_stands_for_these_very_draws():
    """Whoever changes how tokens are drawn gets other tokens here, and raises `client_version`, which keys the journal."""
    count = 12
    rows = Settings.of([Sampling(temperature=0.7, top_k=9, top_p=0.95)] * count, 11, torch.device("cpu"))
    logits = (torch.arange(11) * 7 % 11 / 4).expand(count, -1)
    tokens, _ = draw(logits, uniforms(2026, 3, count), rows, filtered=True, greedy=False)
    assert (TorchLM.client_version, tokens.tolist()) == ("1", [6, 3, 3, 7, 7, 9, 3, 9, 9, 7, 6, 9])


# ── Scoring ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_scoring_is_batched_by_length_with_bounded_tokens_and_keeps_the_order(monkeypatch):
    monkeypatch.setattr("outcross.models.score.CPU_TOKENS", 128)
    model, rng = tiny(LLAMA | LONG), random.Random(0)
    turns = [Turn(text(rng, rng.randint(1, 20)), Completion(text(rng, rng.randint(0, 60)))) for _ in range(60)]
    sizes = tokens_read(model)
    found = list(model.log_probs(turns))
    assert max(sizes) <= 128 and len(sizes) < 40
    needed = sum(len(turn.prompt) + len(str(turn.completion.content)) for turn in turns)
    assert sum(sizes) < 1.3 * needed, "texts of similar length share a batch, so little of it is padding"
    for turn, values in zip(turns, found, strict=True):
        ids = model._tokens.of_completion(turn.completion)
        assert values == pytest.approx(teacher_forced(model, model._tokens.prompts([turn.prompt])[0], ids), abs=1e-4)


def test_bfloat16_models_give_log_probs_summed_in_float32():
    model = tiny(dtype="bfloat16")
    done = ask(model, [Request("1+1=", 4, Sampling(max_tokens=12), seed=1)])[0].completions
    values = torch.tensor([value for each in done for value in each.log_probs])
    assert not torch.equal(values, values.bfloat16().float()), "more digits than bfloat16 holds"
