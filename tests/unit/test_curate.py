"""Curators keep or set aside each sample once, with a reason that can be counted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import NoPast, context, failed, group, sample, score

from outcross.curate.dedup import Dedup, sample_key
from outcross.curate.quality import Passed, PerTask
from outcross.errors import ConfigError, StageError
from outcross.types import Completion, Drop, Example, Group, Origin, Sample, Turn


def curated(curator: Any, folder: Path, *groups: Group, **where: Any) -> tuple[list[list[str]], list[tuple[str, list[str]]]]:
    """Texts of kept groups, and reasons with texts of drops."""
    kept, dropped = [], []
    for item in curator(context(folder, **where), groups):
        if isinstance(item, Drop):
            assert item.curator == curator.name
            dropped.append((item.reason, [one.text for one in item.group.samples]))
        else:
            kept.append([one.text for one in item.samples])
    return kept, dropped


def test_dedup_says_where_the_first_one_stands(tmp_path: Path) -> None:
    first, second = group("a", "b", "A ", prompt="p"), group("b", "c", prompt="P")
    assert curated(Dedup(), tmp_path, first, second) == (
        [["a", "b"], ["c"]],
        [("duplicate in this group", ["A "]), ("duplicate in this round", ["b"])],
    )
    assert curated(Dedup(), tmp_path, group("c", "d", prompt="p"), label="phase/0001") == (
        [["d"]],
        [("duplicate of an earlier round", ["c"])],
    )
    assert curated(Dedup(), tmp_path, group("d", prompt="p"), label="phase/0002") == ([], [("duplicate of an earlier round", ["d"])])


def test_the_same_answer_to_another_question_is_no_duplicate(tmp_path: Path) -> None:
    assert curated(Dedup(), tmp_path, group("a", prompt="p"), group("a", prompt="q"))[1] == []


def test_a_narrower_scope_forgets_and_writes_nothing(tmp_path: Path) -> None:
    pair = group("a", "a", prompt="p"), group("a", prompt="p")
    assert curated(Dedup("group"), tmp_path, *pair) == ([["a"], ["a"]], [("duplicate in this group", ["a"])])
    assert len(curated(Dedup("round"), tmp_path, *pair)[1]) == 2
    assert not list(tmp_path.rglob("*.u64"))


def test_a_round_that_is_repeated_after_a_crash_does_not_meet_itself(tmp_path: Path) -> None:
    groups = [group("a", "b")]
    assert curated(Dedup(), tmp_path, *groups) == curated(Dedup(), tmp_path, *groups) == ([["a", "b"]], [])


def test_dedup_finds_copies_of_real_rows_when_asked(tmp_path: Path) -> None:
    ctx = replace(context(tmp_path), past=NoPast(tmp_path, (Example("r", "P ", "a"), Example("s", "q", "b"))))

    def dropped(stage: Dedup) -> list[tuple[str, str]]:
        found = list(stage(ctx, [group("A\n", "b", "a", prompt="p")]))
        return [(one.text, item.reason) for item in found if isinstance(item, Drop) for one in item.group.samples]

    assert dropped(Dedup(against_real=True)) == [("A\n", "memorised: equal to a real row"), ("a", "duplicate in this group")]
    assert dropped(Dedup()) == [("a", "duplicate in this group")]


def test_dedup_stops_when_it_misses_a_planted_duplicate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (lambda keys, key: False, lambda keys, key: True):
        monkeypatch.setattr("outcross.curate.dedup._among", wrong)
        with pytest.raises(StageError, match="missed a planted duplicate"):
            curated(Dedup(), tmp_path, group("a"))


def test_dedup_streams_and_keeps_numbers_and_no_texts(tmp_path: Path) -> None:
    def many(count: int) -> Iterator[Group]:
        for index in range(count):
            yield group(f"answer {index} " + "x" * 500, prompt="p")

    count = 20_000
    tracemalloc.start()
    kept = sum(len(item.samples) for item in Dedup("round")(context(tmp_path), many(count)) if isinstance(item, Group))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept == count and peak < 200 * count  # a set is at its emptiest here; 80 on average


def test_keys_are_of_the_turn_that_is_learnt() -> None:
    def talk(*turns: tuple[str, str]) -> Sample:
        return Sample("s", tuple(Turn(asked, Completion(said)) for asked, said in turns), Origin())

    keys = [sample_key(item) for item in (talk(("a", "b")), talk(("a", "b"), ("c", "d")), talk(("ab", "")), talk(("b", "a")))]
    assert len(set(keys)) == 4 and all(0 <= key < 2**64 for key in keys)
    assert sample_key(talk(("draft", "x"), ("critique", "y"), ("a", "b"))) == keys[0]


def test_passed_sets_aside_by_verdict(tmp_path: Path) -> None:
    given = [
        sample("good", 0, scores=(score("pass", 1.0),)),
        sample("bad", 1, scores=(score("fail", 0.0), score("pass", 1.0, "style"))),
        sample("broken", 2, scores=(score("error"),)),
        sample("unsure", 3, scores=(score("abstain"),)),
        sample("unseen", 4),
        failed(5),
    ]
    kept, dropped = curated(Passed(), tmp_path, group(*given))
    assert kept == [["good", ""]]
    assert dropped == [("fail", ["bad"]), ("error", ["broken"]), ("abstain", ["unsure"]), ("unverified", ["unseen"])]
    kept, dropped = curated(Passed(("style",)), tmp_path, group(*given[:2]))
    assert kept == [["bad"]] and dropped == [("unverified", ["good"])]


def test_per_task_keeps_the_first(tmp_path: Path) -> None:
    assert curated(PerTask(2), tmp_path, group("a", failed(9), "b", "c"), group("d")) == (
        [["a", "", "b"], ["d"]],
        [("beyond 2 per task", ["c"])],
    )
    with pytest.raises(ConfigError, match="at least 1"):
        PerTask(0)
