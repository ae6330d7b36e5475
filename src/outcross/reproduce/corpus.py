"""Real text for small language models: passages of words, those outside a small vocabulary written as `<unk>`."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from outcross.errors import DataError
from outcross.types import Example, Origin, Task, content_hash

UNKNOWN = "<unk>"
PROMPT, ANSWER = 8, 24  # words
_STORIES_END = "<|endoftext|>"
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Corpus:
    """Text that models are trained on, and other text that they are tried on.

    train, held_out: paths in the data folder; the same path twice: its first nine tenths and its last. vocabulary: words that are kept.
    """

    name: str
    train: str
    held_out: str
    vocabulary: int
    note: str

    def read(self, data: Path) -> Passages:
        """The passages of both parts. Raises `DataError` for a file without enough text."""
        if self.train == self.held_out:
            texts = list(_texts(data / self.train))
            cut = len(texts) * 9 // 10
            return Passages(self, tuple(texts[:cut]), tuple(texts[cut:]), _digest(data / self.train))
        digest = _digest(data / self.train) + _digest(data / self.held_out)
        return Passages(self, tuple(_texts(data / self.train)), tuple(_texts(data / self.held_out)), digest)


@dataclass(frozen=True)
class Passages:
    """Texts of both parts as lists of words, and what they were read from."""

    corpus: Corpus
    train: tuple[tuple[str, ...], ...]
    held_out: tuple[tuple[str, ...], ...]
    digest: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The vocabulary: the words that the training part has most often."""
        counts = Counter(word for text in self.train for word in text if word != UNKNOWN)
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        return tuple(word for word, _ in ordered[: self.corpus.vocabulary])

    def tasks(self, part: str, count: int) -> tuple[Task, ...]:
        """The first `count` passages: the beginning is asked, and the answer is how it goes on. No two begin alike, and none that is held out
        begins like one to train on. Raises `DataError` if there are fewer."""
        origin = self._origin
        found: list[Task] = []
        asked = set() if part == "train" else {begin for begin, _ in self._cut(self.train)}
        for begin, rest in self._cut(self.train if part == "train" else self.held_out):
            if begin in asked:
                continue
            asked.add(begin)
            found.append(Task(content_hash(part, len(found), begin, rest), begin, rest, origin=origin))
            if len(found) == count:
                return tuple(found)
        raise DataError(
            f"{self.corpus.name}: its {part} part has {len(found):,} passages of {PROMPT + ANSWER} words, and {count:,} are needed"
        )

    def examples(self, part: str, count: int) -> tuple[Example, ...]:
        """The same passages as rows to learn from or to be tried on."""
        return tuple(Example(f"{task.id}-real", task.prompt, task.answer or "", origin=task.origin) for task in self.tasks(part, count))

    def tokenizer(self, folder: Path) -> Path:
        """A tokenizer of these words, one token each, saved in `folder` unless it is there."""
        if not folder.exists():
            beside = folder.with_name(folder.name + ".part")
            _word_tokenizer(self.words).save_pretrained(beside)
            beside.rename(folder)
        return folder

    @property
    def _origin(self) -> Origin:
        return Origin("real", "attested", f"{self.corpus.name}@blake2b:{self.digest[:32]}", note=self.corpus.note)

    def _cut(self, texts: Sequence[Sequence[str]]) -> Iterator[tuple[str, str]]:
        known = frozenset(self.words)
        for text in texts:
            for start in range(0, len(text) - PROMPT - ANSWER + 1, PROMPT + ANSWER):
                words = [word if word in known else UNKNOWN for word in text[start : start + PROMPT + ANSWER]]
                yield " ".join(words[:PROMPT]), " ".join(words[PROMPT:])


def _texts(path: Path) -> Iterator[tuple[str, ...]]:
    """Stories, or paragraphs that are no headings, as lower-case words."""
    text = path.read_text(encoding="utf-8", errors="replace").lower()
    if _STORIES_END in text:
        yield from (tuple(_WORD.findall(story)) for story in text.split(_STORIES_END)[:-1])  # the last is cut off
    else:
        yield from (tuple(line.split()) for line in text.splitlines() if line.strip() and not line.startswith(" ="))


def _digest(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _word_tokenizer(words: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    places = {word: place for place, word in enumerate(("<pad>", "<eos>", UNKNOWN, *words))}
    core = Tokenizer(models.WordLevel(places, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False)


TINYSTORIES = Corpus(
    "tinystories",
    "tinystories/tinystories_sample.txt",
    "tinystories/tinystories_sample.txt",
    1500,
    "stands for real data, as in the papers; written by GPT-3.5 and GPT-4 (Eldan & Li, arXiv:2305.07759)",
)
WIKITEXT = Corpus(
    "wikitext-2", "wikitext-2/valid.txt", "wikitext-2/test.txt", 2000, "Wikipedia, written by people (Merity et al., arXiv:1609.07843)"
)
