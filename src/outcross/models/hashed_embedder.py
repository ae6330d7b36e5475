"""Vectors without a trained model: hashed n-grams of texts, and arrays as they are.

They know spelling and pixels, not meaning: "car" and "automobile" have nothing in common. They are for tests, for users without PyTorch,
and as the plain alternative that a trained embedder should beat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outcross.errors import ConfigError, ModelError
from outcross.stages import Model
from outcross.text import digest, normalise, words
from outcross.types import Array, Content, content_hash

Unsigned = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HashedEmbedder:
    """Signed feature hashing (Weinberger et al., arXiv:0902.2206) of a text's words, pairs of words and character n-grams, scaled to length 1.

    Each n-gram adds +1 or −1 at one of `size` places, so that the scalar product of two vectors is, in expectation, the cosine of their
    n-gram counts, with a standard error of about 1/√size. Case and layout do not count.
    """

    size: int = 1024
    characters: tuple[int, ...] = (3, 4)
    depth: int = 0

    @property
    def id(self) -> str:
        return content_hash("hashed_embedder", self.size, self.characters)

    def close(self) -> None: ...

    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        """A vector per text, in order, one at a time. Raises `ModelError` for an array."""
        for text in texts:
            if not isinstance(text, str):
                raise ModelError("a hashed embedder reads text and was given an array; use flat_embedder for arrays")
            vector: list[float] = self._vector(text).tolist()
            yield vector

    def _vector(self, text: str) -> Floats:
        shown = normalise(text)
        whole = np.array([digest(word) for word in words(shown)], dtype=np.uint64)
        parts = [_mixed(whole), _mixed(whole[:-1] * _ODD + whole[1:])]
        points = np.frombuffer(f"  {shown}  ".encode("utf-32-le"), dtype="<u4").astype(np.uint64)
        for n in self.characters:
            rolled = np.full(max(0, len(points) - n + 1), n, dtype=np.uint64)
            for place in range(n):
                rolled = rolled * _ODD + points[place : place + len(rolled)]
            parts.append(_mixed(rolled))
        hashes = np.concatenate(parts)
        signs = 1.0 - 2.0 * (hashes >> np.uint64(63)).astype(np.float64)
        sums: Floats = np.bincount((hashes % np.uint64(self.size)).astype(np.int64), weights=signs, minlength=self.size).astype(np.float64)
        return sums / max(float(np.linalg.norm(sums)), 1e-12)


@dataclass(frozen=True)
class FlatEmbedder:
    """An array's own numbers as one vector, not scaled: an image by its pixels."""

    depth: int = 0

    @property
    def id(self) -> str:
        return content_hash("flat_embedder")

    def close(self) -> None: ...

    def embed(self, texts: Iterable[Content], /) -> Iterator[Sequence[float]]:
        """A vector per array, in order, one at a time. Raises `ModelError` for a text."""
        for item in texts:
            if not isinstance(item, Array):
                raise ModelError("a flat embedder takes arrays and was given a text; use hashed_embedder or embedder for texts")
            vector: list[float] = np.frombuffer(item.data, dtype=item.dtype).astype(np.float64).tolist()
            yield vector


def hashed_embedder(size: int = 1024) -> Model:
    """Hashed n-grams of texts as vectors of `size` numbers: see `HashedEmbedder`. It knows spelling, not meaning."""
    if size < 2:
        raise ConfigError(f"hashed_embedder: size is {size}; give at least 2 places")
    return HashedEmbedder(size)


def flat_embedder() -> Model:
    """Arrays as they are: see `FlatEmbedder`."""
    return FlatEmbedder()


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mixed(values: Unsigned) -> Unsigned:
    """The finaliser of splitmix64: every bit of the result depends on every bit of the value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Unsigned = values ^ (values >> np.uint64(31))
    return mixed
