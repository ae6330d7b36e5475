"""Text to token ids and back, the same way for sampling, scoring and training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from threading import RLock
from typing import Any

from outcross.errors import ConfigError, ModelError
from outcross.types import Array, Completion, Prompt

PAD, END = "<pad>", "<eos>"


class Tokens:
    """A tokenizer with the conventions of this package.

    A plain text is a document: it is encoded as it is, with the special tokens that the tokenizer adds by default (a
    beginning-of-sequence token, if any). Messages go through the tokenizer's chat template, up to where the assistant
    begins. A completion is encoded apart from its prompt, without special tokens, and followed by the end token, so
    that training sees the very boundary that sampling sees.
    """

    def __init__(self, tokenizer: Any, end: Sequence[int] = ()) -> None:
        """`end`: further ids that end a completion, from the model's generation settings."""
        self.tokenizer = tokenizer
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.end_ids = frozenset([*own, *end])
        self._lock = RLock()  # the tokenizer's Rust core may not be borrowed twice

    def prompts(self, prompts: Sequence[Prompt], /) -> list[list[int]]:
        """Ids of each prompt; at least one, since a model needs something to start from. Raises `ModelError`."""
        found: list[list[int]] = [[] for _ in prompts]
        for special in (True, False):
            chosen = [index for index, prompt in enumerate(prompts) if isinstance(prompt, str) is special]
            for index, ids in zip(chosen, self._encode([self._written(prompts[i]) for i in chosen], special=special), strict=True):
                found[index] = ids or [self._start()]
        return found

    def completions(self, texts: Sequence[str], /) -> list[list[int]]:
        """Ids of each text, then the end token. Raises `ModelError`."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise ModelError("the tokenizer has no end-of-sequence token, so the model cannot learn to stop; set eos_token")
        return [[*ids, end] for ids in self._encode(texts)]

    def texts(self, texts: Sequence[str], /) -> list[list[int]]:
        """Ids of each text alone. Raises `ModelError`."""
        return self._encode(texts)

    def of_completion(self, completion: Completion) -> list[int]:
        """The ids behind an answer: its own where they decode to its text in this vocabulary, else the text encoded anew,
        with the end token if the answer is finished. Answers of other models are thus scored by their text."""
        if not isinstance(completion.content, str):
            raise ModelError("an answer that is not text cannot be scored by a language model")
        own = list(completion.tokens)
        if own and max(own) < len(self.tokenizer) and self.decode(own).startswith(completion.content):
            return own
        return (self.completions if completion.finished else self.texts)([completion.content])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without the end token that closes them."""
        ids = ids[:-1] if ids and ids[-1] in self.end_ids else ids
        with self._lock:
            text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def count(self, prompt: Prompt) -> int:
        """How many tokens a text or a conversation has, without those a tokenizer adds around it."""
        return len(self._encode([self._written(prompt)])[0])

    @cached_property
    def pieces(self) -> list[str]:
        """The text of every token by itself, which narrows down where a stop string can end."""
        with self._lock:
            ids = [[token] for token in range(len(self.tokenizer))]
            found: list[str] = self.tokenizer.batch_decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return found

    def digest(self) -> bytes:
        """Hash of vocabulary, special tokens and chat template."""
        known = self.tokenizer
        parts = [sorted(known.get_vocab().items()), known.bos_token_id, sorted(self.end_ids), known.chat_template]
        return hashlib.blake2b(json.dumps(parts).encode()).digest()

    def _written(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, Array):
            raise ModelError("a language model reads text; this prompt is an array")
        if not self.tokenizer.chat_template:
            raise ModelError(
                "this model's tokenizer has no chat template, so it cannot read messages; ask with a plain text, or use an instruction-tuned model"
            )
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        written: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return written

    def _encode(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        if not texts:
            return []
        try:
            with self._lock:
                found = self.tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
        except Exception as error:  # the Rust core raises bare exceptions
            raise ModelError(f"{_shown(texts)} cannot be written in this model's vocabulary: {error}") from error
        ids: list[list[int]] = found["input_ids"]
        return ids

    def _start(self) -> int:
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        raise ModelError("an empty prompt needs a tokenizer with a beginning- or end-of-sequence token")


def _shown(texts: Sequence[str]) -> str:
    return f"{texts[0]!r:.80}" if len(texts) == 1 else f"one of {len(texts)} texts"


def character_tokenizer(alphabet: str) -> Any:
    """A tokenizer with one token per character of `alphabet`, a padding and an end token; other characters are refused.

    It is a real `PreTrainedTokenizerFast`: a saved folder loads with `AutoTokenizer`. Raises `ConfigError`.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    doubled = sorted({char for char in alphabet if alphabet.count(char) > 1})
    if not alphabet or doubled:
        raise ConfigError(f"the alphabet {alphabet!r} is empty or repeats {doubled}; list each character once")
    core = Tokenizer(models.WordLevel({PAD: 0, END: 1} | {char: index + 2 for index, char in enumerate(alphabet)}))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=END, clean_up_tokenization_spaces=False)
