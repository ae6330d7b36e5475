"""Group shares of real data: how many stay, who goes, and which groups are short."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from helpers import NoPast, context, failed, sample, score
from hypothesis import given
from hypothesis import strategies as st

from outcross.curate.shares import KeepShares, quotas_of
from outcross.errors import ConfigError, DataError
from outcross.stages import Context
from outcross.types import Drop, Example, Group, Origin, Sample, Task

REAL = Origin("real", "attested", "made up")


def seated(folder: Path, seed: int = 0, **real: int) -> Context:
    rows = [Example(f"{name}{index}", "p", "c", origin=REAL, subgroup=name) for name, count in real.items() for index in range(count)]
    return dataclasses.replace(context(folder, seed=seed), past=NoPast(folder, rows))


def made(counts: dict[str | None, int], value: float | None = None) -> list[Group]:
    """One group of two samples a task and one failed request; the k-th sample of a subgroup is worth k unless a value is given."""
    groups = []
    for name, count in counts.items():
        for first in range(0, count, 2):
            answers = [
                Sample(f"{name}-{k}", (sample("x").turns), Origin(), scores=(score("pass", float(k) if value is None else value),))
                for k in range(first, min(first + 2, count))
            ]
            groups.append(Group(Task(f"{name}-{first}", "p", subgroup=name), (*answers, failed(1000 + first))))
    return groups


def kept_of(found: list[Group | Drop]) -> Counter[str]:
    return Counter(one.id.split("-")[0] for item in found if isinstance(item, Group) for one in item.samples if not one.error)


# ── quotas ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_scarcest_group_sets_the_size_when_nothing_else_is_asked() -> None:
    found = quotas_of({"a": 80, "b": 20}, {"a": 0.5, "b": 0.5}, 0.0)
    assert (found.keep, found.short) == ({"a": 20, "b": 20}, {})
    found = quotas_of({"a": 900, "b": 50}, {"a": 0.9, "b": 0.1}, 0.0)
    assert (found.keep, found.short) == ({"a": 450, "b": 50}, {})


def test_what_must_stay_leaves_a_group_short_by_a_stated_number() -> None:
    found = quotas_of({"a": 80, "b": 20}, {"a": 0.5, "b": 0.5}, 0.5)  # min(80, T/2) + min(20, T/2) = 50 at T = 60
    assert (found.keep, found.short) == ({"a": 30, "b": 20}, {"b": 10})
    found = quotas_of({"a": 60, "b": 40}, {"a": 0.4, "b": 0.4, "c": 0.2}, 0.5)  # c has none: 2 · 0.4 T = 50
    assert (found.keep, found.short) == ({"a": 25, "b": 25}, {"c": 12})
    assert quotas_of({"a": 3, "b": 1}, {"a": 0.5, "b": 0.5}, 1.0).keep == {"a": 3, "b": 1}
    assert quotas_of({}, {"a": 1.0}, 0.5).keep == {}


NAMES = ["a", "b", "c", "d"]


@given(
    st.dictionaries(st.sampled_from(NAMES), st.integers(1, 400), min_size=1),
    st.lists(st.integers(1, 50), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
)
def test_quotas_keep_enough_wipe_out_nobody_and_exceed_no_share(counts: dict[str, int], weights: list[int], at_least: float) -> None:
    shares = {name: weight / sum(weights) for name, weight in zip(NAMES, weights, strict=True)}
    found = quotas_of(counts, shares, at_least)
    kept = sum(found.keep.values())
    assert all(1 <= found.keep[name] <= counts[name] for name in counts)
    assert kept >= at_least * sum(counts.values()) - len(counts) - 1e-6
    target = kept + sum(found.short.values())
    assert all(found.keep[name] <= max(1, shares[name] * (target + len(shares)) + 1) for name in counts)
    assert all(number > 0 and found.keep.get(name, 0) == counts.get(name, 0) for name, number in found.short.items())
    if at_least == 0:
        assert not found.short


# ── the curator ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_surplus_goes_from_the_lowest_score_up_and_the_reason_names_who_is_short(tmp_path: Path) -> None:
    found = list(KeepShares()(seated(tmp_path, men=60, women=60), made({"men": 80, "women": 20})))
    assert kept_of(found) == {"men": 30, "women": 20}
    drops = [item for item in found if isinstance(item, Drop)]
    gone = {one.id for item in drops for one in item.group.samples}
    assert gone == {f"men-{k}" for k in range(50)}, "the samples of the lowest value go"
    assert {item.reason for item in drops} == {"surplus: group 'men' keeps 30 of 80, 0.500 of real rows; short: 'women' by 10"}
    assert not any(one.error for item in drops for one in item.group.samples)


def test_groups_that_real_data_do_not_have_and_tasks_without_one_are_left_alone(tmp_path: Path) -> None:
    groups = made({"a": 30, "b": 10, "elsewhere": 50, None: 40})
    found = list(KeepShares(at_least=0.0)(seated(tmp_path, a=5, b=5), groups))
    assert kept_of(found) == {"a": 10, "b": 10, "elsewhere": 50, "None": 40}
    whole = list(KeepShares()(seated(tmp_path, a=75, b=25), made({"a": 30, "b": 10})))
    assert whole == made({"a": 30, "b": 10}), "what has the real shares passes untouched"


def test_equal_scores_go_at_random_by_the_seed_and_samples_without_one_go_first(tmp_path: Path) -> None:
    groups = made({"a": 100, "b": 20}, value=1.0)
    stay = [kept_ids(KeepShares(at_least=0.0), seated(tmp_path, seed, a=1, b=1), groups) for seed in (0, 0, 1)]
    assert stay[0] == stay[1] != stay[2] and len(stay[0]) == 40
    assert kept_ids(KeepShares("random", 0.0), seated(tmp_path, 0, a=1, b=1), groups) == stay[0]
    bare = [Group(Task("bare", "p", subgroup="a"), (Sample("a-bare", sample("x").turns, Origin()),))]
    assert "a-bare" not in kept_ids(KeepShares(at_least=0.0), seated(tmp_path, a=1, b=1), [*bare, *groups])


def kept_ids(stage: KeepShares, ctx: Context, groups: list[Group]) -> list[str]:
    return [one.id for item in stage(ctx, groups) if isinstance(item, Group) for one in item.samples if not one.error]


def test_without_groups_in_real_data_there_is_nothing_to_keep_to(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no real row of the run names a group"):
        list(KeepShares()(context(tmp_path), made({"a": 2})))
    for wrong in ({"by": "length"}, {"at_least": 1.5}):
        with pytest.raises(ConfigError):
            KeepShares(**wrong)  # type: ignore[arg-type]
    assert not list(tmp_path.rglob("groups"))
