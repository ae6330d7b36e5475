"""How far a candidate may be behind another model measured on the same items: one-sided lower bounds, and their power.

Differences are candidate minus other, signed so that higher is better. The bounds assume that items are independent draws
from the population that the claim is about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Numbers = Sequence[float] | npt.NDArray[np.float64]


def lower_bound(differences: Numbers, alpha: float, lowest: float) -> float:
    """The mean difference that is exceeded with confidence 1 − `alpha`, from one difference per item (at least two).

    It is the lower of two bounds. Student's holds when a few items are much better than the rest and fails when a few are
    much worse, or when no pair differs and its width is zero; the score bound is the other way round. `lowest` is the
    worst difference an item can have: −1 when items lie between 0 and 1.
    """
    import numpy as np
    from scipy.special import stdtrit

    found = np.asarray(differences, dtype=np.float64)
    critical = float(stdtrit(len(found) - 1, 1 - alpha))
    student = float(found.mean()) - critical * float(found.std(ddof=1)) / math.sqrt(len(found))
    return min(student, score_bound(found, critical, lowest))


def score_bound(differences: Numbers, critical: float, lowest: float) -> float:
    """The smallest mean that a score test with this critical value does not reject.

    The standard error is not that of the sample but of the most likely distribution (on the seen values and `lowest`)
    whose mean is the one tested. For pairs of pass and fail this is Tango's interval (Statistics in Medicine 17, 1998,
    891–908); the empirical likelihood (Owen, "Empirical Likelihood", 2001, chapter 2) carries it over to any values.
    """
    import numpy as np
    from scipy.optimize import brentq

    if lowest == 0:
        return float(np.mean(differences))
    # In units of −lowest, and rounded: differences that are equal up to rounding error have no variance.
    values, counts = np.unique(np.round(np.asarray(differences, dtype=np.float64) / -lowest, 9), return_counts=True)
    items = int(counts.sum())
    share = counts / items
    mean = float(share @ values)
    if values[0] < -1 or lowest > 0:
        raise ValueError(f"the lowest difference is {-lowest * values[0]:g}, and {lowest:g} was to be the lowest possible")
    if len(values) == 1:  # only mass at `lowest` can still move the mean: Wilson's interval
        return -lowest * (items * mean - critical**2) / (items + critical**2)

    def gap(tested: float, variance: float) -> float:
        return math.sqrt(items) * (mean - tested) - critical * math.sqrt(max(variance, 0.0))

    def tilted(tilt: float) -> tuple[float, float]:
        weights = share / (1 + tilt * values)
        weights /= weights.sum()
        tested = float(weights @ values)
        return tested, float(weights @ (values - tested) ** 2)

    edge = 1.0 - 1e-12 if values[0] == -1 else 1.0
    if gap(*tilted(edge)) >= 0:
        return -lowest * tilted(float(brentq(lambda tilt: gap(*tilted(tilt)), 0.0, edge, xtol=1e-13)))[0]
    # Beyond the edge some of the mass sits on `lowest`, which no item has shown.
    above = share / (values + 1)

    def unseen(tested: float) -> float:
        weights = (tested + 1) * above
        return gap(tested, float(weights @ (values - tested) ** 2) + (1 - float(weights.sum())) * (1 + tested) ** 2)

    return -lowest * float(brentq(unseen, -1.0, tilted(edge)[0], xtol=1e-12))


def replicate_bound(estimate: float, replicates: Numbers, alpha: float) -> float:
    """The same for a statistic that is no mean over items, from paired replicates of the difference.

    The normal bound with the replicates' bias and standard error: `estimate` − bias − t·error (Davison & Hinkley,
    "Bootstrap Methods and their Application", 1997, section 5.2). A percentile would need thousands of replicates at the
    small `alpha` of one round. A bias in the candidate's favour is taken off, one against it is not given back.
    """
    import numpy as np
    from scipy.special import stdtrit

    found = np.asarray(replicates, dtype=np.float64)
    bias = max(0.0, float(found.mean()) - estimate)
    return estimate - bias - float(stdtrit(len(found) - 1, 1 - alpha)) * float(found.std(ddof=1))


def power(items: int, margin: float, alpha: float, variance: float, *, share: bool = False) -> float:
    """The chance that an unchanged candidate (true difference 0) is shown to lose less than `margin`.

    `variance` is that of the difference on one item: for pass or fail, the share of pairs that differ. `share`: items lie
    between 0 and 1, so that the bound keeps a width even when no pair differs. Normal approximation.
    """
    from scipy.special import ndtr

    reach = math.sqrt(items) * margin - _quantile(alpha) * math.sqrt(_tested_variance(margin, variance, share))
    if variance <= 0:
        return 1.0 if reach > 0 else 0.0
    return float(ndtr(reach / math.sqrt(variance)))


def items_needed(margin: float, alpha: float, variance: float, power: float = 0.8, *, share: bool = False) -> int:
    """How many items give an unchanged candidate the chance `power` to pass; arguments as in `power`."""
    error = _quantile(alpha) * math.sqrt(_tested_variance(margin, variance, share)) + _quantile(1 - power) * math.sqrt(variance)
    return max(2, math.ceil((error / margin) ** 2))


def visible_drop(items: int, alpha: float, variance: float, power: float = 0.8, *, share: bool = False) -> float:
    """The smallest margin at which an unchanged candidate has the chance `power` to pass with this many items."""
    seen = (_quantile(alpha) + _quantile(1 - power)) * math.sqrt(variance / items)
    if share:
        squared = _quantile(alpha) ** 2
        seen = max(seen, squared / (items + squared))
    return seen


def _tested_variance(margin: float, variance: float, share: bool) -> float:
    """The variance under a loss of `margin`: pairs of pass and fail that lose it differ at least that often."""
    return max(variance, margin * (1 - margin)) if share else variance


def _quantile(alpha: float) -> float:
    """The standard normal's upper `alpha` quantile."""
    from scipy.special import ndtri

    return -float(ndtri(alpha))
