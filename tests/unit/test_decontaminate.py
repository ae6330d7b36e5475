"""Planted passages are found whatever their punctuation, near misses are not, and the ratio is that of the paper's algorithm."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from helpers import context, failed, group, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.curate.decontaminate import DecontaminateOverlap
from outcross.curate.overlap import NOTHING, OverlapIndex
from outcross.errors import ConfigError, DataError
from outcross.text import HeldOutIndex, words
from outcross.types import Drop, Group, Task

VOCABULARY = [f"w{i}" for i in range(3000)]
MARKS = [" ", ", ", ". ", "\n", " – ", " “", "? ", " / "]
ITEM = "The average weight of eight rowers in a boat rises by 1.5 kg when a new rower of 93 kg takes the place of one of them. What did he weigh?"


def grams(text: str, n: int) -> set[tuple[str, ...]]:
    spoken = words(text)
    return {tuple(spoken[i : i + n]) for i in range(len(spoken) - n + 1)}


def retold(rng: random.Random, spoken: list[str]) -> str:
    """The same words in other case and punctuation."""
    return "".join((word.upper() if rng.random() < 0.3 else word) + rng.choice(MARKS) for word in spoken)


def test_a_retold_item_shares_its_grams() -> None:
    """Closed form: 14 words of the item stand in 6 + 14 + 5 others, so 2 13-grams and 8 of min(19, 26) 7-grams are shared."""
    spoken = words(ITEM)
    assert len(spoken) == 32
    text = "First came six more words here: " + retold(random.Random(0), spoken[4:18]) + "and then five further ones"
    (found,) = OverlapIndex(["something else", ITEM]).find([text])
    assert found.passage == " ".join(spoken[4:18]) and found.item == found.nearest == 1
    assert found.shared == tuple(" ".join(spoken[i : i + 7]) for i in range(4, 12))
    assert len(grams(text, 7)) == 19 and len(grams(ITEM, 7)) == 26
    assert found.ratio == pytest.approx(8 / 19)


def test_twelve_words_are_no_passage_and_allowed_ones_neither() -> None:
    spoken = words(ITEM)
    text = "so " + " ".join(spoken[5:17]) + " and that is all there is to be said about it here today folks"
    assert next(OverlapIndex([ITEM]).find([text])).passage == ""
    thirteen = text.replace("so ", f"so {spoken[4]} ")
    assert next(OverlapIndex([ITEM]).find([thirteen])).passage == " ".join(spoken[4:17])
    allowing = OverlapIndex([ITEM], allowed=[", ".join(spoken[3:17]).upper()])
    found = next(allowing.find([thirteen]))
    assert (found.passage, found.item) == ("", -1) and found.ratio == pytest.approx(7 / 22), "the allow list is about 13-grams only"
    assert next(allowing.find([thirteen.replace(" and", f" {spoken[17]} and")])).passage == " ".join(spoken[5:18])


def test_few_words_are_compared_as_a_whole() -> None:
    index = OverlapIndex(["What is the capital of France?", "one two three four five six seven eight", ""])
    whole, longer, other, empty = index.find(["what is the capital of FRANCE", "What is the capital of France, I wonder", "What is", ""])
    assert whole.passage == "what is the capital of france" and whole.item == 0
    assert longer == other == empty == NOTHING
    assert len(index) == 3 and list(OverlapIndex([]).find(["a b c", ITEM])) == [NOTHING, NOTHING]


def brute(text: str, items: list[str], long: int, short: int) -> tuple[bool, float]:
    mine, spoken = grams(text, short), words(text)
    contaminated = any(grams(text, long) & grams(item, long) or (spoken == words(item) and 0 < len(spoken) < long) for item in items)
    ratios = [len(mine & grams(item, short)) / min(len(mine), len(grams(item, short))) for item in items if mine & grams(item, short)]
    return contaminated, max(ratios, default=0.0)


TOKENS = st.text(st.sampled_from("abcÄ ,"), max_size=24)


@settings(max_examples=300, deadline=None)
@given(st.lists(TOKENS, max_size=5), st.lists(TOKENS, max_size=5), st.integers(1, 4), st.integers(0, 3))
def test_the_index_agrees_with_the_algorithm_word_by_word(items: list[str], texts: list[str], short: int, more: int) -> None:
    long = short + more
    for text, found in zip(texts, OverlapIndex(items, long=long, short=short).find(texts), strict=True):
        contaminated, ratio = brute(text, items, long, short)
        assert (found.item >= 0) == bool(found.passage) == contaminated and found.ratio == pytest.approx(ratio)
        if ratio:
            mine, theirs = grams(text, short), grams(items[found.nearest], short)
            assert {tuple(item.split(" ")) for item in found.shared} == mine & theirs
            assert ratio == pytest.approx(len(mine & theirs) / min(len(mine), len(theirs)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_planted_sets_are_told_apart_without_a_miss(seed: int) -> None:
    """Recall and precision 1.0, and the engine's own index gives the same verdicts."""
    rng = random.Random(seed)
    items = [rng.choices(VOCABULARY, k=rng.randrange(25, 60)) for _ in range(60)]
    texts, planted = [], []
    for _ in range(700):
        spoken = rng.choices(VOCABULARY, k=rng.randrange(5, 80))
        length, item = rng.choice([0, 12, 13, 14, 25]), rng.choice(items)
        start, at = rng.randrange(len(item) - length + 1), rng.randrange(len(spoken))
        before, after = ["before"], ["after"]  # so that no neighbour lengthens a near miss
        texts.append(retold(rng, [*spoken[:at], *before, *item[start : start + length], *after, *spoken[at:]]))
        planted.append(length >= 13)
    raw = [" ".join(item) for item in items]
    assert [found.item >= 0 for found in OverlapIndex(raw).find(texts)] == planted
    engine = HeldOutIndex(raw)
    assert [engine.match(text) is not None for text in texts] == planted


