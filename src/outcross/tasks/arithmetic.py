"""Sums, differences and products of whole numbers, made on the spot, with splits that cannot leak into each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice
from typing import Literal

from outcross.errors import ConfigError, DataError
from outcross.tasks.answers import Answers
from outcross.types import Example, Origin, Task, content_hash

Operation = Literal["+", "-", "*"]
Split = Literal["train", "held_out", "real"]

SHARES: dict[str, tuple[int, int]] = {"train": (0, 60), "held_out": (60, 80), "real": (80, 100)}
"""The percentiles of operand pairs that belong to each split."""


@dataclass(frozen=True)
class Arithmetic:
    """`n` different problems such as "123+456=", of operands with exactly `digits` digits, drawn by `seed`. With `uneven` only the
    larger operand has that many, and the other as many or fewer: problems of different `digits` still never coincide.

    The split of a problem is decided by a hash of its two operands in either order, never by `n` or `seed`: any two sets of
    different splits are disjoint, "456+123=" included. `subgroup` grades a problem: the number of carries of a sum ("2
    carries"), of borrows of a difference, of digits of a product. `reversed_digits` writes answers least digit first, in which
    order a small transformer learns addition (arXiv:2307.03381). `width` writes operands with zeros in front ("012+045=" at 3), so
    that places line up across sets of different `digits`; 0 writes none.

    Iterating raises `DataError` when the split holds fewer than `n` problems.
    """

    digits: int = 3
    operation: Operation = "+"
    reversed_digits: bool = False
    n: int = 1000
    seed: int = 0
    split: Split = "train"
    width: int = 0
    uneven: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= 18:
            raise ConfigError(f"arithmetic: digits is {self.digits}; allowed are 1 to 18")
        if self.width and self.width < self.digits:
            raise ConfigError(f"arithmetic: width is {self.width}, and the operands have {self.digits} digits; write at least as many")
        if self.n < 1:
            raise ConfigError(f"arithmetic: n is {self.n}; ask for at least 1 problem")
        if self.operation not in _RESULT or self.split not in SHARES:
            raise ConfigError(f"arithmetic: {self.operation!r} and {self.split!r} must be one of {set(_RESULT)} and of {set(SHARES)}")

    def __iter__(self) -> Iterator[Task]:
        if self.n > self._size // 20:
            self._check_enough()
        origin = self.origin
        return (self._task(first, second, origin) for first, second in islice(self._pairs(), self.n))

    @property
    def origin(self) -> Origin:
        """Made by a rule whose answers are known: real, and proved by making it again."""
        settings = (f"{item.name}={getattr(self, item.name)}" for item in fields(self) if item.name != "n")
        source = f"arithmetic:{','.join(settings)}"
        return Origin("real", "proved", source)

    @property
    def _least(self) -> int:
        return 0 if self.digits == 1 or self.uneven else 10 ** (self.digits - 1)

    @property
    def _size(self) -> int:
        """How many ordered pairs of operands there are, over all splits."""
        return int(10**self.digits - self._least) ** 2

    def _pairs(self) -> Iterator[tuple[int, int]]:
        """All pairs of the split in an order that depends on the seed."""
        size, least = self._size, self._least
        span = 10**self.digits - least
        larger = 10 ** (self.digits - 1) if self.digits > 1 else 0
        low, high = SHARES[self.split]
        for place in range(size):
            first, second = divmod(shuffled(place, size, self.seed), span)
            if max(first, second) + least >= larger and low <= _percentile(self.operation, first + least, second + least) < high:
                yield first + least, second + least

    def _check_enough(self) -> None:
        found = sum(1 for _ in islice(self._pairs(), self.n))
        if found < self.n:
            raise DataError(
                f"arithmetic: n is {self.n}, and the split {self.split!r} of {self.digits}-digit {self.operation!r} has {found} problems; "
                "ask for fewer or raise `digits`"
            )

    def _task(self, first: int, second: int, origin: Origin) -> Task:
        prompt = f"{first:0{self.width}}{self.operation}{second:0{self.width}}="
        answer = str(_RESULT[self.operation](first, second))
        if self.reversed_digits:
            answer = answer[::-1]
        return Task(content_hash("arithmetic", prompt, answer), prompt, answer, grade(first, second, self.operation), origin)


@dataclass(frozen=True)
class ArithmeticReal:
    """`n` solved problems as real examples, from a split of their own that no task and no held-out item is in."""

    digits: int = 3
    operation: Operation = "+"
    reversed_digits: bool = False
    n: int = 1000
    seed: int = 0
    width: int = 0
    uneven: bool = False

    def __iter__(self) -> Iterator[Example]:
        made = Arithmetic(self.digits, self.operation, self.reversed_digits, self.n, self.seed, "real", self.width, self.uneven)
        return iter(Answers(made))


_RESULT = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}


def grade(first: int, second: int, operation: Operation) -> str:
    """How hard a problem is: what has to be carried, borrowed or written."""
    if operation == "*":
        count, noun = len(str(first * second)), "digit"
    elif operation == "+":
        count, noun = (_digit_sum(first) + _digit_sum(second) - _digit_sum(first + second)) // 9, "carry"
    else:
        large, small = max(first, second), min(first, second)
        count, noun = (_digit_sum(small) + _digit_sum(large - small) - _digit_sum(large)) // 9, "borrow"
    plural = {"digit": "digits", "carry": "carries", "borrow": "borrows"}[noun]
    return f"{count} {noun if count == 1 else plural}"


def _digit_sum(number: int) -> int:
    return sum(map(int, str(number)))


def _percentile(operation: str, first: int, second: int) -> int:
    """0 to 99, the same for both orders of the operands."""
    text = f"{operation}{min(first, second)},{max(first, second)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % 100


def shuffled(place: int, size: int, seed: int) -> int:
    """Where `place` goes in a pseudo-random permutation of range(size): a Feistel network of four rounds, walked until it
    lands inside (Black and Rogaway 2002). No table is held, so that sets of any size stream."""
    half = max((size - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(4):
            mixed = (right * 0x9E3779B97F4A7C15 + seed * 0xC2B2AE3D27D4EB4F + turn * 0x165667B19E3779F9 + 1) & 0xFFFFFFFFFFFFFFFF
            mixed = ((mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
            mixed = ((mixed ^ (mixed >> 32)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
            left, right = right, left ^ ((mixed ^ (mixed >> 31)) & mask)
        place = (left << half) | right
        if place < size:
            return place
