"""A classifier of images that is taught on the spot: a judge of what an image shows, and a domain's own encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from outcross.errors import ModelError
from outcross.models.image_learner import Canvas, ImageLearner, Images
from outcross.models.local import Pending, answer, refusal, tempered
from outcross.stages import Trainable
from outcross.train.machine import Machine
from outcross.types import Array, Content, Request, Response

WINDOW = 256  # images looked at together


@dataclass(frozen=True)
class FeatureCanvas(Canvas):
    """width: channels of the second layer, of which the first has half; features: numbers that an image is described by."""

    width: int = 32
    features: int = 64


class ImageClassifier(ImageLearner[FeatureCanvas]):
    """Two convolutions, a layer of features and one of classes, by cross-entropy.

    The prompt of a request is the image: it answers with the log-probability of each of the request's `choices`, or draws the name of a class. `embed`
    gives the features before the last layer, which describe images in the terms of their domain: those of Inception mislead on X-rays.
    """

    name: ClassVar[str] = "image_classifier"

    def _built(self) -> nn.Module:
        canvas = self.canvas
        flat = canvas.width * canvas.pixels // 16
        features = nn.Sequential(
            nn.Conv2d(1, canvas.width // 2, 3, 2, 1), nn.ReLU(), nn.Conv2d(canvas.width // 2, canvas.width, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(flat, canvas.features), nn.ReLU(),
        )  # fmt: skip
        return nn.ModuleDict({"features": features, "classes": nn.Linear(canvas.features, len(canvas.classes))})

    def _losses(self, network: Any, batch: Images, noise: torch.Generator) -> Tensor:
        return functional.cross_entropy(network["classes"](network["features"](batch.pixels * 2 - 1)), batch.labels, reduction="none")

    def _begin(self) -> None:
        self._pending = Pending()

    def submit(self, request: Request, /) -> Future[Response]:
        return self._pending.add(request)

    def flush(self) -> None:
        able = []
        for request, future in self._pending.take():
            if why := self._refused(request):
                future.set_result(Response(error=why))
            else:
                able.append((request, future))
        for start in range(0, len(able), WINDOW):
            part = able[start : start + WINDOW]
            rows = self._outputs([request.prompt for request, _ in part if isinstance(request.prompt, Array)], "classes")
            for (request, future), row in zip(part, rows, strict=True):
                future.set_result(answer(request, self.canvas.classes, row, tempered(row, request.sampling)))

    def _refused(self, request: Request) -> str:
        if not isinstance(request.prompt, Array):
            return f"{self.name} looks at images; the prompt is text"
        try:
            self._pixels(request.prompt, "a prompt")
        except ModelError as error:
            return str(error)
        return refusal(request, self.name)

    def embed(self, texts: Iterable[Content], /) -> Iterator[Sequence[float]]:
        """The features of each image, in order. Raises `ModelError` for what is no image of the canvas."""
        iterator = iter(texts)
        while window := list(islice(iterator, WINDOW)):
            yield from self._outputs(window, "features").tolist()

    def _outputs(self, contents: Sequence[Content], what: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Features, or log-probabilities of classes, one row an image."""
        pixels = torch.from_numpy(np.stack([self._pixels(content, "an image") for content in contents]))[:, None].to(self._device)
        with self._lock, torch.inference_mode():
            network = self._open()
            features = network["features"](pixels * 2 - 1)
            found = features if what == "features" else network["classes"](features).log_softmax(1)
        rows: np.ndarray[Any, np.dtype[np.float64]] = found.double().cpu().numpy()
        return rows


def image_classifier(
    classes: Sequence[str], *, shape: Sequence[int] = (28, 28), width: int = 32, features: int = 64, machine: Machine = Machine()
) -> Trainable:
    """An untrained `ImageClassifier` of images of `shape` (height, width), and of these classes; teach it with `taught`, or let a probe do so."""
    height, breadth = shape
    return ImageClassifier(FeatureCanvas(tuple(classes), (height, breadth), width, features), machine)
