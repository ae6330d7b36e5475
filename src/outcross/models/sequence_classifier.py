"""Reward models: a sequence classifier of Hugging Face transformers, read from a folder, and taught by comparisons or values.

    models: {reward: {use: sequence_classifier, path: my-reward-model}}
    models: {reward: {use: sequence_classifier, path: my-policy, new_head: true}}     # to be trained

PyTorch and transformers are imported when a model is made, not when this module is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from outcross.errors import ConfigError, ModelError
from outcross.models.fitting import Fits
from outcross.models.tokens import Tokens
from outcross.models.torch_lm import require_torch, weights_hash
from outcross.stages import FitPlan, Model, Seen
from outcross.train.machine import Lora, Machine
from outcross.train.read_off import Output, ReadOff
from outcross.types import Example, Turn, content_hash

if TYPE_CHECKING:
    from outcross.train.memory import Memory

WINDOW = 512  # turns held, and sorted by length, at once
_OUTPUTS = ("logit", "log_odds", "probability")


@dataclass(frozen=True)
class Reading:
    """What is read off a classifier: `output` of the label at place `label`, of texts of at most `max_length` tokens, the rest of which loses
    its beginning; `batch_tokens` padded tokens are computed at once."""

    label: int
    output: Output
    max_length: int
    batch_tokens: int


class SequenceClassifier(Fits):
    """One number for the whole of a turn, its prompt and its answer together (`outcross.stages.Values`, `Trainable`).

    A conversation is written by the chat template, closed by the answer, as TRL's RewardTrainer writes it; a plain text
    is the prompt followed by the answer, with the special tokens that the tokenizer adds. Longer texts lose their beginning.

    `skipped`: ids of the examples that the fit this model came from left out, and `left_out`: how many, by reason.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        reading: Reading,
        *,
        machine: Machine,
        lora: Lora | None = None,
        depth: int,
        skipped: tuple[str, ...] = (),
    ) -> None:
        self.machine, self.lora, self.skipped = machine, lora, skipped
        self._model, self._tokenizer, self._reading, self._depth = model, tokenizer, reading, depth
        self._id: str | None = None
        self._lock = threading.RLock()
        self.left_out: dict[str, int] = {}

    @property
    def id(self) -> str:
        """Content hash of weights, tokenizer and of what is read off them."""
        with self._lock:
            if self._id is None:
                weights = weights_hash(self._open(), Tokens(self._tokenizer).digest())
                how = self._reading
                self._id = content_hash("sequence_classifier", weights, how.label, how.output, how.max_length)
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
            from torch import inference_mode

            with self._lock:
                model = self._open()
                ids = [self._encoded(turn, self._reading.max_length) for turn in window]
                found = [0.0] * len(ids)
                for part in batches([len(row) for row in ids], self._reading.batch_tokens, self.machine.sample_batch):
                    with inference_mode():
                        values = self._forward(model, [ids[index] for index in part]).tolist()
                    for index, value in zip(part, values, strict=True):
                        found[index] = value
            yield from ([value] for value in found)

    # ── Trainable ──────────────────────────────────────────────────────────────────────────────────────────────────
    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Self:
        """A new reward model, trained on `examples` from this one, which stays as it is.

        The losses "bt" (pairs, with the probability that the chosen answer is better as `target`, or none for 1) and "value" (a number for
        each answer); a fit may mix them, and `reference` is not read. Texts that do not fit `plan.max_length` or the context are
        left out and named in the result's `skipped`. Equal examples, plan and seed give equal weights, bit for bit on a CPU.

        Raises `ModelError` when there is nothing to learn from, when a loss or gradient is not finite, or when one example alone does not fit
        into memory; `ConfigError` for another loss, and for comparisons of probabilities (`output`).
        """
        from outcross.train import launch, trainer
        from outcross.train.forward import rows_that_fit
        from outcross.train.progress import progress_of
        from outcross.train.reward import RewardCost, encode_turns
        from outcross.train.stopping import look_of

        with self._lock:
            source = self._open()
            rows = encode_turns(examples, self._encoded, min(plan.max_length, self._reading.max_length))
            model = trainer.working_copy(source, lora=self.lora is not None)
        if rows.others and self._reading.output == "probability":
            raise ConfigError(
                "sequence_classifier: output is 'probability', and the loss 'bt' compares logits; take output: logit or log_odds"
            )
        depth = max(self.depth, rows.depth)
        fitting = rows_that_fit(source.config, rows.longest, source.device) // (2 if rows.others else 1)
        launch.train(
            model,
            rows,
            RewardCost(rows, self._forward),
            machine=self.machine,
            plan=plan,
            seed=seed,
            seen=seen,
            micro_batch=self.machine.micro_batch or max(1, fitting),
            lora=self.lora,
            task="SEQ_CLS",
            autocast=source.device.type == "cuda" and self.machine.dtype != "float32",
            checkpointing=self.machine.gradient_checkpointing,
            progress=None
            if self._kept is None
            else progress_of(self._kept[0], self.id, rows, plan, seed, self.lora, self.machine, source.device.type),
            look=look_of(plan, self._better, lambda: self._with(model, depth, ())),
        )
        learnt = self._with(model.to(source.dtype), depth, tuple(rows.skipped))
        learnt.left_out = rows.told()
        return learnt

    def training_memory(self, plan: FitPlan, /, *, texts: int = 1, held: int = 1) -> Memory:
        """What a fit by `plan` takes of this machine's memory at its height, from the shapes of the weights. texts: that a row has, 2 for pairs.
        held: models of this size that are loaded by then, this one among them."""
        from outcross.train.memory import forecast

        with self._lock:
            model = self._open()
            context = self._reading.max_length
            return forecast(model, plan, self.machine, self.lora, model.device, context=context, texts=texts, held=held)

    def save(self, folder: Path, /) -> None:
        """Write a plain Hugging Face folder of a sequence classifier (safetensors and tokenizer) and the depth beside it."""
        from outcross.models.load import write_note
        from outcross.train.quiet import quiet

        with self._lock, quiet():
            self._open().save_pretrained(folder)
            self._tokenizer.save_pretrained(folder)
        write_note(folder, self.depth)

    def load(self, folder: Path, /) -> Self:
        """The reward model in `folder`, on this one's machine and read as this one is. Raises `ModelError`."""
        from outcross.models.classifier_files import load_classifier
        from outcross.models.load import noted_depth

        model, tokenizer = load_classifier(str(folder), self.machine, new_head=False, seed=0)
        return type(self)(model, tokenizer, self._reading, machine=self.machine, lora=self.lora, depth=noted_depth(folder))

    def fresh(self, seed: int, /) -> Self:
        """The same architecture and tokenizer with new random weights: what `start: scratch` begins from."""
        from outcross.models.classifier_files import untrained_classifier

        with self._lock:
            model = untrained_classifier(self._open(), seed)
        return self._with(model, 0, ())

    @property
    def disk_bytes(self) -> int:
        """About what one saved model takes."""
        with self._lock:
            return sum(tensor.numel() * tensor.element_size() for tensor in self._open().parameters())

    def _with(self, model: Any, depth: int, skipped: tuple[str, ...]) -> Self:
        return type(self)(model, self._tokenizer, self._reading, machine=self.machine, lora=self.lora, depth=depth, skipped=skipped)

    def _encoded(self, turn: Turn, limit: int | None = None) -> list[int]:
        """The ids of a turn, without those at its beginning that are beyond `limit`."""
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
        found: list[int] = self._tokenizer(text, add_special_tokens=special, truncation=limit is not None, max_length=limit)["input_ids"]
        if not found:
            raise ModelError("an empty text has no token that a reward model could read")
        return found

    @property
    def _forward(self) -> ReadOff:
        """(model, ids of texts) → a number per text."""
        return ReadOff(self._reading.label, self._reading.output)

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


