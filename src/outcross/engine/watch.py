"""What the engine tells whoever watches a run: progress, notes, a few samples, decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from outcross.types import Decision, Group


class Watch(Protocol):
    """Every method returns at once: it is called inside the loop, from several threads."""

    def stage(self, round: str, stage: str, done: int, total: int | None, counts: Mapping[str, float], /) -> None:
        """`done` of `total` (None: not known) records have passed `stage`; `counts` by verdict or reason."""

    def learnt(self, round: str, role: str, step: int, facts: Mapping[str, float], /) -> None:
        """An optimiser step was taken, counted from 0 in each fit; `facts` as the model told them, such as its loss."""

    def note(self, text: str, /) -> None:
        """Something a person should read once."""

    def samples(self, round: str, groups: Sequence[Group], /) -> None:
        """A few groups of this round, to look at."""

    def decided(self, round: str, outcome: str, decision: Decision | None, /) -> None:
        """A round is complete and on disk."""


class Silent:
    """Watches nothing."""

    def stage(self, round: str, stage: str, done: int, total: int | None, counts: Mapping[str, float], /) -> None: ...
    def learnt(self, round: str, role: str, step: int, facts: Mapping[str, float], /) -> None: ...
    def note(self, text: str, /) -> None: ...
    def samples(self, round: str, groups: Sequence[Group], /) -> None: ...
    def decided(self, round: str, outcome: str, decision: Decision | None, /) -> None: ...
