"""Finding a sequence classifier: a folder with a trained head, a causal model's that gets a new one, or a configuration to start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from outcross.errors import ConfigError, ModelError
from outcross.models.load import DTYPES, prepared
from outcross.models.score import context_length
from outcross.models.tokens import character_tokenizer
from outcross.train.machine import Machine
from outcross.train.quiet import quiet


def load_classifier(path: str, machine: Machine, *, new_head: bool, seed: int) -> tuple[Any, Any]:
    """Model and tokenizer of a folder or hub name. `new_head`: draw a head of one number by `seed` for a model that has none.

    Raises `ModelError` for a folder that is incomplete, or without a trained head; `ConfigError` for a new head where a trained one is.
    """
    device = prepared(machine)
    dtype = DTYPES.get(machine.dtype, torch.bfloat16 if device.type == "cuda" else "auto")
    place = str(Path(path).expanduser()) if path.startswith("~") else path
    labels = {"num_labels": 1} if new_head else {}
    try:
        with quiet(), _without_report(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # weights that the folder lacks are drawn
            model, told = AutoModelForSequenceClassification.from_pretrained(place, dtype=dtype, output_loading_info=True, **labels)
            tokenizer = AutoTokenizer.from_pretrained(place)
    except Exception as error:  # missing files, no network, unknown architectures: each raises another kind
        raise ModelError(f"the reward model {path} cannot be loaded: {error}") from error
    missing = sorted(told["missing_keys"])
    strange = [name for name in missing if name.startswith(f"{model.base_model_prefix}.")]
    if strange or (missing and not new_head):
        raise ModelError(
            f"{path} is no trained sequence classifier: it lacks {', '.join((strange or missing)[:3])}, which would be drawn at random; "
            "train it first, from a policy's folder with new_head: true"
        )
    if new_head and not missing:
        raise ConfigError(f"sequence_classifier: {path} has a trained head, which new_head would throw away; leave new_head out")
    return _padded(model, tokenizer, path).eval().to(device), tokenizer


def new_classifier(
    config: Mapping[str, object], *, alphabet: str | None, tokenizer: str | None, seed: int, machine: Machine
) -> tuple[Any, Any]:
    """A classifier of one number with random weights. Raises `ConfigError`."""
    device = prepared(machine)
    if (alphabet is None) == (tokenizer is None):
        raise ConfigError("a new reward model needs either an alphabet (one token per character) or the folder of a tokenizer, not both")
    try:
        found = character_tokenizer(alphabet) if alphabet is not None else AutoTokenizer.from_pretrained(str(tokenizer))
        settings = {"vocab_size": len(found), "pad_token_id": found.pad_token_id, **config, "num_labels": 1}
        model = _drawn(AutoConfig.for_model(str(settings.pop("model_type")), **settings), seed)
    except Exception as error:  # unknown types and impossible sizes raise many kinds
        raise ConfigError(f"no reward model can be built from the configuration {dict(config)}: {error!r}") from error
    dtype = DTYPES.get(machine.dtype, torch.bfloat16 if device.type == "cuda" else torch.float32)
    return _padded(model, found, "that was asked for").eval().to(device, dtype), found


def untrained_classifier(model: Any, seed: int) -> Any:
    """A classifier of the same architecture, type and device with new random weights."""
    return _drawn(model.config, seed).eval().to(model.device, model.dtype)


def readable(model: Any, tokenizer: Any) -> int:
    """The most tokens a classifier can read."""
    return min(context_length(model.config), int(tokenizer.model_max_length))


@contextmanager
def _without_report() -> Iterator[None]:
    """What a folder lacks is said by us, or is what was asked for."""
    was = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(was)


def _drawn(config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # weights are drawn on the CPU, whatever the device
        return AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)


def _padded(model: Any, tokenizer: Any, path: str) -> Any:
    """With a padding token, which the last token read is told from."""
    tokenizer.truncation_side = "left"
    text = model.config.get_text_config()
    if text.pad_token_id is None:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad is None:
            raise ModelError(f"the reward model {path} has neither a padding nor an end token; set pad_token in its tokenizer")
        text.pad_token_id = pad
    return model
