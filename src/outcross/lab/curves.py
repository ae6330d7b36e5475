"""The curves behind the claims: what our simulations do round by round, with theory beside them where there is some."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from outcross.lab import experiments, gaussian, groups, kernel, moments, regression, resampling, verified
from outcross.lab.claim import NORMAL_95
from outcross.lab.gaussian import Normal
from outcross.lab.lineages import Floats, simulate
from outcross.lab.regimes import Accumulate, Fixed, Fresh, Regime, Replace, Subsample

Rng = np.random.Generator


@dataclass(frozen=True)
class Line:
    """One line: a value a place on the x axis, with its 95 % interval where it was measured; theory has none."""

    name: str
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def is_theory(self) -> bool:
        return not self.low


@dataclass(frozen=True)
class Curve:
    """A picture: what it shows, the names along its x axis, and its lines."""

    name: str
    title: str
    about: str
    claims: tuple[str, ...]  # names, or how they begin
    x_names: tuple[str, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Picture:
    """How a curve is drawn: `draw(replicates, rng)` gives its lines."""

    name: str
    title: str
    about: str
    claims: tuple[str, ...]
    x_names: tuple[str, ...]
    draw: Callable[[int, Rng], Sequence[Line]]
    replicates: int = 2_000

    def curve(self, factor: int, rng: Rng) -> Curve:
        lines = tuple(self.draw(self.replicates * factor, rng))
        return Curve(self.name, self.title, self.about, self.claims, self.x_names, lines)


def measured(name: str, values: Floats) -> Line:
    """The mean of (replicates, places) with its 95 % interval."""
    middle, half = values.mean(axis=0), NORMAL_95 * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return Line(name, _plain(middle), _plain(middle - half), _plain(middle + half))


def _plain(values: Floats) -> tuple[float, ...]:
    return tuple(map(float, values))


def _rounds(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count + 1)))


def _gaussian(replicates: int, rng: Rng) -> Sequence[Line]:
    found = simulate(Normal(), Replace(), gaussian.variance, size=100, rounds=40, replicates=replicates, rng=rng)
    typical = np.exp(np.log(found).mean(axis=0))
    bands = np.exp(
        np.stack([np.log(found).mean(axis=0) + sign * NORMAL_95 * np.log(found).std(axis=0) / replicates**0.5 for sign in (-1, 1)])
    )
    theory = [1.0, *(gaussian.geometric_mean_variance(100, number) for number in range(1, 41))]
    return (
        measured("mean σ²", found),
        Line("typical σ²", _plain(typical), _plain(bands[0]), _plain(bands[1])),
        Line("typical σ², theory", tuple(map(float, theory))),
    )


def _regimes(replicates: int, rng: Rng) -> Sequence[Line]:
    lines = []
    family = Normal(unbiased=False)
    named: tuple[tuple[str, Replace | Accumulate | Subsample | Fresh | Fixed], ...] = (
        ("replace", Replace()),
        ("accumulate", Accumulate()),
        ("subsample", Subsample()),
        ("30 % fresh real", Fresh(0.3)),
        ("30 % fixed real", Fixed(0.3)),
    )
    for name, regime in named:
        found = simulate(family, regime, gaussian.variance, size=30, rounds=10, replicates=replicates, rng=rng)
        lines += [measured(name, found), Line(f"{name}, theory", _plain(moments.expected(family, regime, size=30, rounds=10).variance))]
    return lines


def _regression(replicates: int, rng: Rng) -> Sequence[Line]:
    lines = []
    named: tuple[tuple[str, Regime], ...] = (("replace", Replace()), ("subsample", Subsample()), ("accumulate", Accumulate()))
    for name, regime in named:
        found = regression.squared_errors(regime, rows=111, dimensions=10, noise=1.0, rounds=10, replicates=replicates, rng=rng)
        lines.append(measured(name, found))
    for name, theory in (("replace", regression.replaced), ("accumulate", regression.accumulated)):
        lines.append(Line(f"{name}, theory", tuple(theory(111, 10, 1.0, number) for number in range(1, 11))))
    return lines


def _kernels(replicates: int, rng: Rng) -> Sequence[Line]:
    lines = []
    named: tuple[tuple[str, Replace | Accumulate], ...] = (("replace", Replace()), ("accumulate", Accumulate()))
    for name, regime in named:
        found = simulate(kernel.KernelDensity(0.3), regime, kernel.second_moment, size=50, rounds=20, replicates=replicates, rng=rng)
        theory = [1.0, *(kernel.expected_second_moment(0.3, regime, size=50, rounds=number) for number in range(1, 21))]
        lines += [measured(name, found), Line(f"{name}, theory", tuple(theory))]
    return lines


def _repetition(replicates: int, rng: Rng) -> Sequence[Line]:
    law = resampling.power_law(50)
    found = simulate(resampling.Categorical(law), Replace(), resampling.sum_of_squares, size=200, rounds=20, replicates=replicates, rng=rng)
    start = sum(p * p for p in law)
    theory = [start, *(resampling.seddik(start, 200, number) for number in range(1, 21))]
    return measured("Σ p²", found), Line("theory", tuple(map(float, theory)))


def _minority(replicates: int, rng: Rng) -> Sequence[Line]:
    lines = []
    for name, real, regime in (("no real rows", 0.0, Replace()), ("70 % real rows", 0.7, Fixed(0.7))):
        found = groups.minority_shares(0.1, 0.8, regime, size=20_000, rounds=8, replicates=replicates, rng=rng)
        theory = tuple(groups.floored_minority_share(0.1, 0.8, real, number) for number in range(9))
        lines += [measured(name, found), Line(f"{name}, theory", theory)]
    return lines


def _worst_group(replicates: int, rng: Rng) -> Sequence[Line]:
    return [
        measured(name, groups.worst_group_errors(0.1, 0.8, real, size=20_000, rounds=4, replicates=replicates, rng=rng))
        for name, real in (("no real rows", 0.0), ("10 % real", 0.1), ("70 % real", 0.7))
    ]


_WRONG = tuple(step / 20 for step in range(1, 20))


def _filters(replicates: int, rng: Rng) -> Sequence[Line]:
    lines = []
    for name, right, wrong in (("no filter", 1.0, 1.0), ("φ 0.9, ψ 0.3", 0.9, 0.3), ("φ 0.7, ψ 0.05", 0.7, 0.05)):
        found = [
            verified.accuracy(verified.alignments(share, right, wrong, rows=500, dimensions=50, replicates=replicates, rng=rng))
            for share in _WRONG
        ]
        lines.append(measured(name, np.stack(found, axis=1)))
    return lines


SHARES = tuple(step / 10 for step in range(1, 11))


def _sweep(replicates: int, rng: Rng) -> Sequence[Line]:
    found = np.stack([experiments.error_of_mean(share, replicates, rng) for share in SHARES], axis=1)
    return measured("ours", found), Line("theory", tuple(map(experiments.expected_error_of_mean, SHARES)))


PICTURES = (
    Picture(
        "gaussian",
        "A Gaussian refitted to its own 100 draws",
        "The mean variance stays for ever; the typical lineage loses it.",
        ("gaussian-variance", "gaussian-distance", "gaussian-collapse"),
        _rounds(40),
        _gaussian,
        10_000,
    ),
    Picture(
        "regimes",
        "What is mixed in decides: variance of a Gaussian, 30 rows a round",
        "Refitted by maximum likelihood.",
        ("gaussian-fresh", "gaussian-fixed", "kazdan-gaussian", "gaussian-maximum"),
        _rounds(10),
        _regimes,
        5_000,
    ),
    Picture(
        "regression",
        "Test error of linear regression, d = 10, T = 111",
        "Replaced it grows for ever, accumulated it stays below π²/6 of the first.",
        ("gerstgrasser-replace", "gerstgrasser-accumulate", "kazdan-regression"),
        _rounds(10)[1:],
        _regression,
    ),
    Picture("kernels", "Spread of a kernel density, h = 0.3", "E X² of what is drawn.", ("kernel",), _rounds(20), _kernels, 1_000),
    Picture("repetition", "Repetition: Σ p² of 50 symbols, 200 draws a round", "", ("seddik",), _rounds(20), _repetition, 1_000),
    Picture(
        "minority",
        "A minority of 10 % at temperature 0.8",
        "Its share of what is written, by round.",
        ("minority",),
        _rounds(8),
        _minority,
        500,
    ),
    Picture(
        "worst-group",
        "Squared error of the minority's mean over four generations",
        "Temperature 0.8, 20,000 rows a round.",
        ("worst-group",),
        _rounds(4),
        _worst_group,
    ),
    Picture(
        "filters",
        "Accuracy by the share of wrong labels, with and without a verifier",
        "φ: right labels kept, ψ: wrong labels kept; 500 labels, 50 dimensions.",
        ("verification",),
        tuple(f"{100 * share:.0f} %" for share in _WRONG),
        _filters,
        50,
    ),
    Picture(
        "real-share",
        "Where 70 % real stands: error after 30 generations by the share of real rows",
        "M·μ² of a Gaussian with fresh real rows; 1 is what real rows alone give, none at all give 30.",
        ("real-share",),
        tuple(f"{100 * share:.0f} %" for share in SHARES),
        _sweep,
    ),
)
