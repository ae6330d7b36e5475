"""A generative adversarial network of images, conditioned on the class (Goodfellow et al., arXiv:1406.2661)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from outcross.models.image_learner import Canvas, Images
from outcross.models.image_maker import ImageMaker
from outcross.stages import FitPlan, Trainable
from outcross.train.machine import Machine


@dataclass(frozen=True)
class RivalCanvas(Canvas):
    """latent: numbers that an image is made of; width: channels of the widest layer, of which the others have halves and quarters."""

    latent: int = 64
    width: int = 64


class _Critic(nn.Module):  # type: ignore[misc]
    """Spectrally normalised convolutions, and a projection of the features on the class (Miyato & Koyama, arXiv:1802.05637, equation 3)."""

    def __init__(self, kinds: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for size in (width // 2, width):  # each halves the image
            layers += [spectral_norm(nn.Conv2d(channels, size, 4, 2, 1)), nn.LeakyReLU(0.1)]
            channels = size
        layers += [spectral_norm(nn.Conv2d(channels, channels, 3, 1, 1)), nn.LeakyReLU(0.1)]
        self.features = nn.Sequential(*layers)
        self.real = spectral_norm(nn.Linear(channels, 1))
        self.of_class = spectral_norm(nn.Embedding(kinds, channels))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        features = self.features(images * 2 - 1).sum((2, 3))
        return self.real(features)[:, 0] + (self.of_class(labels) * features).sum(1)


class GenerativeAdversarial(ImageMaker[RivalCanvas]):
    """A generator of two upsampling convolutions against a critic with spectral normalisation, under the hinge loss (Miyato et al.,
    arXiv:1802.05957, equations 16 and 17): one step of the critic, then one of the generator, by each batch.

    It gives no likelihood: a probe of fit is its Fréchet distance (`evaluate/fid`).
    """

    name: ClassVar[str] = "gan"
    betas: ClassVar[tuple[float, float]] = (0.0, 0.9)

    def _built(self) -> nn.Module:
        width, (height, breadth) = self.canvas.width, self.canvas.shape
        first = (width, height // 4, breadth // 4)
        maker = nn.Sequential(
            nn.Linear(self.canvas.latent + len(self.canvas.classes), first[0] * first[1] * first[2]),
            nn.Unflatten(1, first),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width // 2, 4, 2, 1),
            nn.BatchNorm2d(width // 2),
            nn.ReLU(),
            nn.ConvTranspose2d(width // 2, width // 4, 4, 2, 1),
            nn.BatchNorm2d(width // 4),
            nn.ReLU(),
            nn.Conv2d(width // 4, 1, 3, 1, 1),
            nn.Sigmoid(),
        )
        return nn.ModuleDict({"maker": maker, "critic": _Critic(len(self.canvas.classes), width)})

    def _optimisers(self, network: Any, plan: FitPlan) -> Sequence[torch.optim.Optimizer]:
        return self._adam(network["critic"].parameters(), plan), self._adam(network["maker"].parameters(), plan)

    def _teach(self, network: Any, batch: Images, optimisers: Sequence[torch.optim.Optimizer], noise: torch.Generator) -> None:
        for optimiser, losses in zip(optimisers, (self._critics_losses, self._losses), strict=True):
            optimiser.zero_grad()
            (losses(network, batch, noise) * batch.weights).mean().backward()
            optimiser.step()

    def _critics_losses(self, network: Any, batch: Images, noise: torch.Generator) -> Tensor:
        with torch.no_grad():
            made = self._made(network, batch, noise)
        critic = network["critic"]
        return torch.relu(1 - critic(batch.pixels, batch.labels)) + torch.relu(1 + critic(made, batch.labels))

    def _losses(self, network: Any, batch: Images, noise: torch.Generator) -> Tensor:
        return -network["critic"](self._made(network, batch, noise), batch.labels)

    def _made(self, network: Any, batch: Images, noise: torch.Generator) -> Tensor:
        drawn = torch.randn((len(batch.labels), self.canvas.latent), generator=noise).to(batch.pixels.device)
        return self._drawn(network, drawn, batch.labels)

    def _noise_shape(self) -> tuple[int, ...]:
        return (self.canvas.latent,)

    def _drawn(self, network: Any, noise: Tensor, labels: Tensor) -> Tensor:
        kinds = nn.functional.one_hot(labels, len(self.canvas.classes)).float()
        return network["maker"](torch.cat([noise, kinds], 1))


def gan(
    classes: Sequence[str], *, shape: Sequence[int] = (28, 28), latent: int = 64, width: int = 64, machine: Machine = Machine()
) -> Trainable:
    """An untrained `GenerativeAdversarial` of images of `shape` (height, width), and of these classes. `width` is a multiple of 4."""
    height, breadth = shape
    return GenerativeAdversarial(RivalCanvas(tuple(classes), (height, breadth), latent, width), machine)
