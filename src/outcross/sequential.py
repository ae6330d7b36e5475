"""Error rates: intervals that hold whenever one stops looking, acceptance sampling with them, and intervals of a fixed size.

A confidence sequence is a series of intervals, one after each draw, all of which hold the true rate at once with probability 1 − alpha.
So one may look after every draw and stop when one likes, which an interval of a fixed size forbids.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Prior = tuple[tuple[float, float, float], ...]
"""A mixture of Beta distributions: (weight, a, b) of each; the weights add up to 1."""
JEFFREYS: Prior = ((1.0, 0.5, 0.5),)
CERTAIN = 1e-12


class Interval(NamedTuple):
    """Bounds of a rate, both between 0 and 1."""

    low: float
    high: float


def log_evidence(errors: int, seen: int, rate: float, *, size: int | None = None, prior: Prior = JEFFREYS) -> float:
    """The natural logarithm of the evidence against `rate` after `errors` among `seen` draws; infinite when it is impossible.

    It is how much better the data are predicted by the mixture `prior` over all rates than by `rate` itself. If `rate` is the true one,
    the evidence is a martingale that starts at 1, so that it ever reaches 1/alpha with probability at most alpha (Ville), whatever the prior.
    Draws with replacement: Robbins' beta-binomial mixture (Annals of Mathematical Statistics 41, 1970, 1397–1409). `size`: draws without
    replacement from a batch of this size, of which round(rate · size) are errors: the prior-posterior ratio of Waudby-Smith & Ramdas
    (arXiv:2006.04347, theorem 2.1), with the same mixture in closed form.
    """
    parts = [math.log(weight) + _log_beta(a + errors, b + seen - errors) - _log_beta(a, b) for weight, a, b in prior]
    mixture = max(parts) + math.log(math.fsum(math.exp(part - max(parts)) for part in parts))
    return mixture - (_log_likelihood(errors, seen, rate) if size is None else _log_drawn(errors, seen, round(rate * size), size))


def confidence_sequence(errors: int, seen: int, alpha: float = 0.05, *, size: int | None = None, prior: Prior = JEFFREYS) -> Interval:
    """The rates against which the evidence is below 1/`alpha`: all rates that are not ruled out. Arguments as of `log_evidence`."""
    if not 0 <= errors <= seen or (size is not None and seen > size):
        raise ValueError(f"{errors} errors among {seen} draws{'' if size is None else f' of {size}'} cannot be; count again")
    if size is not None:
        return _finite(errors, seen, -math.log(alpha), size, prior)
    best, bar = errors / seen if seen else 0.5, -math.log(alpha)

    def ruled_out(rate: float) -> bool:
        return log_evidence(errors, seen, rate, prior=prior) >= bar

    low = _edge(best, 0.0, ruled_out) if ruled_out(0.0) else 0.0
    return Interval(low, _edge(best, 1.0, ruled_out) if ruled_out(1.0) else 1.0)


def _finite(errors: int, seen: int, bar: float, size: int, prior: Prior) -> Interval:
    """Bounds on whole numbers of errors in the batch; the likelihood has one top, which is never ruled out."""
    fewest, most = errors, size - (seen - errors)
    top = min(max(errors * (size + 1) // seen if seen else size // 2, fewest), most)

    def ruled_out(count: int) -> bool:
        return log_evidence(errors, seen, count / size, size=size, prior=prior) >= bar

    low, high = (fewest, top), (top, most)
    for _ in range(size.bit_length() + 1):
        middle = sum(low) // 2
        low = low if low[0] == low[1] else ((middle + 1, low[1]) if ruled_out(middle) else (low[0], middle))
        middle = -(-sum(high) // 2)
        high = high if high[0] == high[1] else ((high[0], middle - 1) if ruled_out(middle) else (middle, high[1]))
    return Interval(low[0] / size, high[0] / size)


def _edge(inside: float, outside: float, ruled_out: Callable[[float], bool]) -> float:
    """Where rates begin to be ruled out between one that is not and one that is, from the safe side."""
    while abs(outside - inside) > CERTAIN:
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if ruled_out(middle) else (middle, outside)
    return outside


@dataclass(frozen=True)
class Finding:
    """Where an acceptance sample stands: the decision so far, the interval it rests on, and how many draws without a further error would
    be enough to accept (None: no number would)."""

    decision: Literal["accept", "reject", "go on"]
    errors: int
    seen: int
    interval: Interval
    more: int | None


@dataclass(frozen=True)
class Acceptance:
    """Accept a batch once its error rate is shown to be at most `limit`, reject it once it is shown to be above; look as often as you like.

    The chance to accept a batch above the limit, or to reject one within it, is at most `alpha`, over all looks together. A batch
    without an error is accepted after 74 draws at 5 % and alpha 0.05; a test of a fixed size, without any look before its end, takes 59.
    """

    limit: float = 0.05
    alpha: float = 0.05

    def look(self, errors: int, seen: int, size: int | None = None) -> Finding:
        """What `errors` among `seen` random draws show; `size`: draws without replacement from a batch of this size."""
        interval = self._interval(errors, seen, size)
        if interval.high <= self.limit:
            return Finding("accept", errors, seen, interval, 0)
        if interval.low > self.limit:
            return Finding("reject", errors, seen, interval, None)
        return Finding("go on", errors, seen, interval, self._more(errors, seen, size))

    @property
    def prior(self) -> Prior:
        """A Beta with mean limit/4, to accept what is good soon, and Jeffreys', to reject what is bad."""
        mean = self.limit / 4
        return (0.75, 0.5, 0.5 * (1 - mean) / mean), (0.25, 0.5, 0.5)

    def _interval(self, errors: int, seen: int, size: int | None) -> Interval:
        return confidence_sequence(errors, seen, self.alpha, size=size, prior=self.prior)

    def _more(self, errors: int, seen: int, size: int | None) -> int | None:
        def enough(more: int) -> bool:
            return self._interval(errors, seen + more, size).high <= self.limit

        if size is not None and not enough(size - seen):
            return None
        below, above = 0, 1
        while not enough(above):
            below, above = above, 2 * above if size is None else min(2 * above, size - seen)
        while above - below > 1:
            middle = (below + above) // 2
            below, above = (below, middle) if enough(middle) else (middle, above)
        return above


def clopper_pearson(count: int, of: int, alpha: float = 0.05) -> Interval:
    """The exact two-sided interval of a rate for a number of draws that was fixed before (Biometrika 26, 1934, 404–413)."""
    from scipy.special import betaincinv

    low = 0.0 if count == 0 else float(betaincinv(count, of - count + 1, alpha / 2))
    high = 1.0 if count == of else float(betaincinv(count + 1, of - count, 1 - alpha / 2))
    return Interval(low, high)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_likelihood(errors: int, seen: int, rate: float) -> float:
    if (rate <= 0 and errors) or (rate >= 1 and errors < seen):
        return -math.inf
    return (errors * math.log(rate) if errors else 0.0) + ((seen - errors) * math.log1p(-rate) if errors < seen else 0.0)


def _log_drawn(errors: int, seen: int, wrong: int, size: int) -> float:
    """Of one order of draws without replacement from `size`, of which `wrong` are errors."""
    if errors > wrong or seen - errors > size - wrong:
        return -math.inf
    return _log_falling(wrong, errors) + _log_falling(size - wrong, seen - errors) - _log_falling(size, seen)


def _log_falling(number: int, factors: int) -> float:
    """ln(number · (number − 1) ⋯), with this many factors."""
    return math.lgamma(number + 1) - math.lgamma(number - factors + 1)
