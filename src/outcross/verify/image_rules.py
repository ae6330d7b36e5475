"""Rules that hold for real images of a class: how bright, how varied, how much is drawn, and on which side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outcross.errors import ConfigError, DataError
from outcross.images import Floats
from outcross.stages import Context, Stage
from outcross.types import Example, Ground, Group
from outcross.verify.each import PASS, Finding
from outcross.verify.image_each import pictures, scored_images

FEWEST = 20  # real images of a class, below which their range says little


def _balance(pixels: Floats) -> float:
    half = pixels.shape[1] // 2
    left, right = float(pixels[:, :half].sum()), float(pixels[:, -half:].sum())
    return (left - right) / max(left + right, 1e-12)


STATISTICS: Mapping[str, Callable[[Floats], float]] = {
    "intensity": lambda pixels: float(pixels.mean()),
    "contrast": lambda pixels: float(pixels.std()),
    "dark share": lambda pixels: float((pixels < 0.02).mean()),
    "bright share": lambda pixels: float((pixels > 0.98).mean()),
    "lit share": lambda pixels: float((pixels > 0.5).mean()),
    "balance": _balance,
    "roughness": lambda pixels: float(np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()),
}
"""What is looked at: mean; standard deviation (0 when blank); shares of pixels that are black, saturated, and above the middle (of strokes, of
lung-free tissue); mass of the left half over that of the right, from −1 to 1; and the mean step between neighbours (noise is rough, a blur smooth)."""


@dataclass(frozen=True)
class ImageRules(Stage):
    """Passes an image whose statistics (`STATISTICS`) are all within those of real images of the class that was asked for.

    reference: real images, at least 20 of each class. tail: the share of these that the rules together may reject: each end of each statistic is
        cut at `tail` over twice their number, and outwards to the next real image. Of other real images `tail` and 14 / (n + 1) are
        rejected at most, on average, where n are of the class.

    The verdict is exact about these numbers, and no more: they are what must hold, not what makes an image right. A class without real images is
    abstained on. Its canaries would be images, which a canary cannot hold yet.
    """

    reference: Iterable[Example]
    tail: float = 0.05
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        if not 0 < self.tail < 1:
            raise ConfigError(f"image_rules: tail is {self.tail}; allowed is a share between 0 and 1")

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        ranges = self.ranges()

        def judge(kind: str, pixels: Floats) -> Finding:
            if kind not in ranges:
                return "abstain", "no real image is of the class", kind
            for name, (low, high) in ranges[kind].items():
                value = STATISTICS[name](pixels)
                if not low <= value <= high:
                    return "fail", f"{name} is not that of real images", f"{value:.3f} is outside {low:.3f} to {high:.3f}"
            return PASS

        return scored_images(self, groups, judge)

    def ranges(self) -> dict[str, dict[str, tuple[float, float]]]:
        """By class and statistic, the lowest and the highest value that passes. Raises `DataError` for fewer than 20 images of a class."""
        found = {}
        cut = self.tail / (2 * len(STATISTICS))
        for kind, images in pictures(self.name, self.reference).items():
            if len(images) < FEWEST:
                raise DataError(f"image_rules: {len(images)} real images are of the class {kind!r}; {FEWEST} or more tell a range")
            values = {name: np.array([statistic(pixels) for pixels in images]) for name, statistic in STATISTICS.items()}
            found[kind] = {
                name: (float(np.quantile(each, cut, method="lower")), float(np.quantile(each, 1 - cut, method="higher")))
                for name, each in values.items()
            }
        return found
