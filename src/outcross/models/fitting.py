"""What models that are trained by `outcross.train` are told of a fit besides its examples and plan: where it is kept, and who looks at it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Self

from outcross.stages import Model


class Fits:
    """A model whose `fit` reads both."""

    _kept: tuple[Path, Path] | None = None
    _better: Callable[[Model], float] | None = None

    def keeping(self, progress: Path, cache: Path, /) -> Self:
        """This model, whose fits keep checkpoints in `progress` (`Machine.checkpoint_seconds`) and go on from them, bit for bit on a CPU; what a
        reference said is kept in `cache`."""
        found = copy.copy(self)
        found._kept = (progress, cache)
        return found

    def watched(self, better: Callable[[Model], float], /) -> Self:
        """This model, whose fits by a plan that stops early ask `better` what the model that they have come to is worth: the model itself, also of
        one that is served."""
        found = copy.copy(self)
        found._better = better
        return found
