"""The gate keeps its word: what it promotes, what it refuses and what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from outcross.errors import ConfigError, GuardError
from outcross.gate.non_inferior import NonInferior
from outcross.gate.observe import Observe
from outcross.gate.open import Open
from outcross.recipe import fingerprint
from outcross.stages import Gate
from outcross.types import Comparison, Measurement

NATS = "nats per token"


def rates(values: np.ndarray) -> Measurement:
    return Measurement("pass_rate", tuple(map(str, range(len(values)))), tuple(map(float, values)), unit="share")


def losses(values: np.ndarray) -> Measurement:
    return Measurement("real_loss", tuple(map(str, range(len(values)))), tuple(map(float, values)), None, False, NATS)


def diversity(value: float, spread: float, items: int = 1000, seed: int = 0) -> Measurement:
    replicates = value + np.random.default_rng(seed).normal(0, spread, 300)
    return Measurement("entropy", tuple(map(str, range(items))), (value,), tuple(map(float, replicates)), unit="nats over real")


def compare(candidate: Measurement, champion: Measurement, first: Measurement | None = None, **at: float) -> Comparison:
    first = champion if first is None else first
    mine, held, start = ({found.probe: found} for found in (candidate, champion, first))
    return Comparison(mine, held, start, int(at.get("round", 0)), int(at.get("rounds", 4)), at.get("left", 0.05))


def answers(items: int, right: int, offset: int = 0) -> np.ndarray:
    return np.roll(np.repeat([1.0, 0.0], [right, items - right]), offset)


def test_promotes_a_better_candidate_and_says_so_in_figures() -> None:
    decision = NonInferior()(compare(rates(answers(1000, 680)), rates(answers(1000, 610))), {"pass_rate": 0.02})
    assert decision.promote and decision.gated and decision.gate == "non_inferior"
    assert decision.alpha_spent == pytest.approx(0.0125)
    assert [check.against for check in decision.checks] == ["champion", "first"]
    assert decision.checks[0].estimate == pytest.approx(0.07) and decision.checks[0].items == 1000
    assert 0.03 < decision.checks[0].low < 0.07
    low = f"{100 * decision.checks[0].low:.1f}"
    assert (
        decision.reason
        == f"promoted: pass_rate 0.68 vs 0.61 (+7.0 points, at least +{low} points); within every margin of the first model too"
    )


def test_not_significantly_worse_is_not_enough_and_the_reason_says_how_many_items_are() -> None:
    found = compare(rates(answers(200, 120, 20)), rates(answers(200, 120)))
    decision = NonInferior()(found, {"pass_rate": 0.02})
    check = decision.checks[0]
    assert not decision.promote and check.estimate == 0.0 and check.low < -0.02
    assert check.power < 0.2
    assert check.note == "with 200 items a drop under 9.8 points cannot be seen; 4,800 are needed"
    assert decision.reason.startswith("refused: pass_rate 0.6 vs 0.6 may be worse than the champion by up to ")
    assert decision.reason.count("pass_rate") == 1  # champion and first model are one here: told once
    assert decision.alpha_spent == pytest.approx(0.0125)


def test_an_unchanged_model_needs_enough_items() -> None:
    same = answers(1000, 600)
    assert NonInferior()(compare(rates(same), rates(same)), {"pass_rate": 0.02}).promote
    few = NonInferior()(compare(rates(same[:210]), rates(same[:210])), {"pass_rate": 0.02})
    assert not few.promote and few.checks[0].power == 0.0 and "250 are needed" in few.checks[0].note
    tiny = NonInferior(minimum_items=50)(compare(rates(same[:40]), rates(same[:40])), {"pass_rate": 0.5})
    assert not tiny.promote and "rests on too few items (40 items, and at least 50 are asked for)" in tiny.reason


def test_lower_is_better_is_turned_round() -> None:
    base = np.random.default_rng(0).normal(1.2, 0.3, 1000)
    worse, better = losses(base + 0.08), losses(base - 0.08 + np.random.default_rng(1).normal(0, 0.05, 1000))
    refused = NonInferior()(compare(worse, losses(base)), {"real_loss": 0.05})
    assert not refused.promote and refused.checks[0].estimate == pytest.approx(-0.08)
    assert "is worse than the champion by 0.08 nats per token, margin 0.05 nats per token" in refused.reason
    promoted = NonInferior(superior=("real_loss",))(compare(better, losses(base)), {"real_loss": 0.05})
    assert promoted.promote and promoted.checks[0].margin == 0.0 and promoted.checks[1].margin == 0.05


def test_every_check_must_pass_against_the_first_model_too() -> None:
    first, champion, candidate = (rates(answers(4000, right)) for right in (2400, 2300, 2260))
    decision = NonInferior()(compare(candidate, champion, first), {"pass_rate": 0.03})
    assert [check.passed for check in decision.checks] == [True, False] and not decision.promote
    assert "pass_rate 0.565 vs 0.6 is worse than the first model by 3.5 points, margin 3.0 points" in decision.reason


def test_superiority_is_asked_against_the_champion_alone() -> None:
    held = answers(2000, 1200)
    gate = NonInferior(superior=("pass_rate",))
    same = gate(compare(rates(held), rates(held)), {"pass_rate": 0.05})
    assert not same.promote and "is not shown to be better than the champion" in same.reason and same.checks[1].passed
    assert gate(compare(rates(answers(2000, 1300)), rates(held)), {"pass_rate": 0.05}).promote


@pytest.mark.parametrize(
    ("at", "alpha"), [({"round": 0}, 0.0125), ({"round": 2, "left": 0.025}, 0.0125), ({"round": 3, "left": 0.02}, 0.02)]
)
def test_what_is_left_of_alpha_is_split_over_the_rounds_left(at: dict[str, float], alpha: float) -> None:
    same = rates(answers(1000, 600))
    decision = NonInferior()(compare(same, same, **at), {"pass_rate": 0.02})
    assert decision.alpha_spent == pytest.approx(alpha) and decision.checks[0].alpha == pytest.approx(alpha)


def test_nothing_left_of_alpha_refuses() -> None:
    same = rates(answers(1000, 600))
    decision = NonInferior()(compare(same, same, round=4, left=0.0), {"pass_rate": 0.02})
    assert not decision.promote and decision.alpha_spent == 0.0 and "nothing is left" in decision.reason


def test_items_the_candidate_alone_has_no_verdict_on_count_as_lost() -> None:
    held = rates(np.ones(1000))
    lacking = Measurement("pass_rate", held.items[30:], held.values[30:], unit="share")
    decision = NonInferior()(compare(lacking, held), {"pass_rate": 0.02})
    assert decision.checks[0].estimate == pytest.approx(-0.03) and not decision.promote
    assert "30 items without a verdict for the candidate count as lost" in decision.reason
    other_way = NonInferior()(compare(held, lacking), {"pass_rate": 0.02})
    assert other_way.promote and other_way.checks[0].items == 970
    with pytest.raises(GuardError, match="900 of 1,000 items"):
        NonInferior()(compare(Measurement("pass_rate", held.items[100:], held.values[100:], unit="share"), held), {"pass_rate": 0.02})


def test_a_value_above_the_real_answers_is_no_merit_and_its_loss_no_fault() -> None:
    gate, margins = NonInferior(), {"entropy": 0.1}
    falling = gate(compare(diversity(0.0, 0.02, seed=1), diversity(0.6, 0.02)), margins)
    assert falling.promote and falling.checks[0].estimate == 0.0
    short = gate(compare(diversity(-0.4, 0.02, seed=1), diversity(0.6, 0.02)), margins)
    assert not short.promote and short.checks[0].estimate == pytest.approx(-0.4)
    assert "entropy -0.4 vs 0.6 nats over real is worse than the champion by 0.4 nats, margin 0.1 nats" in short.reason
    assert gate(compare(diversity(-0.4, 0.02, seed=1), diversity(-0.38, 0.02)), margins).promote


def test_noisy_replicates_refuse_and_name_the_items_needed() -> None:
    decision = NonInferior()(compare(diversity(-0.4, 0.1, seed=1), diversity(-0.4, 0.1)), {"entropy": 0.1})
    assert not decision.promote and "cannot be seen" in decision.reason and decision.checks[0].power < 0.3


@pytest.mark.parametrize(
    ("candidate", "champion", "message"),
    [
        (diversity(0, 0.1, items=900), diversity(0, 0.1), "are not paired"),
        (rates(np.ones(300)), diversity(0, 0.1), "not measured for the champion"),
        (Measurement("entropy", ("a",), (1.0,)), diversity(0, 0.1), "same probe"),
        (rates(np.full(300, np.nan)), rates(np.ones(300)), "not a finite number"),
        (rates(np.full(300, 1.5)), rates(np.ones(300)), "outside 0 to 1"),
        (losses(np.ones(299)), losses(np.ones(300)), "299 of 300"),
        (Measurement("pass_rate", ("a",) * 300, (1.0,) * 300), Measurement("pass_rate", ("a",) * 300, (1.0,) * 300), "twice"),
        (Measurement("pass_rate", ("a", "b"), (1.0,)), Measurement("pass_rate", ("a", "b"), (1.0, 0.0)), "1 values for 2 items"),
    ],
)
def test_measurements_that_cannot_be_paired_are_named(candidate: Measurement, champion: Measurement, message: str) -> None:
    with pytest.raises(GuardError, match=message):
        NonInferior()(compare(candidate, champion), {candidate.probe: 0.02})


def test_a_gate_without_a_margin_or_with_an_unknown_probe_is_refused() -> None:
    same = compare(rates(answers(1000, 600)), rates(answers(1000, 600)))
    with pytest.raises(GuardError, match="no probe to guard"):
        NonInferior()(same, {})
    with pytest.raises(GuardError, match="positive number"):
        NonInferior()(same, {"pass_rate": 0.0})
    with pytest.raises(ConfigError, match="did you mean 'pass_rate'"):
        NonInferior(superior=("pas_rate",))(same, {"pass_rate": 0.02})


def test_better_than_real_data_is_not_to_be_had() -> None:
    with pytest.raises(ConfigError, match="more is no merit"):
        NonInferior(superior=("entropy",))(compare(diversity(0.6, 0.01), diversity(0.6, 0.01)), {"entropy": 0.1})


def test_observe_and_open_promote_and_say_ungated() -> None:
    found = compare(rates(answers(1000, 500)), rates(answers(1000, 600)), left=0.0)
    observed = Observe()(found, {"pass_rate": 0.02})
    gated = NonInferior()(compare(rates(answers(1000, 500)), rates(answers(1000, 600))), {"pass_rate": 0.02})
    assert observed.promote and not observed.gated and observed.checks == gated.checks and observed.alpha_spent == 0.0
    assert observed.reason == f"ungated; the gate would have {gated.reason}" and "have refused" in observed.reason
    opened = Open()(found, {"pass_rate": 0.02})
    assert opened.promote and not opened.gated and not opened.checks
    gates: list[Gate] = [NonInferior(), Observe(), Open()]
    assert [gate.alpha for gate in gates] == [0.05, 0.0, 0.0]
    assert len({fingerprint(gate) for gate in gates}) == 3


@pytest.mark.parametrize("kind", ["pass rate", "rare losses", "real loss"])
def test_over_whole_runs_a_model_at_the_margin_is_promoted_with_chance_alpha_at_most(kind: str) -> None:
    """Four rounds, each with a new candidate whose true loss is exactly the margin; it stays champion if it passes."""
    rng, lineages, items, margin = np.random.default_rng(6), 2000, 250, 0.08
    gate, ever, alpha = NonInferior(), 0, 0.05

    def degrade(held: np.ndarray) -> np.ndarray:
        if kind == "real loss":
            return held + rng.exponential(margin, items) + rng.normal(0, 0.1, items)
        if kind == "rare losses":
            return np.where(rng.random(items) < margin, 0.0, held)
        lost = (margin + 0.4 * 0.3) / 0.6  # 60 % of items can be lost, 40 % gained
        return np.where(rng.random(items) < np.where(held == 1, lost, 0.3), 1 - held, held)

    for _ in range(lineages):
        if kind == "real loss":
            first = losses(rng.normal(1.2, 0.3, items))
        else:
            first = rates((rng.random(items) < (1.0 if kind == "rare losses" else 0.6)).astype(float))
        left = alpha
        for number in range(4):
            measure = losses if kind == "real loss" else rates
            values = degrade(np.array(first.values))
            decision = gate(compare(measure(values), first, round=number, left=left), {first.probe: margin})
            left -= decision.alpha_spent
            if decision.promote:
                ever += 1
                break
        assert left >= -1e-12
    assert alpha / 5 < ever / lineages <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / lineages)
