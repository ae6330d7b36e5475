"""Generated images, generation by generation, and what they are worth to a classifier: digits and chest X-rays.

lineage: a model that learns from its own images through the real engine (recipe `collapse`), every generation from untrained weights: the Fréchet distance
    over a classifier that was taught on other real images, coverage over what other real images have, the share of its images that a
    classifier of real images takes for what was asked, and for a vae the bound on the loss on held-out real images.
teach: what a classifier learns from real images, from the model's, from both, and from real images with as many copies of themselves, by class.
check: what the verifiers of plausibility say about a model's images and about held-out real ones.

Run: python benchmarks/images.py lineage|teach|check --data DIGITS_OR_XRAYS.npz [--classes normal pneumonia] [--model vae] [--train 2000] …
Small by default. One thread; intervals are over test items, trainings taken as given.
"""

from __future__ import annotations

import argparse
import os

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from outcross.engine.loop import Options, run
from outcross.engine.store import RunDir
from outcross.evaluate.coverage import Coverage
from outcross.evaluate.fid import FrechetDistance
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.tstr import Learner, Results, Teaching, TrainRealTestSynthetic, arms, auroc, by_subgroup, synthetic
from outcross.gate.open import Open
from outcross.generate.draw import Draw
from outcross.models.diffusion import diffusion
from outcross.models.gan import gan
from outcross.models.image_classifier import image_classifier
from outcross.models.taught import taught
from outcross.models.vae import vae
from outcross.recipe import Bench
from outcross.recipes.collapse import collapse
from outcross.stages import Context, Dialogue, FitPlan, Trainable
from outcross.tasks.images import ImageTasks, RealImages
from outcross.types import Completion, Example, Group, Origin, Sample, Task, Turn, sample_id
from outcross.verify.image_class import ImageClass
from outcross.verify.image_copies import ImageCopies
from outcross.verify.image_rules import ImageRules

ORIGIN = Origin("unknown", source="benchmark")
WHO = "the curators of the public data set"
MAKERS = {"vae": vae, "gan": gan, "diffusion": diffusion}
PLANS = {
    "vae": FitPlan(lr=3e-3, epochs=40, batch=64, warmup=0.05),
    "gan": FitPlan(lr=1e-3, epochs=40, batch=64, schedule="constant"),
    "diffusion": FitPlan(lr=2e-3, epochs=40, batch=64, warmup=0.05),
}


