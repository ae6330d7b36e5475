"""Arithmetic problems are right, graded, and their splits cannot leak into each other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.errors import ConfigError, DataError
from outcross.recipe import fingerprint
from outcross.tasks.arithmetic import Arithmetic, ArithmeticReal, grade, shuffled
from outcross.tasks.together import Together

SPLITS = ("train", "held_out", "real")


def operands(prompt: object, operation: str = "+") -> tuple[int, int]:
    first, second = str(prompt).removesuffix("=").split(operation)
    return int(first), int(second)


@given(st.integers(1, 4), st.sampled_from("+-*"), st.integers(1, 60), st.lists(st.integers(0, 2**40), min_size=3, max_size=3))
@settings(max_examples=40, deadline=None)
def test_splits_are_disjoint_for_any_size_and_seed_in_either_order_of_the_operands(
    digits: int, operation: str, n: int, seeds: list[int]
) -> None:
    n = min(n, 8) if digits == 1 else n
    found = []
    for split, seed in zip(SPLITS, seeds, strict=True):
        tasks = list(Arithmetic(digits, operation, n=n, seed=seed, split=split))  # type: ignore[arg-type]
        assert len({task.id for task in tasks}) == len(tasks) == n
        found.append({frozenset(operands(task.prompt, operation)) for task in tasks})
    assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])


def test_whole_splits_of_all_one_digit_problems_are_a_partition() -> None:
    sizes = []
    pairs: list[tuple[int, int]] = []
    for split in SPLITS:
        with pytest.raises(DataError, match="problems") as refused:
            iter(Arithmetic(1, n=101, split=split))  # type: ignore[arg-type]
        sizes.append(int(str(refused.value).split(" has ")[1].split()[0]))
        pairs += [operands(task.prompt) for task in Arithmetic(1, n=sizes[-1], split=split)]  # type: ignore[arg-type]
    assert sum(sizes) == 100 and sorted(pairs) == [(a, b) for a in range(10) for b in range(10)]


def test_answers_are_right_and_reversed_on_demand() -> None:
    results = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
    for operation, result in results.items():
        for task in Arithmetic(3, operation, n=50):  # type: ignore[arg-type]
            first, second = operands(task.prompt, operation)
            assert 100 <= first <= 999 and 100 <= second <= 999
            assert task.answer == str(result(first, second))
    plain, reverse = (list(Arithmetic(3, reversed_digits=flag, n=20)) for flag in (False, True))
    assert [task.prompt for task in plain] == [task.prompt for task in reverse]
    assert [str(task.answer)[::-1] for task in plain] == [task.answer for task in reverse]
    assert {task.id for task in plain}.isdisjoint(task.id for task in reverse)


def test_problems_are_graded_by_what_has_to_be_carried() -> None:
    assert [grade(123, 456, "+"), grade(123, 457, "+"), grade(999, 1, "+")] == ["0 carries", "1 carry", "3 carries"]
    assert [grade(456, 123, "-"), grade(123, 456, "-"), grade(100, 1, "-")] == ["0 borrows", "0 borrows", "2 borrows"]
    assert grade(10, 10, "*") == "3 digits"
    assert {task.subgroup for task in Arithmetic(2, n=300)} == {"0 carries", "1 carry", "2 carries"}


def test_the_same_seed_gives_the_same_problems_and_a_longer_set_continues_a_shorter_one() -> None:
    short, long = list(Arithmetic(3, n=20)), list(Arithmetic(3, n=60))
    assert long[:20] == short == list(Arithmetic(3, n=20))
    assert {task.id for task in short}.isdisjoint(task.id for task in Arithmetic(3, n=20, seed=1))


@given(st.integers(1, 3000), st.integers(0, 2**64))
@settings(max_examples=30, deadline=None)
def test_shuffled_is_a_permutation(size: int, seed: int) -> None:
    assert sorted(shuffled(place, size, seed) for place in range(size)) == list(range(size))


def test_real_examples_are_proved_and_count_as_real() -> None:
    examples = list(ArithmeticReal(3, n=30, reversed_digits=True, seed=4))
    assert len({example.id for example in examples}) == 30
    assert all(example.origin.is_real and "seed=4" in example.origin.source and example.origin.depth == 0 for example in examples)
    first = examples[0]
    assert first.completion == str(sum(operands(first.prompt)))[::-1]
    assert fingerprint(ArithmeticReal(n=3)) == fingerprint(ArithmeticReal(n=3)) != fingerprint(ArithmeticReal(n=4))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 18"):
        Arithmetic(0)
    with pytest.raises(ConfigError, match="at least 1"):
        Arithmetic(n=0)
    with pytest.raises(ConfigError, match="must be one of"):
        Arithmetic(split="test")  # type: ignore[arg-type]


@given(st.integers(2, 3), st.integers(0, 2**40), st.sampled_from(SPLITS))
@settings(max_examples=20, deadline=None)
def test_uneven_problems_have_one_large_operand_and_are_padded_to_the_width(digits: int, seed: int, split: str) -> None:
    tasks = list(Arithmetic(digits, n=200, seed=seed, split=split, width=4, uneven=True))  # type: ignore[arg-type]
    for task in tasks:
        first, second = operands(task.prompt)
        assert 10 ** (digits - 1) <= max(first, second) < 10**digits
        assert task.prompt == f"{first:04}+{second:04}="
        assert task.answer == str(first + second)
    assert any(min(operands(task.prompt)) < 10 ** (digits - 1) for task in tasks)


def test_sets_of_different_digits_go_together_without_a_common_problem() -> None:
    parts = tuple(Arithmetic(digits, n=1000, width=3, uneven=True) for digits in (2, 3))
    tasks = list(Together(parts))
    assert len({task.id for task in tasks}) == len(tasks) == 2000
    assert tasks == [task for part in parts for task in part]


def test_a_width_below_the_digits_is_refused() -> None:
    with pytest.raises(ConfigError, match="width is 2, and the operands have 3 digits"):
        Arithmetic(3, width=2)
