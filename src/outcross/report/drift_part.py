"""How often each verifier passed, round by round, and the reward that training was told: what drifts when a model learns its judge."""

from __future__ import annotations

from collections.abc import Iterator

from outcross.report import numbers as n
from outcross.report.element import Child, el
from outcross.report.parts import table
from outcross.report.read import Reading
from outcross.report.record import Reward, RoundRecord

NORMAL = 1.959964  # two-sided 95 %


def passes(item: RoundRecord) -> dict[str, tuple[int, int]]:
    """By verifier, over a round's inner turns: samples passed, and samples with a verdict."""
    found: dict[str, tuple[int, int]] = {}
    for count in item.counts:
        if count.stage == "verify":
            passed, failed = count.detail.get("pass", 0), count.detail.get("fail", 0)
            before = found.get(count.name, (0, 0))
            found[count.name] = (before[0] + passed, before[1] + passed + failed)
    return found


def drift_part(reading: Reading, most: int) -> Iterator[Child]:
    """A table of rounds by verifiers; nothing where nothing was verified."""
    rounds = [item for item in reading.rounds if any(decided for _, decided in passes(item).values())]
    if not rounds:
        return
    names = list(dict.fromkeys(name for item in rounds for name in passes(item)))
    shown = rounds[-most:]
    rewarded = any(item.reward is not None for item in shown)
    reward = " Reward: the mean value over tasks that verifiers gave, with its 95 % interval, and its change since the phase's first round."
    yield el("h2", "Verifiers over rounds")
    yield el(
        "p",
        f"The share of samples with a verdict that passed.{reward if rewarded else ''} A share that rises while the probes above do not may be a model "
        "that learns its verifier.",
        class_="soft",
    )
    if len(shown) < len(rounds):
        yield el("p", f"The last {len(shown)} of {n.count(len(rounds))} rounds.", class_="soft")
    first: dict[str, Reward] = {}
    for item in reading.rounds:
        if item.reward is not None:
            first.setdefault(item.phase, item.reward)
    columns = ["round", *(f"#{name}" for name in names), *(["#reward [95 %]", "#change [95 %]"] if rewarded else [])]
    yield table(columns, [_row(item, names, first.get(item.phase), rewarded) for item in shown])


def _row(item: RoundRecord, names: list[str], first: Reward | None, rewarded: bool) -> tuple[Child, ...]:
    found = passes(item)
    shares = []
    for name in names:
        passed, decided = found.get(name, (0, 0))
        shares.append(f"{n.percent(passed / decided)} of {n.count(decided)}" if decided else "–")
    return item.label, *shares, *(_reward(item.reward, first) if rewarded else ())


def _reward(now: Reward | None, first: Reward | None) -> tuple[str, str]:
    if now is None or first is None:
        return "–", "–"
    level = f"{n.number(now.mean)} [{n.number(now.mean - NORMAL * now.error)}, {n.number(now.mean + NORMAL * now.error)}]"
    if now is first:
        return level, "–"
    moved, noise = now.mean - first.mean, NORMAL * (now.error**2 + first.error**2) ** 0.5
    return level, f"{n.difference(moved, '')} [{n.difference(moved - noise, '')}, {n.difference(moved + noise, '')}]"
