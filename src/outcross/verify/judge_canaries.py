"""Answers that any judge of good answers must tell apart, tried before every batch."""

from __future__ import annotations

from outcross.types import Canary, Task, Verdict

_ANSWERS = (
    ("a sum", "What is 2 + 2?", "2 + 2 = 4", "Bananas are yellow."),
    ("a capital", "What is the capital of France?", "The capital of France is Paris.", "asdf asdf asdf asdf"),
)


def obvious(*, alone: bool = False) -> tuple[Canary, ...]:
    """A right answer, which must pass, beside one that answers nothing, which must fail. `alone`: without the right ones, which are the
    tasks' references then."""
    if alone:
        return tuple(Canary(Task(name, asks, right), (wrong,), ("fail",)) for name, asks, right, wrong in _ANSWERS)
    verdicts: tuple[Verdict, Verdict] = ("pass", "fail")
    return tuple(Canary(Task(name, asks, right), (right, wrong), verdicts) for name, asks, right, wrong in _ANSWERS)
