"""Published rules whose consequence is one number: worked out here from the rule itself, beside the formula."""

from __future__ import annotations

import itertools
import math

import numpy as np

from outcross.lab.lineages import Floats

Decision = tuple[bool, ...]


# ── progressive sampling of AlphaProof (Hubert et al., Nature 2025, pseudocode) ────────────────────────────────────────
def visits_at_samples(samples: int, *, rate: float = 0.01, power: float = 0.6) -> int:
    """The visit at which a node is sampled again after `samples` samples: the first N with samples ≤ 0.01 · N^0.6, by counting."""
    return next(visits for visits in itertools.count(1) if samples <= rate * visits**power)


def visits_threshold(samples: int, *, rate: float = 0.01, power: float = 0.6) -> float:
    """(samples/0.01)^(1/0.6)."""
    return float((samples / rate) ** (1 / power))


# ── the proposer's reward of Absolute Zero (Zhao et al., arXiv:2505.03335, as its code has it) ─────────────────────────
def proposer_reward(solved: int, tries: int) -> float:
    """1 − success, and −0.5 for a task that is never or always solved."""
    return -0.5 if solved in (0, tries) else 1 - solved / tries


def best_difficulty(tries: int = 8, grid: int = 10_000) -> float:
    """The solver's success rate that the proposer is paid most for, expected over all outcomes of `tries` tries."""
    rates = np.arange(1, grid) / grid
    pay = np.zeros(len(rates))
    for solved in range(tries + 1):
        pay += proposer_reward(solved, tries) * math.comb(tries, solved) * rates**solved * (1 - rates) ** (tries - solved)
    return float(rates[pay.argmax()])


def best_difficulty_formula(tries: int = 8) -> float:
    """The maximum of (1 − p) − 1.5(1 − p)ⁿ − 0.5pⁿ: where 1.5n(1 − p)ⁿ⁻¹ = 1 + 0.5npⁿ⁻¹, by bisection (derived)."""
    low, high = 0.0, 0.9
    for _ in range(60):
        middle = (low + high) / 2
        slope = -1 + 1.5 * tries * (1 - middle) ** (tries - 1) - 0.5 * tries * middle ** (tries - 1)
        low, high = (middle, high) if slope > 0 else (low, middle)
    return low


# ── Kuhn poker: three cards, one bet (Kuhn 1950) ───────────────────────────────────────────────────────────────────────
def kuhn_value(iterations: int = 20_000) -> float:
    """The value of the game to the first player, by regret matching on its pure strategies (middle of the two bounds)."""
    payoff = _kuhn_payoffs()
    regrets = [np.zeros(size) for size in payoff.shape]
    totals = [np.zeros(size) for size in payoff.shape]
    for number in range(1, iterations + 1):
        for player in (0, 1):
            other = _matched(regrets[1 - player])
            gains = payoff @ other if player == 0 else -(other @ payoff)
            own = _matched(regrets[player])
            regrets[player] = np.maximum(regrets[player] + gains - own @ gains, 0)
            totals[player] += number * own
    first, second = (total / total.sum() for total in totals)
    return float(((first @ payoff).min() + (payoff @ second).max()) / 2)


def _matched(regret: Floats) -> Floats:
    total = regret.sum()
    return regret / total if total > 0 else np.full(len(regret), 1 / len(regret))


def _kuhn_payoffs() -> Floats:
    """What the first player wins on average: 27 strategies (per card: bet, check and fold, check and call) against 64 (per card:
    whether to bet after a check, and whether to call a bet)."""
    first = list(itertools.product(("bet", "fold", "call"), repeat=3))
    second = list(itertools.product(itertools.product((False, True), repeat=2), repeat=3))
    deals = list(itertools.permutations(range(3), 2))
    return np.array([[float(np.mean([_hand(a, b, own[a], answer[b]) for a, b in deals])) for answer in second] for own in first])


def _hand(own: int, other: int, plan: str, answer: Decision) -> int:
    """One deal: cards, the first player's plan, and whether the second bets after a check and calls a bet."""
    higher = 1 if own > other else -1
    bets, calls = answer
    if plan == "bet":
        return 2 * higher if calls else 1
    if not bets:
        return higher
    return 2 * higher if plan == "call" else -1
