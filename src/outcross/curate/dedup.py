"""Exact duplicates, within a group, a round and the whole run."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from outcross.curate.quality import parted
from outcross.stages import Context, Stage
from outcross.text import normalise, prompt_text
from outcross.types import Array, Drop, Group, Sample

Scope = Literal["group", "round", "run"]


@dataclass(frozen=True)
class Dedup(Stage):
    """Keeps the first of samples with equal prompts and answers up to case and white space. The last turn counts, which is what is
    judged and learnt: drafts and critiques before it may differ.

    across: how far back a sample is compared: within its group, this round, or all rounds of the run.

    Two texts count as equal when 64 bits of BLAKE2b agree: among a million samples two different ones collide with a chance
    of 3 in 10 million. Memory: 60 to 170 bytes per kept sample of the round and 8 per sample of earlier rounds. Failed requests stay.
    """

    across: Scope = "run"
    version: ClassVar[str] = "2"
    trims: ClassVar[bool] = True

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        index = _Index(ctx, self.name) if self.across == "run" else None
        earlier = index.read() if index else array("Q")
        seen: set[int] = set()
        for group in groups:
            in_group: set[int] = set()

            def why_not(sample: Sample, in_group: set[int] = in_group) -> str | None:
                key = sample_key(sample)
                if key in in_group:
                    return "duplicate in this group"
                in_group.add(key)
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


def sample_key(sample: Sample) -> int:
    """64 bits over what a sample's last turn asked and answered, up to case and white space."""
    digest = hashlib.blake2b(digest_size=8)
    for turn in sample.turns[-1:]:
        for content in (turn.prompt, turn.completion.content):
            if isinstance(content, Array):
                digest.update(f"{content.dtype}{content.shape}".encode() + content.data)
            else:
                digest.update(normalise(prompt_text(content)).encode())
            digest.update(b"\x1f")
    return int.from_bytes(digest.digest(), "big")


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
