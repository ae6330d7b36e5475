"""Language models that run here: any causal model of Hugging Face transformers, sampled, scored and trained.

    model = torch_lm("folder, owner/name or file.gguf")
    model = from_config({"model_type": "llama", "hidden_size": 128, ...}, alphabet="0123456789+= ")

PyTorch and transformers are imported when a model is made, not when this module is.
"""

from __future__ import annotations

import gc
import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from outcross.errors import MissingExtra, ModelError
from outcross.models.fitting import Fits
from outcross.models.local import Pending
from outcross.stages import FitPlan, Model, Seen
from outcross.train.machine import Lora, Machine
from outcross.train.scores import Scores
from outcross.types import Completion, Example, Prompt, Request, Response, Turn

if TYPE_CHECKING:
    from outcross.models.tokens import Tokens
    from outcross.train.adapter import Adapter
    from outcross.train.memory import Memory

__all__ = ["Lora", "Machine", "TorchLM", "from_config", "torch_lm"]
WINDOW = 512  # turns scored together: sorted by length, and all that `log_probs` holds


class TorchLM(Fits):
    """A causal language model in this process.

    It completes, scores, counts tokens and learns (`outcross.stages`: Completes, LogProbs, CountsTokens, Trainable).
    Threads may share it: each has its own list of submitted requests, and one computes at a time.

    `skipped`: ids of the examples that the fit this model came from left out, and `left_out`: how many, by reason.
    `adapter`: what that fit added, where it was one of low rank; it is part of the weights already.
    `client_version`: of the way tokens are drawn. It is part of a journal's keys and is raised when equal requests to equal weights
        would draw other tokens.
    """

    client_version: ClassVar[str] = "1"

    def __init__(
        self, model: Any, tokens: Tokens, *, machine: Machine, lora: Lora | None, depth: int, skipped: tuple[str, ...] = ()
    ) -> None:
        self.machine, self.lora, self.skipped = machine, lora, skipped
        self._model, self._tokens, self._depth = model, tokens, depth
        self._id: str | None = None
        self._lock = threading.RLock()
        self.left_out: dict[str, int] = {}
        self._pending = Pending()
        self.adapter: Adapter | None = None

    @property
    def id(self) -> str:
        """Content hash of weights and tokenizer."""
        with self._lock:
            if self._id is None:
                self._id = weights_hash(self._open(), self._tokens.digest())
            return self._id

    @property
    def depth(self) -> int:
        """Generations of model-written training data since the first model, whose own past nobody noted."""
        return self._depth

    def close(self) -> None:
        """Let go of the weights. Whatever is asked afterwards raises `ModelError`."""
        with self._lock:
            self._model = None
            import torch

            gc.collect()  # modules and their trainer hold each other in circles

            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    # ── Completes ──────────────────────────────────────────────────────────────────────────────────────────────────
    def submit(self, request: Request, /) -> Future[Response]:
        """Take a request of this thread; it is answered at this thread's next `flush`.

        A completion holds the text without end token and stop string, all tokens drawn, and their log-probabilities
        at temperature 1; a `prefix` is part of all three. Tokens drawn are limited by `max_tokens` and by the context.
        `choices` are scored as continuations, without an end token, and the text is empty. What cannot be answered comes
        back as a response with its reason.
        """
        return self._pending.add(request)

    def flush(self) -> None:
        """Answer what this thread has submitted; each future is resolved as soon as its own answer is complete.

        Equal lists of requests get equal answers on equal machines. A sample's random numbers depend on its request's seed and its own
        index alone; what else is in the batch changes its log-probabilities by rounding, and with that, rarely, a token: where two are
        within rounding of the random number. An interruption (Ctrl-C) is raised; complete answers stay.
        """
        from outcross.models.answer import Answerer

        pending = self._pending.take()
        if pending:
            with self._lock:
                Answerer(self._open(), self._tokens, self.machine.sample_batch).answer(pending)

    # ── LogProbs, CountsTokens ─────────────────────────────────────────────────────────────────────────────────────
    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """Natural log-probabilities of each turn's completion, one per token, in order; 512 turns are held at a time.

        The tokens are those the turn carries if this model's vocabulary reads them as its text, else the text encoded
        anew, with the end token if the completion is finished. Raises `ModelError` for text beyond the context.
        """
        from outcross.models.score import score
        from outcross.train.forward import Text

        iterator = iter(turns)
        while window := list(islice(iterator, WINDOW)):
            prompts = self._tokens.prompts([turn.prompt for turn in window])
            completions = [self._tokens.of_completion(turn.completion) for turn in window]
            texts = [Text([*prompt, *ids], len(prompt)) for prompt, ids in zip(prompts, completions, strict=True)]
            with self._lock:
                found = score(self._open(), texts, self.machine.sample_batch)
            yield from found

    def count_tokens(self, prompt: Prompt, /) -> int:
        """How many tokens a text or conversation has; raises `ModelError` for an array."""
        return self._tokens.count(prompt)

    def token_ids(self, completion: Completion, /) -> Sequence[int]:
        """The ids that `log_probs` scores for a completion; raises `ModelError` for one that is not text."""
        return self._tokens.of_completion(completion)

    # ── Trainable ──────────────────────────────────────────────────────────────────────────────────────────────────
    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Self:
        """A new model, trained on `examples` from this one, which stays as it is.

        All weights learn, or low-rank adapters that are then merged (`Lora`); the result has the same dtype. Examples
        that do not fit `plan.max_length` or the context are not cut but left out, and named in the result's `skipped`.
        `reference` is for losses that compare with another model; "nll", and "pg" without a beta, do not read it.
        The same examples, plan and seed give the same weights, bit for bit on a CPU with a fixed number of threads.

        Raises `ModelError` when there is nothing to learn from, when a loss or gradient is not finite, or when one
        example alone does not fit into memory; `ConfigError` for a loss that does not exist.
        """
        from outcross.models.score import context_length
        from outcross.train import launch, trainer
        from outcross.train.encode import encode
        from outcross.train.forward import rows_that_fit
        from outcross.train.policy import PolicyCost
        from outcross.train.progress import progress_of
        from outcross.train.stopping import look_of

        with self._lock:
            source = self._open()
            scores = None if self._kept is None else Scores(self._kept[1])
            rows = encode(examples, self._tokens, min(plan.max_length, context_length(source.config)), reference, scores)
            model = trainer.working_copy(source, lora=self.lora is not None)
        depth = max(self.depth, rows.depth)
        adapter = launch.train(
            model,
            rows,
            PolicyCost(rows, source.device, packing=self.machine.packing),
            machine=self.machine,
            plan=plan,
            seed=seed,
            seen=seen,
            micro_batch=self.machine.micro_batch
            or max(1, rows_that_fit(source.config, rows.longest, source.device) // (2 if rows.others else 1)),
            lora=self.lora,
            autocast=source.device.type == "cuda" and self.machine.dtype != "float32",
            checkpointing=self.machine.gradient_checkpointing,
            progress=None
            if self._kept is None
            else progress_of(self._kept[0], self.id, rows, plan, seed, self.lora, self.machine, source.device.type),
            look=look_of(plan, self._better, lambda: self._with(model, depth)),
        )
        learnt = self._with(model.to(source.dtype), depth, tuple(rows.skipped))
        learnt.adapter, learnt.left_out = adapter, rows.told()
        return learnt

    def _with(self, model: Any, depth: int, skipped: tuple[str, ...] = ()) -> Self:
        return type(self)(model, self._tokens, machine=self.machine, lora=self.lora, depth=depth, skipped=skipped)

    def training_memory(self, plan: FitPlan, /, *, texts: int = 1, held: int = 1) -> Memory:
        """What a fit by `plan` takes of this machine's memory at its height, from the shapes of the weights. texts: that a row has, 2 for pairs.
        held: models of this size that are loaded by then, this one among them."""
        from outcross.models.score import context_length
        from outcross.train.memory import forecast

        with self._lock:
            model = self._open()
            context = context_length(model.config)
            return forecast(model, plan, self.machine, self.lora, model.device, context=context, texts=texts, held=held)

    def save(self, folder: Path, /) -> None:
        """Write a plain Hugging Face folder (safetensors and tokenizer) and the depth beside it."""
        from outcross.models.load import write_note
        from outcross.train.quiet import quiet

        with self._lock, quiet():
            self._open().save_pretrained(folder)
            self._tokens.tokenizer.save_pretrained(folder)
        write_note(folder, self.depth)

    def load(self, folder: Path, /) -> Self:
        """The model in `folder`, on this model's machine and with its way of training. Raises `ModelError`."""
        from outcross.models.load import load_model

        model, tokens, depth = load_model(str(folder), self.machine)
        return type(self)(model, tokens, machine=self.machine, lora=self.lora, depth=depth)

    def fresh(self, seed: int, /) -> Self:
        """The same architecture and tokenizer with new random weights: what `start: scratch` begins from."""
        from outcross.models.load import untrained

        with self._lock:
            model = untrained(self._open(), seed)
        return type(self)(model, self._tokens, machine=self.machine, lora=self.lora, depth=0)

    @property
    def disk_bytes(self) -> int:
        """About what one saved model takes."""
        with self._lock:
            return sum(tensor.numel() * tensor.element_size() for tensor in self._open().parameters())

    def _open(self) -> Any:
        if self._model is None:
            raise ModelError("this model was closed; load it again to use it")
        return self._model


def torch_lm(path: str, *, machine: Machine = Machine(), lora: Lora | None = None) -> TorchLM:
    """Load a model from a Hugging Face folder, a hub name (`owner/name`) or a GGUF file.

    A GGUF file is converted once to bfloat16 safetensors, kept under `OUTCROSS_CACHE` (else `~/.cache/outcross`). `lora`: how it will be
    trained; None: all weights. Raises `ModelError` if there is no complete model, `MissingExtra` without PyTorch.
    """
    require_torch("a local language model")
    from outcross.models.load import load_model

    model, tokens, depth = load_model(path, machine)
    return TorchLM(model, tokens, machine=machine, lora=lora, depth=depth)


def from_config(
    config: Mapping[str, object],
    *,
    alphabet: str | None = None,
    tokenizer: str | None = None,
    seed: int = 0,
    machine: Machine = Machine(),
    lora: Lora | None = None,
) -> TorchLM:
    """A model with random weights, to be trained from scratch.

    config: `model_type` and the settings of that transformers configuration; sizes of the vocabulary and special
        tokens follow the tokenizer.
    alphabet: one token per character of it, and no others; or `tokenizer`: a folder or hub name.
    seed: of the weights; the process's random generators are not touched.

    Raises `ConfigError` if no model can be built, `MissingExtra` without PyTorch.
    """
    require_torch("a local language model")
    from outcross.models.load import new_model

    model, tokens = new_model(config, alphabet=alphabet, tokenizer=tokenizer, seed=seed, machine=machine)
    return TorchLM(model, tokens, machine=machine, lora=lora, depth=0)


def weights_hash(model: Any, salt: bytes) -> str:
    """128 bits over names, types, shapes and bytes of all weights; shared weights count once."""
    import torch

    found = hashlib.blake2b(salt, digest_size=16)
    seen: set[int] = set()
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return found.hexdigest()


def require_torch(what: str) -> None:
    """Raises `MissingExtra`, which names what needs it, without PyTorch or transformers."""
    for package in ("torch", "transformers"):
        try:
            __import__(package)
        except ImportError:
            raise MissingExtra(package, "torch", what) from None