class Setting:
    """The data and models of a run, by the options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        given = {"path": options.data, "classes": tuple(options.classes)}
        self.real = RealImages(**given, limit=options.train, attested=WHO)
        self.others = RealImages(**given, offset=options.train, limit=options.others, attested=WHO)
        self.test = RealImages(**given, part="test", limit=options.items, attested=WHO)
        self.tasks = ImageTasks(**given, limit=options.train)
        self.held_out = ImageTasks(**given, part="test", limit=options.items)
        self.classes = sorted({str(row.subgroup) for row in self.real})
        epochs = options.epochs or PLANS[options.model].epochs
        self.plan = FitPlan(**{**vars(PLANS[options.model]), "epochs": epochs})

    @cached_property
    def encoder(self) -> Trainable:
        """A classifier that was taught on real images which the model never learns from."""
        return taught(image_classifier(self.classes), self.others, plan=Teaching().plan)

    def first(self, seed: int) -> Trainable:
        """The model of generation 0."""
        untrained = cast(Any, MAKERS[self.options.model](self.classes)).fresh(seed)
        return taught(untrained, self.real, plan=self.plan, seed=seed)

    def context(self, policy: Trainable) -> Context:
        models = {"policy": policy, "embedder": self.encoder, "classifier": self.encoder}
        return Context(models, cast(Any, None), "benchmark/0000", 0, 0, at_once)


def at_once(ctx: Context, dialogues: Iterable[Dialogue[Any]], /) -> Iterator[Any]:
    """All dialogues of one question each, flushed together."""
    waiting = []
    models = set()
    for dialogue in dialogues:
        ask = next(dialogue)
        model = cast(Any, ctx.model(ask.role))
        models.add(model)
        waiting.append((dialogue, model.submit(ask.request)))
    for model in models:
        model.flush()
    for dialogue, future in waiting:
        try:
            dialogue.send(future.result())
        except StopIteration as stop:
            yield stop.value


# ── lineage ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def lineage(setting: Setting) -> None:
    draw = Draw(n=1)
    probes: tuple[Any, ...] = (
        FrechetDistance(setting.held_out, draw, setting.test),
        Coverage(setting.held_out, draw, reference=setting.test),
        TrainRealTestSynthetic(setting.held_out, draw, setting.others, Teaching(seeds=1)),
    )
    if setting.options.model == "vae":
        probes = (*probes, RealLoss(setting.test))
    bench = Bench(setting.tasks, setting.held_out, setting.real, probes, Open())
    print("| seed | history | generation | " + " | ".join(probe.name.replace("_", " ") for probe in probes) + " | seconds |")
    print("|---" * (len(probes) + 4) + "|")
    for seed in range(setting.options.first_seed, setting.options.first_seed + setting.options.seeds):
        first = setting.first(seed)
        for history in setting.options.histories:
            start = time.perf_counter()
            recipe = collapse(bench, history=history, n=1, rounds=setting.options.generations, plan=setting.plan, start="scratch")
            models = {"policy": first, "embedder": setting.encoder, "classifier": image_classifier(setting.classes)}
            with tempfile.TemporaryDirectory() as folder:
                run(recipe, models, Path(folder) / "run", seed=seed, options=Options(unsafe=True))
                rounds = [one.record["measurements"] for one in RunDir(Path(folder) / "run").rounds()]
            took = time.perf_counter() - start
            for generation in range(len(rounds) + 1):
                found = [rounds[0][p.name]["first"] if generation == 0 else rounds[generation - 1][p.name]["candidate"] for p in probes]
                print(
                    f"| {seed} | {history} | {generation} | " + " | ".join(f"{value:.3f}" for value in found) + f" | {took:.0f} |",
                    flush=True,
                )


# ── teach ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def teach(setting: Setting) -> None:
    first, test, real = setting.first(setting.options.first_seed), list(setting.test), list(setting.real)
    made = synthetic("benchmark", setting.context(first), Draw(n=1), setting.tasks)
    teaching = Teaching(seeds=setting.options.seeds)
    found = arms(cast(Learner, image_classifier(setting.classes)), real, made, test, teaching)
    rows = {name: by_subgroup(test, one.right) for name, one in found.items()}
    rows["synthetic − duplicates"] = by_subgroup(test, found["real + synthetic"].right - found["real + duplicates"].right)
    print(
        f"{len(real):,} real and {len(made):,} synthetic images of a {setting.options.model}, {len(test):,} test images, {teaching.seeds} trainings"
    )
    print("| taught on | " + " | ".join(f"{row.subgroup} ({row.items})" for row in next(iter(rows.values()))) + " |")
    print("|---" * (len(next(iter(rows.values()))) + 1) + "|")
    for name, shares in rows.items():
        print(f"| {name} | " + " | ".join(f"{100 * row.mean:.1f} [{100 * row.low:.1f}, {100 * row.high:.1f}]" for row in shares) + " |")
    if len(setting.classes) == 2:
        areas(test, found, setting.classes[1])


def areas(test: list[Example], found: dict[str, Results], positive: str) -> None:
    """Areas under the curve with percentile intervals of 1,000 bootstrap samples of the test images, paired."""
    truth, rng = np.array([row.subgroup == positive for row in test]), np.random.default_rng(0)
    drawn = [np.arange(len(test)), *(rng.integers(len(test), size=len(test)) for _ in range(1000))]
    each = {name: np.array([auroc(Results(one.right[d], one.chance[d]), truth[d]) for d in drawn]) for name, one in found.items()}
    each["synthetic − duplicates"] = each["real + synthetic"] - each["real + duplicates"]
    for name, values in each.items():
        low, high = np.quantile(values[1:], [0.025, 0.975])
        print(f"AUROC, {name}: {values[0]:.4f} [{low:.4f}, {high:.4f}]")


# ── check ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def check(setting: Setting) -> None:
    test, first = list(setting.test), setting.first(setting.options.first_seed)
    ctx = setting.context(first)
    half = len(test) // 2
    drawn = list(Draw(n=1)(ctx, list(setting.held_out)[half:]))
    real = [Group(task, (given(task.id, row.completion),)) for task, row in zip(list(setting.held_out)[half:], test[half:], strict=True)]
    copied = [Group(Task(row.id, row.prompt), (given(row.id, row.completion),)) for row, _ in zip(setting.real, real)]
    verdicts = ImageClass(tuple(test[:half]), risk=setting.options.risk)
    _, calibration = verdicts.calibrated(ctx)
    print(
        f"classifier: temperature {calibration.temperature:.2f}; speaks from {calibration.threshold:.3f}, on {calibration.coverage:.1%} of "
        f"{calibration.images} real images, of which it gets {calibration.errors:.1%} wrong; risk asked for {verdicts.risk:.0%}"
    )
    print("| verifier | images | pass | fail | abstain |\n|---|---|---|---|---|")
    for verifier in (ImageRules(setting.real), ImageCopies(setting.real), verdicts):
        for name, groups in (("real, held out", real), (setting.options.model, drawn), ("copies of real, training", copied)):
            said = Counter(str(sample.scores[-1].verdict) for group in cast(Any, verifier)(ctx, groups) for sample in group.samples)
            shares = " | ".join(f"{said[verdict] / max(1, said.total()):.1%}" for verdict in ("pass", "fail", "abstain"))
            print(f"| {cast(Any, verifier).name} | {name} ({said.total()}) | {shares} |")


def given(name: str, content: Any) -> Sample:
    """A sample that says so."""
    turns = (Turn(name, Completion(content)),)
    return Sample(sample_id(name, 0, turns, ORIGIN), turns, ORIGIN)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("lineage", "teach", "check"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--classes", nargs="*", default=[])
    parser.add_argument("--model", choices=tuple(MAKERS), default="vae")
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--others", type=int, default=2000)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--risk", type=float, default=0.15)
    parser.add_argument("--epochs", type=float, default=0)
    parser.add_argument("--generations", type=int, default=3)
    parser.add_argument("--histories", nargs="*", default=["replace", "accumulate"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    np.seterr(all="raise", under="ignore")
    {"lineage": lineage, "teach": teach, "check": check}[chosen.what](Setting(chosen))
