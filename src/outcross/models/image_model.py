"""A saved model of images, of whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from outcross.errors import ModelError, did_you_mean
from outcross.models.diffusion import diffusion
from outcross.models.gan import gan
from outcross.models.image_classifier import image_classifier
from outcross.models.image_learner import RECORD
from outcross.models.vae import vae
from outcross.stages import Trainable
from outcross.train.machine import Machine

KINDS: Mapping[str, Callable[..., Trainable]] = {"vae": vae, "gan": gan, "diffusion": diffusion, "image_classifier": image_classifier}


def image_model(folder: str | Path, *, machine: Machine = Machine()) -> Trainable:
    """The model of images that a run or `save` left in `folder`. Raises `ModelError` when there is none, or one of an unknown kind."""
    try:
        kind = msgspec.json.decode((Path(folder) / RECORD).read_bytes())["model"]
    except (OSError, KeyError, TypeError, msgspec.DecodeError) as error:
        raise ModelError(f"{folder} holds no model of images ({error}); point at a folder with {RECORD}") from None
    if kind not in KINDS:
        raise ModelError(f"{folder} holds a model of the kind {kind!r}; {did_you_mean(str(kind), KINDS)}")
    return KINDS[kind](("any",), machine=machine).load(Path(folder))  # what it is really of stands in its record
