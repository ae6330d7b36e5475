"""Lineages of small generators of images: each generation learns from scratch from images that the one before drew (Shumailov et al., Nature 631:755;
Gerstgrasser et al., arXiv:2404.01413), and what chest X-rays so made are worth beside copies of real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from outcross.engine.store import save_folder
from outcross.evaluate.coverage import Coverage
from outcross.evaluate.fid import FrechetDistance
from outcross.evaluate.real_loss import RealLoss
from outcross.evaluate.tstr import SyntheticOverDuplicates, Teaching
from outcross.gate.observe import Observe
from outcross.generate.draw import Draw
from outcross.recipe import Bench, Mixture, Phase, Recipe
from outcross.recipes.collapse import collapse
from outcross.reproduce.lineage import Place
from outcross.reproduce.text import WAIVED
from outcross.stages import FitPlan, Model, Probe, Role, Trainable
from outcross.tasks.images import ImageTasks, RealImages
from outcross.types import Example

if TYPE_CHECKING:
    from outcross.models.image_learner import ImageLearner

Maker = Literal["vae", "gan", "diffusion"]
ROUNDS = 3
PLANS: Mapping[Maker, FitPlan] = {
    "vae": FitPlan(lr=3e-3, epochs=80, batch=64, warmup=0.05),
    "gan": FitPlan(
        lr=1e-3, epochs=80, batch=64, schedule="constant"
    ),  # with 30 its Fréchet distance was 24 and 58 in two seeds, with 80 it was 3
    "diffusion": FitPlan(lr=2e-3, epochs=30, batch=32, warmup=0.05),
}
SIZES: Mapping[Maker, Mapping[str, int]] = {"vae": {"latent": 8}, "gan": {}, "diffusion": {}}
SECONDS: Mapping[Maker, float] = {"vae": 20.0, "gan": 170.0, "diffusion": 80.0}  # a generation, on one core


@dataclass(frozen=True)
class Gallery:
    """Images that generators learn from, others that their encoder is taught on, and held-out ones of the archive's own test part."""

    name: str
    file: str
    classes: tuple[str, ...]
    note: str
    rows: int = 2000
    others: int = 2000
    held_out: int = 600
    shape: tuple[int, int] = (28, 28)

    def real(self, data: Path) -> RealImages:
        return RealImages(data / self.file, classes=self.classes, limit=self.rows, attested=self.note)

    def elsewhere(self, data: Path) -> RealImages:
        """Real images that no generator learns from."""
        return RealImages(data / self.file, classes=self.classes, offset=self.rows, limit=self.others, attested=self.note)

    def test(self, data: Path) -> RealImages:
        return ClassFirst(data / self.file, part="test", classes=self.classes, limit=self.held_out, attested=self.note)

    def tasks(self, data: Path, part: Literal["train", "test"], offset: int = 0) -> ImageTasks:
        limit = self.rows if part == "train" else self.held_out
        return ImageTasks(data / self.file, part=part, classes=self.classes, offset=offset, limit=limit)


@dataclass(frozen=True)
class ClassFirst(RealImages):
    """Real images whose ids begin with their class, so that a record of measurements tells classes apart."""

    def __iter__(self) -> Iterator[Example]:
        from msgspec.structs import replace as changed

        return (changed(row, id=f"{row.subgroup}{BETWEEN}{row.id}") for row in super().__iter__())


BETWEEN = "/"


