"""Texts to vectors that stand for their meaning: an encoder of Hugging Face transformers, read from a folder.

    models: {embedder: {use: embedder, path: my-encoder}}

Folders of sentence-transformers are read as that package reads them, and it is not needed. PyTorch and transformers are imported when a
model is made, not when this module is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from outcross.errors import ConfigError, ModelError
from outcross.models.sequence_classifier import batches
from outcross.models.tokens import Tokens
from outcross.models.torch_lm import require_torch, weights_hash
from outcross.stages import Model
from outcross.train.machine import Machine
from outcross.types import content_hash

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 1024  # texts held, and sorted by length, at once
Pooling = Literal["mean", "cls", "last", "max"]


@dataclass(frozen=True)
class Reading:
    """How a text becomes a vector: `pooling` of the last layer's vectors over the text's tokens; at most `max_length` tokens, the end is
    cut; `prefix` goes before every text, which is lower-cased first where `lower`."""

    pooling: Pooling = "mean"
    max_length: int = 1 << 30
    prefix: str = ""
    lower: bool = False


class Embedder:
    """One vector of length 1 a text (`outcross.stages.Embeds`), so that the scalar product of two is the cosine of their angle."""

    def __init__(self, model: Any, tokenizer: Any, *, reading: Reading, batch_tokens: int, rows: int | None, depth: int) -> None:
        self._model, self._tokenizer, self._reading, self._depth = model, tokenizer, reading, depth
        self._batch_tokens, self._rows = batch_tokens, rows
        self._id: str | None = None
        self._lock = threading.RLock()

    @property
    def id(self) -> str:
        """Content hash of weights, tokenizer and of how texts are read."""
        with self._lock:
            if self._id is None:
                weights = weights_hash(self._open(), Tokens(self._tokenizer).digest())
                how = self._reading
                self._id = content_hash("embedder", weights, how.pooling, how.max_length, how.prefix, how.lower)
            return self._id

    @property
    def depth(self) -> int:
        return self._depth

    def close(self) -> None:
        """Let go of the weights. Whatever is asked afterwards raises `ModelError`."""
        with self._lock:
            self._model = None

    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]:
        """A vector per text, in order; 1,024 texts are held at a time. Raises `ModelError` for an array."""
        iterator = iter(texts)
        while window := list(islice(iterator, WINDOW)):
            with self._lock:
                model = self._open()
                ids = [self._encoded(text) for text in window]
                found: list[Sequence[float]] = [()] * len(ids)
                for part in batches([len(row) for row in ids], self._batch_tokens, self._rows):
                    for index, vector in zip(part, self._forward(model, [ids[index] for index in part]), strict=True):
                        found[index] = vector
            yield from found

    def _encoded(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise ModelError("this embedder reads text and was given an array; use a model that embeds arrays, flat_embedder for example")
        text = self._reading.prefix + text.strip()
        text = text.lower() if self._reading.lower else text
        found: list[int] = self._tokenizer(text, truncation=True, max_length=self._reading.max_length)["input_ids"]
        if not found:
            raise ModelError("an empty text has no token that this embedder could read; leave it out")
        return found

    def _forward(self, model: Any, rows: Sequence[list[int]]) -> list[list[float]]:
        import torch
        from torch.nn.functional import normalize

        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.full(mask.shape, int(self._tokenizer.pad_token_id or 0), dtype=torch.long)
        ids[mask] = torch.tensor([token for row in rows for token in row])
        mask = mask.to(model.device)
        with torch.inference_mode():
            states = model(input_ids=ids.to(model.device), attention_mask=mask.long()).last_hidden_state.float()
            found: list[list[float]] = normalize(pooled(states, mask, self._reading.pooling)).tolist()
        return found

    def _open(self) -> Any:
        if self._model is None:
            raise ModelError("this model was closed; load it again to use it")
        return self._model


def pooled(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a row of (rows, length, width), from the tokens that `mask` (rows, length) shows; these stand on the left."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        ends = mask.sum(1).sub(1)[:, None, None].expand(-1, 1, states.shape[2])
        return states.gather(1, ends).squeeze(1)
    if pooling == "max":
        return states.masked_fill(~mask[:, :, None], float("-inf")).amax(1)
    shown = mask[:, :, None].to(states.dtype)
    return (states * shown).sum(1) / shown.sum(1)


def embedder(
    path: str,
    *,
    pooling: Pooling | None = None,
    max_length: int | None = None,
    prefix: str | None = None,
    batch_tokens: int = 8192,
    machine: Machine = Machine(),
) -> Model:
    """Load an encoder from a Hugging Face folder, or a hub name; what comes back offers `Embeds`.

    pooling: *mean* of the last layer's vectors over the tokens of a text, their *max*, or that of the *last* or first (*cls*) token;
        None: as the folder's 1_Pooling/config.json says, else the mean.
    max_length: in tokens, longer texts lose their end; prefix: what goes before every text ("query: " for the e5 family); None: as the
        folder's sentence-transformers files say, else what the model can read, and nothing. batch_tokens: padded tokens computed at once.

    Vectors have length 1 whether or not the folder has a Normalize module. Raises `ModelError` if there is no complete model, or one with
    parts that are not known here; `MissingExtra` without PyTorch.
    """
    if pooling is not None and pooling not in get_args(Pooling):
        raise ConfigError(f"embedder: pooling is {pooling!r}; allowed: {', '.join(get_args(Pooling))}")
    if max_length is not None and max_length < 1:
        raise ConfigError(f"embedder: max_length is {max_length}; give a number of tokens of at least 1")
    require_torch("an embedder")
    from outcross.models.load import noted_depth
    from outcross.models.score import context_length

    place = Path(path).expanduser()
    own = _reading(place)
    model, tokenizer = _loaded(path, place, machine)
    most = min(max_length or own.max_length, context_length(model.config), int(tokenizer.model_max_length))
    reading = replace(own, pooling=pooling or own.pooling, max_length=most, prefix=own.prefix if prefix is None else prefix)
    return Embedder(model, tokenizer, reading=reading, batch_tokens=batch_tokens, rows=machine.sample_batch, depth=noted_depth(place))


def _loaded(path: str, place: Path, machine: Machine) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from outcross.models.load import DTYPES, prepared
    from outcross.train.quiet import quiet

    device = prepared(machine)
    dtype = DTYPES.get(machine.dtype, torch.bfloat16 if device.type == "cuda" else "auto")
    source = str(place) if place.is_dir() else path
    try:
        with quiet():
            model, told = AutoModel.from_pretrained(source, dtype=dtype, output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # missing files, no network, unknown architectures: each raises another kind
        raise ModelError(f"the embedder {path} cannot be loaded: {error}") from error
    missing = sorted(key for key in told["missing_keys"] if "pooler" not in key)  # which nothing here reads
    if missing:
        raise ModelError(f"the embedder {path} lacks {', '.join(missing[:3])}, which would be drawn at random; give a complete model")
    if model.config.is_encoder_decoder:
        raise ModelError(f"the embedder {path} has an encoder and a decoder; give the folder of an encoder or of a decoder alone")
    return model.eval().to(device), tokenizer


_KNOWN = ("Transformer", "Pooling", "Normalize")
_POOLINGS: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last", "max_tokens": "max"}


def _reading(folder: Path) -> Reading:
    """What the files of sentence-transformers in a folder say; a plain folder has none. Raises `ModelError` for a part not known here."""
    modules = _json(folder / "modules.json", [])
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    unknown = [kind for kind in kinds if kind not in _KNOWN]
    if unknown:
        raise ModelError(
            f"{folder} has the sentence-transformers module {unknown[0]}; known are {', '.join(_KNOWN)}: serve it as an endpoint"
        )
    place = next((module["path"] for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), "1_Pooling")
    pooling = _json(folder / str(place) / "config.json", {})
    text, prompts = _json(folder / "sentence_bert_config.json", {}), _json(folder / "config_sentence_transformers.json", {})
    prefix = str((prompts.get("prompts") or {}).get(prompts.get("default_prompt_name"), ""))
    if prefix and not pooling.get("include_prompt", True):
        raise ModelError(f"{folder} leaves its prefix {prefix!r} out of the pooling, which is not known here: serve it as an endpoint")
    longest = text.get("max_seq_length") or 1 << 30
    return Reading(_pooling(pooling, folder), int(longest), prefix, bool(text.get("do_lower_case")))


def _pooling(config: dict[str, Any], folder: Path) -> Pooling:
    chosen = [key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    named = {"lasttoken": "last"}.get(config.get("pooling_mode", ""), config.get("pooling_mode"))
    names = [named] if named else [_POOLINGS.get(key, key) for key in chosen] or ["mean"]
    if len(names) != 1 or names[0] not in get_args(Pooling):
        raise ModelError(
            f"{folder} pools by {' and '.join(map(str, names))}; known are {', '.join(get_args(Pooling))}: name one as `pooling`"
        )
    return cast(Pooling, names[0])


def _json(path: Path, absent: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return absent
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}; copy the folder anew") from error
