"""Selectors choose what they say, and foretell how much."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outcross.select import All, Parts, Sample
from outcross.stages import Context
from outcross.types import Task


def context(index: int = 0, round: str = "train/0000") -> Context:
    nothing: Any = None
    return Context({}, nothing, round, index, 0, nothing)


def tasks(count: int) -> list[Task]:
    return [Task(str(i), f"{i}?") for i in range(count)]


@given(st.integers(0, 60), st.integers(1, 9))
def test_parts_are_disjoint_and_cover_all_tasks_in_order(count: int, n: int) -> None:
    found = [list(Parts(n)(context(index), tasks(count))) for index in range(n)]
    assert sorted((task for part in found for task in part), key=lambda task: int(task.id)) == tasks(count)
    assert all(part == sorted(part, key=lambda task: int(task.id)) for part in found)
    assert max(map(len, found)) == Parts(n).at_most(count)
    assert list(Parts(n)(context(n), tasks(count))) == found[0]


@given(st.integers(0, 60), st.integers(1, 70))
def test_a_sample_holds_no_task_twice_and_as_many_as_it_says(count: int, n: int) -> None:
    found = list(Sample(n)(context(), tasks(count)))
    assert len(found) == len({task.id for task in found}) == Sample(n).at_most(count) == min(n, count)
    assert found == sorted(found, key=lambda task: int(task.id))


def test_each_round_samples_anew_and_every_task_as_often() -> None:
    draws = [Sample(20)(context(round=f"train/{number:04d}"), tasks(40)) for number in range(400)]
    seen = [task.id for draw in draws for task in draw]
    counts = [seen.count(str(i)) for i in range(40)]
    assert sum(counts) == 400 * 20
    assert min(counts) > 150 and max(counts) < 250  # binomial(400, ½): five standard deviations are 50
    assert list(Sample(5)(context(), tasks(40))) == list(Sample(5)(context(), tasks(40)))


@pytest.mark.parametrize("count", [0, 7])
def test_all_is_all(count: int) -> None:
    assert list(All()(context(), tasks(count))) == tasks(count)
    assert All().at_most(count) == count
