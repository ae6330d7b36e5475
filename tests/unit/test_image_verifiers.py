"""What plausible images must pass: rules of real images, distance from training images, and a calibrated classifier."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import context, failed, sample
from pictures import KINDS, SHAPE, bar, rows
from scipy.stats import binom

from outcross.errors import ConfigError, DataError, StageError
from outcross.images import asking, intensities, packed
from outcross.models.image_classifier import image_classifier
from outcross.models.scripted import Scripted
from outcross.models.taught import taught
from outcross.stages import FitPlan
from outcross.train.machine import Machine
from outcross.types import Completion, Content, Group, Origin, Request, Response, Sample, Task, Turn, sample_id
from outcross.verify.image_class import ImageClass, best_temperature, calibrated, least_threshold, softened
from outcross.verify.image_copies import ImageCopies, nearest
from outcross.verify.image_rules import STATISTICS, ImageRules

REAL = rows(200)
MADE = Origin("synthetic", "none", "model", 1, "phase/0000", ("task",))


def shown(content: Content, kind: str = "across", finished: bool = True) -> Group:
    turns = (Turn(asking(kind, "t"), Completion(content, finished=finished)),)
    return Group(Task("task", asking(kind, "t")), (Sample(sample_id("task", 0, turns, MADE), turns, MADE),))


def judged(verifier: Any, groups: Iterable[Group], folder: Path, model: Any = None) -> list[Any]:
    found = list(verifier(context(folder, {"classifier": model} if model else {}), groups))
    return [item.scores[-1] for group in found for item in group.samples]


def verdict(verifier: Any, pixels: Any, folder: Path, kind: str = "across", model: Any = None) -> str:
    return str(judged(verifier, [shown(packed(np.asarray(pixels, dtype=np.uint8)), kind)], folder, model)[0].verdict)


# ── rules ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("what", "pixels"),
    [
        ("blank", np.zeros(SHAPE)),
        ("saturated", np.full(SHAPE, 255)),
        ("grey", np.full(SHAPE, 128)),
        ("noise", np.random.default_rng(0).integers(0, 256, SHAPE)),
        ("one side", np.hstack([np.full((8, 4), 255), np.zeros((8, 4))])),
        ("two strokes", np.maximum(bar("across", 0), bar("across", 4))),
    ],
)
def test_images_that_no_real_one_is_like_fail_the_rules(what: str, pixels: Any, tmp_path: Path) -> None:
    (score,) = judged(ImageRules(REAL), [shown(packed(np.asarray(pixels, dtype=np.uint8)))], tmp_path)
    assert score.verdict == "fail" and score.reason.endswith("is not that of real images") and " is outside " in score.evidence


def test_rules_reject_no_more_real_images_than_they_say(tmp_path: Path) -> None:
    others = rows(400, seed=8)
    for tail in (0.02, 0.3):
        scores = judged(ImageRules(REAL, tail), [shown(row.completion, str(row.subgroup)) for row in others], tmp_path)
        share = np.mean([score.verdict == "fail" for score in scores])
        most = tail + 14 / 101
        assert share < most + 3 * math.sqrt(most / 400) and (tail < 0.1 or share > 0.02)
    ranges = ImageRules(REAL, 0.5).ranges()["down"]
    values = [STATISTICS["balance"](intensities(row.completion)) for row in REAL if row.subgroup == "down"]
    inside = [ranges["balance"][0] <= value <= ranges["balance"][1] for value in values]
    assert np.mean(inside) >= 1 - 2 * 0.5 / (2 * len(STATISTICS)) and min(values) < -0.9 and max(values) > 0.9


def test_rules_need_enough_real_images_and_know_their_classes(tmp_path: Path) -> None:
    assert verdict(ImageRules(REAL), bar("across", 2), tmp_path, "sideways") == "abstain"
    with pytest.raises(DataError, match="15 real images are of the class"):
        verdict(ImageRules(REAL[:30]), bar("across", 2), tmp_path)
    with pytest.raises(ConfigError, match="none"):
        verdict(ImageRules(()), bar("across", 2), tmp_path)
    with pytest.raises(ConfigError, match="tail is 0"):
        ImageRules(REAL, 0)


# ── copies ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_copies_are_caught_and_other_real_images_are_not(tmp_path: Path) -> None:
    train, others = rows(150), rows(300, seed=4)
    for verifier in (ImageCopies(train), ImageCopies(train, held_out=rows(300, seed=5))):
        copies = judged(verifier, [shown(row.completion) for row in train], tmp_path)
        assert {score.verdict for score in copies} == {"fail"} and "a copy of a training image" in copies[0].reason
        almost = intensities(train[0].completion) * 255
        almost[0, 0] += 1
        assert verdict(verifier, almost, tmp_path) == "fail"
        fresh = judged(verifier, [shown(row.completion) for row in others], tmp_path)
        assert np.mean([score.verdict == "fail" for score in fresh]) < 0.05


def test_the_nearest_distance_is_exact() -> None:
    rng = np.random.default_rng(0)
    points, known = rng.random((700, 20)), rng.random((40, 20))
    expected = np.linalg.norm(points[:, None] - known, axis=2).min(axis=1)
    assert nearest(points, known) == pytest.approx(expected)
    assert nearest(known[:3], known).tolist() == [0, 0, 0] and (nearest(known, known, itself=False) > 0.1).all()


# ── the classifier ─────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def classifier() -> Any:
    return taught(
        image_classifier(KINDS, shape=SHAPE, width=8, features=8, machine=Machine(device="cpu", threads=1)),
        REAL,
        plan=FitPlan(lr=1e-2, epochs=6, batch=32),
    )


def test_an_image_passes_as_what_it_shows_and_is_not_judged_when_unsure(classifier: Any, tmp_path: Path) -> None:
    verifier = ImageClass(tuple(rows(200, seed=6)), risk=0.1)
    assert verdict(verifier, bar("down", 4), tmp_path, "down", classifier) == "pass"
    assert verdict(verifier, bar("down", 4), tmp_path, "across", classifier) == "fail"
    assert verdict(verifier, bar("down", 4), tmp_path, "sideways", classifier) == "abstain"
    strict = ImageClass(tuple(rows(20, seed=6)), risk=0.001)
    assert verdict(strict, bar("down", 4), tmp_path, "down", classifier) == "abstain", "20 images cannot show one error in a thousand"
    (score,) = judged(verifier, [shown(packed(bar("down", 4)), "down")], tmp_path, classifier)
    assert classifier.id in score.evidence and "speaks from" in score.evidence
    with pytest.raises(ConfigError, match="1 classes"):
        verdict(ImageClass(tuple(row for row in REAL if row.subgroup == "down")), bar("down", 4), tmp_path, model=classifier)
    with pytest.raises(StageError, match="calibration image shows: no"):
        verdict(verifier, bar("down", 4), tmp_path, model=Scripted(unable))


def unable(request: Request) -> Response:
    return Response(error="no")


def test_a_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((6000, 3)) * 2
    probs = softened(logits, 1.0)
    truth = (rng.random((6000, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    for factor in (0.5, 1.0, 4.0):
        assert best_temperature(logits * factor, truth) == pytest.approx(factor, rel=0.1)


def test_the_risk_is_kept_with_the_stated_probability() -> None:
    """Errors come with probability 1 − confidence: the true risk of a threshold is known, and may pass the limit in few of many calibrations."""
    rng = np.random.default_rng(2)
    broken = coverage = 0.0
    for _ in range(200):
        sure = rng.uniform(0.5, 1.0, 400)
        threshold = least_threshold(sure, rng.random(400) < sure, 0.15, 0.9)
        if math.isfinite(threshold):
            broken += (1 - threshold) / 2 > 0.15  # the mean of 1 − confidence above the threshold
            coverage += (1 - threshold) / 0.5 / 200
    assert broken / 200 <= 0.1 and coverage > 0.2


def test_a_threshold_is_the_exact_binomial_bound() -> None:
    sure = np.linspace(1, 0.5, 64)
    right = np.ones(64, dtype=bool)
    found = least_threshold(sure, right, 0.15, 0.9)
    spoken = int((sure >= found).sum())
    assert spoken == 64 and binom.pmf(0, spoken, 0.15) < 0.1 / 10
    assert least_threshold(sure, ~right, 0.5, 0.9) == math.inf
    assert least_threshold(sure[:5], right[:5], 0.05, 0.9) == math.inf


def test_calibration_splits_its_images() -> None:
    log_probs = np.log(np.tile([[0.9, 0.1], [0.2, 0.8]], (200, 1)))
    truth = np.tile([0, 1], 200)
    found = calibrated(log_probs, truth, 0.05, 0.95)
    assert (found.images, found.coverage, found.errors) == (200, 1.0, 0.0) and found.temperature < 0.1


# ── all ────────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_texts_broken_arrays_and_failures_are_no_images(classifier: Any, tmp_path: Path) -> None:
    for verifier in (ImageRules(REAL), ImageCopies(REAL), ImageClass(tuple(REAL[:40]))):
        broken = packed(np.zeros((8, 8), dtype=np.uint8))
        broken = type(broken)(broken.dtype, (8, 9), broken.data)
        texts = [Group(Task("task", asking("across", "t")), (sample("a text"), failed(1)))]
        (found,) = verifier(context(tmp_path, {"classifier": classifier}), texts)  # type: ignore[operator]
        assert found.samples[0].scores[-1].verdict == "error" and "text" in found.samples[0].scores[-1].reason
        assert found.samples[1].scores == ()
        assert judged(verifier, [shown(broken)], tmp_path, classifier)[0].verdict == "error"
        assert judged(verifier, [shown(packed(bar("across", 2)), finished=False)], tmp_path, classifier)[0].verdict == "fail"
        other = judged(verifier, [shown(packed(np.zeros((4, 4), dtype=np.uint8)))], tmp_path, classifier)[0]
        assert other.verdict in ("error", "fail") and other.reason