def sequence_classifier(
    path: str,
    *,
    label: str | int | None = None,
    output: Output = "logit",
    max_length: int | None = None,
    batch_tokens: int = 8192,
    new_head: bool = False,
    seed: int = 0,
    machine: Machine = Machine(),
    lora: Lora | None = None,
) -> Model:
    """Load a sequence classifier from a Hugging Face folder, or a hub name.

    label: whose number counts, by name or place; not needed where there is one. output: its logit, log-odds or probability.
    max_length: in tokens; what is longer loses its beginning; None: what the model can read. batch_tokens: padded tokens computed at once.
    new_head: `path` is a causal model, a policy's folder for instance, that gets a head of one number, drawn by `seed`: what training a
        reward model begins from. lora: how it will be trained, the head in full; None: all weights.

    Raises `ModelError` if there is no complete model (a causal model has no trained head, which would be drawn at random), `ConfigError`
    for a label there is not, `MissingExtra` without PyTorch.
    """
    if output not in _OUTPUTS:
        raise ConfigError(f"sequence_classifier: output is {output!r}; allowed: {', '.join(_OUTPUTS)}")
    require_torch("a reward model")
    from outcross.models.classifier_files import load_classifier, readable
    from outcross.models.load import noted_depth

    model, tokenizer = load_classifier(path, machine, new_head=new_head, seed=seed)
    reading = Reading(_place_of(label, model.config, path), output, min(max_length or 1 << 30, readable(model, tokenizer)), batch_tokens)
    depth = noted_depth(Path(path).expanduser())
    return SequenceClassifier(model, tokenizer, reading, machine=machine, lora=lora, depth=depth)


def classifier_from_config(
    config: Mapping[str, object],
    *,
    alphabet: str | None = None,
    tokenizer: str | None = None,
    seed: int = 0,
    machine: Machine = Machine(),
    lora: Lora | None = None,
) -> Model:
    """A reward model of one number with random weights, to be trained from scratch; arguments and errors as for `torch_lm.from_config`."""
    require_torch("a reward model")
    from outcross.models.classifier_files import new_classifier, readable

    model, found = new_classifier(config, alphabet=alphabet, tokenizer=tokenizer, seed=seed, machine=machine)
    return SequenceClassifier(model, found, Reading(0, "logit", readable(model, found), 8192), machine=machine, lora=lora, depth=0)


def _place_of(label: str | int | None, config: Any, path: str) -> int:
    names = [str(config.id2label[index]) for index in range(config.num_labels)]
    if label is None and len(names) == 1:
        return 0
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    if label in names:
        return names.index(str(label))
    raise ConfigError(f"sequence_classifier: label is {label!r}; {path} has {', '.join(names)}: name the one whose number is the reward")
