"""Answers that agree with each other: a verdict without a reference answer."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Sample, Score, Task, Verdict
from outcross.verify.each import UNFINISHED, with_score
from outcross.verify.exact import last_match, wrapped
from outcross.verify.math import plain_number

_SPACES = re.compile(r"\s+")
_CLOSING = " .,;:!?"


@dataclass(frozen=True)
class Vote(Stage):
    """Passes the samples whose answer is the one that most samples of the task give (plurality vote, self-consistency: Wang et al.,
    arXiv:2203.11171), within the band that Phi-4 keeps: where all agree the task is too easy, where hardly any do it is too hard or
    ambiguous (arXiv:2412.08905 §2).

    pattern: a regular expression that finds the answer in a longer text (last match, first group); see `Exact`. A text without a match
        has no vote and fails.
    at_least, at_most: the share of votes for the plurality answer. Below `at_least`, and above `at_most`, every sample of the task is
        abstained on, with the reason. `at_most` 1 keeps tasks on which all agree.
    fewest: votes that a task needs; with fewer it is abstained on.

    Answers are compared as numbers where they are plain numbers ("1,200", "$1200$" and "1200.0" are one), else by letters alone: case,
    white space, closing punctuation and Unicode's compatible forms apart. A tie between the two most frequent answers is abstained on.
    The value is the share of votes that a sample's own answer got. Answers that were cut off fail and have no vote.
    """

    pattern: str = ""
    at_least: float = 0.5
    at_most: float = 1.0
    fewest: int = 3
    ground: ClassVar[Ground] = "voted"

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"vote: pattern {self.pattern!r} is not a regular expression: {error}") from None
        if not 0 <= self.at_least <= self.at_most <= 1:
            raise ConfigError(f"vote: at_least is {self.at_least} and at_most {self.at_most}; give two shares in ascending order, 0 to 1")
        if self.fewest < 2:
            raise ConfigError(f"vote: fewest is {self.fewest}; one answer cannot agree with another, so ask for at least 2")

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """A plurality within the band, where one of at most 100 votes more than the `fewest` is; and as many answers as votes."""
        texts = [wrapped(self.pattern, str(number)) for number in range(11, 112 + self.fewest)]
        said = [text for text in texts if text is not None]
        if len(said) < len(texts):
            return ()
        split = tuple(said[1 : self.fewest + 1])
        tie = Canary(Task("as many answers as votes", "How many?"), split, _times("abstain", self.fewest))
        sizes = [(votes, most) for votes in range(self.fewest, self.fewest + 100) for most in (*range(votes - 1, 1, -1), votes)]
        fitting = next(((votes, most) for votes, most in sizes if self.at_least <= most / votes <= self.at_most), None)
        if fitting is None:
            return (tie,)
        votes, most = fitting
        task, others = Task("a plurality", "How many?"), tuple(said[1 : votes - most + 1])
        return tie, Canary(task, (said[0],) * most + others, _times("pass", most) + _times("fail", len(others)))

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return map(self._judged, groups)

    def _judged(self, group: Group) -> Group:
        ballots = {sample.id: self._ballot(sample) for sample in group.samples if not sample.error}
        votes = Counter(ballot for ballot in ballots.values() if ballot is not None)
        count = votes.total()
        (winner, most), (_, second) = [*votes.most_common(2), ("", 0), ("", 0)][:2]
        why = self._why_not(count, most, second)

        def score(sample: Sample) -> Score:
            ballot = ballots[sample.id]
            if ballot is None:
                cut = not sample.turns[-1].completion.finished
                return Score(self.name, self.version, "fail", 0.0, UNFINISHED[1] if cut else "nothing in the answer matches the pattern")
            evidence = f"{ballot[:80]}: {votes[ballot]} of {count}"
            if why:
                return Score(self.name, self.version, "abstain", None, why, evidence)
            won = ballot == winner
            reason = "" if won else "not the plurality answer"
            return Score(self.name, self.version, "pass" if won else "fail", votes[ballot] / count, reason, evidence)

        return Group(group.task, tuple(sample if sample.error else with_score(sample, score(sample)) for sample in group.samples))

    def _ballot(self, sample: Sample) -> str | None:
        if not sample.turns[-1].completion.finished:
            return None
        found = last_match(self.pattern, sample.text) if self.pattern else sample.text
        return None if found is None or not found.strip() else normalised(found)

    def _why_not(self, count: int, most: int, second: int) -> str | None:
        """Why a task has no verdict; None when it has one."""
        if count < self.fewest:
            return f"fewer than {self.fewest} votes"
        if most == second:
            return "a tie"
        if most / count < self.at_least:
            return "too little agreement"
        return "too much agreement" if most / count > self.at_most else None


def _times(verdict: Verdict, count: int) -> tuple[Verdict, ...]:
    return (verdict,) * count


def normalised(answer: str) -> str:
    """An answer as votes are counted: a plain number by its value, other text by its letters."""
    number = plain_number(answer.strip().rstrip("."))
    if number is not None:
        return str(number)
    text = unicodedata.normalize("NFKC", answer).casefold()
    return _SPACES.sub(" ", text).strip(_CLOSING)
