"""Judging ahead: verifiers that work in other processes keep these busy while groups leave in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from outcross.types import Group, Sample, Task
from outcross.verify.each import Finding, Labelled, scored

Ask = Callable[[Task, str], Future[Finding]]


def scored_ahead(verifier: Labelled, groups: Iterable[Group], ask: Ask, most: int) -> Iterator[Group]:
    """As `scored`, with findings that come later: groups are read ahead until `most` answers are waiting, and never further."""
    waiting: deque[tuple[Group, deque[Future[Finding]]]] = deque()
    asked = 0

    def first() -> Iterator[Group]:
        group, findings = waiting.popleft()
        yield from scored(verifier, (group,), lambda task, text: findings.popleft().result())

    for group in groups:
        findings = deque(ask(group.task, sample.text) for sample in group.samples if _to_judge(sample))
        waiting.append((group, findings))
        asked += len(findings)
        while waiting and (asked >= most or all(item.done() for item in waiting[0][1])):
            asked -= len(waiting[0][1])
            yield from first()
    while waiting:
        yield from first()


def known(finding: Finding) -> Future[Finding]:
    """A finding that nobody has to wait for."""
    future: Future[Finding] = Future()
    future.set_result(finding)
    return future


def _to_judge(sample: Sample) -> bool:
    return not sample.error and sample.turns[-1].completion.finished and isinstance(sample.turns[-1].completion.content, str)