TASKS = (Task("short", "What is two and two?", "4"), Task("boat", ITEM, "He weighed " + " ".join(f"step{i}" for i in range(20))))


def drops(stage: DecontaminateOverlap, folder: Path, *groups: Group) -> tuple[list[str], list[str]]:
    found = list(stage(context(folder), groups))
    kept = [one.text for item in found if isinstance(item, Group) for one in item.samples]
    return kept, [item.reason for item in found if isinstance(item, Drop)]


def test_the_stage_names_item_and_passage(tmp_path: Path) -> None:
    spoken = words(ITEM)
    leak = "step3, step4 step5 step6; step7 step8 step9 step10 step11 step12 step13 step14 step15"
    answers = ["4", "two and two", f"well {leak} well", " ".join(spoken[5:17]), sample("fine", 9), failed(8)]
    kept, reasons = drops(DecontaminateOverlap(TASKS), tmp_path, group(*answers, prompt="Say something new"))
    assert kept == ["4", "two and two", "fine", ""]
    assert reasons[0] == f"contaminated by a passage: “{leak.replace(',', '').replace(';', '')}” stands in item boat"
    assert reasons[1] == (
        f"contaminated by 7-grams: overlap ratio 1.000 with item boat, 6 shared 7-grams, the first “{' '.join(spoken[5:12])}”"
    )
    kept, reasons = drops(DecontaminateOverlap(TASKS), tmp_path, group("3", "4", prompt="what is two, and two"))
    assert kept == [] and reasons == ["contaminated by a passage: “what is two and two” stands in item short"]


def test_thresholds_decide_between_partial_and_contaminated(tmp_path: Path) -> None:
    text = " ".join([*words(ITEM)[:10], *(f"own{i}" for i in range(12))])  # 4 of 16 7-grams
    asked = group(text, prompt="New")
    assert drops(DecontaminateOverlap(TASKS), tmp_path, asked) == ([text], [])
    assert drops(DecontaminateOverlap(TASKS, info=0.25, keep_partial=False), tmp_path, asked) == ([text], [])
    _, (reason,) = drops(DecontaminateOverlap(TASKS, keep_partial=False), tmp_path, asked)
    assert reason.startswith("partly contaminated: overlap ratio 0.250 with item boat, 4 shared 7-grams")
    _, (reason,) = drops(DecontaminateOverlap(TASKS, contaminated=0.25), tmp_path, asked)
    assert reason.startswith("contaminated by 7-grams: overlap ratio 0.250")


def test_a_long_passage_is_cut_in_the_reason(tmp_path: Path) -> None:
    item = " ".join(VOCABULARY[:200])
    _, (reason,) = drops(DecontaminateOverlap((Task("long", item),)), tmp_path, group(item, prompt="New"))
    assert reason == f"contaminated by a passage: “{' '.join(VOCABULARY[:60])} …” stands in item long"


def test_no_items_and_wrong_thresholds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="`tasks` is empty"):
        drops(DecontaminateOverlap(()), tmp_path, group("a"))
    wrong: list[dict[str, Any]] = [{"info": 0.6}, {"info": -0.1}]
    for values in wrong:
        with pytest.raises(ConfigError, match="0 ≤ info ≤ contaminated"):
            DecontaminateOverlap(TASKS, **values)
    with pytest.raises(ConfigError, match="at least 1 word"):
        OverlapIndex([], long=3, short=4)


def test_an_index_is_kept_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [ITEM, "two three four five", " ".join(VOCABULARY[:40])]
    texts = ["so " + " ".join(words(ITEM)[3:20]), "Two, three; four five", " ".join(VOCABULARY[5:12]), "none"]
    made = OverlapIndex.kept(tmp_path, items)
    with monkeypatch.context() as patch:
        patch.setattr("outcross.curate.overlap._postings", lambda grams: pytest.fail("the index was made again"))
        patch.setattr(OverlapIndex, "__init__", lambda self, items, **_: vars(self).update(long=13, short=7))
        again = OverlapIndex.kept(tmp_path, items)
    assert again.of(texts) == made.of(texts) == OverlapIndex(items).of(texts) and len(again) == 3
    assert [found.item for found in again.of(texts)] == [0, 1, -1, -1]
    OverlapIndex.kept(tmp_path, items, allowed=[ITEM])
    OverlapIndex.kept(tmp_path, items[:2])
    OverlapIndex.kept(tmp_path, items, short=6)
    assert len(list(tmp_path.glob("*.npz"))) == 4 == len(list(tmp_path.iterdir()))
