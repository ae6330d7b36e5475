"""Curves of the image lineages, read from their records: a probe by generation, replaced and accumulated."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from outcross.lab.curves import Curve, Line
from outcross.reproduce.lineage import courses, finished
from outcross.reproduce.picture_claims import SEEDS
from outcross.reproduce.pictures import ACCUMULATE, PLANS, REPLACE, Maker
from outcross.reproduce.text_curves import _banded

_TITLES = {"vae": "VAE of digits", "gan": "GAN of digits", "diffusion": "Diffusion model of digits"}
_PROBES = {
    "frechet_distance": ("Distance from real ones", "FID over a classifier of digits; lower is better"),
    "coverage": ("Coverage", "Share of real digits with a drawn one near, less what real ones reach; higher is better"),
    "real_loss": ("Loss on real ones", "Bound on it, in nats per pixel; lower is better"),
}


def pictures_of(seeds: Sequence[Path], lineages: Collection[str]) -> list[Curve]:
    """The pictures of those image lineages that each of the first seeds has finished."""
    found = []
    for maker in PLANS:
        shown = {
            name: one
            for name, one in (("replace", REPLACE[maker]), ("accumulate", ACCUMULATE[maker]))
            if one.name in lineages and seeds and all(finished(folder / one.name) for folder in seeds[:SEEDS])
        }
        lived = {name: [courses(folder / one.name) for folder in seeds[:SEEDS]] for name, one in shown.items()}
        for probe in _PROBES:
            lines = tuple(_banded(name, [seed[probe] for seed in each]) for name, each in lived.items() if probe in each[0])
            if lines:
                found.append(_curve(maker, probe, lines))
    return found


def _curve(maker: Maker, probe: str, lines: tuple[Line, ...]) -> Curve:
    title, about = _PROBES[probe]
    names = tuple(map(str, range(len(lines[0].values))))
    about = f"{about}. Generation 0 learnt from real images."
    return Curve(f"digits-{maker}-{probe}", f"{_TITLES[maker]}: {title.lower()}", about, (f"digits-{maker}",), names, lines)
