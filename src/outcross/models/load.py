"""Finding a model: a Hugging Face folder, a hub name, a GGUF file, or a configuration to start from scratch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from outcross.errors import ConfigError, ModelError
from outcross.models.gguf import converted
from outcross.models.tokens import Tokens, character_tokenizer
from outcross.train.forward import check_processes, device_named
from outcross.train.machine import Machine
from outcross.train.quiet import quiet

NOTE = "outcross.json"  # beside the Hugging Face files: what they cannot say
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(path: str, machine: Machine) -> tuple[Any, Tokens, int]:
    """Model, tokens and depth of a folder, a hub name or a GGUF file. Raises `ModelError`."""
    device = prepared(machine)
    place = Path(path).expanduser()
    if place.suffix == ".gguf":
        if not place.is_file():
            raise ModelError(f"there is no GGUF file {path}; check the path")
        with quiet():
            place = converted(place)
        path = str(place)
    elif place.is_dir():
        _check_folder(place)
        path = str(place)
    elif place.exists() or place.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        raise ModelError(f"{path} is not a folder; give a Hugging Face model folder, a .gguf file or a hub name such as owner/name")
    dtype = DTYPES.get(machine.dtype, torch.bfloat16 if device.type == "cuda" else "auto")
    try:
        with quiet():
            model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
            tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # missing files, no network, unknown architectures: each raises another kind
        raise ModelError(f"the model {path} cannot be loaded: {error}") from error
    return model.eval().to(device), Tokens(tokenizer, _end_ids(model)), noted_depth(place)


def new_model(
    config: Mapping[str, object], *, alphabet: str | None, tokenizer: str | None, seed: int, machine: Machine
) -> tuple[Any, Tokens]:
    """A model with random weights. Raises `ConfigError`."""
    device = prepared(machine)
    if (alphabet is None) == (tokenizer is None):
        raise ConfigError("a new model needs either an alphabet (one token per character) or the folder of a tokenizer, not both")
    found = character_tokenizer(alphabet) if alphabet is not None else _tokenizer(str(tokenizer))
    settings = {"vocab_size": len(found), "bos_token_id": found.bos_token_id, "eos_token_id": found.eos_token_id}
    settings |= {"pad_token_id": found.pad_token_id, **config}
    kind = settings.pop("model_type", None)
    if not isinstance(kind, str):
        raise ConfigError(f"the configuration {dict(config)} names no model_type; add one, for example model_type: llama")
    try:
        model = _drawn(AutoConfig.for_model(kind, **settings), seed)
    except Exception as error:  # unknown types and impossible sizes raise many kinds
        raise ConfigError(f"no model can be built from the configuration {dict(config)}: {error}") from error
    dtype = DTYPES.get(machine.dtype, torch.bfloat16 if device.type == "cuda" else torch.float32)
    return model.eval().to(device, dtype), Tokens(found, _end_ids(model))


def untrained(model: Any, seed: int) -> Any:
    """A model of the same architecture, type and device with new random weights."""
    return _drawn(model.config, seed).eval().to(model.device, model.dtype)


def _drawn(config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # weights are drawn on the CPU, whatever the device
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def prepared(machine: Machine) -> torch.device:
    """The machine's device, its thread count set. Raises `ConfigError` for a setting that is not known."""
    if machine.dtype not in ("auto", *DTYPES):
        raise ConfigError(f"dtype {machine.dtype!r} is unknown; allowed: auto, {', '.join(DTYPES)}")
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    device = device_named(machine.device)
    check_processes(machine, device)
    return device


def write_note(folder: Path, depth: int) -> None:
    """Write what a saved model's Hugging Face files cannot say."""
    (folder / NOTE).write_text(json.dumps({"depth": depth}) + "\n", encoding="utf-8")


def noted_depth(folder: Path) -> int:
    """Generations of model-written data behind a saved model; 0 where nobody noted it."""
    try:
        return int(json.loads((folder / NOTE).read_text(encoding="utf-8"))["depth"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(f'{folder / NOTE} is damaged ({error}); write {{"depth": 0}} for a model trained on human data only') from error


def _check_folder(folder: Path) -> None:
    missing = {
        "config.json": any(folder.glob("config.json")),
        "weights (*.safetensors or pytorch_model*.bin)": any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")),
        "tokenizer (tokenizer.json, tokenizer.model or vocab.json)": any(
            (folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
        ),
    }
    lacking = [name for name, there in missing.items() if not there]
    if lacking:
        raise ModelError(
            f"the model folder {folder} has no {' and no '.join(lacking)}; save both model and tokenizer there with save_pretrained"
        )


def _tokenizer(path: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as error:
        raise ConfigError(f"no tokenizer can be loaded from {path}: {error}") from error


def _end_ids(model: Any) -> list[int]:
    """The ids that end a completion by the model's generation settings."""
    found = getattr(model.generation_config, "eos_token_id", None)
    return [] if found is None else [found] if isinstance(found, int) else list(found)
