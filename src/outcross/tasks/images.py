"""Images of known classes from NumPy archives: as real examples, and as tasks that ask for such images."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from outcross.errors import ConfigError, DataError
from outcross.images import asking, packed
from outcross.tasks.rows import content_digest
from outcross.types import Array, Example, Loss, Origin, Task, content_hash, example_id

Part = Literal["train", "val", "test"]
Ints = npt.NDArray[np.int64]
OWN = Loss("own")
_KEYS = (("x_{part}", "y_{part}"), ("{part}_images", "{part}_labels"), ("images", "labels"))


@dataclass(frozen=True)
class ImageFile:
    """Images of one part of an archive in a fixed random order.

    path: an .npz file, or a folder with one. Known are the keys x_train and y_train, train_images and train_labels (as in MedMNIST; likewise val
        and test), and plain images and labels, which are of the part "train". Images are (count, height, width), labels whole numbers.
    part: "train", "val" or "test", as the file divides them. classes: the names of the labels 0, 1, …; empty: the numbers themselves.
    only: the classes that are taken; empty: all. per_class: at most so many of each.
    offset, limit: which of the images left, counted from 0 in an order that `order` draws, so that disjoint ranges are disjoint sets.
    """

    path: Path
    part: Part = "train"
    classes: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    per_class: int | None = None
    offset: int = 0
    limit: int | None = None
    order: int = 0

    def __post_init__(self) -> None:
        if self.part not in ("train", "val", "test"):
            raise ConfigError(f"images: part is {self.part!r}; allowed: train, val, test")
        if self.offset < 0 or any(size is not None and size < 1 for size in (self.limit, self.per_class)):
            raise ConfigError(
                f"images: offset={self.offset}, limit={self.limit}, per_class={self.per_class}; allowed are an offset of 0 or more, and limits of 1 or more"
            )

    def identity(self) -> object:
        """What is read, not where it lies: the hash of the content with the settings."""
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "path"}
        return {"content": content_digest(self._file), **settings}

    @property
    def _file(self) -> Path:
        path = Path(self.path)
        if not path.is_dir():
            return path
        found = sorted(path.glob("*.npz"))
        if len(found) != 1:
            raise DataError(f"{path} holds {len(found)} .npz files ({', '.join(item.name for item in found)}); name the one that is meant")
        return found[0]

    @cached_property
    def _source(self) -> str:
        return f"{self._file.name}@blake2b:{content_digest(self._file)[:32]}"

    def _chosen(self) -> Iterator[tuple[int, str, Array]]:
        """Number in the file, class and pixels of each image. Raises `DataError` when none is left."""
        pixels, labels = self._arrays()
        names = self._names(labels)
        taken: dict[str, int] = {}
        left = []
        for number in np.random.RandomState(self.order).permutation(len(labels)).tolist():
            name = names[int(labels[number])]
            taken[name] = taken.get(name, 0) + 1
            if (not self.only or name in self.only) and (self.per_class is None or taken[name] <= self.per_class):
                left.append((number, name))
        stop = None if self.limit is None else self.offset + self.limit
        chosen = left[self.offset : stop]
        if not chosen:
            raise DataError(
                f"{self._file.name}: no image is left by part={self.part}, only={self.only}, offset={self.offset}; {len(left):,} come before the offset"
            )
        return ((number, name, packed(pixels[number])) for number, name in chosen)

    def _names(self, labels: Ints) -> Mapping[int, str]:
        found = sorted(set(labels.tolist()))
        if self.classes and not 0 <= found[0] <= found[-1] < len(self.classes):
            raise DataError(
                f"{self._file.name} has labels up to {found[-1]}, and classes names {len(self.classes)}; name the labels 0 to {found[-1]}"
            )
        names = {label: self.classes[label] if self.classes else str(label) for label in found}
        if unknown := set(self.only) - set(names.values()):
            raise ConfigError(f"images: only names {sorted(unknown)}, and the classes of {self._file.name} are {', '.join(names.values())}")
        return names

    def _arrays(self) -> tuple[npt.NDArray[Any], Ints]:
        file = self._file
        content_digest(file)  # raises where there is no such file
        try:
            with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:  # numpy leaves a broken file open
                for image_key, label_key in ((a.format(part=self.part), b.format(part=self.part)) for a, b in _KEYS):
                    if image_key in archive.files and label_key in archive.files and (image_key != "images" or self.part == "train"):
                        return self._checked(archive[image_key], archive[label_key])
                keys = ", ".join(archive.files)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{file.name} cannot be read as an .npz archive: {error}") from None
        raise DataError(
            f"{file.name} has the keys {keys}; the part {self.part!r} needs x_{self.part} and y_{self.part}, or *_images and *_labels"
        )

    def _checked(self, pixels: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Ints]:
        flat = labels.reshape(len(labels), -1)
        if (
            pixels.ndim != 3
            or pixels.dtype.kind not in "uif"
            or len(pixels) != len(labels)
            or flat.shape[1] != 1
            or labels.dtype.kind not in "ui"
        ):
            raise DataError(
                f"{self._file.name}: {self.part} has images {pixels.dtype} {pixels.shape} and labels {labels.dtype} {labels.shape}; needed are "
                "(count, height, width) and as many whole numbers"
            )
        return pixels, flat[:, 0].astype(np.int64)


@dataclass(frozen=True)
class RealImages(ImageFile):
    """Real images as examples under the loss "own", with the class as subgroup and a prompt that asks for it.

    attested: who vouches that these are real images, and when they were taken; may name the licence. Without it they are of unknown origin
        and do not count as real.
    """

    attested: str = ""

    def __iter__(self) -> Iterator[Example]:
        origin = Origin("real", "attested", self._source, note=self.attested) if self.attested else Origin("unknown", "none", self._source)
        for number, name, image in self._chosen():
            prompt = asking(name, f"real {self.part} {number}")
            yield Example(example_id(prompt, image, OWN, origin), prompt, image, OWN, origin=origin, subgroup=name)


@dataclass(frozen=True)
class ImageTasks(ImageFile):
    """A task for each image of an archive: to draw one of its class. The classes are as frequent as among the images, of which nothing else
    is told; `part` and number stand in the prompt, so that held-out tasks can be told from others."""

    def __iter__(self) -> Iterator[Task]:
        for number, name, _ in self._chosen():
            prompt = asking(name, f"{self.part} {number}")
            yield Task(content_hash("image task", prompt), prompt, None, name)
