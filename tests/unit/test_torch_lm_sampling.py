"""The sampler: what it draws, with which probabilities, and that batching changes neither."""

from __future__ import annotations

import random
import threading

import pytest
import torch
from tiny_lm import ALPHABET, LLAMA, SUMS, ask, fit, out_of_memory_above, teacher_forced, tiny

from outcross.errors import ModelError
from outcross.types import Array, Completion, Message, Request, Sampling, Turn

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
SLIDING = LLAMA | {"model_type": "mistral", "sliding_window": 8}
HYBRID = LLAMA | {"model_type": "gemma3_text", "sliding_window": 6, "head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]}
RECURRENT = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}


def ragged(count: int, *, max_tokens: int = 20, temperature: float = 1.0, n: int = 1) -> list[Request]:
    rng = random.Random(0)
    prompts = ["".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 24))) for _ in range(count)]
    return [Request(prompt, n, Sampling(temperature=temperature, max_tokens=max_tokens), seed=i) for i, prompt in enumerate(prompts)]


@pytest.mark.parametrize("config", [LLAMA, GPT2, SLIDING, HYBRID, RECURRENT], ids=lambda config: str(config["model_type"]))
def test_log_probs_are_those_of_a_teacher_forced_pass_while_rows_come_and_go(config):
    model = tiny(config, sample_batch=5)
    requests = ragged(17, n=2)
    turns = [Turn(request.prompt, done) for request, found in zip(requests, ask(model, requests)) for done in found.completions]
    assert len({len(turn.completion.tokens) for turn in turns}) > 5, "rows are to end at different times"
    for turn, scored in zip(turns, model.log_probs(turns), strict=True):
        prompt = model._tokens.prompts([turn.prompt])[0]
        expected = teacher_forced(model, prompt, turn.completion.tokens)
        assert turn.completion.log_probs == pytest.approx(expected, abs=1e-4)
        assert scored == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_ragged_batch_answers_as_one_by_one(temperature):
    requests = ragged(40, temperature=temperature)
    together = ask(tiny(sample_batch=8), requests)
    model = tiny(sample_batch=1)
    apart = [ask(model, [request])[0] for request in requests]
    assert [found.completions[0].tokens for found in together] == [found.completions[0].tokens for found in apart]


def test_greedy_takes_the_most_probable_token():
    model, request = tiny(), Request("1+2=", sampling=Sampling(temperature=0, max_tokens=6))
    (done,) = ask(model, [request])[0].completions
    ids = model._tokens.prompts(["1+2="])[0]
    for token in done.tokens:
        assert token == int(model._model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        ids = [*ids, token]


def test_samples_differ_and_depend_on_seed_and_index_alone():
    model = tiny()
    request = Request("1+", 8, Sampling(max_tokens=12), seed=3)
    first = ask(model, [request])[0]
    other = Request("1+", 8, Sampling(max_tokens=12), seed=4)
    again, shifted = ask(model, [request, other])
    assert first == again
    assert len({done.tokens for done in first.completions}) > 4
    assert first.completions != shifted.completions
    fewer = ask(model, [Request("1+", 3, Sampling(max_tokens=12), seed=3)])[0]
    assert [done.tokens for done in fewer.completions] == [done.tokens for done in first.completions[:3]]


def test_finished_says_whether_the_answer_ended_by_itself():
    model = fit(tiny(), epochs=60.0)
    full, cut = ask(
        model, [Request("7+7=", sampling=Sampling(temperature=0)), Request("7+7=", sampling=Sampling(temperature=0, max_tokens=1))]
    )
    assert (full.completions[0].content, full.completions[0].finished) == ("14", True)
    assert full.completions[0].tokens[-1] in model._tokens.end_ids, "the end token is among the tokens and not in the text"
    assert (cut.completions[0].content, cut.completions[0].finished) == ("1", False)
    assert (full.usage.prompt_tokens, full.usage.completion_tokens) == (4, 3)


def test_stop_strings_end_an_answer_before_the_first_of_them():
    plain = ask(tiny(), [Request("a", 30, Sampling(max_tokens=30), seed=1)])[0].completions
    stop = ("b+", "c")
    stopped = ask(tiny(), [Request("a", 30, Sampling(max_tokens=30, stop=stop), seed=1)])[0].completions
    hits = 0
    for free, done in zip(plain, stopped, strict=True):
        places = [free.content.find(mark) for mark in stop if mark in free.content]
        if places:
            hits += 1
            assert (done.content, done.finished) == (free.content[: min(places)], True)
            assert done.tokens == free.tokens[: len(done.tokens)] and len(done.log_probs) == len(done.tokens)
        else:
            assert done == free
    assert hits > 5


def test_a_prefix_is_continued_and_counts_as_part_of_the_answer():
    model = tiny()
    prefix = tuple(model._tokens.texts(["12"])[0])
    (done,) = ask(model, [Request("3+9=", sampling=Sampling(max_tokens=5), prefix=prefix)])[0].completions
    assert done.tokens[:2] == prefix and len(done.tokens) > 2 and done.content.startswith("12")
    assert done.log_probs == pytest.approx(teacher_forced(model, model._tokens.prompts(["3+9="])[0], done.tokens), abs=1e-4)
    (ended,) = ask(model, [Request("3+9=", prefix=(*prefix, 1))])[0].completions
    assert (ended.content, ended.tokens, ended.finished) == ("12", (*prefix, 1), True), "nothing follows an end token"


def test_choices_are_summed_as_continuations():
    model = tiny()
    request = Request("1+9=", choices=("10", "9", "1"))
    found = ask(model, [request])[0].completions[0].choice_log_probs
    encode, prompt = model._tokens.texts, model._tokens.prompts(["1+9="])[0]
    assert found == pytest.approx([sum(teacher_forced(model, prompt, encode([text])[0])) for text in request.choices], abs=1e-4)
    assert found[0] < found[2], '"10" is read as a sequence that begins with "1"'


def test_messages_go_through_the_chat_template():
    model = tiny()
    request = Request((Message("user", "1+1="),), sampling=Sampling(temperature=0, max_tokens=4))
    assert "chat template" in ask(model, [request])[0].error
    model._tokens.tokenizer.chat_template = "{% for m in messages %}a{{ m.content }}{% endfor %}{% if add_generation_prompt %}b{% endif %}"
    plain = Request("a1+1=b", sampling=Sampling(temperature=0, max_tokens=4))
    chat, text = ask(model, [request, plain])
    assert chat == text


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (Request("1" * 64), "64 tokens (prefix included), the model's context 64"),
        (Request("1", choices=("2" * 64,)), "65 tokens, the model's context is 64"),
        (Request("1", schema="{}"), "JSON schema"),
        (Request("1", n=0), "asked for 0 completions"),
        (Request("xyz"), "cannot be written in this model's vocabulary"),
        (Request(Array("uint8", (1,), b"0")), "this prompt is an array"),
    ],
)
def test_what_cannot_be_answered_comes_back_with_its_reason_and_spoils_nothing_else(request_, reason):
    good = Request("1+1=", sampling=Sampling(max_tokens=4))
    bad, fine = ask(tiny(), [request_, good])
    assert reason in bad.error and not bad.completions
    assert len(fine.completions) == 1 and not fine.error


