"""Planted faults among ordinary texts: every planted row goes, and how many ordinary ones go with them is stated and bounded.

Ordinary: 2,316 TinyStories, 1,319 answers and 1,319 questions of GSM8K, 2,312 dialogues of HH-RLHF, 175 instructions of Self-Instruct,
164 programs of HumanEval (7,605 texts). What is found in them, counted once:

    length_between, compression_between, in_language, no_unsafe_links   0
    no_secrets          1   an MD5 sum in quotes (HumanEval)
    no_personal_data   10   of HH-RLHF, and all ten are email addresses and telephone numbers
    not_repetitive     39   0.5 %: 16 answers of GSM8K that say the same step four times, 19 dialogues, 3 stories, 1 program
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from helpers import context, sample

from outcross.curate.form import CompressionBetween, InLanguage, LengthBetween, NotRepetitive
from outcross.curate.learned import LearnedQuality
from outcross.curate.novelty import Novel
from outcross.curate.private import NoPersonalData, NoSecrets, NoUnsafeLinks
from outcross.types import Drop, Group, Task

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="needs ordinary texts at ../shared/data")


@cache
def ordinary() -> dict[str, list[str]]:
    with gzip.open(DATA / "hh-rlhf" / "test.jsonl.gz", "rt") as file:
        dialogues = [json.loads(line)["chosen"] for line in file]
    with gzip.open(DATA / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        programs = [row["prompt"] + row["canonical_solution"] for row in map(json.loads, file)]
    sums = [json.loads(line) for line in (DATA / "gsm8k" / "test.jsonl").read_text().splitlines()]
    asked = [json.loads(line)["instruction"] for line in (DATA / "self-instruct" / "seed_tasks.jsonl").read_text().splitlines()]
    stories = (DATA / "tinystories" / "tinystories_sample.txt").read_text().split("<|endoftext|>")[:-1]
    return {
        "stories": [story.strip() for story in stories],
        "answers": [row["answer"] for row in sums],
        "questions": [row["question"] for row in sums],
        "dialogues": dialogues,
        "instructions": asked,
        "programs": programs,
    }


STORY = "Once upon a time a little boy found a red kite in the park. He ran home and showed it to his mother, and she smiled. "
WORDS = STORY.split()


def loops() -> Iterator[str]:
    """What a collapsed model writes."""
    yield from ("the " * 60, "I am sorry, but I cannot help with that. " * 12, STORY * 4)
    yield STORY + "\n".join(["And they all lived happily ever after."] * 9)
    yield "\n\n".join([STORY, *["The end of the story, and the beginning of another one."] * 5])


def inserted(*passages: str) -> list[str]:
    return [f"{STORY}{passage} {STORY}" for passage in passages]


PLANTED: list[tuple[Any, list[str], int]] = [
    (LengthBetween(3), ["", "Yes.", "ok fine"], 0),
    (NotRepetitive(), list(loops()), 39),
    (CompressionBetween(), ["the " * 60, "I am sorry, but I cannot help with that. " * 12, "ha" * 400], 0),
    (
        InLanguage(("en",)),
        [
            "Gestern Abend haben wir im Garten gegrillt, und die Nachbarn kamen vorbei, bis es dunkel wurde.",
            "Nous avons mangé dans un petit restaurant près de la gare, et puis nous sommes rentrés à pied.",
            "Вчера вечером мы ужинали в маленьком ресторане возле вокзала, а потом пошли домой пешком.",
            "昨日の夜、駅の近くの小さなレストランで食事をしました。それから家まで歩いて帰りましたが、とても寒かったです。道には雪が積もっていました。本当に静かな夜でした。",
        ],
        0,
    ),
    (
        NoPersonalData(),
        inserted(
            "mail jo.smith@gmail.com", "call (415) 555-2671", "pay 4111 1111 1111 1111", "to DE89 3704 0044 0532 0130 00", "SSN 536-22-1234"
        ),
        10,
    ),
    (
        NoSecrets(),
        inserted("key AKIAIOSFODNN7EXAMPLE", "password = 'hunter2x9!'", "-----BEGIN OPENSSH PRIVATE KEY-----", "npm_" + "aB3dE5" * 6),
        1,
    ),
    (NoUnsafeLinks(), inserted("http://203.0.113.9/x", "https://bit.ly/3x", "https://a.com/setup.exe", "javascript:alert(1)"), 0),
]


@pytest.mark.parametrize(("stage", "planted", "more"), PLANTED, ids=lambda value: getattr(value, "name", ""))
def test_all_planted_rows_go_and_few_others(stage: Any, planted: list[str], more: int, tmp_path: Path) -> None:
    texts = [text for part in ordinary().values() for text in part]
    gone = dropped(stage, [*texts, *planted], tmp_path)
    assert {len(texts) + index for index in range(len(planted))} <= gone
    assert len(gone) - len(planted) == more


def dropped(stage: Any, texts: list[str], folder: Path, label: str = "phase/0000") -> set[int]:
    """The places of the texts that a stage sets aside, each for a reason with the value and the limit or what was found."""
    groups = (Group(Task(str(place), "Write."), (sample(text, place, "Write."),)) for place, text in enumerate(texts))
    gone = [item for item in stage(context(folder, label=label), groups) if isinstance(item, Drop)]
    assert all(": " in item.reason for item in gone)
    return {int(item.group.task.id) for item in gone}


def test_patchwork_of_an_earlier_round_goes_and_other_stories_stay(tmp_path: Path) -> None:
    stories = ordinary()["stories"]
    rng = random.Random(0)
    sentences = [sentence for story in stories[:1000] for sentence in story.split(". ") if len(sentence.split()) > 12]
    patchwork = [". ".join(rng.sample(sentences, 8)) for _ in range(50)]
    assert dropped(Novel(), stories[:1000], tmp_path) == set()
    assert dropped(Novel(), [*stories[1000:2000], *patchwork], tmp_path, "phase/0001") == {1000 + index for index in range(50)}


def test_a_classifier_of_forty_labels_finds_babble_among_stories(tmp_path: Path) -> None:
    rng = random.Random(0)
    babble = [" ".join(rng.choices(WORDS, k=60)) for _ in range(120)]
    stories = ordinary()["stories"][:1020]
    rows = [*((text, True) for text in stories[:20]), *((text, False) for text in babble[:20])]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps({"text": text, "good": good}) + "\n" for text, good in rows))
    gone = dropped(LearnedQuality(tmp_path / "labels.jsonl"), [*stories[20:], *babble[20:]], tmp_path)
    assert gone == {1000 + index for index in range(100)}
