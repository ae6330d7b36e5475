"""Exact duplicates, within a group, a round and the whole run."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from outcross.curate.quality import parted
from outcross.errors import StageError
from outcross.stages import LATER, Context, Stage
from outcross.text import normalise, prompt_text
from outcross.types import Array, Drop, Example, Group, Prompt, Sample

Scope = Literal["group", "round", "run"]


@dataclass(frozen=True)
class Dedup(Stage):
    """Keeps the first of samples with equal prompts and answers up to case and white space. The last turn counts, which is what is
    judged and learnt: drafts and critiques before it may differ.

    across: how far back a sample is compared: within its group, this round, or all rounds of the run.
    against_real: also sets aside exact copies of real rows, as *memorised*. Not by default: to many a question there is one right answer.

    The reasons name no survivor: it is the first sample with the same prompt and answer, which the records find by them. Equal samples are equally
    good, so that nothing is gained by looking for the best. Two planted duplicates are tried in each round; `StageError` if one is missed.

    Two texts count as equal when 64 bits of BLAKE2b agree: among a million samples two different ones collide with a chance
    of 3 in 10 million. Memory: 60 to 170 bytes per kept sample of the round and 8 per sample of earlier rounds and
    per real row. Failed requests stay.
    """

    across: Scope = "run"
    against_real: bool = field(default=False, metadata=LATER)
    version: ClassVar[str] = "2"
    trims: ClassVar[bool] = True

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        index = _Index(ctx, self.name) if self.across == "run" else None
        earlier = index.read() if index else array("Q")
        real = _sorted(example_key(row) for row in ctx.past.real) if self.against_real else array("Q")
        self._check()
        seen: set[int] = set()
        for group in groups:
            in_group: set[int] = set()

            def why_not(sample: Sample, in_group: set[int] = in_group) -> str | None:
                key = sample_key(sample)
                if key in in_group:
                    return "duplicate in this group"
                in_group.add(key)
                if _among(real, key):
                    return "memorised: equal to a real row"
                if self.across == "group":
                    return None
                if key in seen:
                    return "duplicate in this round"
                if _among(earlier, key):
                    return "duplicate of an earlier round"
                seen.add(key)
                return None

            yield from parted(group, self.name, why_not)
        if index:
            index.write(seen)

    def _check(self) -> None:
        """What differs in case and white space must be found among others, and what differs by a digit must not."""
        known = _sorted(_key(("What is planted?", text)) for text in ("Outcross 7", "Outcross 9"))
        seen = [_among(known, _key(("what is  planted?", text))) for text in ("OUTCROSS\n7", "Outcross 8", "outcross 9")]
        if seen != [True, False, True]:
            raise StageError(f"{self.name} missed a planted duplicate: found are {seen}, not [True, False, True]; nothing was dropped")


def sample_key(sample: Sample) -> int:
    """64 bits over what a sample's last turn asked and answered, up to case and white space."""
    return _key(content for turn in sample.turns[-1:] for content in (turn.prompt, turn.completion.content))


def example_key(row: Example) -> int:
    """The key of a sample that asks and answers what a real row does."""
    return _key((row.prompt, row.completion))


def _key(contents: Iterable[Prompt]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for content in contents:
        if isinstance(content, Array):
            digest.update(f"{content.dtype}{content.shape}".encode() + content.data)
        else:
            digest.update(normalise(prompt_text(content)).encode())
        digest.update(b"\x1f")
    return int.from_bytes(digest.digest(), "big")


def _sorted(keys: Iterable[int]) -> array[int]:
    return array("Q", np.sort(np.fromiter(keys, dtype=np.uint64)).tobytes())


def _among(keys: array[int], key: int) -> bool:
    place = bisect_left(keys, key)
    return place < len(keys) and keys[place] == key


class _Index:
    """The keys kept by earlier rounds: one file of sorted 64-bit numbers a round, never changed once written."""

    def __init__(self, ctx: Context, stage: str) -> None:
        self._folder = ctx.past.state(stage)
        self._own = self._folder / f"{ctx.round.replace('/', '-')}.u64"

    def read(self) -> array[int]:
        """All keys of earlier rounds in order. A file of this round is of an attempt that is being repeated, and is skipped."""
        files = [path for path in sorted(self._folder.glob("*.u64")) if path != self._own]
        keys = np.sort(np.concatenate([np.zeros(0, dtype="<u8"), *(np.fromfile(path, dtype="<u8") for path in files)]))
        found = array("Q")
        found.frombytes(keys.astype(np.uint64).tobytes())
        return found

    def write(self, keys: set[int]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        np.sort(np.fromiter(keys, dtype="<u8", count=len(keys))).tofile(self._own)