def test_an_answer_stops_unfinished_where_the_context_ends():
    config = LLAMA | {"eos_token_id": 0}
    found = ask(tiny(config), [Request("1" * 60, 8, Sampling(max_tokens=50))])[0].completions
    cut = [done for done in found if not done.finished]
    assert cut and all(len(done.tokens) == 4 for done in cut)


def test_full_memory_halves_the_batch_and_changes_no_answer():
    requests = ragged(20, n=2)
    expected = ask(tiny(sample_batch=16), requests)
    model = tiny(sample_batch=16)
    refused = out_of_memory_above(model, 5)
    found = ask(model, requests)
    assert [[done.tokens for done in one.completions] for one in found] == [[done.tokens for done in one.completions] for one in expected]
    assert refused == [8, 8], "sixteen rows read eight prompts, then eight rows take a step"
    model = tiny()
    out_of_memory_above(model, 0)
    with pytest.raises(ModelError, match="single completion"):
        ask(model, requests[:1])


def test_damaged_weights_are_reported_by_the_futures():
    model = tiny()
    torch.nn.init.constant_(model._model.lm_head.weight, float("nan"))
    future = model.submit(Request("1"))
    model.flush()
    with pytest.raises(ModelError, match="weights are damaged"):
        future.result(timeout=0)


def test_each_thread_flushes_its_own_requests():
    model = tiny()
    mine = model.submit(Request("1", sampling=Sampling(max_tokens=2)))
    theirs = []

    def other() -> None:
        theirs.append(ask(model, [Request("2", sampling=Sampling(max_tokens=2))])[0])

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert theirs[0].completions and not mine.done()
    model.flush()
    assert mine.result(timeout=0).completions


def test_a_turn_is_scored_by_its_tokens_or_else_by_its_text():
    model = fit(tiny(), epochs=2.0)
    encode, prompt = model._tokens.completions, model._tokens.prompts(["1+1="])[0]
    own = encode(["2"])[0]
    turns = [
        Turn("1+1=", Completion("2", tuple(own))),
        Turn("1+1=", Completion("2")),
        Turn("1+1=", Completion("2", (9999, 5))),  # another model's tokens
        Turn("1+1=", Completion("2", (7, 8))),  # ids that are in range and mean something else here
        Turn("1+1=", Completion("2", finished=False)),
        Turn("1+1=", Completion("", finished=False)),
    ]
    found = list(model.log_probs(turns))
    whole = teacher_forced(model, prompt, own)
    for scored in found[:4]:
        assert scored == pytest.approx(whole, abs=1e-4)
    assert found[4] == pytest.approx(whole[:1], abs=1e-4), "an answer that was cut off has no end token"
    assert found[5] == []


def test_scoring_streams_and_refuses_what_is_too_long():
    model, taken = tiny(), []

    def turns():
        for i in range(2000):
            taken.append(i)
            yield Turn("1", Completion("2"))

    next(iter(model.log_probs(turns())))
    assert len(taken) <= 512
    with pytest.raises(ModelError, match="72 tokens cannot be scored: the model reads at most 64"):
        list(model.log_probs([Turn("1", Completion("2" * 70))]))


def test_scoring_survives_full_memory():
    model = tiny(sample_batch=16)
    turns = [Turn(example.prompt, Completion(str(example.completion))) for example in SUMS]
    expected = list(model.log_probs(turns))
    out_of_memory_above(model, 3)
    for found, values in zip(model.log_probs(turns), expected, strict=True):
        assert found == pytest.approx(values, abs=1e-5)


def test_tokens_are_counted_without_the_tokenizers_additions():
    model = tiny()
    assert model.count_tokens("12+3") == 4
    assert model.count_tokens("") == 0
