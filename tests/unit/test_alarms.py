"""Alarms: what counts as shown to be worse, how their budget is spent, and which rung of the ladder is reached."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from outcross.errors import ConfigError, GuardError
from outcross.gate.harm import harm
from outcross.gate.monitors.alarms import Alarms, Rung
from outcross.types import Alarm, Comparison, Measurement

ITEMS = tuple(f"i{number}" for number in range(400))


def values(found: np.ndarray, probe: str = "score", *, better: bool = True, unit: str = "") -> Measurement:
    return Measurement(probe, ITEMS[: len(found)], tuple(map(float, found)), None, better, unit)


def replicated(value: float, noise: np.ndarray, unit: str = "nats") -> Measurement:
    return Measurement("entropy", ITEMS, (value,), tuple(map(float, value + noise)), unit=unit)


def comparison(candidate: Measurement, champion: Measurement, first: Measurement, round: int = 1, rounds: int = 4) -> Comparison:
    mine, held, start = ({found.probe: found} for found in (candidate, champion, first))
    return Comparison(mine, held, start, round, rounds, 0.0)


def test_harm_is_student_s_test_where_values_are_well_behaved() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(1.0, 0.3, 400)
    fallen = base - rng.normal(0.05, 0.2, 400)
    found = harm(values(fallen), values(base), 0.01)
    interval = ttest_1samp(fallen - base, 0.0).confidence_interval(0.98)
    assert found.shown and found.change == pytest.approx(float((fallen - base).mean()))
    assert found.high >= float(interval.high) - 1e-12 and found.high == pytest.approx(float(interval.high), abs=2e-3)
    assert found.low <= float(interval.low) + 1e-12 and found.low == pytest.approx(float(interval.low), abs=2e-3)
    order = np.argsort(fallen - base)[:3]
    assert found.items == tuple(ITEMS[place] for place in order)


def test_lower_may_be_better_and_a_gain_is_no_harm() -> None:
    base = np.random.default_rng(1).normal(1.0, 0.3, 400)
    up = base + 0.1 + np.random.default_rng(2).normal(0, 0.1, 400)
    assert harm(values(up, better=False), values(base, better=False), 0.01).shown
    assert not harm(values(up), values(base), 0.01).shown
    assert harm(values(base, better=False), values(up, better=False), 0.01).change > 0


def test_against_real_data_a_fall_counts_only_below_real() -> None:
    noise = np.random.default_rng(3).normal(0, 0.02, 200)
    unit = "nats over real"
    assert not harm(replicated(0.1, noise, unit), replicated(0.6, noise, unit), 0.01).shown  # as varied as real is as good as it gets
    fallen = harm(replicated(-0.4, noise, unit), replicated(0.6, noise, unit), 0.01)
    assert fallen.shown and fallen.change == pytest.approx(-0.4)
    assert harm(replicated(0.1, noise), replicated(0.6, noise), 0.01).shown  # by itself it is a fall


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Measurement("score", ITEMS[200:], (1.0,) * 200), "200 of 400 items"),
        (Measurement("score", ITEMS, (1.0,) * 400, unit="share"), "unit, higher is better"),
        (Measurement("score", ITEMS, (1.0,), (1.0, 1.1)), "per item"),
    ],
)
def test_what_cannot_be_paired_is_noted_and_never_ends_the_run(other: Measurement, message: str) -> None:
    mine = values(np.zeros(400))
    with pytest.raises(GuardError, match=message):
        harm(mine, other, 0.05)
    (alarm,) = Alarms()(comparison(mine, other, other), {"score": 0.1}, [])
    assert alarm.action == "note" and alarm.rounds == 0 and "not tested" in alarm.reason


# ── the budget ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_alpha_is_spent_evenly_over_rounds_and_tests() -> None:
    base, fallen = np.random.default_rng(4).random(400), np.random.default_rng(5).random(400) - 1
    found = Alarms(alpha=0.04)(comparison(values(fallen), values(base + 0.01), values(base), rounds=4), {"score": 0.1}, [])
    assert [(alarm.against, alarm.alpha) for alarm in found] == [("first", 0.005), ("champion", 0.005)]
    once = Alarms(alpha=0.04)(comparison(values(fallen), values(base), values(base), rounds=4), {"score": 0.1}, [])
    assert [(alarm.against, alarm.alpha) for alarm in once] == [("first", 0.01)]  # champion and first model are one: one test
    assert Alarms()(comparison(values(fallen), values(base), values(base), round=4, rounds=4), {"score": 0.1}, []) == ()


def test_healthy_lineages_raise_false_alarms_within_the_budget() -> None:
    """Lineages of 4 rounds and 3 probes in which nothing changes but noise; `benchmarks/gate.py` does 2,000."""
    rng, raised, lineages = np.random.default_rng(6), 0, 120
    monitor = Alarms(alpha=0.05)
    for _ in range(lineages):
        raised += healthy_lineage_alarms(rng, monitor, rounds=4)
    assert binomtest(raised, lineages, 0.05, alternative="greater").pvalue > 0.01


def healthy_lineage_alarms(rng: np.random.Generator, monitor: Alarms, rounds: int) -> bool:
    chance, level = rng.beta(2, 2, 300), rng.normal(1, 0.3, 300)
    items = ITEMS[:300]

    def measured() -> dict[str, Measurement]:
        right = (rng.random(300) < chance).astype(float)
        loss = level + rng.standard_t(4, 300) * 0.1
        spread = rng.normal(0, 0.05, 100)
        value = float(rng.normal(0, 0.05))
        return {
            "right": Measurement("right", items, tuple(map(float, right)), unit="share"),
            "loss": Measurement("loss", items, tuple(map(float, loss)), None, False, "nats"),
            "spread": Measurement("spread", items, (value,), tuple(map(float, value + spread))),
        }

    first = champion = measured()
    margins = {"right": 0.02, "loss": 0.05, "spread": 0.1}
    for round in range(rounds):
        candidate = measured()
        if monitor(Comparison(candidate, champion, first, round, rounds, 0.0), margins, []):
            return True
        champion = candidate
    return False


# ── the ladder ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def fallen_by(drop: float, before: list[list[Alarm]] | None = None, **more: object) -> Alarm:
    base = np.random.default_rng(7).random(400)
    monitor = Alarms(**more)  # type: ignore[arg-type]
    (alarm,) = monitor(comparison(values(base - drop), values(base), values(base)), {"score": 0.1}, before or [])
    return alarm


@pytest.mark.parametrize(
    ("drop", "action"), [(0.01, "note"), (0.051, "warn"), (0.11, "raise_real"), (0.29, "raise_real"), (0.31, "stop"), (0.51, "roll_back")]
)
def test_the_further_it_falls_in_margins_the_more_follows(drop: float, action: str) -> None:
    alarm = fallen_by(drop)
    assert alarm.action == action and alarm.change == pytest.approx(-drop)
    assert alarm.reason.startswith(f"score fell by {drop:.3g} against the first model (") and "margin 0.1)" in alarm.reason
    assert alarm.low <= -drop <= alarm.high < 0


def test_what_lasts_is_worse_than_what_happens_once() -> None:
    earlier = [[fallen_by(0.01)]]
    again = fallen_by(0.01, earlier)
    assert again.action == "warn" and again.rounds == 2 and again.reason.endswith("for 2 rounds in a row")
    assert fallen_by(0.01, [*earlier, []]).rounds == 1
    lasting = (Rung("note"), Rung("stop", rounds=3))
    assert fallen_by(0.01, [*earlier, *earlier], ladder=lasting).action == "stop"


def test_a_ladder_without_a_low_rung_says_nothing_of_small_things() -> None:
    base = np.random.default_rng(8).random(400)
    gone = Alarms(ladder=(Rung("stop", margins=1.0),))(comparison(values(base - 0.05), values(base), values(base)), {"score": 0.1}, [])
    assert gone == ()
    assert Alarms().acts == "roll_back" and Alarms(ladder=(Rung("note"), Rung("warn", 1.0))).acts == "warn"


def test_a_loss_must_be_shown_to_exceed_the_tolerance() -> None:
    """A paired loss of a fiftieth of the margin, certain as it is, is no alarm; the same with a tolerance of 0 is one."""
    base = np.random.default_rng(10).random(400)
    lost = base - np.random.default_rng(11).normal(0.002, 0.005, 400)
    start = values(base)
    assert harm(values(lost), start, 0.001).shown
    assert Alarms()(comparison(values(lost), start, start), {"score": 0.1}, []) == ()
    (alarm,) = Alarms(tolerance=0.0)(comparison(values(lost), start, start), {"score": 0.1}, [])
    assert alarm.action == "note" and alarm.change == pytest.approx(float((lost - base).mean()))
    assert len(Alarms(tolerance=0.01)(comparison(values(lost), start, start), {"score": 0.1}, [])) == 1  # 0.001: that more is lost is shown


@pytest.mark.parametrize("wrong", [{"tolerance": 1.0}, {"tolerance": -0.1}, {"alpha": 0.0}, {"step": 0.0}, {"most": 1.5}, {"ladder": ()}])
def test_bad_settings_are_refused_when_built(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Alarms(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="an action is one of note, warn"):
        Rung("shout")  # type: ignore[arg-type]


def test_a_shift_of_two_null_deviations_is_often_seen_by_the_second_generation() -> None:
    """One probe of 300 items, a run of 2 rounds: the exact normal power is Φ(2 − z) at α/2 a round, tested twice."""
    rng, seen, trials = np.random.default_rng(9), 0, 300
    scale = 0.2 / math.sqrt(300)
    for _ in range(trials):
        first = rng.normal(0, 0.1, 300)
        for round in range(2):
            candidate = first + rng.normal(-2 * scale, 0.2, 300)
            start = values(first)
            if Alarms(tolerance=0.0)(comparison(values(candidate), start, start, round, 2), {"score": 1.0}, []):
                seen += 1
                break
    assert 0.6 < seen / trials < 0.85  # 1 − (1 − 0.516)² = 0.77


def test_items_are_paired_by_name_and_what_cannot_be_is_refused() -> None:
    """Replicates of other items, or in another order, are other draws; an item named twice would count once."""
    noise = np.random.default_rng(5).normal(0, 0.01, 50)
    one, other = replicated(1.0, noise), replicated(0.5, noise)
    assert harm(other, one, 0.05).shown
    turned = Measurement("entropy", ITEMS[::-1], other.values, other.replicates, unit="nats")
    with pytest.raises(GuardError, match="cannot be paired"):
        harm(turned, one, 0.05)
    base = np.random.default_rng(6).normal(1.0, 0.3, 400)
    plain, backwards = values(base), Measurement("score", ITEMS[::-1], tuple(base[::-1].tolist()))
    assert harm(backwards, plain, 0.05).change == 0.0
    with pytest.raises(GuardError, match="names 1 items twice"):
        harm(Measurement("score", ("a", "a", "b"), (1.0, 2.0, 3.0)), Measurement("score", ("a", "b"), (1.0, 2.0)), 0.05)
