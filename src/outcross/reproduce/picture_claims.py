"""Claims about generators of images: how far lineages of digits drift, and what synthetic X-rays teach beside copies of real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from outcross.lab.claims_refit import GERSTGRASSER, MAD, SHUMAILOV
from outcross.reproduce.lineage import Lineage, Lived
from outcross.reproduce.pictures import ACCUMULATE, BETWEEN, PLANS, REPLACE, WORTH, Maker
from outcross.reproduce.trained import LOSS, Found, Read, TrainedClaim, rise, worse

DISTANCE, COVERAGE, WORTHS = "frechet_distance", "coverage", "synthetic_over_duplicates"
SEEDS = 3  # at most, whatever the scale: a seed of all image lineages takes as long as five of text
PINK = "Pink, PMLR 318 (2026)"
_GENERATORS: Mapping[Maker, str] = {"vae": "VAE", "gan": "GAN", "diffusion": "diffusion model"}
_SETTING: Mapping[Maker, tuple[str, str]] = {
    "vae": (GERSTGRASSER, "CelebA, VAE"),
    "gan": (MAD, "FFHQ-128, StyleGAN2; accumulating is of arXiv:2404.01413"),
    "diffusion": (MAD, "MNIST, DDPM; accumulating is of arXiv:2404.01413"),
}


def apart(above: Lineage, below: Lineage, probe: str) -> Read:
    """By how much a statistic of the last generation is higher in one lineage than in the other; the error is over paired replicates."""

    def read(lived: Mapping[str, Lived]) -> Found:
        one, other = (lived[lineage.name][probe].measured[-1] for lineage in (above, below))
        error = float(np.std(np.subtract(one.replicates or (), other.replicates or ()), ddof=1))
        return one.mean - other.mean, error

    return read


def copies_over_synthetic(lineage: Lineage, kind: str = "") -> Read:
    """By how much more held-out X-rays of a class are put right after copies of real images than after as many synthetic ones of generation 0;
    of no class: the mean of the classes'."""

    def read(lived: Mapping[str, Lived]) -> Found:
        measured = lived[lineage.name][WORTHS].measured[0]
        names = np.array([item.partition(BETWEEN)[0] for item in measured.items])
        values = -np.array(measured.values)
        groups = [values[names == name] for name in ([kind] if kind else sorted(set(names.tolist())))]
        error = math.sqrt(sum(float(group.var(ddof=1)) / len(group) for group in groups)) / len(groups)
        return sum(float(group.mean()) for group in groups) / len(groups), error

    return read


def _claim(name: str, paper: str, place: str, what: str, lineages: tuple[Lineage, ...], read: Read) -> TrainedClaim:
    return TrainedClaim(name, paper, place, None, "direction", what, lineages=lineages, read=read, most=SEEDS)


def _of_maker(maker: Maker) -> tuple[TrainedClaim, ...]:
    (paper, place), called, both = _SETTING[maker], _GENERATORS[maker], (REPLACE[maker], ACCUMULATE[maker])
    return (
        _claim(
            f"digits-{maker}-distance",
            paper,
            place,
            f"{called} of digits, replaced: FID over a classifier of digits ends above accumulated",
            both,
            apart(*both, DISTANCE),
        ),
        _claim(
            f"digits-{maker}-coverage",
            paper,
            place,
            f"{called} of digits, replaced: coverage of real digits ends below accumulated",
            both,
            apart(both[1], both[0], COVERAGE),
        ),
        _claim(
            f"digits-{maker}-drift",
            SHUMAILOV if maker == "vae" else paper,
            "Supplement Fig. 7: VAE, MNIST" if maker == "vae" else place,
            f"{called} of digits, replaced: FID rises from generation 0 to the last",
            both[:1],
            rise(REPLACE[maker], DISTANCE),
        ),
    )


_VAE = (REPLACE["vae"], ACCUMULATE["vae"])
_LOSS_CLAIMS = (
    _claim(
        "digits-vae-loss",
        *_SETTING["vae"],
        "VAE of digits, replaced: loss on real digits (a bound) ends above accumulated",
        _VAE,
        worse(*_VAE),
    ),
    _claim(
        "digits-vae-slowed",
        *_SETTING["vae"],
        "VAE of digits, accumulated: loss on real digits rises all the same",
        _VAE[1:],
        rise(_VAE[1], LOSS),
    ),
)


def _worth(maker: Maker) -> tuple[TrainedClaim, ...]:
    said = f"a classifier learns less from X-rays of a {_GENERATORS[maker]} than from as many copies of real ones: "
    measures = {"": "mean of both classes", "normal": "normal chests", "pneumonia": "pneumonia"}
    return tuple(
        _claim(
            "-".join(filter(None, ("x-rays", maker, kind))),
            PINK,
            "abstract: never beat duplicates",
            said + told,
            (WORTH[maker],),
            copies_over_synthetic(WORTH[maker], kind),
        )
        for kind, told in measures.items()
    )


IMAGE_CLAIMS: tuple[TrainedClaim, ...] = (
    *(claim for maker in PLANS for claim in (*_of_maker(maker), *(_LOSS_CLAIMS if maker == "vae" else ()))),
    *(claim for maker in PLANS for claim in _worth(maker)),
)