@dataclass(frozen=True)
class ImageLineage:
    """Generators of 28×28 images: `rounds` generations after the first, each from untrained weights and in as many optimiser steps.

    history: *replace*: the last generation's images alone; *accumulate*: the real ones and those of all generations.
    worth: whether what is measured is not how near the images are to real ones, but what they teach a classifier of real ones.
    """

    gallery: Gallery
    maker: Maker
    history: Literal["replace", "accumulate"] = "replace"
    worth: bool = False
    rounds: int = ROUNDS

    @property
    def name(self) -> str:
        return "-".join((self.gallery.name, self.maker, *(("worth",) if self.worth else (self.history,))))

    @property
    def about(self) -> str:
        return "its own images alone" if self.history == "replace" else "real images and those of all generations, in as many steps"

    @property
    def files(self) -> tuple[str, ...]:
        return (self.gallery.file,)

    @property
    def seconds(self) -> float:
        return SECONDS[self.maker] * (self.rounds + 0.5)

    def plan(self, place: Place, /) -> tuple[Recipe, Mapping[Role, Model]]:
        first = first_model(self.gallery, self.maker, place)
        encoder = encoder_of(self.gallery, place)
        recipe = collapse(
            self._bench(place.data), rounds=self.rounds, plan=PLANS[self.maker], mix=Mixture(self.history, WAIVED), start="scratch"
        )
        if self.history == "accumulate":
            recipe = replace(recipe, phases=tuple(equal_steps(recipe.phases[0])))
        return recipe, {"policy": first, "embedder": encoder, "classifier": encoder}

    def _bench(self, data: Path) -> Bench:
        gallery, draw = self.gallery, Draw(1)
        held_out, test, real = gallery.tasks(data, "test"), gallery.test(data), gallery.real(data)
        probes: tuple[Probe, ...] = (FrechetDistance(held_out, draw, test), Coverage(held_out, draw, reference=test))
        if self.maker == "vae":
            probes = (*probes, RealLoss(test))
        if self.worth:
            asked = gallery.tasks(data, "train", offset=gallery.rows)  # the classes of other images, as many as there are real ones
            probes = (probes[0], SyntheticOverDuplicates(asked, draw, real, test, Teaching(seeds=5)))
        return Bench(gallery.tasks(data, "train"), held_out, real, probes, Observe())


def equal_steps(phase: Phase) -> Iterator[Phase]:
    """The phase's rounds one by one, each with fewer epochs as what is kept grows: all take as many optimiser steps, so that what
    accumulating brings is not that of more training. Real rows and those of `number` generations are `number` + 1 times as many."""
    learn = phase.learn["policy"]
    for number in range(1, phase.rounds + 1):
        plan = replace(learn.plan, epochs=learn.plan.epochs / (number + 1))
        yield replace(phase, name=f"generation-{number}", learn={"policy": replace(learn, plan=plan)}, rounds=1)


# ── models ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def untrained(gallery: Gallery, maker: Maker) -> ImageLearner[Any]:
    """A generator that knows nothing yet."""
    from outcross.models.image_model import KINDS
    from outcross.train.machine import Machine

    return cast("ImageLearner[Any]", KINDS[maker](gallery.classes, shape=gallery.shape, machine=Machine(threads=1), **SIZES[maker]))


def first_model(gallery: Gallery, maker: Maker, place: Place) -> Model:
    """The generator of generation 0, which learnt from real images; all lineages of a gallery, a kind and a seed share it."""
    folder = place.folder / f"first-{gallery.name}-{maker}"
    return _kept(folder, untrained(gallery, maker), gallery.real(place.data), PLANS[maker], place.seed)


def encoder_of(gallery: Gallery, place: Place) -> Model:
    """A classifier that was taught on real images which no generator learns from: what its features cannot tell apart counts as alike."""
    from outcross.models.image_classifier import image_classifier
    from outcross.train.machine import Machine

    made = image_classifier(gallery.classes, shape=gallery.shape, machine=Machine(threads=1))
    return _kept(
        place.folder / f"encoder-{gallery.name}", cast("ImageLearner[Any]", made), gallery.elsewhere(place.data), Teaching().plan, 0
    )


def _kept(folder: Path, blank: ImageLearner[Any], real: RealImages, plan: FitPlan, seed: int) -> Trainable:
    if not folder.exists():
        trained = blank.fresh(seed).fit(real, plan=plan, reference=None, seed=seed, seen=lambda step, ids, **facts: None)
        save_folder(folder, trained.save)
    return blank.load(folder)


DIGITS = Gallery("digits", "mnist/mnist.npz", tuple(map(str, range(10))), "MNIST, written by people (LeCun, Cortes)")
XRAYS = Gallery(
    "x-rays",
    "pneumoniamnist/pneumoniamnist_rebuilt.npz",
    ("normal", "pneumonia"),
    "PneumoniaMNIST, X-rays of people (MedMNIST v2)",
    held_out=624,
)
REPLACE = {maker: ImageLineage(DIGITS, maker) for maker in PLANS}
ACCUMULATE = {maker: ImageLineage(DIGITS, maker, "accumulate") for maker in PLANS}
WORTH = {maker: ImageLineage(XRAYS, maker, worth=True, rounds=1) for maker in PLANS}
IMAGES = (*REPLACE.values(), *ACCUMULATE.values(), *WORTH.values())
