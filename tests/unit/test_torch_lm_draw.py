"""One draw: the distribution it follows, and what temperature, top_k and top_p leave of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from outcross.models.draw import Settings, draw, uniforms
from outcross.types import Sampling

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, -20.0])


def drawn(sampling: Sampling, count: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    rows = Settings.of([sampling] * count, len(LOGITS), torch.device("cpu"))
    filtered = sampling.top_p < 1 or sampling.top_k > 0
    return draw(LOGITS.expand(count, -1), uniforms(7, 0, count), rows, filtered=filtered, greedy=sampling.temperature <= 0)


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), 5),
        (Sampling(temperature=0.5), 5),
        (Sampling(temperature=2.0), 5),
        (Sampling(top_k=2), 2),
        (Sampling(top_p=0.7), 2),  # the first has 0.61
        (Sampling(top_p=0.6), 1),
        (Sampling(temperature=2.0, top_k=3, top_p=0.9), 3),
    ],
)
def test_frequencies_follow_the_tempered_and_filtered_distribution(sampling, kept):
    tokens, log_probs = drawn(sampling)
    expected = (LOGITS.double() / sampling.temperature).softmax(-1)[:kept]
    counts = np.bincount(tokens.numpy(), minlength=5)
    assert counts[kept:].sum() == 0
    live = (expected / expected.sum()).numpy() * len(tokens)
    likely = live > 5
    if likely.sum() > 1:
        assert stats.chisquare(counts[:kept][likely], live[likely] * counts[:kept][likely].sum() / live[likely].sum()).pvalue > 1e-3
    assert torch.allclose(log_probs, LOGITS.log_softmax(-1)[tokens], atol=1e-6), "log-probabilities are those at temperature 1, unfiltered"


def test_greedy_rows_and_drawn_rows_share_a_batch():
    rows = Settings.of([Sampling(temperature=0), Sampling()] * 50, 5, torch.device("cpu"))
    tokens, _ = draw(LOGITS.expand(100, -1), uniforms(1, 0, 100), rows, filtered=False, greedy=False)
    assert set(tokens[::2].tolist()) == {0}
    assert len(set(tokens[1::2].tolist())) > 2


@settings(max_examples=50, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30, width=32) | st.just(float("-inf")), min_size=2, max_size=8).filter(lambda row: max(row) > -30),
    random=st.floats(0, 1 - 2**-24, width=32),
    top_k=st.integers(0, 8),
    top_p=st.floats(0.01, 1.0),
)
def test_a_token_of_probability_zero_is_never_drawn(logits, random, top_k, top_p):
    row = torch.tensor([logits])
    rows = Settings.of([Sampling(top_k=top_k, top_p=top_p)], row.shape[1], torch.device("cpu"))
    for filtered in (False, True):
        token, log_prob = draw(row, torch.tensor([random]), rows, filtered=filtered, greedy=False)
        assert row[0, token] > float("-inf") and log_prob > float("-inf")


def test_random_numbers_depend_on_seed_and_sample_alone_and_continue():
    assert torch.equal(uniforms(3, 1, 10), uniforms(3, 1, 20)[:10])
    others = [uniforms(3, 2, 10), uniforms(4, 1, 10), uniforms(-3, 1, 10), uniforms(3 + 2**63, 1, 10)]
    assert not any(torch.equal(uniforms(3, 1, 10), other) for other in others)
    assert stats.kstest(torch.cat([uniforms(seed, 0, 5) for seed in range(500)]).numpy(), "uniform").pvalue > 1e-3
