"""The figures against real text: closed forms, a false-alarm rate at most the stated one, and power."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
from audit_sets import VOCABULARY, texts, write

from outcross.audit import against_real as figures
from outcross.audit.against_real import DRAWS, FIGURES, LEVEL, Part, against_real
from outcross.audit.by_meaning import IN_EFFECT, REACHED, by_meaning
from outcross.audit.examine import Question, audit
from outcross.models.hashed_embedder import HashedEmbedder

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def part(*rows: str, ends: bool = True) -> Part:
    known: dict[str, int] = {letter: place for place, letter in enumerate("abcdefgh")}
    spoken = [[known[word] for word in row.split(" ")] for row in rows]
    at = [number for number, row in enumerate(spoken) for _ in row]
    return Part(np.array([number for row in spoken for number in row]), np.array(at), np.full(len(rows), ends), len(known))


def test_figures_have_their_closed_forms() -> None:
    one, two = part("a b c d", "a b a b"), part("a b e", "c d")
    assert figures.vocabulary(one, one) == 4
    assert figures.phrases(one, one) == pytest.approx(4 / 6)  # ab bc cd ab ba ab: n-grams stay inside rows
    assert figures.entropy(one, one) == pytest.approx(-sum(p * math.log(p) for p in (3 / 8, 3 / 8, 1 / 8, 1 / 8)))
    assert figures.coverage(one, two) == pytest.approx(2 / 3)  # of ab, be, cd
    assert figures.likeness(one, two) == pytest.approx(4 / 6)  # ab three times and cd, of six
    assert figures.said_once(part("a b c d e", "a b c d f"), one) == pytest.approx(2 / 4)
    assert figures.length(part("a b c", "a"), one) == 2
    assert figures.length_spread(part("a", "a b c d"), one) == pytest.approx(math.log(2))
    assert figures.cut_off(part("a", ends=False), one) == 1
    assert figures.rare_words(one, part("a a a a a a a a a b")) == pytest.approx(5 / 8)  # all but a


def test_zipfs_law_has_slope_minus_one() -> None:
    counts = [int(1_000_000 / rank) for rank in range(1, 1001)]
    tokens = np.repeat(np.arange(1000), counts)
    assert figures.zipf(Part(tokens, np.zeros(len(tokens), np.int64), np.ones(1, np.bool_), 1000), part("a")) == pytest.approx(-1, abs=1e-3)


def test_every_figure_is_of_exactly_equal_length() -> None:
    found, tokens, why = against_real(texts(100, 1), texts(600, 2))
    assert why == "" and len(found) == len(FIGURES)
    assert tokens == sum(len(text.split()) for text in texts(100, 1))


def alarms(found: tuple[figures.Statistic, ...]) -> list[str]:
    return [item.name for item in found if item.outside]


def test_two_halves_of_real_text_are_called_different_no_more_often_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 splits: at the stated level 2 alarms are expected at most, and 6 or more have a chance of 1 in 70."""
    monkeypatch.setattr(figures, "TOKENS", 4000)
    pool = texts(600, 8)
    hits = 0
    for seed in range(40):
        random.Random(seed).shuffle(pool)
        hits += bool(alarms(against_real(pool[:150], pool[150:], seed)[0]))
    assert hits <= 5, f"{hits} of 40 splits gave an alarm; the level is {LEVEL}"


def test_splits_of_real_stories_give_no_more_alarms_than_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    path = SHARED / "tinystories" / "tinystories_sample.txt"
    if not path.exists():
        pytest.skip("needs ../shared/data/tinystories")
    pool = [text for text in path.read_text(encoding="utf-8").split("<|endoftext|>")[:-1] if text.strip()][:900]
    monkeypatch.setattr(figures, "TOKENS", 8000)
    hits = 0
    for seed in range(12):
        random.Random(seed).shuffle(pool)
        hits += bool(alarms(against_real(pool[:225], pool[225:], seed)[0]))
    assert hits <= 2, f"{hits} of 12 splits gave an alarm; the level is {LEVEL}"


def test_lost_tails_and_stale_phrases_are_seen() -> None:
    real = texts(600, 8)
    narrow = {item.name: item for item in against_real(texts(200, 9, VOCABULARY[:300]), real)[0]}
    assert narrow["rare words"].worse_by > 0.5 and narrow["different words"].worse_by > 0.5
    stale = [f"{text} Tell me more about what you like and what you do not like." for text in texts(200, 9)]
    again = {item.name: item for item in against_real(stale, real)[0]}
    assert again["4-grams said once"].worse_by > 0 and again["words a row"].outside


def test_more_words_than_real_text_has_are_never_compared() -> None:
    _, tokens, _ = against_real(texts(600, 1), texts(120, 2))
    assert tokens == int(sum(len(text.split()) for text in texts(120, 2)) / 3)


@pytest.mark.parametrize(("mine", "real"), [(5, 600), (200, 30), (0, 600), (200, 0)])
def test_too_little_text_is_not_compared(mine: int, real: int) -> None:
    found, _, why = against_real(texts(mine, 1), texts(real, 2))
    assert found == () and "are needed" in why


def test_the_same_seed_gives_the_same_figures() -> None:
    assert against_real(texts(60, 1), texts(300, 2), 5) == against_real(texts(60, 1), texts(300, 2), 5)
    assert DRAWS >= 20


def test_variety_by_meaning_falls_when_texts_are_alike_and_only_then() -> None:
    real, model = texts(300, 2), HashedEmbedder(256)
    sound, rows, why = by_meaning(model, texts(200, 1), real)
    assert (rows, why, alarms(sound)) == (100, "", [])
    few = texts(4, 1)
    alike = [f"{few[k % 4]} {text.split(' ')[3]}" for k, text in enumerate(texts(200, 3))]
    found = {item.name: item for item in by_meaning(model, alike, real)[0]}
    assert found[IN_EFFECT].worse_by > 0.3 and found[REACHED].worse_by > 0.3
    assert "are needed" in by_meaning(model, texts(200, 1), texts(20, 1))[2]


def test_real_rows_whose_language_cannot_be_told_are_no_sign_that_it_lacks_one(tmp_path: Path) -> None:
    """Real rows of codes and names, and a set of English ones: nothing shows that English is foreign to the real data."""
    english = "The children walked to the old house by the river and waited there until it was dark"
    write(tmp_path / "set.jsonl", ({"text": f"{english}, all {number} of them."} for number in range(100)))
    write(tmp_path / "real.jsonl", ({"text": " ".join(f"zq{number * 31 + k}x" for k in range(20))} for number in range(100)))
    found = audit(Question(tmp_path / "set.jsonl", tmp_path / "real.jsonl"))
    assert "language" not in {item.kind for item in found.findings}
