"""What models that draw images share: answering requests by a class, each with random numbers of its own."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from outcross.errors import did_you_mean
from outcross.images import class_of, to_bytes
from outcross.models.image_learner import C, ImageLearner
from outcross.models.local import Pending, refusal
from outcross.types import Completion, Request, Response, Usage

CHUNK = 64  # images drawn at once, and never fewer: a last chunk is filled up, so that an image does not depend on what it is drawn with


class ImageMaker(ImageLearner[C]):
    """A model that draws an image of 256 levels of the class that a prompt asks for.

    An image depends on its request's seed, its own number and the weights alone, up to rounding by less than a level. The temperature scales
    the standard deviation of all noise: below 1 images are nearer to the typical one of their class, and 0 always gives the same.
    """

    @abstractmethod
    def _noise_shape(self) -> tuple[int, ...]:
        """Normal random numbers that one image takes."""

    @abstractmethod
    def _drawn(self, network: Any, noise: Tensor, labels: Tensor) -> Tensor:
        """Images (n, 1, height, width), about 0 to 1, from noise (n, *noise shape) and classes."""

    def _begin(self) -> None:
        self._pending = Pending()

    def submit(self, request: Request, /) -> Future[Response]:
        """Take a request of this thread; it is answered at this thread's next `flush`, or refused with the reason as the response's error."""
        return self._pending.add(request)

    def flush(self) -> None:
        pending = self._pending.take()
        able = [(request, future) for request, future in pending if not self._refused(request)]
        for request, future in pending:
            if why := self._refused(request):
                future.set_result(Response(error=why))
        images = iter(self._images([request for request, _ in able]))
        for request, future in able:
            made = tuple(Completion(to_bytes(next(images))) for _ in range(request.n))
            future.set_result(Response(made, Usage(0, request.n)))

    def _refused(self, request: Request) -> str:
        if why := refusal(request, self.name):
            return why
        if request.choices or request.sampling.top_p < 1 or request.sampling.top_k:
            return f"{self.name} draws images; choices, top_p and top_k mean nothing to it: leave them out"
        kind = class_of(request.prompt)
        return "" if kind in self.canvas.classes else f"{self.name} draws no class {kind!r}; {did_you_mean(kind, self.canvas.classes)}"

    def _images(self, requests: list[Request]) -> list[Any]:
        wanted = [(request, index) for request in requests for index in range(request.n)]
        found: list[Any] = []
        for start in range(0, len(wanted), CHUNK):
            part = wanted[start : start + CHUNK]
            noise = np.zeros((CHUNK, *self._noise_shape()), dtype=np.float32)
            labels = np.zeros(CHUNK, dtype=np.int64)
            for place, (request, index) in enumerate(part):
                noise[place] = normals(request.seed, index, self._noise_shape()) * request.sampling.temperature
                labels[place] = self.canvas.classes.index(class_of(request.prompt))
            with self._lock, torch.inference_mode():
                drawn = self._drawn(self._open(), torch.from_numpy(noise).to(self._device), torch.from_numpy(labels).to(self._device))
            found += list(drawn[: len(part), 0].double().cpu().numpy())
        return found


def normals(seed: int, index: int, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Standard normal numbers that depend on `seed` and `index` alone (Philox, a counter-based generator)."""
    key = np.array([seed & (2**64 - 1), index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, dtype=np.float32)
