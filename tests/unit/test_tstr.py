"""Train on synthetic, test on real: real images teach what real images teach, collapsed ones less, and copies are the control."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers import context
from pictures import KINDS, SHAPE, bar, rows
from scipy.stats import norm

from outcross.errors import ConfigError, StageError
from outcross.evaluate import tstr
from outcross.evaluate.tstr import SyntheticOverDuplicates, Teaching, TrainRealTestSynthetic, TrainSyntheticTestReal
from outcross.generate.recorded import Recorded
from outcross.images import asking, packed
from outcross.models.categorical import Categorical
from outcross.models.image_classifier import image_classifier
from outcross.stages import FitPlan
from outcross.train.machine import Machine
from outcross.types import Example, Loss, Origin, Task

MADE = Origin("synthetic", source="model", depth=1)
TEACHING = Teaching(FitPlan(lr=1e-2, epochs=10, batch=16), seeds=2)
TEST = tuple(rows(80, seed=9, what="test"))


def classifier() -> Any:
    return image_classifier(KINDS, shape=SHAPE, width=8, features=8, machine=Machine(device="cpu", threads=1))


def said(examples: list[Example]) -> list[Example]:
    return [msgspec.structs.replace(row, origin=MADE) for row in examples]


def tasks(examples: list[Example]) -> tuple[Task, ...]:
    return tuple(Task(row.id, row.prompt, None, row.subgroup) for row in examples)


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Any]:
    model = classifier()

    def measure(kind: type[Any], made: list[Example], **settings: Any) -> Any:
        probe = kind(tasks(made), Recorded(said(made)), teaching=TEACHING, **settings)
        before = model.id
        found = probe(context(tmp_path, {"classifier": model}))
        assert model.id == before and found.probe == probe.name
        return found

    return measure


def test_images_as_good_as_real_teach_what_real_ones_teach(measured: Callable[..., Any]) -> None:
    real = rows(120, seed=1)
    found = measured(TrainSyntheticTestReal, real, test=TEST)
    model = classifier()
    baseline = TEACHING.right(model, real, tstr.images("test", TEST))
    assert found.values == tuple(baseline) and found.items == tuple(row.id for row in TEST) and found.mean > 0.95


def test_images_of_one_mode_or_of_the_wrong_class_teach_less(measured: Callable[..., Any]) -> None:
    real = rows(120, seed=1)
    swapped = [msgspec.structs.replace(row, prompt=asking(KINDS[row.subgroup == "across"], row.id)) for row in real]
    blank = [msgspec.structs.replace(row, completion=packed(np.zeros(SHAPE, dtype=np.uint8))) for row in real]
    good = measured(TrainSyntheticTestReal, real, test=TEST).mean
    assert measured(TrainSyntheticTestReal, swapped, test=TEST).mean < 0.1 and good > 0.9
    assert measured(TrainSyntheticTestReal, blank, test=TEST).mean == pytest.approx(0.5, abs=0.15)
    assert measured(TrainRealTestSynthetic, swapped, real=real).mean < 0.1
    right = measured(TrainRealTestSynthetic, rows(60, seed=4, places=(0,)), real=real)
    assert right.mean > 0.95 and len(right.values) == 60, "it is blind to variety"


def test_copies_are_matched_by_class_and_each_used_as_often_as_any_other() -> None:
    real, made = rows(10, seed=1), rows(40, seed=2)[:35]
    copies = tstr.duplicates(real, made)
    assert Counter(row.subgroup for row in copies) == Counter(row.subgroup for row in made)
    counts = Counter(row.id for row in copies)
    assert set(counts) == {row.id for row in real} and max(counts.values()) - min(counts.values()) <= 1
    with pytest.raises(ConfigError, match="no real one to copy"):
        tstr.duplicates([row for row in real if row.subgroup == "down"], made)


def test_new_modes_are_worth_more_than_copies_and_false_ones_less(measured: Callable[..., Any]) -> None:
    """Real images show one place of a bar and the test another: images that show it add what no copy can."""
    real = [*rows(16, seed=1, places=(0,))]
    test = tuple(rows(60, seed=9, what="test", places=(6,)))
    fresh = rows(64, seed=2, what="said")
    gain = measured(SyntheticOverDuplicates, fresh, real=real, test=test)
    assert gain.unit == "share over duplicates" and set(gain.items) == {row.id for row in test}
    false = [msgspec.structs.replace(row, prompt=asking(KINDS[row.subgroup == "across"], row.id)) for row in fresh]
    harm = measured(SyntheticOverDuplicates, false, real=real, test=test)
    assert harm.mean < 0 < gain.mean
    same = measured(SyntheticOverDuplicates, tstr.duplicates(real, fresh)[:16], real=real, test=test)
    assert abs(same.mean) < 0.2


def test_arms_and_their_shares_by_subgroup() -> None:
    model, real = classifier(), rows(60, seed=1)
    found = tstr.arms(model, real, said(rows(60, seed=2)), TEST, TEACHING)
    assert tuple(found) == tstr.ARMS and all(one.right.shape == one.chance.shape == (80,) for one in found.values())
    values = np.array([float(index % 4 == 0) for index in range(80)])  # "across" are the even ones: half of them, no other
    everything, classes, across, down = tstr.by_subgroup(TEST, values)
    assert [row.subgroup for row in (everything, classes, across, down)] == ["all", "classes", "across", "down"]
    assert (everything.mean, classes.mean, across.mean, down.mean) == (0.25, 0.25, 0.5, 0.0) and across.items == 40
    assert across.high - across.low == pytest.approx(2 * norm.ppf(0.975) * np.sqrt(0.25 / 39), rel=1e-3) and down.low == down.high == 0
    assert classes.high - classes.low == pytest.approx((across.high - across.low) / 2)


def test_the_area_under_the_curve_counts_pairs_whatever_the_threshold() -> None:
    rng = np.random.default_rng(5)
    positive, p = rng.random(60) < 0.3, rng.integers(0, 9, 60) / 8
    pairs = [(a > b) + 0.5 * (a == b) for a in p[positive] for b in p[~positive]]
    results = tstr.Results(np.zeros(60), np.where(positive, p, 1 - p))
    assert tstr.auroc(results, positive) == pytest.approx(np.mean(pairs))
    assert tstr.auroc(tstr.Results(results.right, np.where(positive, p / 2, 1 - p / 2)), positive) == pytest.approx(np.mean(pairs))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, names = np.random.default_rng(3), [row.subgroup for row in TEST]
    rates = np.where(np.array(names) == "across", 0.8, 0.4)
    inside = sum(row.low <= 0.6 <= row.high for row in (tstr.by_subgroup(TEST, (rng.random(80) < rates) * 1.0)[1] for _ in range(600)))
    assert 0.91 < inside / 600 < 0.98


def test_what_cannot_be_taught_or_seen_is_refused(tmp_path: Path) -> None:
    made = rows(8, seed=1)

    def probe(model: Any, test: tuple[Example, ...] = TEST, given: list[Example] = made) -> None:
        stage = TrainSyntheticTestReal(tasks(made), Recorded(said(given)), test, TEACHING)
        stage(context(tmp_path, {"classifier": model}))

    good = classifier()
    with pytest.raises(ConfigError, match="1 of 1 rows hold none"):
        probe(good, (Example("1", "across #1", "a text", Loss("own")),))
    with pytest.raises(ConfigError, match="did not say what an image shows"):
        probe(good, (Example("1", "across #1", packed(bar("across", 0)[:4]), Loss("own")),))
    with pytest.raises(StageError, match="could not measure"):
        probe(good, given=made[:2])
    with pytest.raises(ConfigError, match="cannot be taught anew"):
        probe(Scriptless())
    assert isinstance(Categorical({"a": 1}), tstr.Trainable)


class Scriptless:
    id, depth = "none", 0

    def close(self) -> None: ...
