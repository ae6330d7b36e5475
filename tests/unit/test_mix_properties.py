"""Whatever the pools and the mixture: the floor holds, caps hold, nothing is invented and nothing is lost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outcross.errors import ConfigError, GuardError
from outcross.mix import Labels, Plan, Pool, Traits, arranged, factors_of, plan, problems
from outcross.recipe import Cap, Curriculum, Decay, Factors, Mixture, Threshold, Tilt, Waived

WAIVED = Waived("a study of collapse")
NO_SCORE = float("nan")


def traits(source: Any = "m", origin: Any = "synthetic", group: Any = None, task: Any = None, depth: Any = 1, score: Any = NO_SCORE) -> Any:
    """Traits of as many rows as the longest of the lists; a single value is every row's."""
    columns = (source, origin, group, task, depth, score)
    size = max(len(column) for column in columns if isinstance(column, list))
    full = [column if isinstance(column, list) else [column] * size for column in columns]
    labels = [Labels.of(column) for column in full[:4]]
    return Traits(*labels, np.array(full[4], np.int64), np.array(full[5], float), np.full(size, np.nan))


def pool(size: int, tokens: float = 1.0, weight: float = 1.0, found: Traits | None = None) -> Pool:
    return Pool(np.full(size, tokens), np.full(size, weight), found)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def weights_of(chosen: Plan, pools: tuple[Pool, Pool, Pool]) -> list[np.ndarray[Any, Any]]:
    """What each row weighs in the mixture, repeats and factors counted."""
    factors = chosen.factors or tuple(np.ones(len(one)) for one in pools)
    counts = (chosen.new, chosen.history, chosen.real * chosen.real_weight)
    return [count * one.weight * factor for count, one, factor in zip(counts, pools, factors, strict=True)]


# ── properties ─────────────────────────────────────────────────────────────────────────────────────────────────────────
values = st.sampled_from([None, "a", "b", "c"])


@st.composite
def pools(draw: st.DrawFn, least: int = 0) -> Pool:
    size = draw(st.integers(least, 25))

    def column(values: Any) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size))

    scores = column(st.none() | st.floats(-3, 3))
    found = Traits(
        *(Labels.of(column(values)) for _ in range(4)),
        np.array(column(st.integers(0, 4)), np.int64),
        np.array([NO_SCORE if value is None else value for value in scores], float),
        np.full(size, np.nan),
    )
    return Pool(np.array(column(st.integers(1, 60)), float), np.array(column(st.floats(0.1, 4)), float), found)


weightings = st.lists(
    st.builds(Decay, st.floats(0.1, 1))
    | st.builds(Tilt, st.floats(0.2, 5))
    | st.builds(Threshold, st.floats(-2, 2))
    | st.builds(Factors, st.sampled_from(["source", "origin", "subgroup"]), st.dictionaries(st.sampled_from("abc*"), st.floats(0, 3))),
    max_size=3,
).map(tuple)
capped = st.sampled_from(["source", "task", "subgroup", "depth"])
caps = st.lists(
    st.builds(Cap, capped, rows=st.integers(1, 8)) | st.builds(lambda by, share: Cap(by, share=share), capped, st.floats(0.1, 0.9)),
    max_size=3,
).map(tuple)
mixtures = st.builds(
    Mixture,
    history=st.sampled_from(["accumulate", "subsample", "replace"]),
    floor=st.sampled_from(["rows", "anchor", WAIVED]),
    real_floor=st.floats(0, 1),
    anchor=st.floats(0, 1),
    real_epochs=st.floats(1, 5),
    synthetic_epochs=st.floats(1, 3),
    budget=st.none() | st.integers(1, 150),
    weights=weightings,
    caps=caps,
)


@settings(max_examples=400, deadline=None)
@given(new=pools(), history=pools(), real=pools(least=1), mixture=mixtures, seed=st.integers(0, 9))
def test_a_mixture_keeps_all_that_it_promises(new: Pool, history: Pool, real: Pool, mixture: Mixture, seed: int) -> None:
    offered = (new, history, real)
    try:
        chosen = plan(*offered, mixture, np.random.default_rng(seed))
    except GuardError:
        return
    counts = (chosen.new, chosen.history, chosen.real)
    assert [len(count) for count in counts] == [len(one) for one in offered]
    _nothing_is_invented_or_lost(chosen, offered, mixture)
    weighed = weights_of(chosen, offered)
    if mixture.floor == "rows" and (chosen.new.any() or chosen.history.any()):
        for sizes in (weighed, [found * one.tokens for found, one in zip(weighed, offered, strict=True)]):
            assert sizes[2].sum() >= (mixture.real_floor - 1e-9) * sum(found.sum() for found in sizes)
    for cap in mixture.caps:
        _cap_holds(cap, chosen, offered, weighed)


