"""Setting aside what the run has said before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, ClassVar

import numpy as np

from outcross.curate.ngrams import I64, U64, word_units
from outcross.curate.quality import sifted_together
from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Drop, Group, Sample


@dataclass(frozen=True)
class Novel(Stage):
    """Keeps answers that are new against every earlier round of the run. Novelty is 1 − the largest share of the answer's word n-grams that
    stand in the answers kept in one earlier round; at least `low` of it is asked for. In the first round everything is new.

    n: 7, the length of Phi-4's overlap (arXiv:2412.08905, appendix B): shorter ones are the phrases of a language.
    low: ours. Of TinyStories and GSM8K, one half against the other, no text has a novelty under 0.57 and one in a hundred under 0.90; stories
        pieced together from whole sentences of earlier ones have 0.2 to 0.4. The more a round holds, the more is in it by chance.

    Near duplicates of one earlier answer are `near_dedup`'s; this also finds patchwork of many. Answers of fewer than `n` words stay, and
    so do scripts that put no spaces between words. Keeps 8 bytes per distinct n-gram of a round in the stage's state and maps them; memory: 16 bytes
    per n-gram of this round, once, at its end.
    """

    low: float = 0.4
    n: int = 7
    trims: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.low <= 1 or self.n < 1:
            raise ConfigError(f"{self.name}: low={self.low}, n={self.n}; allowed are 0 < low ≤ 1 and n of 1 or more")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        home = ctx.past.state(self.name) / f"words-{self.n}"
        home.mkdir(parents=True, exist_ok=True)
        own, work = home / f"round-{ctx.round.replace('/', '-')}.npy", home / "work"
        # A file of this round is of an attempt that is being repeated.
        earlier = {
            path.stem.removeprefix("round-"): np.load(path, mmap_mode="r") for path in sorted(home.glob("round-*.npy")) if path != own
        }
        try:
            with work.open("wb") as kept:
                yield from sifted_together(groups, self.name, lambda samples: self._why_not(samples, earlier, kept))
            np.save(own, np.unique(np.fromfile(work, np.uint64)))
        finally:
            work.unlink(missing_ok=True)

    def _why_not(self, samples: Sequence[Sample], earlier: dict[str, U64], kept: BinaryIO) -> list[str | None]:
        grams = word_units([sample.text for sample in samples]).grams(self.n)
        sizes = np.bincount(grams.texts, minlength=len(samples))
        reasons: list[str | None] = [None] * len(samples)
        least = np.ones(len(samples))
        for place, known in earlier.items():
            novelty = 1 - _shared(grams.hashes, grams.texts, known, len(samples)) / np.maximum(sizes, 1)
            for index in np.flatnonzero((novelty < self.low) & (novelty < least)):
                reasons[index] = (
                    f"not novel: {1 - novelty[index]:.2f} of {sizes[index]} {self.n}-grams stand in {place}, novelty below {self.low:g}"
                )
            least = np.minimum(least, novelty)
        stays = np.array([reason is None for reason in reasons], np.bool_)
        np.unique(grams.hashes[stays[grams.texts]]).tofile(kept)
        return reasons


def _shared(hashes: U64, texts: I64, known: U64, count: int) -> I64:
    """How many n-grams of each text are among the sorted known ones."""
    if not len(known):
        return np.zeros(count, np.int64)
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return np.bincount(texts[known[places] == hashes], minlength=count)
