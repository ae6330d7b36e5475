"""What models of images share: weights with a name, and learning from images of known classes.

PyTorch is imported when this module is, and this module when a model is made.
"""

from __future__ import annotations

import copy
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import msgspec
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from outcross.errors import ConfigError, DataError, ModelError, did_you_mean
from outcross.images import class_of, intensities
from outcross.models.tabular import _batches, _rate
from outcross.models.torch_lm import weights_hash
from outcross.stages import FitPlan, Model, Seen
from outcross.train.forward import device_named
from outcross.train.machine import Machine
from outcross.types import Content, Example, Prompt, content_hash

RECORD, _WEIGHTS = "image_model.json", "image_model.safetensors"
LOSSES = ("own", "nll")


@dataclass(frozen=True)
class Canvas:
    """What a model of images knows of them: the names of their classes, and their (height, width)."""

    classes: tuple[str, ...]
    shape: tuple[int, int] = (28, 28)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        object.__setattr__(self, "shape", tuple(self.shape))
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ConfigError(f"classes is {self.classes!r}; name each class once, one at least")
        if len(self.shape) != 2 or min(self.shape) < 4 or any(size % 4 for size in self.shape):
            raise ConfigError(
                f"shape is {self.shape}; allowed are a height and a width that are multiples of 4, because images are halved twice"
            )

    @property
    def pixels(self) -> int:
        return self.shape[0] * self.shape[1]


C = TypeVar("C", bound=Canvas)


@dataclass(frozen=True)
class Images:
    """A batch: pixels (images, 1, height, width) from 0 to 1, the numbers of their classes, and weights, one an image."""

    pixels: Tensor
    labels: Tensor
    weights: Tensor

    def at(self, chosen: Tensor) -> Images:
        return Images(self.pixels[chosen], self.labels[chosen], self.weights[chosen])


