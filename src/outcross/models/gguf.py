"""GGUF files: converted once to a Hugging Face folder in bfloat16 and kept in a cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from outcross.errors import MissingExtra, ModelError


def cache_folder() -> Path:
    """Where converted models are kept: `OUTCROSS_CACHE`, or `~/.cache/outcross`."""
    return Path(os.environ.get("OUTCROSS_CACHE") or Path.home() / ".cache" / "outcross")


def converted(file: Path) -> Path:
    """The Hugging Face folder for a GGUF file, made on the first call. The cache is keyed by the file's content.

    Raises `ModelError` if the file cannot be read as a causal language model, or the cache cannot be written.
    """
    with file.open("rb") as stream:
        key = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    folder = cache_folder() / "gguf" / f"{file.stem}-{key}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"the cache {folder.parent} cannot be written ({error}); set OUTCROSS_CACHE to a folder with room") from error
    try:
        _convert(file, building)
        building.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    """Write `file` as a folder. The model is rebuilt from its state because `save_pretrained` of transformers 5 raises on
    one loaded from GGUF, which counts as quantised."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MissingExtra("gguf", "torch", "a GGUF model") from None
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    except Exception as error:  # the reader raises many kinds on files that are cut or of an unknown architecture
        raise ModelError(
            f"{file} cannot be read as a GGUF language model ({error}); convert it to a Hugging Face folder yourself"
        ) from error
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
