"""Reward models: a sequence classifier of Hugging Face transformers, read from a folder.

    models: {reward: {use: sequence_classifier, path: my-reward-model}}

PyTorch and transformers are imported when a model is made, not when this module is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from outcross.errors import ConfigError, ModelError
from outcross.models.tokens import Tokens
from outcross.models.torch_lm import require_torch, weights_hash
from outcross.stages import Model
from outcross.train.machine import Machine
from outcross.types import Turn, content_hash

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 512  # turns held, and sorted by length, at once
Output = Literal["logit", "log_odds", "probability"]
_OUTPUTS = ("logit", "log_odds", "probability")


class SequenceClassifier:
    """One number for the whole of a turn, its prompt and its answer together (`outcross.stages.Values`).

    A conversation is written by the chat template, closed by the answer, as TRL's RewardTrainer writes it; a plain text
    is the prompt followed by the answer, with the special tokens that the tokenizer adds. Longer texts lose their beginning.
    It does not learn: pairwise losses would come here as `fit`.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, label: int, output: Output, max_length: int, batch_tokens: int, rows: int | None, depth: int
    ) -> None:
        self._model, self._tokenizer, self._depth = model, tokenizer, depth
        self._label, self._output, self._max_length = label, output, max_length
        self._batch_tokens, self._rows = batch_tokens, rows
        self._id: str | None = None
        self._lock = threading.RLock()

    @property
    def id(self) -> str:
        """Content hash of weights, tokenizer and of what is read off them."""
        with self._lock:
            if self._id is None:
                weights = weights_hash(self._open(), Tokens(self._tokenizer).digest())
                self._id = content_hash("sequence_classifier", weights, self._label, self._output, self._max_length)
            return self._id

    @property
    def depth(self) -> int:
        return self._depth

    def close(self) -> None:
        """Let go of the weights. Whatever is asked afterwards raises `ModelError`."""
        with self._lock:
            self._model = None

    def values(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """A single number per turn, in order; 512 turns are held at a time. Raises `ModelError` for an array or a missing template."""
        iterator = iter(turns)
        while window := list(islice(iterator, WINDOW)):
            with self._lock:
                model = self._open()
                ids = [self._encoded(turn) for turn in window]
                found = [0.0] * len(ids)
                for part in batches([len(row) for row in ids], self._batch_tokens, self._rows):
                    for index, value in zip(part, self._forward(model, [ids[index] for index in part]), strict=True):
                        found[index] = value
            yield from ([value] for value in found)

    def _encoded(self, turn: Turn) -> list[int]:
        said = turn.completion.content
        if not isinstance(said, str):
            raise ModelError("a sequence classifier reads text; this answer is an array")
        if isinstance(turn.prompt, str):
            text, special = turn.prompt + said, True
        elif isinstance(turn.prompt, tuple):
            if not self._tokenizer.chat_template:
                raise ModelError(
                    "this reward model's tokenizer has no chat template, so it cannot read messages; use prompts that are texts"
                )
            messages = [{"role": message.role, "content": message.content} for message in turn.prompt]
            messages.append({"role": "assistant", "content": said})
            text, special = str(self._tokenizer.apply_chat_template(messages, tokenize=False)), False
        else:
            raise ModelError("a sequence classifier reads text; this prompt is an array")
        found: list[int] = self._tokenizer(text, add_special_tokens=special, truncation=True, max_length=self._max_length)["input_ids"]
        if not found:
            raise ModelError("an empty text has no token that a reward model could read")
        return found

    def _forward(self, model: Any, rows: Sequence[list[int]]) -> list[float]:
        import torch

        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.full(mask.shape, int(model.config.get_text_config().pad_token_id), dtype=torch.long)
        ids[mask] = torch.tensor([token for row in rows for token in row])
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device)).logits.float()
        found: list[float] = read_off(logits, self._label, self._output).tolist()
        return found

    def _open(self) -> Any:
        if self._model is None:
            raise ModelError("this model was closed; load it again to use it")
        return self._model


def batches(lengths: Sequence[int], tokens: int, rows: int | None) -> Iterator[list[int]]:
    """Indices of texts of similar length, longest first, with at most `tokens` padded tokens and `rows` texts at once; at least one."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        size = max(1, min(tokens // lengths[order[0]], rows or len(order)))
        yield order[:size]
        order = order[size:]


def read_off(logits: Tensor, label: int, output: Output) -> Tensor:
    """A number per row of (rows, labels): the label's logit, its log-odds against all others, or its probability; of a single label, which
    is one against none, the logit is the log-odds."""
    chosen = logits[:, label]
    if output == "logit":
        return chosen
    others = [index for index in range(logits.shape[1]) if index != label]
    odds = chosen - logits[:, others].logsumexp(1) if others else chosen
    return odds if output == "log_odds" else odds.sigmoid()


def sequence_classifier(
    path: str,
    *,
    label: str | int | None = None,
    output: Output = "logit",
    max_length: int | None = None,
    batch_tokens: int = 8192,
    machine: Machine = Machine(),
) -> Model:
    """Load a sequence classifier from a Hugging Face folder, or a hub name.

    label: whose number counts, by name or place; not needed where there is one. output: its logit, log-odds or probability.
    max_length: in tokens; what is longer loses its beginning; None: what the model can read. batch_tokens: padded tokens computed at once.

    Raises `ModelError` if there is no complete model (a causal model has no trained head, which would be drawn at random), `ConfigError`
    for a label there is not, `MissingExtra` without PyTorch.
    """
    if output not in _OUTPUTS:
        raise ConfigError(f"sequence_classifier: output is {output!r}; allowed: {', '.join(_OUTPUTS)}")
    require_torch("a reward model")
    from outcross.models.load import noted_depth

    model, tokenizer = _loaded(path, machine)
    tokenizer.truncation_side = "left"
    text = model.config.get_text_config()
    if text.pad_token_id is None:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if pad is None:
            raise ModelError(f"the reward model {path} has neither a padding nor an end token; set pad_token in its tokenizer")
        text.pad_token_id = pad
    return SequenceClassifier(
        model,
        tokenizer,
        label=_place_of(label, model.config, path),
        output=output,
        max_length=min(max_length or 1 << 30, _context(model, tokenizer)),
        batch_tokens=batch_tokens,
        rows=machine.sample_batch,
        depth=noted_depth(Path(path).expanduser()),
    )


def _loaded(path: str, machine: Machine) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from outcross.models.load import DTYPES, prepared, quiet

    device = prepared(machine)
    dtype = DTYPES.get(machine.dtype, torch.bfloat16 if device.type == "cuda" else "auto")
    try:
        with quiet():
            model, told = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype, output_loading_info=True)
            tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:  # missing files, no network, unknown architectures: each raises another kind
        raise ModelError(f"the reward model {path} cannot be loaded: {error}") from error
    if told["missing_keys"]:
        missing = ", ".join(sorted(told["missing_keys"])[:3])
        raise ModelError(f"{path} is no trained sequence classifier: it lacks {missing}, which would be drawn at random; train it first")
    return model.eval().to(device), tokenizer


def _context(model: Any, tokenizer: Any) -> int:
    from outcross.models.score import context_length

    return min(context_length(model.config), int(tokenizer.model_max_length))


def _place_of(label: str | int | None, config: Any, path: str) -> int:
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    if label is None and len(names) == 1:
        return 0
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    if label in names:
        return names.index(str(label))
    raise ConfigError(f"sequence_classifier: label is {label!r}; {path} has {', '.join(names)}: name the one whose number is the reward")
