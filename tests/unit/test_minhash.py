"""Hashed n-grams are equal where the words are, signatures are minima of permutations, similarity is Jaccard's."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.curate.minhash import Bands, Side, band_keys, shingled, similarity
from outcross.curate.ngrams import SYMBOLS, WORDS, char_units, word_units
from outcross.text import normalise, words

TEXTS = st.lists(st.text(st.sampled_from("aAbé1 -_.,\n\0\x1c’İ中"), max_size=30), min_size=1, max_size=8)


def grams(spoken: list[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(spoken[i : i + n]) for i in range(len(spoken) - n + 1)} or ({tuple(spoken)} if spoken else set())


@settings(deadline=None)
@given(TEXTS)
def test_word_hashes_are_equal_where_words_are(texts: list[str]) -> None:
    units = word_units(texts)
    spoken = [words(text) for text in texts]
    assert units.counts.tolist() == [len(found) for found in spoken]
    flat = [word for found in spoken for word in found]
    assert len(dict(zip(flat, units.hashes.tolist(), strict=True))) == len(set(flat)) == len(set(units.hashes.tolist()))
    assert len(set(zip(flat, units.hashes.tolist(), strict=True))) == len(set(flat))


@settings(deadline=None)
@given(TEXTS, st.integers(1, 6))
def test_grams_are_those_inside_each_text_and_short_texts_count_whole(texts: list[str], n: int) -> None:
    units = word_units(texts)
    long, short = units.grams(n), units.short(n)
    expected = [(index, tuple(found[i : i + n])) for index, found in enumerate(map(words, texts)) for i in range(len(found) - n + 1)]
    assert long.texts.tolist() == [index for index, _ in expected]
    pairs = set(zip([gram for _, gram in expected], long.hashes.tolist(), strict=True))
    assert len(pairs) == len({gram for gram, _ in pairs}) == len({code for _, code in pairs})
    brief = {index: tuple(found) for index, found in enumerate(map(words, texts)) if 0 < len(found) < n}
    assert sorted(short.texts.tolist()) == sorted(brief)
    by_text = {brief[index]: code for index, code in zip(short.texts.tolist(), short.hashes.tolist(), strict=True)}
    assert len(set(by_text.values())) == len(by_text) and not set(by_text.values()) & set(long.hashes.tolist())


@settings(deadline=None)
@given(TEXTS)
def test_characters_are_those_of_the_normalised_text(texts: list[str]) -> None:
    units = char_units(texts)
    plain = "".join(map(normalise, texts))
    assert units.counts.tolist() == [len(normalise(text)) for text in texts]
    assert len(set(zip(plain, units.hashes.tolist(), strict=True))) == len(set(plain)) == len(set(units.hashes.tolist()))


def test_a_word_has_one_hash_wherever_it_stands() -> None:
    far = " ".join(["first", *(f"w{i}" for i in range(60_000)), "x" * 200_000, "first"])
    hashes = word_units([far, "FIRST"]).hashes
    assert len(far) > 500_000 and hashes[0] == hashes[-2] == hashes[-1] and len(set(hashes.tolist())) == 60_002


def test_signs_and_digits_are_content_and_prose_marks_are_not() -> None:
    def differ(left: str, right: str) -> bool:
        one, two = word_units([left, right], SYMBOLS).grams(1).hashes.reshape(2, -1)
        return bool((one != two).any())

    assert differ("3 - 4 = x", "3 + 4 = x") and differ("is 17 here", "is 18 here") and differ("über - 4", "über + 4")
    assert not differ("Well, (it) is: so!", "well it is so") and not differ("„Über“ – so", "über so .")
    assert word_units(["3-4 a_b"], WORDS).counts.tolist() == [3] and word_units(["3-4 a_b"], SYMBOLS).counts.tolist() == [2]


SIDES = st.lists(st.text(st.sampled_from("ab "), max_size=12), min_size=2, max_size=6)


@settings(deadline=None)
@given(SIDES, SIDES, st.integers(1, 3), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_similarity_is_exact(answers: list[str], prompts: list[str], n: int, threshold: float) -> None:
    prompts = (prompts * len(answers))[: len(answers)]
    sets = shingled(answers, prompts, "word", n)
    side = Side(sets.values, sets.starts, sets.sizes)
    these, those = (np.array(column) for column in zip(*((i, j) for i in range(len(answers)) for j in range(len(answers))), strict=True))
    for found, i, j in zip(similarity(side, these, side, those, threshold), these, those, strict=True):
        a, b = grams(words(answers[i]), n), grams(words(answers[j]), n)
        p, q = grams(words(prompts[i]), n), grams(words(prompts[j]), n)
        answer = len(a & b) / len(a | b) if a | b else 0.0
        whole = (len(a & b) + len(p & q)) / (len(a | b) + len(p | q)) if a | b or p | q else 0.0
        assert found == pytest.approx(whole if min(answer, whole) >= threshold - 1e-9 else 0.0, abs=1e-12)


def test_bands_miss_at_most_one_in_two_hundred_at_the_threshold() -> None:
    for threshold in (0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0):
        bands = Bands.at(threshold)
        assert (1 - threshold**bands.rows) ** bands.count <= 0.005
    assert Bands.at(0.8) == Bands(18, 6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(5, 9_000))
def test_keys_do_not_depend_on_neighbours_or_on_the_length_of_a_chunk(seed: int, length: int) -> None:
    rng = random.Random(seed)
    text = " ".join(str(rng.random()) for _ in range(length))
    bands = Bands(4, 3)
    alone = band_keys(shingled([text], [""], "word", 5), bands)
    among = band_keys(shingled(["", "a b", text, "", text, "c d"], ["", "", "", "x", "", ""], "word", 5), bands)
    assert (among[:, [2]] == alone).all() and (among[:, 4] == alone[:, 0]).all() and (among[:, 0] == 0).all()


def test_a_band_is_shared_as_often_as_theory_says() -> None:
    rng = random.Random(1)
    vocabulary = [str(i) for i in range(3000)]
    pairs = []
    for _ in range(1500):
        left = rng.choices(vocabulary, k=120)
        right = list(left)
        right[rng.randrange(10, 110)] = rng.choice(vocabulary)
        right[60:60] = rng.choices(vocabulary, k=rng.randrange(12))
        pairs.append((" ".join(left), " ".join(right)))
    bands = Bands.at(0.8)
    left, right = (shingled(side, [""] * len(side), "word", 5) for side in zip(*pairs, strict=True))
    every = np.arange(len(pairs))
    jaccard = similarity(Side(left.values, left.starts, left.sizes), every, Side(right.values, right.starts, right.sizes), every, 0.5)
    expected = 1 - (1 - jaccard**bands.rows) ** bands.count
    shared = (band_keys(left, bands) == band_keys(right, bands)).mean(axis=0)
    assert jaccard.min() > 0.75 and jaccard.max() < 0.95
    assert shared.mean() == pytest.approx((jaccard**bands.rows).mean(), abs=0.02)
    assert (shared > 0).mean() == pytest.approx(expected.mean(), abs=0.006)


def test_sets_are_ascending_and_distinct() -> None:
    sets = shingled(["a b a b a b a"], ["x"], "word", 2)
    assert sets.sizes.tolist() == [[2, 1]] and all(a < b for a, b in pairwise(sets.values[:2].tolist()))
    with pytest.raises(ValueError, match="4097 documents"):
        shingled(["a"] * 4097, [""] * 4097, "word", 2)
