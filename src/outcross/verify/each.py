"""Sample by sample: what verifiers that look at one answer at a time share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from outcross.types import Group, Sample, Score, Task, Verdict

Finding = tuple[Verdict, str, str]
"""A verdict, its reason (a few fixed phrases, since reasons are counted) and the evidence."""

PASS: Finding = ("pass", "", "")
UNFINISHED: Finding = ("fail", "unfinished: cut off at the token limit", "")


class Labelled(Protocol):
    """What a score says about the verifier it comes from."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...


def scored(verifier: Labelled, groups: Iterable[Group], judge: Callable[[Task, str], Finding]) -> Iterator[Group]:
    """Add the score of `judge(task, text)` to each sample; samples with an error stay as they are.

    A pass counts 1 and a fail 0. An answer that was cut off fails: it may not be judged as a whole, and leaving it out would let
    a model that rambles look better than it is. What `judge` raises becomes an *error* verdict with the reason.
    """
    name, version = verifier.name, verifier.version
    passed = Score(name, version, "pass", 1.0)

    def score(task: Task, sample: Sample) -> Score:
        completion = sample.turns[-1].completion
        if not isinstance(completion.content, str):
            return Score(name, version, "error", None, "the answer is an array, not text")
        if not completion.finished:
            verdict, reason, evidence = UNFINISHED
        else:
            try:
                verdict, reason, evidence = judge(task, completion.content)
            except Exception as error:
                return Score(name, version, "error", None, f"{type(error).__name__}: {error}"[:200])
        if verdict == "pass" and not evidence:
            return passed
        value = {"pass": 1.0, "fail": 0.0}.get(verdict)
        return Score(name, version, verdict, value, reason, evidence[:200])

    for group in groups:
        yield Group(
            group.task, tuple([sample if sample.error else with_score(sample, score(group.task, sample)) for sample in group.samples])
        )


def with_score(sample: Sample, score: Score) -> Sample:
    """The sample with one more score."""
    return Sample(sample.id, sample.turns, sample.origin, sample.seat, (*sample.scores, score), sample.error)