def _nothing_is_invented_or_lost(chosen: Plan, offered: tuple[Pool, Pool, Pool], mixture: Mixture) -> None:
    assert chosen.used + chosen.waiting + chosen.left_out == len(offered[0]) + len(offered[1])
    assert min(chosen.waiting, chosen.left_out, *chosen.new, *chosen.history, *chosen.real, 0) == 0
    if mixture.budget is not None and mixture.floor != "anchor":
        assert chosen.new.sum() + chosen.history.sum() + chosen.real.sum() <= mixture.budget
    if mixture.floor == "rows":
        assert chosen.real.sum() <= mixture.real_epochs * len(offered[2])
        often = int(np.ceil(mixture.synthetic_epochs)) if mixture.budget is not None else 1
        assert max([*chosen.new, *chosen.history], default=0) <= often
    if mixture.history == "replace":
        assert not chosen.history.any()
    if chosen.factors is not None:
        assert all(not count[factor * one.weight == 0].any() for count, factor, one in zip(
            (chosen.new, chosen.history, chosen.real), chosen.factors, offered, strict=True))  # fmt: skip


def _cap_holds(cap: Cap, chosen: Plan, offered: tuple[Pool, Pool, Pool], weighed: list[np.ndarray[Any, Any]]) -> None:
    found = Traits.joined([offered[0].known, offered[1].known]).labels(cap.by)
    used = np.concatenate([chosen.new, chosen.history]) > 0
    for code in range(len(found.names)):
        mine = found.codes == code
        if cap.rows is not None:
            assert (used & mine).sum() <= cap.rows
        else:
            assert cap.share is not None
            whole = sum(float(one.sum()) for one in weighed)
            assert np.concatenate(weighed[:2])[mine].sum() <= cap.share * whole * (1 + 1e-9)


@settings(max_examples=200, deadline=None)
@given(new=pools(), history=pools(), real=pools(least=1), mixture=mixtures, by=st.sampled_from(["difficulty", "score", "length", "depth"]))
def test_an_order_holds_what_the_mixture_holds(new: Pool, history: Pool, real: Pool, mixture: Mixture, by: Any) -> None:
    try:
        chosen = plan(new, history, real, mixture, rng())
    except GuardError:
        return
    sequence = arranged(chosen, (new, history, real), Curriculum(by), rng())
    counts = np.concatenate([chosen.new, chosen.history, chosen.real])
    assert (np.bincount(sequence, minlength=len(counts)) == counts).all()


# ── weights ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_factors_follow_source_origin_subgroup_and_depth() -> None:
    found = traits(source=["gpt-4", "gpt-5", "ours", "web"], group=["rare", None, "rare", "common"], depth=[0, 1, 2, 3])
    pools = (pool(4, found=found), pool(0), pool(0))
    assert factors_of(pools, [Factors("source", {"gpt-*": 0.5, "gpt-5": 9, "web": 2})])[0].tolist() == [0.5, 0.5, 1, 2]
    assert factors_of(pools, [Factors("subgroup", {"rare": 3}, other=0.5)])[0].tolist() == [3, 0.5, 3, 0.5]
    assert factors_of(pools, [Factors("depth", {0: 4, "3": 0})])[0].tolist() == [4, 1, 1, 0]
    assert factors_of(pools, [Decay(0.5)])[0].tolist() == [1, 0.5, 0.25, 0.125]
    assert factors_of(pools, [Decay(0.5), Factors("depth", {1: 10})])[0].tolist() == [1, 5, 0.25, 0.125]


def test_scores_tilt_or_cut_and_rows_without_one_stay() -> None:
    new, old, real = (traits(score=list(scores)) for scores in ([1.0, 0.5, NO_SCORE], [2.0], [NO_SCORE]))
    pools = (pool(3, found=new), pool(1, found=old), pool(1, found=real))
    tilted = factors_of(pools, [Tilt(0.5)])
    assert tilted[0] == pytest.approx([np.exp(-2), np.exp(-3), 1]) and tilted[1] == [1] and tilted[2] == [1]
    assert [found.tolist() for found in factors_of(pools, [Threshold(0.75)])] == [[1, 0, 1], [1], [1]]


def test_a_heavier_row_asks_for_more_real_data_and_a_weightless_one_is_left_out() -> None:
    found = traits(source=["a"] * 10 + ["b"] * 10)
    pools = (pool(20, found=found), pool(0), pool(200))
    plain = plan(*pools, Mixture(real_floor=0.5), rng())
    weighted = plan(*pools, Mixture(real_floor=0.5, weights=(Factors("source", {"a": 3, "b": 0}),)), rng())
    assert (plain.real.sum(), plain.left_out) == (20, 0)
    assert (weighted.real.sum(), weighted.left_out, weighted.new.tolist()) == (30, 10, [1] * 10 + [0] * 10)


def test_weights_reach_real_rows_too() -> None:
    real = pool(100, found=traits(source=["old"] * 50 + ["fresh"] * 50, depth=0, origin="real"))
    chosen = plan(pool(20), pool(0), real, Mixture(real_floor=0.5, weights=(Factors("source", {"old": 0, "fresh": 2}),)), rng())
    assert not chosen.real[:50].any() and chosen.real.sum() == 10


