"""The loop all collapse papers study: fit a law to data, draw from it, fit again; many independent lineages at once.

Rows lie along the first axis of an array and replicates along the second, so that sums over rows run over contiguous
replicates. Replicates are processed in blocks that fit the processor's cache; memory does not grow with their number,
except for the measured values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from outcross.errors import ConfigError
from outcross.lab.regimes import Accumulate, Fixed, Fresh, Grow, Regime, Replace, Subsample

Floats = npt.NDArray[np.float64]
Law = TypeVar("Law")
Data = TypeVar("Data")
Summary = TypeVar("Summary")
Real = TypeVar("Real", np.float32, np.float64)

BLOCK = 1 << 16  # numbers in one block of draws: half a mebibyte


class Family(Protocol[Law, Data, Summary]):
    """A kind of model, and the real law it starts from. All laws, data and summaries are of a block of replicates."""

    def floats(self, size: int, /) -> int:
        """Numbers that one replicate's data of `size` rows takes."""

    def real(self, replicates: int, /) -> Law:
        """The law of the real data."""

    def draw(self, law: Law, size: int, rng: np.random.Generator, /) -> Data:
        """`size` new rows."""

    def subsample(self, parts: Sequence[Data], size: int, rng: np.random.Generator, /) -> Data:
        """`size` rows of all parts together, without replacement, as a copy."""

    def summarise(self, data: Data, /) -> Summary:
        """What `fit` needs of the data. May overwrite them."""

    def add(self, left: Summary, right: Summary, /) -> Summary:
        """The summary of both data sets together."""

    def fit(self, summary: Summary, last: Law, /) -> Law:
        """The law fitted to the data; `last` is where an iterative fit starts."""


def simulate(
    family: Family[Law, Data, Summary],
    regime: Regime,
    measure: Callable[[Law], Floats],
    *,
    size: int,
    rounds: int,
    replicates: int,
    rng: np.random.Generator,
) -> Floats:
    """What `measure` says of the law after 0 (the real law), 1 … `rounds` fits: shape (replicates, rounds + 1, …).

    `size` is the number of rows per round. `measure` maps a law of b replicates to shape (b, …).
    """
    if size < 2 or rounds < 1 or replicates < 1:
        raise ConfigError(f"size {size}, rounds {rounds}, replicates {replicates}: needed are at least 2, 1 and 1")
    held = family.floats(_largest(regime, size, rounds))
    return np.concatenate(
        [np.stack([measure(law) for law in _laws(family, regime, block, size, rounds, rng)], axis=1) for block in blocks(replicates, held)]
    )


def blocks(replicates: int, floats: int) -> Iterator[int]:
    """Sizes of blocks that hold at most about `BLOCK` numbers when each replicate takes `floats`; they add up to `replicates`."""
    most = max(1, BLOCK // floats)
    for done in range(0, replicates, most):
        yield min(most, replicates - done)


def subsample_rows(rows: npt.NDArray[Real], size: int, rng: np.random.Generator) -> npt.NDArray[Real]:
    """`size` of the rows (n, replicates) without replacement, each replicate its own."""
    keys = rng.random(rows.shape, dtype=np.float32)
    chosen = np.argpartition(keys, size - 1, axis=0)[:size]
    return np.take_along_axis(rows, chosen, axis=0)


def _largest(regime: Regime, size: int, rounds: int) -> int:
    match regime:
        case Grow():
            return regime.size(size, rounds)
        case Accumulate() | Subsample():
            return size * rounds
        case _:
            return size


def _laws(
    family: Family[Law, Data, Summary], regime: Regime, replicates: int, size: int, rounds: int, rng: np.random.Generator
) -> Iterator[Law]:
    """The real law, then the law of each round. Only what the regime trains on is kept."""
    real = law = family.real(replicates)
    yield real
    kept: Summary | None = None
    pool: list[Data] = []
    if isinstance(regime, Fixed) and regime.real(size):
        kept = family.summarise(family.draw(real, regime.real(size), rng))
    for number in range(1, rounds + 1):
        match regime:
            case Replace():
                summary = family.summarise(family.draw(law, size, rng))
            case Grow():
                summary = family.summarise(family.draw(law, regime.size(size, number), rng))
            case Accumulate():
                new = family.summarise(family.draw(law, size, rng))
                summary = kept = new if kept is None else family.add(kept, new)
            case Subsample():
                pool.append(family.draw(law, size, rng))
                summary = family.summarise(family.subsample(pool, size, rng))
            case Fresh():
                real_rows = regime.real(size)
                given = family.summarise(family.draw(real, real_rows, rng)) if real_rows else None
                summary = _together(family, given, law, size - real_rows, rng)
            case Fixed():
                summary = _together(family, kept, law, size - regime.real(size), rng)
        law = family.fit(summary, law)
        yield law


def _together(family: Family[Law, Data, Summary], given: Summary | None, law: Law, size: int, rng: np.random.Generator) -> Summary:
    """The summary of the real part, where there is one, and of `size` draws of the model, where any are asked for."""
    if given is not None and size == 0:
        return given
    new = family.summarise(family.draw(law, size, rng))
    return new if given is None else family.add(given, new)
