"""The mixture: floors by records and tokens, waiting rows, budgets, histories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.errors import GuardError
from outcross.mix import EMPTY, Plan, Pool, plan
from outcross.recipe import Mixture, Waived


def pool(*tokens: float, weight: float = 1.0) -> Pool:
    return Pool(np.array(tokens, float), np.full(len(tokens), weight))


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def shares(chosen: Plan, new: Pool, history: Pool, real: Pool) -> tuple[float, float]:
    """The share of real data in a plan, by records and by tokens; 0 when the plan is empty."""
    records = tokens = real_records = real_tokens = 0.0
    for pool, counts, is_real in ((new, chosen.new, False), (history, chosen.history, False), (real, chosen.real, True)):
        if not len(counts):
            continue
        weight = counts * pool.weight * (chosen.real_weight if is_real else 1.0)
        records += float(weight.sum())
        tokens += float((weight * pool.tokens).sum())
        if is_real:
            real_records, real_tokens = float(weight.sum()), float((weight * pool.tokens).sum())
    return (real_records / records if records else 0.0, real_tokens / tokens if tokens else 0.0)


sizes = st.lists(st.integers(1, 50), min_size=0, max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    new=sizes,
    history=sizes,
    real=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    floor=st.floats(0, 1),
    budget=st.none() | st.integers(1, 200),
    epochs=st.floats(1, 5),
)
def test_the_floor_holds_in_both_units_whatever_the_sizes(
    new: list[int], history: list[int], real: list[int], floor: float, budget: int | None, epochs: float
) -> None:
    pools = pool(*new), pool(*history), pool(*real)
    chosen = plan(*pools, Mixture(real_floor=floor, real_epochs=epochs, budget=budget), rng())
    records, tokens = shares(chosen, *pools)
    synthetic = chosen.new.sum() + chosen.history.sum()
    if synthetic:
        assert records >= floor - 1e-9
        assert tokens >= floor - 1e-9
    assert chosen.real.sum() <= epochs * len(real)
    assert synthetic + chosen.waiting == len(new) + len(history)
    if budget is not None:
        assert synthetic + chosen.real.sum() <= budget
    assert max([*chosen.new, *chosen.history], default=0) <= 1


@settings(max_examples=100, deadline=None)
@given(new=sizes, real=st.lists(st.integers(1, 50), min_size=1, max_size=40), floor=st.floats(0.05, 0.95))
def test_no_synthetic_row_waits_while_the_floor_has_room(new: list[int], real: list[int], floor: float) -> None:
    pools = pool(*new), EMPTY, pool(*real)
    chosen = plan(*pools, Mixture(real_floor=floor, real_epochs=1.0), rng())
    if chosen.waiting:
        smallest_token = max(new)
        room_records = len(real) - floor / (1 - floor) * (chosen.new.sum() + 1)
        taken_tokens = (chosen.new * pools[0].tokens).sum() + smallest_token
        room_tokens = sum(real) - floor / (1 - floor) * taken_tokens
        assert room_records < 1e-6 or room_tokens < 1e-6


def test_seventy_per_cent_of_a_round_is_real() -> None:
    chosen = plan(pool(*[5] * 300), EMPTY, pool(*[5] * 1000), Mixture(), rng())
    assert chosen.new.sum() == 300
    assert chosen.real.sum() == 700
    assert chosen.real.max() == 1


def test_short_real_rows_need_more_of_them() -> None:
    chosen = plan(pool(*[30] * 10), EMPTY, pool(*[3] * 1000), Mixture(real_floor=0.5), rng())
    assert chosen.new.sum() == 10
    assert chosen.real.sum() == 100  # 10 × 30 tokens are matched by 100 × 3, though 10 records would do


def test_scarce_real_rows_repeat_up_to_their_epochs_and_then_synthetic_rows_wait() -> None:
    chosen = plan(pool(*[1] * 100), EMPTY, pool(*[1] * 10), Mixture(real_floor=0.5, real_epochs=3), rng())
    assert (chosen.real == 3).all()
    assert chosen.new.sum() == 30
    assert chosen.waiting == 70


def test_a_budget_is_filled_with_real_rows() -> None:
    chosen = plan(pool(*[1] * 5), EMPTY, pool(*[1] * 100), Mixture(real_floor=0.7, budget=60), rng())
    assert chosen.new.sum() == 5
    assert chosen.real.sum() == 55


def test_weights_count_towards_the_floor() -> None:
    pools = pool(*[1] * 10, weight=2.0), EMPTY, pool(*[1] * 100)
    chosen = plan(*pools, Mixture(real_floor=0.5), rng())
    assert chosen.real.sum() == 20
    assert shares(chosen, *pools)[0] == pytest.approx(0.5)


def test_a_floor_without_real_rows_is_refused_with_the_way_out() -> None:
    with pytest.raises(GuardError, match=r"floor is 0.7.*0 real rows.*waive"):
        plan(pool(1, 1), EMPTY, EMPTY, Mixture(), rng())


def test_synthetic_rows_repeat_evenly_to_fill_their_share_of_a_budget() -> None:
    pools = pool(*[1] * 10), pool(*[1] * 10), pool(*[1] * 100)
    chosen = plan(*pools, Mixture(real_floor=0.7, budget=200, synthetic_epochs=5), rng())
    assert chosen.new.sum() + chosen.history.sum() == 60
    assert set(chosen.new) | set(chosen.history) == {3}
    assert chosen.real.sum() == 140
    assert chosen.waiting == 0
    few = plan(*pools, Mixture(real_floor=0.7, budget=200, synthetic_epochs=2), rng())
    assert few.new.sum() + few.history.sum() == 40
    tight = plan(*pools, Mixture(real_floor=0.7, budget=20, synthetic_epochs=5), rng())
    assert tight.new.sum() + tight.history.sum() == 6
    assert tight.waiting == 14


WAIVED = Waived("a study of collapse")


def test_replace_learns_from_this_round_alone() -> None:
    chosen = plan(pool(*[1] * 10), pool(*[1] * 20), pool(*[1] * 30), Mixture(history="replace", floor=WAIVED), rng())
    assert (chosen.new == 1).all() and not chosen.history.any() and not chosen.real.any()


def test_accumulate_pools_real_and_all_earlier_rounds() -> None:
    chosen = plan(pool(*[1] * 10), pool(*[1] * 20), pool(*[1] * 30), Mixture(floor=WAIVED), rng())
    assert chosen.new.sum() == 10 and chosen.history.sum() == 20 and chosen.real.sum() == 30


def test_subsample_keeps_the_size_of_a_round() -> None:
    drawn = [
        plan(pool(*[1] * 10), pool(*[1] * 20), pool(*[1] * 30), Mixture(history="subsample", floor=WAIVED), np.random.default_rng(i))
        for i in range(200)
    ]
    for chosen in drawn:
        assert chosen.new.sum() + chosen.history.sum() + chosen.real.sum() == 10
        assert max(chosen.new.max(), chosen.history.max(), chosen.real.max()) == 1
    assert np.mean([chosen.real.sum() for chosen in drawn]) == pytest.approx(5.0, abs=0.4)  # half the pool is real


def test_a_budget_repeats_an_unfloored_pool_evenly() -> None:
    chosen = plan(pool(*[1] * 10), EMPTY, EMPTY, Mixture(history="replace", floor=WAIVED, budget=25), rng())
    assert chosen.new.sum() == 25
    assert set(chosen.new) <= {2, 3}


def test_an_anchor_adds_real_rows_of_a_tenth_of_the_weight() -> None:
    pools = pool(*[1] * 40), EMPTY, pool(*[1] * 100)
    chosen = plan(*pools, Mixture(floor="anchor", anchor=0.1), rng())
    assert chosen.real.sum() == 40
    assert chosen.real.sum() * chosen.real_weight == pytest.approx(0.1 * 40)