# ── caps ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_cap_by_rows_leaves_the_rest_out_and_not_waiting() -> None:
    new = pool(12, found=traits(task=["easy"] * 9 + ["hard"] * 2 + [None]))
    chosen = plan(new, pool(0), pool(50), Mixture(real_floor=0.5, caps=(Cap("task", rows=4),)), rng())
    assert (chosen.new[:9].sum(), chosen.new[9:].sum()) == (4, 3)
    assert (chosen.used, chosen.waiting, chosen.left_out) == (7, 0, 5)


def test_a_cap_counts_new_and_old_rows_of_one_value_together() -> None:
    old, new = pool(8, found=traits(source=["a"] * 8)), pool(8, found=traits(source=["b"] * 4 + ["a"] * 4))
    chosen = plan(new, old, pool(50), Mixture(real_floor=0.5, caps=(Cap("source", rows=5),)), rng())
    assert chosen.history.sum() + chosen.new[4:].sum() == 5 and chosen.new[:4].all()


def test_a_cap_by_share_is_of_all_that_is_seen() -> None:
    new = pool(60, found=traits(depth=[3] * 50 + [1] * 10))
    chosen = plan(new, pool(0), pool(60), Mixture(real_floor=0.5, caps=(Cap("depth", share=0.2),)), rng())
    assert chosen.real.sum() == 60 and chosen.new[50:].sum() == 10
    assert chosen.new[:50].sum() == 17  # 17 / (60 + 10 + 17) is the last below a fifth


def test_a_cap_that_leaves_nothing_says_so() -> None:
    new = pool(10, found=traits(source=["a"] * 10))
    with pytest.raises(GuardError, match="cap of 30% by source leaves no row"):
        plan(new, pool(0), pool(0), Mixture(floor=WAIVED, caps=(Cap("source", share=0.3),)), rng())


# ── order ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_curriculum_goes_up_or_down_by_its_key_with_real_rows_spread_evenly() -> None:
    new = Pool(rng().permutation(60).astype(float), np.ones(60), traits(task=["t"] * 60))
    real = Pool(np.full(60, 5.0), np.ones(60), traits(task=["t"] * 60, origin="real", depth=0))
    chosen = plan(new, pool(0), real, Mixture(real_floor=0.5, real_epochs=8), rng())
    pools = (new, pool(0), real)
    sequence = arranged(chosen, pools, Curriculum("length"), rng())
    met = new.tokens[sequence[sequence < 60]]
    assert (np.diff(met) >= 0).all() and len(met) == 60
    stretches = [(part >= 60).mean() for part in np.array_split(sequence, 10)]
    overall = (sequence >= 60).mean()
    assert max(abs(share - overall) for share in stretches) < 0.1
    down = arranged(chosen, pools, Curriculum("length", "high"), rng())
    assert (np.diff(new.tokens[down[down < 60]]) <= 0).all()


def test_equals_are_shuffled_and_rows_without_the_key_are_spread() -> None:
    scores = [0.0] * 50 + [1.0] * 50 + [NO_SCORE] * 100
    new = pool(200, found=traits(score=scores))
    chosen = plan(new, pool(0), pool(0), Mixture(floor=WAIVED), rng())
    sequence = arranged(chosen, (new, pool(0), pool(0)), Curriculum("score"), rng())
    keyed = sequence[sequence < 100]
    assert set(keyed[:50]) == set(range(50)) and keyed[:50].tolist() != sorted(keyed[:50])
    assert 40 <= (sequence[:100] >= 100).sum() <= 60


# ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Decay(0), "decay is 0"),
        (lambda: Tilt(-1), "temperature is -1"),
        (lambda: Factors("source", {"a": -1}), "factor of a is -1"),
        (lambda: Cap("task"), "rows=None and share=None"),
        (lambda: Cap("task", rows=1, share=0.5), "one of them"),
        (lambda: Cap("task", rows=0), "0 rows"),
        (lambda: Cap("task", share=1.0), "between 0 and 1"),
    ],
)
def test_values_that_mean_nothing_are_refused(make: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()


def test_problems_name_the_setting() -> None:
    assert list(problems(Mixture())) == []
    wrong = Mixture(real_floor=1.5, budget=0, real_epochs=-1, anchor=float("nan"))
    assert [line.split()[0] for line in problems(wrong)] == ["real_floor", "anchor", "real_epochs", "budget"]


# ── speed ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_hundred_thousand_rows_are_planned_in_a_moment() -> None:
    draw = rng()
    size = 100_000
    found = traits(task=[str(i % 9000) for i in range(size)], depth=(np.arange(size) % 4).tolist(), score=draw.random(size).tolist())
    new = Pool(draw.integers(1, 500, size).astype(float), np.ones(size), found)
    mixture = Mixture(real_floor=0.5, weights=(Decay(0.5), Tilt(0.3)), caps=(Cap("task", rows=8), Cap("depth", share=0.3)))
    began = time.process_time()
    chosen = plan(new, pool(0), replace(new, traits=None), mixture, draw)
    assert time.process_time() - began < 2.0
    assert chosen.used
