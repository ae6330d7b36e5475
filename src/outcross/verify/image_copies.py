"""Images that are copies of those a model was taught on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outcross.errors import ConfigError
from outcross.images import Floats
from outcross.stages import Context, Stage
from outcross.types import Example, Ground, Group
from outcross.verify.each import PASS, Finding
from outcross.verify.image_each import pictures, scored_images

BLOCK = 512  # images whose distances are held at once


@dataclass(frozen=True)
class ImageCopies(Stage):
    """Fails an image that is nearer to a real training image than real images are to each other: memorised, not generated.

    real: the images that the policy was taught on. held_out: others; None: the training images themselves, each left out in turn.
    tail: the limit is where this share of real images would fail: that quantile of their distances to the nearest training image.

    Distances are Euclidean, over all pixels from 0 to 1, so that a shifted or turned copy goes unseen. The verdict is exact about the distance; it says
    nothing about an image that passes. Its canaries would be images, which a canary cannot hold yet. Time: training images × pixels an image.
    """

    real: Iterable[Example]
    held_out: Iterable[Example] | None = None
    tail: float = 0.01
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        if not 0 < self.tail < 1:
            raise ConfigError(f"image_copies: tail is {self.tail}; allowed is a share between 0 and 1")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        known = _rows(self.name, self.real)
        limit = self.limit()

        def judge(kind: str, pixels: Floats) -> Finding:
            if pixels.size != known.shape[1]:
                return "error", f"the image has {pixels.size} pixels, and those it is held against {known.shape[1]}", ""
            (distance,) = nearest(pixels.reshape(1, -1), known)
            if distance <= limit:
                return (
                    "fail",
                    "a copy of a training image",
                    f"distance {distance:.3f}; of real images, {self.tail:.1%} are within {limit:.3f}",
                )
            return PASS

        return scored_images(self, groups, judge)

    def limit(self) -> float:
        """The largest distance that is a copy's."""
        known = _rows(self.name, self.real)
        others = nearest(known, known, itself=False) if self.held_out is None else nearest(_rows(self.name, self.held_out), known)
        return float(np.quantile(others, self.tail, method="lower"))


def nearest(points: Floats, known: Floats, *, itself: bool = True) -> Floats:
    """The Euclidean distance from each point (points, width) to the nearest of `known` (known, width). Without `itself`, both are the same
    points and none is its own neighbour."""
    squared = (known**2).sum(axis=1)
    found = np.zeros(len(points))
    for start in range(0, len(points), BLOCK):
        part = points[start : start + BLOCK]
        distances = (part**2).sum(axis=1)[:, None] - 2 * part @ known.T + squared
        if not itself:
            distances[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        # The product loses digits where a distance is small; the nearest one is measured again, without it.
        found[start : start + len(part)] = np.linalg.norm(part - known[distances.argmin(axis=1)], axis=1)
    return found


def _rows(verifier: str, rows: Iterable[Example]) -> Floats:
    found = [pixels.ravel() for images in pictures(verifier, rows).values() for pixels in images]
    if len({len(row) for row in found}) > 1:
        raise ConfigError(f"{verifier}: the real images have different sizes; give images of one size")
    return np.stack(found)
