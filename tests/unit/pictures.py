"""Images of two classes made on the spot: a bar across and a bar down, 8×8, each at a place and of a brightness of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from outcross.images import asking, packed
from outcross.stages import Completes
from outcross.types import Content, Example, Loss, Origin, Request, Response

KINDS = ("across", "down")
SHAPE = (8, 8)
ORIGIN = Origin("real", "attested", "bars", note="the test's author")


def bar(kind: str, place: int, level: int = 255) -> npt.NDArray[np.uint8]:
    """A bar two pixels wide from `place`."""
    pixels = np.zeros(SHAPE, dtype=np.uint8)
    pixels[place : place + 2, :] = level
    return pixels if kind == "across" else pixels.T.copy()


def bars(count: int, seed: int = 0, places: tuple[int, ...] = (0, 2, 4, 6)) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Both classes in turn, with a little noise."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        pixels = bar(KINDS[index % 2], int(rng.choice(places)), int(rng.integers(180, 256)))
        found.append((KINDS[index % 2], np.maximum(pixels, rng.integers(0, 12, SHAPE)).astype(np.uint8)))
    return found


def rows(count: int, seed: int = 0, what: str = "real", places: tuple[int, ...] = (0, 2, 4, 6), origin: Origin = ORIGIN) -> list[Example]:
    """Bars as real examples."""
    return [
        Example(f"{what}-{seed}-{index}", asking(kind, f"{what} {index}"), packed(pixels), Loss("own"), origin=origin, subgroup=kind)
        for index, (kind, pixels) in enumerate(bars(count, seed, places))
    ]


def archive(path: Path, count: int = 60, seed: int = 0, keys: tuple[str, str] = ("{part}_images", "{part}_labels")) -> Path:
    """An .npz file with a train and a test part."""
    arrays = {}
    for number, part in enumerate(("train", "test")):
        made = bars(count, seed + number)
        arrays[keys[0].format(part=part)] = np.stack([pixels for _, pixels in made])
        arrays[keys[1].format(part=part)] = np.array([KINDS.index(kind) for kind, _ in made], dtype=np.uint8)[:, None]
    np.savez(path, **arrays)
    return path


def ask(model: Completes, *requests: Request) -> list[Response]:
    futures = [model.submit(request) for request in requests]
    model.flush()
    return [future.result(timeout=0) for future in futures]


def drawn(model: Completes, kind: str, count: int, seed: int = 0) -> list[Content]:
    (response,) = ask(model, Request(asking(kind, "drawn"), count, seed=seed))
    assert not response.error, response.error
    return [completion.content for completion in response.completions]


def ignore(step: int, ids: object) -> None:
    pass
