"""Group shares of a set against real data, and groups that are missing."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from outcross.audit.findings import GroupShare

LEVEL = 0.05  # over all groups together


def group_shares(counts: Mapping[str, int], real: Mapping[str, int]) -> tuple[GroupShare, ...]:
    """Each group's share here and in real data with the interval of the difference (Newcombe 1998, method 10), Bonferroni over the groups;
    the largest real groups first. Without real data there are no differences to tell: the intervals are those of nothing, 0 to 0."""
    rows, real_rows = sum(counts.values()), sum(real.values())
    names = sorted({*counts, *real}, key=lambda name: (-real.get(name, 0), -counts.get(name, 0), name))
    z = _quantile(1 - LEVEL / max(len(names), 1) / 2)
    found = []
    for name in names:
        mine, theirs = counts.get(name, 0), real.get(name, 0)
        low = high = 0.0
        if rows and real_rows:
            low, high = _newcombe(mine, rows, theirs, real_rows, z)
        found.append(GroupShare(name, mine, theirs, mine / max(rows, 1), theirs / max(real_rows, 1), low, high))
    return tuple(found)


def lost(shares: tuple[GroupShare, ...]) -> tuple[float, list[GroupShare]]:
    """The share of real rows whose group is missing or thinned out, beyond chance, and these groups, the worst first.

    A group is one of them when its share fell, the interval of the difference leaves 0, and it lost a fifth of its share or more.
    """
    fallen = [one for one in shares if one.high < 0 and one.share < 0.8 * one.real_share]
    fallen.sort(key=lambda one: one.share - one.real_share)
    return sum(one.real_share - one.share for one in fallen), fallen


def wilson(hits: int, of: int, z: float) -> tuple[float, float]:
    """Wilson's interval of a share."""
    share = hits / of
    centre, half = share + z * z / (2 * of), z * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (centre - half) / (1 + z * z / of)), min(1.0, (centre + half) / (1 + z * z / of))


def _newcombe(a: int, n: int, b: int, m: int, z: float) -> tuple[float, float]:
    p, q = a / n, b / m
    (low_p, high_p), (low_q, high_q) = wilson(a, n, z), wilson(b, m, z)
    return p - q - sqrt((p - low_p) ** 2 + (high_q - q) ** 2), p - q + sqrt((high_p - p) ** 2 + (q - low_q) ** 2)


def _quantile(level: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(level))
