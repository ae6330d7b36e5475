"""Novelty against earlier rounds: the share of n-grams that no one earlier round has."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import context, failed, group

from outcross.curate.novelty import Novel
from outcross.errors import ConfigError
from outcross.types import Drop, Group


def distinct(start: int, count: int = 20) -> str:
    return " ".join(f"w{index}" for index in range(start, start + count))


def curated(curator: Novel, folder: Path, number: int, *groups: Group) -> tuple[list[str], list[str]]:
    found = list(curator(context(folder, label=f"phase/{number:04d}"), groups))
    return [one.text for item in found if not isinstance(item, Drop) for one in item.samples], [
        item.reason for item in found if isinstance(item, Drop)
    ]


def test_the_first_round_is_new_and_its_words_are_not_in_the_next(tmp_path: Path) -> None:
    old = [distinct(0), distinct(100)]
    assert curated(Novel(), tmp_path, 0, group(*old, old[0])) == ([*old, old[0]], [])
    patchwork = f"{distinct(0, 10)} {distinct(100, 10)}"  # 14 7-grams, of which 4 + 4 are known
    kept, reasons = curated(Novel(0.45), tmp_path, 1, group(old[0].upper(), patchwork, distinct(200), "w0 w1 w2", failed(9)))
    assert kept == [distinct(200), "w0 w1 w2", ""]
    assert reasons == [
        "not novel: 1.00 of 14 7-grams stand in phase-0000, novelty below 0.45",
        "not novel: 0.57 of 14 7-grams stand in phase-0000, novelty below 0.45",
    ]
    assert curated(Novel(0.4), tmp_path / "wider", 0, group(*old))[1] == []
    assert curated(Novel(0.4), tmp_path / "wider", 1, group(patchwork))[1] == []


def test_the_worst_earlier_round_counts_and_what_was_dropped_is_not_remembered(tmp_path: Path) -> None:
    curated(Novel(), tmp_path, 0, group(distinct(0, 30)))
    curated(Novel(), tmp_path, 1, group(distinct(10, 40), distinct(0, 30)))  # the second is dropped
    _, (reason,) = curated(Novel(0.5), tmp_path, 2, group(distinct(12, 30)))
    assert reason == "not novel: 1.00 of 24 7-grams stand in phase-0001, novelty below 0.5"
    _, (reason,) = curated(Novel(0.5), tmp_path, 3, group(distinct(0, 12)))
    assert reason.startswith("not novel: 1.00 of 6 7-grams stand in phase-0000")


def test_a_round_that_is_repeated_is_not_compared_with_itself(tmp_path: Path) -> None:
    curated(Novel(), tmp_path, 0, group(distinct(0)))
    first = curated(Novel(), tmp_path, 1, group(distinct(50)))
    assert curated(Novel(), tmp_path, 1, group(distinct(50))) == first == ([distinct(50)], [])
    stopped = Novel()(context(tmp_path, label="phase/0002"), iter([group(distinct(70))] * 600))
    next(stopped)
    stopped.close()
    assert curated(Novel(), tmp_path, 2, group(distinct(70))) == ([distinct(70)], [])
    assert not list(tmp_path.rglob("work"))


def test_lengths_are_indexed_apart_and_large_rounds_come_in_batches(tmp_path: Path) -> None:
    many = [group(*(distinct(1000 * index + 50 * k) for k in range(3))) for index in range(300)]
    assert len(curated(Novel(), tmp_path, 0, *many)[0]) == 900
    assert len(curated(Novel(), tmp_path, 1, *many)[1]) == 300  # one drop a group: equal reasons come together
    assert curated(Novel(n=3), tmp_path, 2, many[0])[1] == []


@pytest.mark.parametrize("wrong", [{"low": 0}, {"low": 1.1}, {"n": 0}])
def test_what_cannot_be_meant_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="allowed are 0 < low ≤ 1"):
        Novel(**wrong)  # type: ignore[arg-type]
