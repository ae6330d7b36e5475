"""The collapse laboratory against one replicate at a time, and against drawing the random numbers alone.

For each simulation: CPU time per lineage of ours, of a plain loop over replicates (numpy inside, as one would first write it), and of
nothing but the random numbers that ours draws, in blocks of the same size. The three are interleaved; the medians are of the ratios within
one repeat. Peak memory is what Python and numpy allocate in one simulation of ten times as many lineages as are timed, but at most 20,000 (result
included).
Run: python benchmarks/lab.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from outcross.lab import gaussian, kernel, mixture, regression, resampling
from outcross.lab.lineages import BLOCK, simulate
from outcross.lab.regimes import Accumulate, Regime, Replace, Subsample

Rng = np.random.Generator
ROUNDS = 10
MEMORY_REPLICATES = 20_000
LAW = resampling.power_law(50)
TWO = mixture.Mixture((0.5, 0.5), (-2.0, 2.0), (1.0, 1.0))


@dataclass(frozen=True)
class Case:
    """`ours` and `draws` take a number of lineages; `loop` runs one lineage."""

    name: str
    replicates: int
    ours: Callable[[int, Rng], object]
    loop: Callable[[Rng], object]
    draws: Callable[[int, Rng], None]
    at_least: float | None = None  # times faster than the loop
    at_most: float | None = None  # times the time of the draws


# ── ours ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def normal(size: int, regime: Regime, count: int, rng: Rng) -> object:
    return simulate(gaussian.Normal(), regime, gaussian.second_moment, size=size, rounds=ROUNDS, replicates=count, rng=rng)


def kernels(size: int, count: int, rng: Rng) -> object:
    return simulate(kernel.KernelDensity(0.3), Replace(), kernel.second_moment, size=size, rounds=ROUNDS, replicates=count, rng=rng)


def frequencies(size: int, count: int, rng: Rng) -> object:
    return simulate(resampling.Categorical(LAW), Replace(), resampling.sum_of_squares, size=size, rounds=ROUNDS, replicates=count, rng=rng)


def mixtures(size: int, count: int, rng: Rng) -> object:
    return simulate(TWO, Replace(), mixture.total_variance, size=size, rounds=ROUNDS, replicates=count, rng=rng)


def regressions(regime: Regime, count: int, rng: Rng) -> object:
    return regression.squared_errors(regime, rows=111, dimensions=10, noise=1.0, rounds=ROUNDS, replicates=count, rng=rng)


# ── one lineage at a time ──────────────────────────────────────────────────────────────────────────────────────────────
def one_normal(size: int, regime: Regime, rng: Rng) -> None:
    mean, spread, pool = 0.0, 1.0, np.empty(0)
    for _ in range(ROUNDS):
        rows = mean + spread * rng.standard_normal(size)
        if not isinstance(regime, Replace):
            pool = np.concatenate([pool, rows])
            rows = rng.choice(pool, size, replace=False) if isinstance(regime, Subsample) else pool
        mean, spread = rows.mean(), rows.std(ddof=1)


def one_kernel(size: int, rng: Rng) -> None:
    rows = rng.standard_normal(size)
    for _ in range(ROUNDS - 1):
        rows = rows[rng.integers(size, size=size)] + 0.3 * rng.standard_normal(size)


def one_chain(size: int, rng: Rng) -> None:
    shares = np.array(LAW)
    for _ in range(ROUNDS):
        shares = rng.multinomial(size, shares) / size


def one_mixture(size: int, rng: Rng) -> None:
    weights, means, variances = (np.array(values) for values in (TWO.weights, TWO.means, TWO.variances))
    for _ in range(ROUNDS):
        which = rng.choice(2, size, p=weights / weights.sum())
        rows = means[which] + np.sqrt(variances[which]) * rng.standard_normal(size)
        for _ in range(TWO.steps):
            density = weights / np.sqrt(variances) * np.exp(-((rows[:, None] - means) ** 2) / (2 * variances))
            shares = density / density.sum(axis=1, keepdims=True)
            mass = shares.sum(axis=0)
            means = shares.T @ rows / mass
            variances = (shares * (rows[:, None] - means) ** 2).sum(axis=0) / mass
            weights = mass / size


def one_regression(regime: Regime, rng: Rng) -> None:
    x, weights, mean = rng.standard_normal((111, 10)), np.ones(10), np.zeros(111)
    for number in range(1, ROUNDS + 1):
        labels = x @ weights + rng.standard_normal(111)
        mean += (labels - mean) / number
        weights = np.linalg.lstsq(x, labels if isinstance(regime, Replace) else mean)[0]


# ── the random numbers alone ───────────────────────────────────────────────────────────────────────────────────────────
def normals(per_lineage: int, count: int, rng: Rng) -> None:
    total = per_lineage * count
    for start in range(0, total, BLOCK):
        rng.standard_normal(min(BLOCK, total - start))


def normals_and_indices(size: int, count: int, rng: Rng) -> None:
    normals(size * ROUNDS, count, rng)
    for start in range(0, size * ROUNDS * count, BLOCK):
        rng.integers(size, size=min(BLOCK, size * ROUNDS * count - start))


def normals_and_uniforms(size: int, count: int, rng: Rng) -> None:
    normals(size * ROUNDS, count, rng)
    for start in range(0, size * ROUNDS * count, BLOCK):
        rng.random(min(BLOCK, size * ROUNDS * count - start))


def normals_and_keys(size: int, count: int, rng: Rng) -> None:
    normals(size * ROUNDS, count, rng)
    keys = size * sum(range(1, ROUNDS + 1)) * count
    for start in range(0, keys, BLOCK):
        rng.random(min(BLOCK, keys - start), dtype=np.float32)


def multinomials(size: int, count: int, rng: Rng) -> None:
    step = BLOCK // len(LAW)
    for start in range(0, count * ROUNDS, step):
        rng.multinomial(size, np.broadcast_to(LAW, (min(step, count * ROUNDS - start), len(LAW))))


CASES = (
    *(
        Case(
            f"Gaussian, replace, M = {size}",
            count,
            partial(normal, size, Replace()),
            partial(one_normal, size, Replace()),
            partial(normals, size * ROUNDS),
            least,
            most,
        )
        for size, count, least, most in ((2, 20_000, 20, None), (10, 20_000, 20, None), (100, 10_000, 5, 1.5), (1000, 1_000, None, 1.5))
    ),
    *(
        Case(
            f"Gaussian, {type(regime).__name__.lower()}, n = 10",
            10_000,
            partial(normal, 10, regime),
            partial(one_normal, 10, regime),
            draws,
            20,
        )
        for regime, draws in ((Accumulate(), partial(normals, 10 * ROUNDS)), (Subsample(), partial(normals_and_keys, 10)))
    ),
    Case("kernel density, n = 100", 2_000, partial(kernels, 100), partial(one_kernel, 100), partial(normals_and_indices, 100), 5, 1.5),
    Case(
        "frequencies, 50 states, n = 200", 2_000, partial(frequencies, 200), partial(one_chain, 200), partial(multinomials, 200), None, 1.5
    ),
    Case("mixture, M = 100, 5 steps", 500, partial(mixtures, 100), partial(one_mixture, 100), partial(normals_and_uniforms, 100)),
    *(
        Case(
            f"regression, {type(regime).__name__.lower()}, T = 111, d = 10",
            1_000,
            partial(regressions, regime),
            partial(one_regression, regime),
            partial(normals, 111 * (10 + ROUNDS)),
            5,
        )
        for regime in (Replace(), Accumulate())
    ),
)


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(case: Case, repeats: int) -> tuple[float, float, float]:
    """Microseconds of ours per lineage, and the medians of loop/ours and ours/draws."""
    rng = np.random.default_rng(0)
    few = max(20, case.replicates // 50)

    def loop() -> None:
        for _ in range(few):
            case.loop(rng)

    case.ours(few, rng), loop(), case.draws(few, rng)
    ours, faster, dearer = [], [], []
    for _ in range(repeats):
        ours.append(seconds(partial(case.ours, case.replicates, rng)) / case.replicates)
        faster.append(seconds(loop) / few / ours[-1])
        dearer.append(ours[-1] / (seconds(partial(case.draws, case.replicates, rng)) / case.replicates))
    return statistics.median(ours) * 1e6, statistics.median(faster), statistics.median(dearer)


def peak_megabytes(case: Case) -> float:
    tracemalloc.start()
    case.ours(min(MEMORY_REPLICATES, 10 * case.replicates), np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print(f"{ROUNDS} rounds; load average at start {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors\n")
    print("| simulation | µs per lineage | times faster than a loop | times the draws alone | peak MB |\n|---|--:|--:|--:|--:|")
    for case in CASES:
        ours, faster, dearer = measure(case, given.repeats)
        told = f" (asked: ≥ {case.at_least:g})" if case.at_least else ""
        limit = f" (asked: ≤ {case.at_most:g})" if case.at_most else ""
        print(f"| {case.name} | {ours:.1f} | {faster:.1f}{told} | {dearer:.2f}{limit} | {peak_megabytes(case):.1f} |", flush=True)


if __name__ == "__main__":
    main()
