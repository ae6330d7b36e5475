"""A published claim, what we run to test it, and how what we find is judged."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from outcross.errors import ConfigError
from outcross.lab.lineages import Floats

Kind = Literal["identity", "direction", "magnitude", "cited"]
Scale = Literal["toy", "small", "full"]
Verdict = Literal["holds", "fails", "undecided"]

FACTOR: dict[Scale, int] = {"toy": 1, "small": 10, "full": 100}  # times the replicates of the claim
NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """What was found: the value that theory gives (None: it gives a sign only), ours, and the standard error of ours.

    quantile: half of the 95 % interval in standard errors; more than the normal one where the error is of few values.
    note: what a reader should know of ours beside it.
    """

    theory: float | None
    ours: float
    standard_error: float
    quantile: float = NORMAL_95
    note: str = ""


@dataclass(frozen=True)
class Result:
    """An estimate and its verdict."""

    theory: float | None
    ours: float
    standard_error: float
    verdict: Verdict
    quantile: float = NORMAL_95
    note: str = ""

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval."""
        return self.quantile * self.standard_error


@dataclass(frozen=True)
class Claim:
    """One number of the literature.

    identity: a closed form, which must be met within `tolerance` (a share of it). magnitude: a published measurement, likewise.
    direction: a difference that must be above zero. cited: out of reach of this laboratory; listed, never run.
    `published` is the value printed in the paper, or its own formula at the sizes run here; None where the number is derived from the
    paper's setting without standing in it, which `place` says. An identity must meet both `published` and the closed form beside the code.
    `seconds`: about what it takes at toy scale on one core.
    """

    name: str
    paper: str
    place: str
    published: float | None
    kind: Kind
    what: str
    measure: Callable[[int, np.random.Generator], Estimate] | None = None
    tolerance: float = 0.02
    replicates: int = 20_000
    seconds: float = 0.5

    def run(self, scale: Scale = "toy", seed: int = 0) -> Result:
        """Measure and judge. The same name, scale and seed give the same result. Raises `ConfigError` for a cited claim."""
        if self.measure is None:
            raise ConfigError(f"{self.name} is cited only ({self.what}); name a claim of another kind: `outcross reproduce --list`")
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), seed])
        parts = [self.measure(self.replicates, rng)]
        parts += [self.measure(self.replicates, rng) for _ in range(1, FACTOR[scale]) if parts[0].standard_error]  # else it is exact
        return self.result(pooled(parts))

    def result(self, found: Estimate) -> Result:
        """The estimate with its verdict."""
        return Result(found.theory, found.ours, found.standard_error, self._judge(found), found.quantile, found.note)

    def _judge(self, found: Estimate) -> Verdict:
        """The whole 95 % interval must lie where the claim says; when it only touches that region, nothing is decided."""
        half = found.quantile * found.standard_error
        low, high = found.ours - half, found.ours + half
        if self.kind == "direction":
            return "holds" if low > 0 else "fails" if high < 0 else "undecided"
        targets = [value for value in (found.theory, self.published) if value is not None]
        verdicts = {_inside(low, high, target, self.tolerance) for target in targets}
        return "fails" if "fails" in verdicts else "undecided" if "undecided" in verdicts else "holds"


def _inside(low: float, high: float, target: float, tolerance: float) -> Verdict:
    room = tolerance * abs(target)
    if target - room <= low and high <= target + room:
        return "holds"
    return "fails" if high < target - room or low > target + room else "undecided"


def pooled(parts: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates of equally many replicates: memory is that of one."""
    ours = math.fsum(part.ours for part in parts) / len(parts)
    return replace(parts[0], ours=ours, standard_error=math.sqrt(math.fsum(part.standard_error**2 for part in parts)) / len(parts))


def mean(values: Floats, theory: float | None = None) -> Estimate:
    """The mean over replicates."""
    return Estimate(theory, float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))


def difference(larger: Floats, smaller: Floats) -> Estimate:
    """The difference of two independent means, for a claim that it is above zero."""
    left, right = mean(larger), mean(smaller)
    return Estimate(None, left.ours - right.ours, math.hypot(left.standard_error, right.standard_error))


def zero_crossing(points: tuple[float, float], at_left: Floats, at_right: Floats, theory: float) -> Estimate:
    """Where a mean that is linear between two points is zero, from independent values at both (delta method)."""
    (left, right), first, second = points, mean(at_left), mean(at_right)
    gap = first.ours - second.ours
    share = first.ours / gap
    error = math.hypot((1 - share) * first.standard_error, share * second.standard_error) / abs(gap)
    return Estimate(theory, left + (right - left) * share, abs(right - left) * error)


def exact(theory: float, ours: float) -> Estimate:
    """Worked out without chance."""
    return Estimate(theory, ours, 0.0)
