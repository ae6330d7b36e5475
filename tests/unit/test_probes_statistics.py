"""Diversity statistics against closed forms and plain re-computation."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from outcross.evaluate.statistics import distinct, entropy, half_samples, self_overlap
from outcross.text import words

ALL = np.ones((1, 8), dtype=bool)


def everything(items: int) -> np.ndarray:
    return np.ones((1, items), dtype=bool)


def test_half_samples_hold_half_and_depend_on_the_items_alone() -> None:
    items = [f"task {number}" for number in range(101)]
    subsets = half_samples(items, 300)
    assert subsets.shape == (301, 101) and subsets[0].all()
    assert set(subsets[1:].sum(axis=1)) == {50}
    assert np.array_equal(subsets, half_samples(items, 300))
    assert not np.array_equal(subsets, half_samples(items[::-1], 300))
    assert np.abs(subsets[1:].mean(axis=0) - 50 / 101).max() < 0.15
    # Replicates that were stored must stay paired with later ones: the draw is pinned.
    assert np.flatnonzero(half_samples(["a", "b", "c", "d", "e", "f"], 2)[1]).tolist() == [1, 3, 4]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=60))
def test_entropy_of_one_answer_per_item_is_scipys(answers: list[str]) -> None:
    found = entropy([[answer] for answer in answers], everything(len(answers)))[0]
    assert found == pytest.approx(stats.entropy(list(Counter(answers).values())), abs=1e-12)


def test_entropy_is_pooled_over_prompts_and_does_not_grow_with_answers_per_item() -> None:
    rng = random.Random(0)
    assert entropy([[str(number)] * 3 for number in range(8)], ALL)[0] == pytest.approx(math.log(8))
    assert entropy([["same"]] * 8, ALL)[0] == 0.0
    one = [[str(rng.randrange(300))] for _ in range(500)]
    four = [[str(rng.randrange(300)) for _ in range(4)] for _ in range(500)]
    assert entropy(four, everything(500))[0] == pytest.approx(entropy(one, everything(500))[0], abs=0.08)


def test_items_without_an_answer_count_for_nothing() -> None:
    given_, lacking = [["a b"], ["c d"], ["a b c"]], [["a b"], [], ["c d"], ["a b c"]]
    assert entropy(lacking, everything(4))[0] == pytest.approx(entropy(given_, everything(3))[0])
    assert distinct(lacking, everything(4), words)[0] == pytest.approx(distinct(given_, everything(3), words)[0])
    assert self_overlap(lacking, everything(4), words)[0] == pytest.approx(self_overlap(given_, everything(3), words)[0])
    assert entropy([[]], everything(1))[0] == self_overlap([[], ["a"]], everything(2), words)[0] == 0.0


def test_distinct_is_what_drawing_from_the_pool_finds() -> None:
    rng = np.random.default_rng(0)
    texts = [[" ".join(rng.choice(list("abcdefghij"), p=np.arange(1, 11) / 55, size=6))] for _ in range(40)]
    drawn = []
    for n in (1, 2, 3):
        pool = []
        for (text,) in texts:
            padded = text.split() + ["end"] * (n - 1)
            pool += [" ".join(padded[i : i + n]) for i in range(6)]
        drawn.append(np.mean([len(set(rng.choice(pool, 200))) / 200 for _ in range(400)]))
    assert distinct(texts, everything(40), words)[0] == pytest.approx(np.mean(drawn), abs=0.003)


def test_distinct_does_not_fall_with_length_and_falls_with_repetition() -> None:
    rng = random.Random(1)
    vocabulary = [f"w{number}" for number in range(50)]
    short, long = ([[" ".join(rng.choices(vocabulary, k=size))] for _ in range(400)] for size in (10, 40))
    assert distinct(long, everything(400), words)[0] == pytest.approx(distinct(short, everything(400), words)[0], abs=0.03)
    assert distinct([short[0]] * 400, everything(400), words)[0] < 0.06


def test_self_overlap_is_the_mean_cosine_over_pairs_of_items() -> None:
    texts = ["a b c", "a b d", "x y z", "a b c", "c a"]

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        padded = text.split() + ["end"] * (n - 1)
        return Counter(tuple(padded[i : i + n]) for i in range(len(text.split())))

    def cosine(a: Counter[tuple[str, ...]], b: Counter[tuple[str, ...]]) -> float:
        return sum(a[gram] * b[gram] for gram in a) / math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))

    expected = np.mean([cosine(grams(a, n), grams(b, n)) for n in (1, 2, 3) for a, b in combinations(texts, 2)])
    assert self_overlap([[text] for text in texts], everything(5), words)[0] == pytest.approx(expected)
    assert self_overlap([["a b", "a b"]] * 4, everything(4), words)[0] == pytest.approx(1.0)
    assert self_overlap([["a b"], ["c d"], ["e f"]], everything(3), words)[0] == pytest.approx(0.0)


@pytest.mark.parametrize("statistic", [entropy, lambda a, s: distinct(a, s, words), lambda a, s: self_overlap(a, s, words)])
def test_half_samples_are_those_statistics_of_half_the_items(statistic: object) -> None:
    rng = random.Random(2)
    answers = [[f"{rng.randrange(5)} {rng.randrange(9)}" for _ in range(rng.randrange(1, 3))] for _ in range(8)]
    subsets = half_samples([str(number) for number in range(8)], 5)
    found = statistic(answers, subsets)  # type: ignore[operator]
    for row, subset in enumerate(subsets):
        part = [answers[index] for index in np.flatnonzero(subset)]
        assert found[row] == pytest.approx(statistic(part, everything(len(part)))[0], abs=1e-12)  # type: ignore[operator]


@pytest.mark.parametrize(("kinds", "items"), [(50, 400), (500, 400), (2, 400)])
def test_the_spread_of_halves_is_the_standard_error(kinds: int, items: int) -> None:
    """Also where most answers are rare, where drawing with replacement gives a third less."""
    rng = np.random.default_rng(3)
    shares = 1 / np.arange(1, kinds + 1) ** 0.7
    shares /= shares.sum()
    subsets = half_samples([str(number) for number in range(items)], 100)
    found = [entropy([[str(code)] for code in rng.choice(kinds, items, p=shares)], subsets) for _ in range(60)]
    many = rng.multinomial(items, shares, size=4000)
    truth = np.std([stats.entropy(counts) for counts in many])
    spread = math.sqrt(np.mean([values[1:].var(ddof=1) for values in found]))
    assert 0.9 * truth < spread < 1.5 * truth


def test_a_thousand_items_and_three_hundred_replicates_take_a_second_or_two() -> None:
    rng = random.Random(4)
    vocabulary = [f"w{number}" for number in range(5000)]
    weights = [1 / (number + 1) for number in range(5000)]
    answers = [[" ".join(rng.choices(vocabulary, weights, k=30))] for _ in range(1000)]
    subsets = half_samples([str(number) for number in range(1000)], 300)
    start = time.process_time()
    entropy(answers, subsets)
    distinct(answers, subsets, words)
    self_overlap(answers, subsets, words)
    assert time.process_time() - start < 6.0  # 0.6 s on an idle core
