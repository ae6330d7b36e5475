"""Near duplicates, within a round, across the run and against real data."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from outcross.curate.minhash import Bands, Shingles
from outcross.curate.nearest import KEPT, OWN, Found, near_duplicates, reasons, spare
from outcross.curate.quality import parted
from outcross.curate.shelf import Shelf, Writer
from outcross.curate.spill import spilled, unspilled
from outcross.errors import ConfigError, StageError
from outcross.stages import Context, Stage
from outcross.text import prompt_text
from outcross.types import Content, Drop, Example, Group, Sample

_PLANTED = 2000  # words of a planted text: with the last one changed its similarity is above 0.998


@dataclass(frozen=True)
class NearDedup(Stage):
    """Keeps the best of samples that say almost the same: word or character n-gram sets of Jaccard similarity `threshold` or more.

    threshold, n: 0.8 over 5-grams, as Lee et al. deduplicate training data (arXiv:2107.06499, §4.2).
    shingles: of words with their mathematical signs, or of characters; both without case, layout and (words) prose punctuation.
        Digits are never folded. A text of fewer than `n` is one shingle: it resembles only its equals.
    across: compares with this round, or with what all rounds of the run kept.
    against_real: also sets aside copies of real rows, with the reason *memorised*.

    Two samples are near duplicates when their answers are *and* question and answer together are: equal short answers to different
    questions stay, and so do different answers to one long question. Candidates come from MinHash bands, which miss at most 1 in 200
    pairs at the threshold; each is then decided exactly. Real rows take precedence, then earlier rounds, then the higher mean of the
    verifiers' values, then the earlier sample. Whatever is dropped resembles one that stays, which the reason names: of each cluster one is left.
    A subgroup of tasks keeps its best sample even where all of its samples resemble those of other subgroups in the round.

    Reads the round twice: it goes to disk under the stage's state (about 8 bytes per distinct shingle, and the round itself until the
    stage is done). Memory: 4 bytes per band and about 200 per sample. Failed requests and answers without text stay. Two planted
    duplicates go along in each round; `StageError` if one is missed.
    """

    threshold: float = 0.8
    shingles: Shingles = "word"
    n: int = 5
    across: Literal["round", "run"] = "run"
    against_real: bool = True
    version: ClassVar[str] = "3"
    trims: ClassVar[bool] = True
    whole_round: ClassVar[bool] = True  # gives nothing before it has seen the last sample

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1 or self.n < 1:
            raise ConfigError(f"near_dedup: threshold={self.threshold}, n={self.n}; allowed are a threshold in (0, 1] and n of at least 1")
        if self.shingles not in ("word", "char"):
            raise ConfigError(f"near_dedup: shingles is {self.shingles!r}; allowed: word, char")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        home = ctx.past.state(self.name) / f"{self.shingles}-{self.n}-{self.threshold}"
        own, work = home / f"round-{ctx.round.replace('/', '-')}", home / "work"
        earlier = [path for path in sorted(home.glob("round-*")) if path != own] if self.across == "run" else []
        try:
            planted, real = Shelf(work / "planted"), Shelf(home / "real")
            with self._writer(planted.folder) as writer:
                writer.add("planted", _planted(0), "")
            if self.against_real and not real.complete:
                self._shelve_real(ctx.past.real, real.folder)
            shelf = Shelf(work / "round")
            scores, members, subgroups = self._shelve(groups, work / "groups", shelf)
            older = [planted, *([real] if self.against_real else []), *map(Shelf, earlier)]
            found = near_duplicates(shelf, older, scores, self.threshold)
            self._check(found, len(shelf))
            spare(found, subgroups, scores)
            names = [other.ids for other in older]
            why = reasons(found, members, shelf.ids, names, 1 if self.against_real else None, "near duplicate", "Jaccard")
            for group in unspilled(work / "groups"):
                yield from parted(group, self.name, lambda sample: next(why))
            if self.across == "run":
                shelf.copy(np.flatnonzero(found.shelf[:-3] == KEPT), own)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _writer(self, folder: Path) -> Writer:
        return Writer(folder, self.shingles, self.n, Bands.at(self.threshold))

    def _shelve_real(self, rows: Iterable[Example], folder: Path) -> None:
        with self._writer(folder) as writer:
            for row in rows:
                writer.add(row.id, _text(row.completion), prompt_text(row.prompt))

    def _shelve(
        self, groups: Iterable[Group], spill: Path, shelf: Shelf
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], list[str | None]]:
        """Write the groups and their documents; the score, group number and subgroup of each. Three planted ones come last, which have a
        score only."""
        scores: list[float] = []
        members: list[int] = []
        subgroups: list[str | None] = []
        with self._writer(shelf.folder) as writer:
            for number, group in enumerate(spilled(groups, spill)):
                for sample in group.samples:
                    if not sample.error:
                        value = sample.value
                        scores.append(-np.inf if value is None or math.isnan(value) else value)
                        members.append(number)
                        subgroups.append(group.task.subgroup)
                        writer.add(sample.id, *_answer_and_prompt(sample))
            changed = self.threshold <= 0.998
            for text in (_planted(0, changed), _planted(1), _planted(1, changed)):
                writer.add("planted", text, "")
        return np.array([*scores, -np.inf, -np.inf, -np.inf]), np.array(members, np.int64), subgroups

    def _check(self, found: Found, count: int) -> None:
        """The planted text of the older shelf must be met again, and of the two in this round the first kept and the second dropped."""
        seen = [(int(found.shelf[i]), int(found.document[i])) for i in (count - 3, count - 2, count - 1)]
        expected = [(0, 0), (KEPT, -1), (OWN, count - 2)]
        if seen != expected:
            raise StageError(
                f"near_dedup missed a planted duplicate: (shelf, document) of the three planted texts are {seen}, not {expected}; nothing was "
                "dropped. The index under the round's state is damaged or the disk is full: remove the round's state folder and resume"
            )


def _answer_and_prompt(sample: Sample) -> tuple[str, str]:
    """What the last turn answered and what it asked: that is what is judged and learnt."""
    turn = sample.turns[-1]
    return _text(turn.completion.content), prompt_text(turn.prompt)


def _text(content: Content) -> str:
    return content if isinstance(content, str) else ""


def _planted(number: int, changed: bool = False) -> str:
    """A long text that nobody writes, and the same with another last word."""
    letters = hashlib.shake_256(f"outcross planted text {number}".encode()).hexdigest(4 * _PLANTED)
    words = [letters[i : i + 8] for i in range(0, len(letters), 8)]
    return " ".join([*words[:-1], "changed"] if changed else words)
