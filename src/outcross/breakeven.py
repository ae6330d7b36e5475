"""What selection by a verifier does to data: its sensitivity, what it lets through, and the share of errors beyond which it cannot help.

φ = P(kept | right), ψ = P(kept | wrong), p = the share of the policy's own answers that are wrong. Of what is kept, pψ / (pψ + (1 − p)φ) is
wrong. That is below one half, so that a learner follows the right answers, just when p < p* = 1/(1 + ψ/φ); and what is kept is purer than
what is not just when φ > ψ (Feng, Dohmatob et al., arXiv:2406.07515).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from outcross.sequential import clopper_pearson
from outcross.types import Record, Verdict

Says = Literal["helps", "hurts", "cannot be shown"]
POWER = 0.8


class Tally(Record, frozen=True, omit_defaults=True):
    """What a verifier said of answers of one label. Errors say nothing about it: they are counted and left out of every rate; an abstention
    is an answer that is not kept."""

    kept: int = 0
    failed: int = 0
    abstained: int = 0
    errors: int = 0

    @property
    def judged(self) -> int:
        return self.kept + self.failed + self.abstained


class Labelled(Record, frozen=True, omit_defaults=True):
    """A verifier's verdicts on answers that people know to be right and to be wrong; a random draw of the policy's own answers."""

    right: Tally = Tally()
    wrong: Tally = Tally()

    @property
    def judged(self) -> int:
        return self.right.judged + self.wrong.judged

    @property
    def kept(self) -> int:
        return self.right.kept + self.wrong.kept


class Rate(Record, frozen=True):
    """A share with its interval."""

    estimate: float
    low: float
    high: float


class Forecast(Record, frozen=True):
    """What selection will do. The intervals of φ, ψ and p hold all at once with confidence 1 − alpha, and that of p* with them; those of
    the purities each on its own. `below` and `purer`: whether p < p* and φ > ψ were shown, each at level alpha. `more`: about how many further
    labels would show what now cannot be shown, with chance 80 %, if the estimates are true; None when no number would."""

    keeps_right: Rate
    keeps_wrong: Rate
    wrong: Rate
    break_even: Rate
    before: Rate
    after: Rate
    below: bool
    purer: bool
    says: Says
    more: int | None
    alpha: float


def counted(verdicts: Iterable[tuple[bool, Verdict]]) -> Labelled:
    """Verdicts on answers of known label (True: right), counted."""
    found = {True: dict.fromkeys(_FIELDS, 0), False: dict.fromkeys(_FIELDS, 0)}
    for right, verdict in verdicts:
        found[right][verdict] += 1
    tallies = {label: Tally(*(counts[name] for name in _FIELDS)) for label, counts in found.items()}
    return Labelled(tallies[True], tallies[False])


_FIELDS: tuple[Verdict, ...] = ("pass", "fail", "abstain", "error")


def forecast(found: Labelled, alpha: float = 0.05) -> Forecast:
    """What selection by this verifier will do.

    That it *helps* is said when both conditions are shown, each by an exact one-sided test at `alpha` (so that the chance to say it of a
    verifier that does not help is at most `alpha`): the kept answers' errors are below one half (binomial), and right answers are kept more
    often than wrong ones (Fisher). That it *hurts* is said when the opposite of either is shown, each at alpha/2.
    """
    right, wrong, part = found.right, found.wrong, alpha / 3
    phi, psi, share = _rate(right.kept, right.judged, part), _rate(wrong.kept, wrong.judged, part), _rate(wrong.judged, found.judged, part)
    fewer, more_often = _majority_tails(wrong.kept, found.kept)
    purer, muddier = _fisher(found)
    below, better = fewer <= alpha, purer <= alpha
    worse = more_often <= alpha / 2 or muddier <= alpha / 2
    says: Says = "helps" if below and better else "hurts" if worse else "cannot be shown"
    return Forecast(
        phi,
        psi,
        share,
        Rate(_break_even(phi.estimate, psi.estimate), _break_even(phi.low, psi.high), _break_even(phi.high, psi.low)),
        _rate(right.judged, found.judged, alpha),
        _rate(right.kept, found.kept, alpha),
        below,
        better,
        says,
        _more(found, alpha) if says == "cannot be shown" else 0,
        alpha,
    )


def _break_even(phi: float, psi: float) -> float:
    return phi / (phi + psi) if phi + psi > 0 else math.nan


def _rate(count: int, of: int, alpha: float) -> Rate:
    if of == 0:
        return Rate(math.nan, 0.0, 1.0)
    low, high = clopper_pearson(count, of, alpha)
    return Rate(count / of, low, high)


def _majority_tails(wrong: int, kept: int) -> tuple[float, float]:
    """The chances of at most, and of at least, so many errors among the kept if half of them were."""
    from scipy.special import bdtr

    if kept == 0:
        return 1.0, 1.0
    return float(bdtr(wrong, kept, 0.5)), float(bdtr(kept - wrong, kept, 0.5))


def _fisher(found: Labelled) -> tuple[float, float]:
    """Fisher's exact tests that right answers are kept more often than wrong ones, and less often."""
    from scipy.stats import hypergeom

    law = hypergeom(found.judged, found.right.judged, found.kept)
    return float(law.sf(found.right.kept - 1)), float(law.cdf(found.right.kept))


def _more(found: Labelled, alpha: float) -> int | None:
    """Normal approximations of both tests' sizes, at the estimated rates, one virtual answer of each sort added so that no rate is 0 or 1."""
    from scipy.special import ndtri

    phi = (found.right.kept + 0.5) / (found.right.judged + 1)
    psi = (found.wrong.kept + 0.5) / (found.wrong.judged + 1)
    p = (found.wrong.judged + 0.5) / (found.judged + 1)
    kept = p * psi + (1 - p) * phi
    error = p * psi / kept
    if error == 0.5 or found.right.kept * found.wrong.judged == found.wrong.kept * found.right.judged:
        return None
    one, power = -float(ndtri(alpha)), float(ndtri(POWER))
    majority = ((one * 0.5 + power * math.sqrt(error * (1 - error))) / (0.5 - error)) ** 2 / kept
    spread = one * math.sqrt(kept * (1 - kept) / (p * (1 - p))) + power * math.sqrt(phi * (1 - phi) / (1 - p) + psi * (1 - psi) / p)
    needed = math.ceil(max(majority, (spread / (phi - psi)) ** 2))
    return max(1, needed - found.judged)