class ImageLearner(ABC, Generic[C]):
    """A network over a canvas that learns by Adam (Kingma & Ba, arXiv:1412.6980). Threads may share it: one computes at a time.

    On a CPU with a fixed number of threads equal seeds give equal weights. `client_version` is part of a journal's keys.
    """

    name: ClassVar[str]
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    client_version: ClassVar[str] = "1"

    def __init__(self, canvas: C, machine: Machine = Machine()) -> None:
        if machine.threads is not None:
            torch.set_num_threads(machine.threads)
        self.canvas, self.machine, self._depth = canvas, machine, 0
        self._device = device_named(machine.device)
        self._lock = threading.RLock()
        self._network: Any = None
        self._begin()
        self._hold(self._seeded(0))

    @abstractmethod
    def _built(self) -> nn.Module:
        """The untrained network of this canvas."""

    @abstractmethod
    def _losses(self, network: Any, batch: Images, noise: torch.Generator) -> Tensor:
        """What is learnt by: a number an image. `noise` is on the CPU."""

    # ── Model ──────────────────────────────────────────────────────────────────────────────────────────────────────
    @property
    def id(self) -> str:
        """Content hash of the weights and of what they are about."""
        return self._id

    @property
    def depth(self) -> int:
        return self._depth

    def close(self) -> None:
        """Let go of the weights. Whatever is asked afterwards raises `ModelError`."""
        with self._lock:
            self._network = None

    def count_tokens(self, prompt: Prompt, /) -> int:
        """An image is one token; the text that asks for it is none, so that a floor by tokens is one by images."""
        return 0 if isinstance(prompt, str | tuple) else 1

    def fresh(self, seed: int, /) -> Self:
        """The untrained form, its weights drawn by `seed`."""
        return self._like(self._seeded(seed), 0)

    # ── Trainable ──────────────────────────────────────────────────────────────────────────────────────────────────
    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Self:
        """Learn images of known classes, in memory as float32: `plan` says how long and how fast.

        The loss "own" is the model's own way; rows that are to be imitated ("nll") are learnt by it too, since it has no other. Raises
        `ModelError` for other losses, weights by token, contents that are no images of the canvas, classes that it does not know, and when
        nothing has weight.
        """
        ids, rows, depth = self._read(examples)
        total = math.ceil(round(len(ids) * plan.epochs) / plan.batch)
        learner = self._like(copy.deepcopy(self._open()), max(self.depth, depth))
        network, noise = learner._network, torch.Generator().manual_seed(seed % 2**63)
        network.train()
        optimisers = learner._optimisers(network, plan)
        for step, chosen in enumerate(_batches(len(ids), plan, total, seed)):
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = plan.lr * _rate(step, total, plan)
            learner._teach(network, rows.at(torch.from_numpy(chosen)), optimisers, noise)
            seen(step, [ids[index] for index in chosen.tolist()])
        learner._hold(network)
        return learner

    def _optimisers(self, network: Any, plan: FitPlan) -> Sequence[torch.optim.Optimizer]:
        return (self._adam(network.parameters(), plan),)

    def _adam(self, parameters: Iterable[Tensor], plan: FitPlan) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=plan.lr, betas=self.betas, weight_decay=plan.weight_decay)

    def _teach(self, network: Any, batch: Images, optimisers: Sequence[torch.optim.Optimizer], noise: torch.Generator) -> None:
        loss = (self._losses(network, batch, noise) * batch.weights).mean()
        optimisers[0].zero_grad()
        loss.backward()
        optimisers[0].step()

    def _read(self, examples: Iterable[Example]) -> tuple[list[str], Images, int]:
        ids: list[str] = []
        pixels: list[Any] = []
        labels: list[int] = []
        weights: list[float] = []
        depth = 0
        for example in examples:
            if example.loss.name not in LOSSES or isinstance(example.weight, tuple):
                raise ModelError(
                    f"{self.name} learns images with one weight by the loss 'own', not {example.loss.name!r} (example {example.id})"
                )
            ids.append(example.id)
            pixels.append(self._pixels(example.completion, f"example {example.id}"))
            labels.append(self._label(class_of(example.prompt), f"example {example.id}"))
            weights.append(example.weight)
            depth = max(depth, example.origin.depth)
        if not sum(map(abs, weights)) > 0:
            raise ModelError(f"{self.name} was given no image of positive weight to fit; it needs at least one")
        images = torch.from_numpy(np.stack(pixels))[:, None].to(self._device)
        return ids, Images(images, torch.tensor(labels).to(self._device), torch.tensor(weights).to(self._device)), depth

    def _pixels(self, content: Content, what: str) -> np.ndarray[Any, np.dtype[np.float32]]:
        try:
            found = intensities(content)
        except DataError as error:
            raise ModelError(f"{self.name}, {what}: {error}") from None
        if found.shape != self.canvas.shape:
            raise ModelError(f"{self.name}, {what}: the image has the shape {found.shape}, and the model's is {self.canvas.shape}")
        return found.astype(np.float32)

    def _label(self, kind: str, what: str) -> int:
        if kind not in self.canvas.classes:
            raise ModelError(f"{self.name}, {what}: no class is called {kind!r}; {did_you_mean(kind, self.canvas.classes)}")
        return self.canvas.classes.index(kind)

    # ── keeping ────────────────────────────────────────────────────────────────────────────────────────────────────
    def save(self, folder: Path, /) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        record = {"model": self.name, "depth": self.depth, "canvas": asdict(self.canvas)}
        (folder / RECORD).write_bytes(msgspec.json.encode(record))
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self._open().state_dict().items()}, folder / _WEIGHTS)

    def load(self, folder: Path, /) -> Self:
        """Raises `ModelError` when `folder` holds no model of this kind."""
        try:
            record = msgspec.json.decode((folder / RECORD).read_bytes())
            if record["model"] != self.name:
                raise ValueError(f"it holds a model of the kind {record['model']}")
            made = type(self)(msgspec.convert(record["canvas"], type(self.canvas)), self.machine)
            network = made._built()
            network.load_state_dict(load_file(folder / _WEIGHTS))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, msgspec.DecodeError) as error:
            raise ModelError(f"{folder} holds no {self.name} ({error}); point at a folder that `save` wrote") from None
        return made._like(network, int(record["depth"]))

    def _like(self, network: nn.Module, depth: int) -> Self:
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._lock, made._depth = threading.RLock(), depth
        made._begin()
        made._hold(network)
        return made

    def _begin(self) -> None:
        """Whatever else two models may not share."""

    def _hold(self, network: nn.Module) -> None:
        self._network = network.eval().to(self._device)
        self._id = f"{self.name}:{weights_hash(self._network, content_hash(self.name, asdict(self.canvas)).encode())}"

    def _seeded(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed % 2**63)
            return self._built()

    def _open(self) -> Any:
        if self._network is None:
            raise ModelError("this model was closed; load it again to use it")
        return self._network
