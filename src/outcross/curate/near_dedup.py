"""Near duplicates, within a round, across the run and against real data."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from outcross.curate.minhash import Bands, Shingles
from outcross.curate.nearest import KEPT, OWN, Found, near_duplicates
from outcross.curate.quality import parted
from outcross.curate.shelf import Shelf, Writer
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

    Reads the round twice: it goes to disk under the stage's state (about 8 bytes per distinct shingle, and the round itself until the
    stage is done). Memory: 4 bytes per band and about 200 per sample. Failed requests and answers without text stay. Two planted
    duplicates go along in each round; `StageError` if one is missed.
    """

    threshold: float = 0.8
    shingles: Shingles = "word"
    n: int = 5
    across: Literal["round", "run"] = "run"
    against_real: bool = True
    version: ClassVar[str] = "2"
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
            spilled = work / "groups"
            with self._writer(planted.folder) as writer:
                writer.add("planted", _planted(0), "")
            if self.against_real and not real.complete:
                self._shelve_real(ctx.past.real, real.folder)
            scores, members = self._shelve(groups, spilled, Shelf(work / "round"))
            shelf = Shelf(work / "round")
            older = [planted, *([real] if self.against_real else []), *map(Shelf, earlier)]
            found = near_duplicates(shelf, older, scores, self.threshold)
            self._check(found, len(shelf))
            reasons = self._reasons(found, members, shelf, older)
            for group in _read(spilled):
                yield from parted(group, self.name, lambda sample: next(reasons))
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

    def _shelve(self, groups: Iterable[Group], spilled: Path, shelf: Shelf) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Write the groups and their documents; the score and the group number of each document. Three planted ones come last."""
        scores: list[float] = []
        members: list[int] = []
        encoder = msgspec.msgpack.Encoder()
        with ExitStack() as stack:
            writer = stack.enter_context(self._writer(shelf.folder))
            file = stack.enter_context(spilled.open("wb"))
            for number, group in enumerate(groups):
                data = encoder.encode(group)
                file.write(len(data).to_bytes(8, "little") + data)
                for sample in group.samples:
                    if not sample.error:
                        value = sample.value
                        scores.append(-np.inf if value is None or math.isnan(value) else value)
                        members.append(number)
                        writer.add(sample.id, *_answer_and_prompt(sample))
            changed = self.threshold <= 0.998
            for text in (_planted(0, changed), _planted(1), _planted(1, changed)):
                writer.add("planted", text, "")
        return np.array([*scores, -np.inf, -np.inf, -np.inf]), np.array([*members, -1, -1, -1])

    def _check(self, found: Found, count: int) -> None:
        """The planted text of the older shelf must be met again, and of the two in this round the first kept and the second dropped."""
        seen = [(int(found.shelf[i]), int(found.document[i])) for i in (count - 3, count - 2, count - 1)]
        expected = [(0, 0), (KEPT, -1), (OWN, count - 2)]
        if seen != expected:
            raise StageError(
                f"near_dedup missed a planted duplicate: (shelf, document) of the three planted texts are {seen}, not {expected}; nothing was "
                "dropped. The index under the round's state is damaged or the disk is full: remove the round's state folder and resume"
            )

    def _reasons(self, found: Found, members: NDArray[np.int64], shelf: Shelf, older: list[Shelf]) -> Iterator[str | None]:
        """Why each document is dropped, in order; None for those that stay."""
        for place in range(len(shelf) - 3):
            number, other = int(found.shelf[place]), int(found.document[place])
            if number == KEPT:
                yield None
                continue
            likeness = f"Jaccard {found.jaccard[place]:.2f} with"
            if number == OWN:
                where = "group" if members[place] == members[other] else "round"
                yield f"near duplicate in this {where}: {likeness} sample {shelf.ids[other]}"
            elif self.against_real and number == 1:
                yield f"memorised: {likeness} real row {older[number].ids[other]}"
            else:
                yield f"near duplicate of an earlier round: {likeness} sample {older[number].ids[other]}"


def _answer_and_prompt(sample: Sample) -> tuple[str, str]:
    """What the last turn answered and what it asked: that is what is judged and learnt."""
    turn = sample.turns[-1]
    return _text(turn.completion.content), prompt_text(turn.prompt)


def _text(content: Content) -> str:
    return content if isinstance(content, str) else ""


def _read(path: Path) -> Iterator[Group]:
    decoder = msgspec.msgpack.Decoder(Group)
    with path.open("rb") as file:
        while head := file.read(8):
            yield decoder.decode(file.read(int.from_bytes(head, "little")))


def _planted(number: int, changed: bool = False) -> str:
    """A long text that nobody writes, and the same with another last word."""
    letters = hashlib.shake_256(f"outcross planted text {number}".encode()).hexdigest(4 * _PLANTED)
    words = [letters[i : i + 8] for i in range(0, len(letters), 8)]
    return " ".join([*words[:-1], "changed"] if changed else words)
