"""How much a text repeats itself: closed forms, the limits of the paper, and a slow reference."""

from __future__ import annotations

import random
import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcross.curate.repetition import REPEATED, TOP, compression_ratio, repetition


def above(text: str) -> list[str]:
    return [name for name, _, _ in repetition(text).above()]


def distinct(count: int, start: int = 0) -> list[str]:
    """Words of equal length that all differ."""
    return [f"w{index:05d}" for index in range(start, start + count)]


def test_a_text_of_distinct_words_repeats_nothing() -> None:
    found = repetition(" ".join(distinct(300)))
    assert found.words == 300 and not above(" ".join(distinct(300)))
    assert found.top == (0, 0, 0) and found.repeated == (0,) * 6 and found.lines == found.paragraphs == 0
    assert repetition("").words == 0 and not above("") and not above("No.")


def test_lines_and_paragraphs_count_from_their_second_occurrence() -> None:
    found = repetition("one\ntwo\none\none\n\nlonger line")
    assert found.lines == pytest.approx(2 / 5) and found.line_characters == pytest.approx(6 / 23)
    found = repetition("first part\nof two lines\n\nother\n\nfirst part\nof two lines")
    assert found.paragraphs == pytest.approx(1 / 3) and found.paragraph_characters == pytest.approx(23 / 51)


def test_a_frequent_pair_is_measured_by_the_characters_of_all_its_occurrences() -> None:
    filler = distinct(160)
    words = [word for index in range(20) for word in (*filler[8 * index : 8 * index + 8], "abcabc", "abcabd")]
    found = repetition(" ".join(words))
    assert found.top[0] == pytest.approx(20 * 12 / (200 * 6)) and found.top[1:] == (0, 0) and found.repeated == (0,) * 6


def test_a_passage_said_twice_is_measured_once() -> None:
    passage = distinct(40)
    found = repetition(" ".join([*passage, *distinct(120, 1000), *passage]))
    assert found.repeated == pytest.approx([40 // n * n / 200 for n in REPEATED])
    assert above(" ".join([*passage, *distinct(120, 1000), *passage])) == [f"characters in repeated {n}-grams" for n in REPEATED]


def test_a_phrase_said_twice_in_a_short_text_is_no_repetition_but_a_loop_is() -> None:
    phrase = "the number of apples she has left"
    text = f"To find {phrase}, subtract what was eaten from what was bought. So {phrase} is 12 less 5, and that is 7 apples."
    assert not above(text)
    assert above("go on and on and " * 6) and above("no " * 12) and above("I am sorry. " * 20)
    assert above("\n".join(["I do not know."] * 4))


@given(st.lists(st.sampled_from(["a", "b", "c", "dd", "ee", "fff"]), max_size=60))
def test_shares_agree_with_a_slow_count(words: list[str]) -> None:
    found, size = repetition(" ".join(words)), sum(map(len, words))
    for n, value in zip(TOP, found.top, strict=True):
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        most = max(((count, sum(map(len, gram))) for gram, count in grams.items()), default=(0, 0))
        assert value == pytest.approx(min(1, most[0] * most[1] / size) if most[0] > 1 and most[0] * n >= 20 else 0)
    for n, value in zip(REPEATED, found.repeated, strict=True):
        covered, seen, at = 0, set(), 0
        while at + n <= len(words):
            gram = " ".join(words[at : at + n])
            covered, at = (covered + n, at + n) if gram in seen else (covered, at + 1)
            seen.add(gram)
        assert 0 <= value <= 1 and (value > 0) == (covered >= 20)


def test_the_compression_ratio_is_that_of_zlib_and_tells_loops_from_noise() -> None:
    text = "The quick brown fox jumps over the lazy dog, and the dog sleeps on."
    assert compression_ratio(text) == len(text) / len(zlib.compress(text.encode(), 6))
    noise = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=2000))
    assert compression_ratio("I cannot say. " * 100) > 20 and 1 < compression_ratio(noise) < 4
    assert compression_ratio("") == 0 and compression_ratio("\ud800") < 1
