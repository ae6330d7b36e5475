"""Lineages of generators of images for `outcross reproduce`: what they learn from, in how many steps, and what is read from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from pictures import KINDS, SHAPE, archive
from test_cli import call

from outcross.engine.store import RunDir
from outcross.engine.watch import Silent
from outcross.images import intensities
from outcross.reproduce import picture_curves
from outcross.reproduce.lineage import Course, Lived, Place, live, missing
from outcross.reproduce.picture_claims import COVERAGE, DISTANCE, IMAGE_CLAIMS, SEEDS, WORTHS, apart, copies_over_synthetic
from outcross.reproduce.pictures import ACCUMULATE, IMAGES, PLANS, REPLACE, WORTH, Gallery, ImageLineage
from outcross.reproduce.run import Study
from outcross.reproduce.trained import LOSS, rise, worse
from outcross.types import Measurement

DATA = Path(__file__).parents[3] / "shared" / "data"
BARS = Gallery("bars", "bars.npz", KINDS, "the test's author", rows=40, others=30, held_out=24, shape=SHAPE)
MEMBERS = {
    "replace": ImageLineage(BARS, "vae", "replace", rounds=2),
    "accumulate": ImageLineage(BARS, "vae", "accumulate", rounds=2),
    "worth": ImageLineage(BARS, "vae", worth=True, rounds=1),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    data = tmp_path_factory.mktemp("data")
    archive(data / "bars.npz", 80)
    return Place(data, tmp_path_factory.mktemp("lineages"), 3)


@pytest.fixture(scope="module")
def lived(place: Place) -> Mapping[str, Lived]:
    """Three tiny lineages of one seed, through the real engine."""
    return {one.name: live(one, place, Silent()) for one in MEMBERS.values()}


def seen_by(folder: Path) -> list[tuple[dict[str, int], int]]:
    """Different rows by source, and optimiser steps, of each round."""
    import pyarrow.parquet as pq

    found = []
    for turn in RunDir(folder).rounds():
        rows = pq.read_table(turn.folder / "mixture.parquet").to_pylist()
        counts: dict[str, int] = {}
        for item in rows:
            counts[item["source"]] = counts.get(item["source"], 0) + int(item["repeats"])
        found.append((counts, int(turn.record["fits"]["policy"]["steps"])))
    return found


# ── the loop ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_each_generation_learns_from_is_what_its_name_says_and_all_take_as_many_steps(
    place: Place, lived: Mapping[str, Lived]
) -> None:
    replaced, kept = (seen_by(place.folder / MEMBERS[name].name) for name in ("replace", "accumulate"))
    assert [counts for counts, _ in replaced] == [{"new": 40}, {"new": 40}]
    assert [counts for counts, _ in kept] == [{"new": 40, "real": 40}, {"new": 40, "history": 40, "real": 40}]
    assert {steps for _, steps in (*replaced, *kept)} == {round(40 * PLANS["vae"].epochs / PLANS["vae"].batch)}


def test_lineages_of_a_seed_begin_with_one_model_and_are_measured_by_the_same_probes(lived: Mapping[str, Lived]) -> None:
    one, other = (lived[MEMBERS[name].name] for name in ("replace", "accumulate"))
    assert set(one) == set(other) == {DISTANCE, COVERAGE, LOSS}
    for probe in one:
        assert one[probe].means[0] == other[probe].means[0] and len(one[probe].means) == 3
    assert one[LOSS].means[-1] > other[LOSS].means[-1], "its own images alone fit real ones less"


def test_the_encoder_and_the_generator_learn_from_different_images(place: Place) -> None:
    learnt, elsewhere = ({row.prompt for row in rows} for rows in (BARS.real(place.data), BARS.elsewhere(place.data)))
    asked = {task.prompt for task in BARS.tasks(place.data, "train", offset=BARS.rows)}
    assert (len(learnt), len(elsewhere)) == (40, 30) and not learnt & elsewhere
    assert len(asked) == 40 and not asked & {task.prompt for task in BARS.tasks(place.data, "train")}


@pytest.mark.parametrize("maker", ["gan", "diffusion"])
def test_every_kind_of_generator_lives(maker: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {name: dataclasses.replace(plan, epochs=2.0) for name, plan in PLANS.items()}
    monkeypatch.setattr("outcross.reproduce.pictures.PLANS", quick)
    found = live(ImageLineage(BARS, maker, rounds=1), dataclasses.replace(place, seed=4), Silent())  # type: ignore[arg-type]
    assert set(found) == {DISTANCE, COVERAGE} and all(np.isfinite(course.means).all() for course in found.values())


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert missing(REPLACE["gan"], tmp_path) == ["mnist/mnist.npz"]
    assert missing(WORTH["gan"], tmp_path) == ["pneumoniamnist/pneumoniamnist_rebuilt.npz"]
    assert len({one.name for one in IMAGES}) == len(IMAGES) == 9


def test_the_real_archives_have_enough_images() -> None:
    for gallery in {one.gallery for one in IMAGES}:
        if not (DATA / gallery.file).exists():
            pytest.skip(f"needs {gallery.file} in the data folder beside the project")
        real, others, test = list(gallery.real(DATA)), list(gallery.elsewhere(DATA)), list(gallery.test(DATA))
        assert (len(real), len(others), len(test)) == (gallery.rows, gallery.others, gallery.held_out)
        assert {row.subgroup for row in test} == set(gallery.classes) and intensities(real[0].completion).shape == gallery.shape
        assert len(list(gallery.tasks(DATA, "train", offset=gallery.rows))) == gallery.rows


# ── what is read ───────────────────────────────────────────────────────────────────────────────────────────────────────
def statistic(values: list[float], spread: float = 1.0) -> Course:
    return Course(tuple(Measurement("p", ("a", "b"), (value,), (value - spread, value + spread)) for value in values))


def test_a_distance_between_lineages_is_of_the_last_generation_and_paired() -> None:
    one, other = MEMBERS["replace"], MEMBERS["accumulate"]
    courses = {one.name: {"p": statistic([5.0, 9.0], 3.0)}, other.name: {"p": statistic([5.0, 6.0], 1.0)}}
    value, error = apart(one, other, "p")(courses)
    assert value == pytest.approx(3.0) and error == pytest.approx(np.std([3 - 2, 3 + 2], ddof=1))


def test_what_copies_teach_more_is_read_by_class_and_averaged_over_classes() -> None:
    lineage = MEMBERS["worth"]
    items, values = ("down/1", "down/2", "across/1", "across/2", "across/3", "across/4"), (-1.0, 0.0, 0.2, 0.0, 0.2, 0.0)
    courses = {lineage.name: {WORTHS: Course((Measurement(WORTHS, items, values),))}}
    assert copies_over_synthetic(lineage, "down")(courses) == pytest.approx((0.5, 0.5))
    assert copies_over_synthetic(lineage, "across")(courses)[0] == pytest.approx(-0.1)
    value, error = copies_over_synthetic(lineage)(courses)
    assert value == pytest.approx(0.2) and error == pytest.approx(np.hypot(0.5, np.std([0.2, 0, 0.2, 0], ddof=1) / 2) / 2)


def test_the_record_of_what_images_teach_tells_classes_apart(lived: Mapping[str, Lived]) -> None:
    lineage = MEMBERS["worth"]
    measured = lived[lineage.name][WORTHS].measured[0]
    assert {item.partition("/")[0] for item in measured.items} == set(KINDS) and len(measured.items) == 24
    both = [copies_over_synthetic(lineage, kind)(lived)[0] for kind in KINDS]
    assert copies_over_synthetic(lineage)(lived)[0] == pytest.approx(sum(both) / 2)


def test_every_claim_reads_lineages_that_it_names_and_takes_three_seeds_at_most() -> None:
    ends = {
        "digits": statistic([1.0, 2.0]),
        "x-rays": Course((Measurement(WORTHS, ("normal/1", "normal/2", "pneumonia/1", "pneumonia/2"), (0.1,) * 4),)),
    }
    for claim in IMAGE_CLAIMS:
        probes = {DISTANCE: ends["digits"], COVERAGE: ends["digits"], LOSS: ends["digits"], WORTHS: ends["x-rays"]}
        if claim.read.__qualname__.startswith((worse.__qualname__, rise.__qualname__)):
            probes[LOSS] = Course(tuple(Measurement("p", ("a", "b"), (value, value + 1)) for value in (1.0, 2.0)))
        value, error = claim.read({one.name: probes for one in claim.lineages})
        assert np.isfinite([value, error]).all() and (claim.seeds("toy"), claim.seeds("small"), claim.seeds("full")) == (0, 1, SEEDS)
        assert claim.name.startswith(("digits-", "x-rays-")) and claim.kind == "direction"


# ── the study ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_study_runs_them_judges_them_and_draws_their_curves(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = (MEMBERS["replace"], MEMBERS["accumulate"])
    claim = dataclasses.replace(
        next(one for one in IMAGE_CLAIMS if one.name == "digits-vae-loss"), lineages=both, read=worse(*both), most=2
    )
    monkeypatch.setattr(picture_curves, "REPLACE", REPLACE | {"vae": both[0]})
    monkeypatch.setattr(picture_curves, "ACCUMULATE", ACCUMULATE | {"vae": both[1]})
    study = Study(tmp_path, "small", 0, place.data)
    said: list[str] = []
    (entry,) = study.run([claim], said.append)
    assert entry.verdict == "holds" and sum("bars-vae" in line for line in said) == 2
    curves = study.curves([entry])
    assert [curve.name for curve in curves] == [f"digits-vae-{probe}" for probe in (DISTANCE, COVERAGE, LOSS)]
    assert all([line.name for line in curve.lines] == ["replace", "accumulate"] and curve.x_names == ("0", "1", "2") for curve in curves)
    again: list[str] = []
    study.run([claim], again.append)
    assert again == ["1/1 digits-vae-loss: finished before"]


def test_without_images_a_claim_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    words = ("reproduce", "digits-gan-drift", "--scale", "small", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    code, _, err = call(*words)
    assert code == 2 and "lacks mnist/mnist.npz" in " ".join(err.split()) and not (tmp_path / "out").exists()
