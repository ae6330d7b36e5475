"""Images through the real engine: a line that lives on its own images loses variance and modes, one that keeps its data does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pictures import KINDS, SHAPE, archive

from outcross.api import open as open_run
from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.evaluate.coverage import Coverage
from outcross.evaluate.fid import FrechetDistance
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.tstr import Teaching, TrainRealTestSynthetic
from outcross.evaluate.vendi import Vendi
from outcross.gate.non_inferior import NonInferior
from outcross.gate.open import Open
from outcross.generate.draw import Draw
from outcross.images import intensities
from outcross.models.image_classifier import image_classifier
from outcross.models.taught import taught
from outcross.models.vae import vae
from outcross.recipe import Bench, Mixture
from outcross.recipes.collapse import collapse
from outcross.recipes.expert_iteration import expert_iteration
from outcross.stages import FitPlan
from outcross.tasks.images import ImageTasks, RealImages
from outcross.train.machine import Machine
from outcross.verify.image_copies import ImageCopies
from outcross.verify.image_rules import ImageRules

PLAN = FitPlan(lr=1e-2, epochs=20, batch=32)
ONE = Machine(device="cpu", threads=1)


def bench(path: Path, gate: Any = None) -> Bench:
    held_out, test = (
        ImageTasks(path, part="test", classes=KINDS),
        RealImages(path, part="test", classes=KINDS, attested="the test's author"),
    )
    probes = (
        FrechetDistance(held_out, Draw(n=1), test, replicates=30),
        Coverage(held_out, Draw(n=1), reference=test, replicates=30),
        Vendi(held_out, Draw(n=1), reference=test, replicates=30),
        RealLoss(test),
        TrainRealTestSynthetic(held_out, Draw(n=1), test, Teaching(FitPlan(lr=1e-2, epochs=3, batch=16), seeds=1)),
    )
    return Bench(
        ImageTasks(path, classes=KINDS), held_out, RealImages(path, classes=KINDS, attested="the test's author"), probes, gate or Open()
    )


def models(path: Path) -> dict[str, Any]:
    real = RealImages(path, classes=KINDS)
    return {
        "classifier": image_classifier(KINDS, shape=SHAPE, width=8, features=8, machine=ONE),
        "policy": taught(vae(KINDS, shape=SHAPE, width=32, machine=ONE), real, plan=PLAN),
        "embedder": taught(
            image_classifier(KINDS, shape=SHAPE, width=8, features=8, machine=ONE), real, plan=FitPlan(lr=1e-2, epochs=5, batch=16)
        ),
    }


def lineage(folder: Path, history: Literal["replace", "accumulate"], rounds: int = 4) -> dict[str, list[float]]:
    path = archive(folder / "bars.npz", 120)
    recipe = collapse(bench(path), history=history, n=1, rounds=rounds, plan=PLAN, start="scratch")
    run(recipe, models(path), folder / history, seed=1, options=Options(unsafe=True))
    found = [one.record["measurements"] for one in RunDir(folder / history).rounds()]
    return {probe.name: [found[0][probe.name]["first"], *(one[probe.name]["candidate"] for one in found)] for probe in recipe.bench.probes}


def test_a_replaced_line_loses_variance_and_an_accumulating_one_less(tmp_path: Path) -> None:
    replaced, kept = lineage(tmp_path, "replace"), lineage(tmp_path, "accumulate")
    assert replaced["frechet_distance"][0] == kept["frechet_distance"][0], "both begin with one model"
    assert replaced["real_loss"][-1] > max(replaced["real_loss"][0], kept["real_loss"][-1]) + 0.05
    assert replaced["vendi"][-1] < min(replaced["vendi"][0], kept["vendi"][-1])
    assert replaced["coverage"][-1] < kept["coverage"][-1] and replaced["frechet_distance"][-1] > kept["frechet_distance"][-1]
    spread = {history: variance(tmp_path / history) for history in ("replace", "accumulate")}
    assert spread["replace"][-1] < 0.9 * spread["replace"][0] and spread["replace"][-1] < spread["accumulate"][-1]


def variance(folder: Path) -> list[float]:
    """The total variance of each generation's images, as the record has them."""
    found = []
    for one in RunDir(folder).rounds():
        images = [intensities(row.completion).ravel() for row in one.examples("policy")]
        found.append(float(np.var(images, axis=0).sum()))
    return found


def test_images_pass_through_the_whole_loop_with_floor_verifiers_and_gate(tmp_path: Path) -> None:
    path = archive(tmp_path / "bars.npz", 120)
    real = RealImages(path, classes=KINDS)
    guarded = bench(path, NonInferior(minimum_items=100))
    recipe = expert_iteration(guarded, verify=(ImageRules(real), ImageCopies(real)), n=1, rounds=1, plan=PLAN, mix=Mixture(real_floor=0.5))
    run(recipe, models(path), tmp_path / "run", seed=1)
    (one,) = RunDir(tmp_path / "run").rounds()
    assert one.record["mixtures"]["policy"]["real_share"]["tokens"] >= 0.5
    groups = open_run(tmp_path / "run").table("groups", engine="arrow")
    assert set(groups.column("verdict").to_pylist()) <= {"pass", "fail"} and len(groups) == 120


@pytest.mark.parametrize("seed", [1])
def test_the_same_seed_gives_the_same_record(seed: int, tmp_path: Path) -> None:
    path = archive(tmp_path / "bars.npz", 40)
    recipe = collapse(bench(path), n=1, rounds=1, plan=FitPlan(lr=1e-2, epochs=2, batch=16), start="scratch")
    ids = []
    for name in ("a", "b"):
        run(recipe, models(path), tmp_path / name, seed=seed, options=Options(unsafe=True))
        (one,) = RunDir(tmp_path / name).rounds()
        ids.append((one.record["fits"]["policy"]["model"], one.record["measurements"]))
    assert ids[0] == ids[1]
