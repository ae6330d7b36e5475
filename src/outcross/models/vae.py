"""A variational autoencoder of images, conditioned on the class (Kingma & Welling, arXiv:1312.6114; Sohn et al., NeurIPS 2015)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from outcross.images import class_of
from outcross.models.image_learner import Canvas, Images
from outcross.models.image_maker import ImageMaker
from outcross.stages import Trainable
from outcross.train.machine import Machine
from outcross.types import Turn

LEVELS = 255
DRAWS = 16  # of the latent variable, for the bound on the likelihood
WINDOW = 256  # images scored at once


@dataclass(frozen=True)
class LatentCanvas(Canvas):
    """latent: numbers that an image is coded by; width: of the hidden layers."""

    latent: int = 4
    width: int = 400


class VariationalAutoencoder(ImageMaker[LatentCanvas]):
    """Two perceptrons of one hidden layer: image and class to a normal law of the code, and code and class to a logistic law of each pixel.

    It learns by the evidence lower bound (equation 3 there). Pixels have 256 levels, and the probability of one is the mass of the logistic law
    between its edges (Kingma et al., arXiv:1606.04934), with one scale for each place of the image. An image is drawn as the decoder's mean, as
    is usual, and not with the pixels' noise: a blur that each generation that learns from such images passes on.

    It also offers `log_probs`: the importance-weighted bound (Burda et al., arXiv:1509.00519, equation 8) with 16 draws of the code, over the number
    of pixels: one number an image, in nats per pixel.
    """

    name: ClassVar[str] = "vae"

    def _built(self) -> nn.Module:
        canvas, kinds = self.canvas, len(self.canvas.classes)
        network = nn.ModuleDict(
            {
                "encoder": nn.Sequential(
                    nn.Linear(canvas.pixels + kinds, canvas.width), nn.ReLU(), nn.Linear(canvas.width, 2 * canvas.latent)
                ),
                "decoder": nn.Sequential(nn.Linear(canvas.latent + kinds, canvas.width), nn.ReLU(), nn.Linear(canvas.width, canvas.pixels)),
            }
        )
        network.register_parameter("log_scale", nn.Parameter(torch.full((canvas.pixels,), math.log(0.1))))
        return network

    def _losses(self, network: Any, batch: Images, noise: torch.Generator) -> Tensor:
        flat, kinds = batch.pixels.flatten(1), self._one_hot(batch.labels)
        mean, log_variance = self._coded(network, flat, kinds)
        draw = torch.randn(mean.shape, generator=noise).to(mean.device)
        code = mean + draw * (log_variance / 2).exp()
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return (divergence - self._likelihood(network, flat, code, kinds)) / self.canvas.pixels

    def _noise_shape(self) -> tuple[int, ...]:
        return (self.canvas.latent,)

    def _drawn(self, network: Any, noise: Tensor, labels: Tensor) -> Tensor:
        return self._decoded(network, noise, self._one_hot(labels)).reshape(-1, 1, *self.canvas.shape)

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """One number per turn: a lower bound on the log-probability of the image given its class, over the number of pixels, in nats. The draws
        are the same for every image and model. Raises `ModelError` for what is no image of the canvas, or of no known class."""
        iterator = iter(turns)
        while window := list(islice(iterator, WINDOW)):
            pixels = torch.stack([torch.from_numpy(self._pixels(turn.completion.content, "a turn")) for turn in window])
            labels = torch.tensor([self._label(class_of(turn.prompt), "a turn") for turn in window])
            with self._lock, torch.inference_mode():
                found = self._bound(self._open(), pixels.flatten(1).to(self._device), self._one_hot(labels.to(self._device)))
            yield from ((value,) for value in found.double().cpu().tolist())

    def _bound(self, network: Any, flat: Tensor, kinds: Tensor) -> Tensor:
        mean, log_variance = self._coded(network, flat, kinds)
        draws = torch.randn((DRAWS, 1, self.canvas.latent), generator=torch.Generator().manual_seed(0)).to(flat.device)
        weights = []
        for draw in draws:
            code = mean + draw * (log_variance / 2).exp()
            prior_over_posterior = ((draw**2 + log_variance - code**2) / 2).sum(1)
            weights.append(self._likelihood(network, flat, code, kinds) + prior_over_posterior)
        return (torch.stack(weights).logsumexp(0) - math.log(DRAWS)) / self.canvas.pixels

    def _one_hot(self, labels: Tensor) -> Tensor:
        return functional.one_hot(labels, len(self.canvas.classes)).float()

    def _coded(self, network: Any, flat: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = network["encoder"](torch.cat([flat * 2 - 1, kinds], 1)).chunk(2, 1)
        return mean, log_variance

    def _decoded(self, network: Any, code: Tensor, kinds: Tensor) -> Tensor:
        return network["decoder"](torch.cat([code, kinds], 1)) + 0.5

    def _likelihood(self, network: Any, flat: Tensor, code: Tensor, kinds: Tensor) -> Tensor:
        scale = network.log_scale.clamp(-7, 1).exp()
        return level_log_probs(flat, self._decoded(network, code, kinds), scale).sum(1)


def level_log_probs(pixels: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """The log-probability of each pixel's level, one of 256 from 0 to 1, under a logistic law cut into levels; the first and the last have the
    tails. log(σ(a) − σ(b)) = log σ(a) + log σ(−b) + log(1 − exp(b − a)) loses no digits."""
    half = 0.5 / LEVELS
    upper, lower = (pixels + half - mean) / scale, (pixels - half - mean) / scale
    below, above = functional.logsigmoid(upper), functional.logsigmoid(-lower)
    inside = below + above + torch.log(-torch.expm1(-2 * half / scale))
    return torch.where(pixels < half, below, torch.where(pixels > 1 - half, above, inside))


def vae(
    classes: Sequence[str], *, shape: Sequence[int] = (28, 28), latent: int = 4, width: int = 400, machine: Machine = Machine()
) -> Trainable:
    """An untrained `VariationalAutoencoder` of images of `shape` (height, width), and of these classes."""
    height, breadth = shape
    return VariationalAutoencoder(LatentCanvas(tuple(classes), (height, breadth), latent, width), machine)
