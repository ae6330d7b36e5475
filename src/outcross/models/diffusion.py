"""A denoising diffusion model of images, conditioned on the class (Ho et al., arXiv:2006.11239)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from outcross.models.image_learner import Canvas, Images
from outcross.models.image_maker import ImageMaker
from outcross.stages import Trainable
from outcross.train.machine import Machine

STEPS = 1000  # of the noising process
FEATURES = 32  # of the time


@dataclass(frozen=True)
class NoiseCanvas(Canvas):
    """width: channels at half the image's size, of which its quarter has twice as many; steps: from noise to an image."""

    width: int = 32
    steps: int = 40


class _Block(nn.Module):  # type: ignore[misc]
    """Two convolutions around what is known of time and class, and a way past them."""

    def __init__(self, inward: int, outward: int, known: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(inward, outward, 3, 1, 1), nn.Conv2d(outward, outward, 3, 1, 1)
        self.norms = nn.ModuleList([nn.GroupNorm(4, inward), nn.GroupNorm(4, outward)])
        self.known, self.past = nn.Linear(known, outward), nn.Conv2d(inward, outward, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, images: Tensor, known: Tensor) -> Tensor:
        inner = self.first(functional.silu(self.norms[0](images))) + self.known(known)[:, :, None, None]
        return self.past(images) + self.second(functional.silu(self.norms[1](inner)))


class _Denoiser(nn.Module):  # type: ignore[misc]
    """A small U-Net over squares of two by two pixels: one level at half, one at a quarter of the image's size."""

    def __init__(self, kinds: int, width: int) -> None:
        super().__init__()
        known = 4 * width
        self.time = nn.Sequential(nn.Linear(FEATURES, known), nn.SiLU(), nn.Linear(known, known))
        self.of_class = nn.Embedding(kinds, known)
        self.begin, self.end = nn.Conv2d(4, width, 3, 1, 1), nn.Conv2d(width, 4, 3, 1, 1)
        self.down, self.lower = _Block(width, width, known), nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.middle, self.raised = _Block(2 * width, 2 * width, known), nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.up = _Block(2 * width, width, known)

    def forward(self, images: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        rates = torch.exp(torch.linspace(0, math.log(STEPS), FEATURES // 2, device=images.device))
        angles = times[:, None] * rates
        known = functional.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)) + self.of_class(labels))
        wide = self.down(self.begin(functional.pixel_unshuffle(images, 2)), known)
        deep = self.middle(self.lower(wide), known)
        raised = self.raised(deep)[:, :, : wide.shape[2], : wide.shape[3]]
        return functional.pixel_shuffle(self.end(self.up(torch.cat([wide, raised], 1), known)), 2)


class Diffusion(ImageMaker[NoiseCanvas]):
    """A U-Net that predicts the noise in a noised image (equation 14 there), under the cosine schedule (Nichol & Dhariwal, arXiv:2102.09672,
    equation 17), conditioned on time and class.

    Images are drawn by the posterior of every 25th of the 1,000 steps (Song et al., arXiv:2010.02502, equation 12, with η = 1, which is Ho et al.'s
    equation 7 when no step is left out), with the predicted image cut to its range. Without guidance: λ = 1 in the terms of MAD (arXiv:2307.01850).
    """

    name: ClassVar[str] = "diffusion"

    def _built(self) -> nn.Module:
        return _Denoiser(len(self.canvas.classes), self.canvas.width)

    def _losses(self, network: Any, batch: Images, noise: torch.Generator) -> Tensor:
        times = torch.rand(len(batch.labels), generator=noise).to(batch.pixels.device)
        added = torch.randn(batch.pixels.shape, generator=noise).to(batch.pixels.device)
        kept = kept_signal(times)[:, None, None, None]
        noised = kept.sqrt() * (batch.pixels * 2 - 1) + (1 - kept).sqrt() * added
        return ((network(noised, times, batch.labels) - added) ** 2).mean((1, 2, 3))

    def _noise_shape(self) -> tuple[int, ...]:
        return (self.canvas.steps, *self.canvas.shape)

    def _drawn(self, network: Any, noise: Tensor, labels: Tensor) -> Tensor:
        times = torch.linspace(1, 0, self.canvas.steps + 1, device=noise.device)
        image = noise[:, :1]
        for step in range(self.canvas.steps):
            kept, later = kept_signal(times[step]), kept_signal(times[step + 1])
            predicted = network(image, times[step].expand(len(labels)), labels)
            clean = ((image - (1 - kept).sqrt() * predicted) / kept.sqrt()).clamp(-1, 1)
            image = posterior_mean(image, clean, kept, later)
            if step + 1 < self.canvas.steps:
                image = image + posterior_variance(kept, later).sqrt() * noise[:, step + 1 : step + 2]
        return (image + 1) / 2


def kept_signal(times: Tensor) -> Tensor:
    """ᾱ at times from 0 to 1: the share of variance that is still the image's (Nichol & Dhariwal, equation 17), at least 10⁻⁴."""
    offset = 0.008
    start = math.cos(offset / (1 + offset) * math.pi / 2) ** 2
    return (torch.cos((times + offset) / (1 + offset) * math.pi / 2) ** 2 / start).clamp(1e-4, 1.0)


def posterior_variance(kept: Tensor, later: Tensor) -> Tensor:
    """β̃ of the step from ᾱ = `kept` to the less noisy ᾱ = `later` (Ho et al., equation 7)."""
    return (1 - later) / (1 - kept) * (1 - kept / later)


def posterior_mean(image: Tensor, clean: Tensor, kept: Tensor, later: Tensor) -> Tensor:
    """μ̃ of the same step, given the noised and the clean image (Ho et al., equation 7)."""
    step = kept / later
    return later.sqrt() * (1 - step) / (1 - kept) * clean + step.sqrt() * (1 - later) / (1 - kept) * image


def diffusion(
    classes: Sequence[str], *, shape: Sequence[int] = (28, 28), width: int = 32, steps: int = 40, machine: Machine = Machine()
) -> Trainable:
    """An untrained `Diffusion` of images of `shape` (height, width), and of these classes. `width` is a multiple of 4."""
    height, breadth = shape
    return Diffusion(NoiseCanvas(tuple(classes), (height, breadth), width, steps), machine)
