"""A small world whose law is known, and a model of it that truly learns: what lineages of `benchmarks/collapse_detection.py` are made of.

A text is a topic, some words and an ending, each drawn by chances of the topic. Topics are unequal, words follow Zipf's law in an order of
the topic's own, and the ending says whether the text is right and whether it is bold. The model estimates all these chances by counting,
with a little weight on what it has not seen, so that rare words get lost in finite samples as they do for any language model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from outcross.models.local import Pending
from outcross.stages import FitPlan, Model, Seen
from outcross.types import Completion, Example, Request, Response, Turn, Usage, content_hash

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TOPICS = ("law", "sport", "music", "food", "health", "dialect")
SHARES = (0.27, 0.22, 0.18, 0.14, 0.11, 0.08)
ENDINGS = ("right", "wrong", "bold", "bluff")  # plain and right, plain and wrong, bold and right, bold and wrong
RIGHT = {"right", "bold"}
ENDS = (0.85, 0.03, 0.10, 0.02)
SHORTEST, LONGEST = 4, 12
WORDS = 400
UNSEEN = 0.02  # the weight of what a topic has never shown, in occurrences
SHARED = 0.02  # the share of a topic's words that the model takes from all topics together, as what it has learnt of words at large
WRITES = "write"  # how a prompt begins that asks for training data; all others ask for an honest answer


@dataclass(frozen=True)
class Law:
    """Chances: of topics (K,), of lengths (K, L), of words (K, V) and of endings (K, E), each row summing to 1. Also counts of them."""

    topics: Floats
    lengths: Floats
    words: Floats
    endings: Floats

    def normalised(self) -> Law:
        """Counts as chances."""
        return Law(*(_shares(getattr(self, field.name)) for field in fields(self)))

    def estimated(self) -> Law:
        """The chances that a model reads off counts."""
        found = Law(*(getattr(self, field.name) + UNSEEN for field in fields(self))).normalised()
        return replace(found, words=(1 - SHARED) * found.words + SHARED * _shares(self.words.sum(axis=0) + UNSEEN))

    def __add__(self, other: Law) -> Law:
        return Law(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


def _shares(counts: Floats) -> Floats:
    found: Floats = counts / counts.sum(axis=-1, keepdims=True)
    return found


def real_law(rng: np.random.Generator) -> Law:
    """What people write; each topic has an order of words of its own."""
    zipf = 1.0 / np.arange(1, WORDS + 1)
    words = np.stack([rng.permutation(zipf) for _ in TOPICS])
    spread = LONGEST - SHORTEST + 1
    lengths = np.exp(-0.5 * ((np.arange(spread) - spread / 2) / 2) ** 2)
    each = (len(TOPICS), 1)
    return Law(np.array(SHARES), np.tile(lengths, each), words, np.tile(np.array(ENDS), each)).normalised()


def counted(law: Law, rows: int, rng: np.random.Generator) -> Law:
    """The counts of `rows` texts of this law."""
    topics = rng.multinomial(rows, law.topics)
    lengths = np.stack([rng.multinomial(n, chances) for n, chances in zip(topics, law.lengths, strict=True)])
    tokens = lengths @ np.arange(SHORTEST, LONGEST + 1)
    words = np.stack([rng.multinomial(n, chances) for n, chances in zip(tokens, law.words, strict=True)])
    endings = np.stack([rng.multinomial(n, chances) for n, chances in zip(topics, law.endings, strict=True)])
    return Law(*(part.astype(np.float64) for part in (topics, lengths, words, endings)))


def texts(law: Law, numbers: Floats) -> list[str]:
    """A text for each row of `numbers` (n, 3 + LONGEST), uniform between 0 and 1: models that are given the same numbers speak alike where
    their chances are alike."""
    topics = _inverse(law.topics[None].repeat(len(numbers), 0), numbers[:, :1])[:, 0]
    lengths = SHORTEST + _inverse(law.lengths[topics], numbers[:, 1:2])[:, 0]
    endings = _inverse(law.endings[topics], numbers[:, 2:3])[:, 0]
    words = np.zeros((len(numbers), LONGEST), dtype=np.int64)
    for topic in range(len(TOPICS)):
        mine = topics == topic
        words[mine] = np.searchsorted(np.cumsum(law.words[topic])[:-1], numbers[mine, 3:], side="right")
    return [
        " ".join((TOPICS[topic], *(_NAMES[word] for word in row[:length]), ENDINGS[ending]))
        for topic, length, ending, row in zip(topics.tolist(), lengths.tolist(), endings.tolist(), words.tolist(), strict=True)
    ]


def _inverse(chances: Floats, numbers: Floats) -> Ints:
    found: Ints = (np.cumsum(chances, axis=1)[:, None, :-1] <= numbers[:, :, None]).sum(axis=2)
    return found


_NAMES = tuple(f"w{number}" for number in range(WORDS))


@lru_cache(maxsize=200_000)
def parsed(text: str) -> tuple[int, tuple[int, ...], int]:
    """The topic, the words and the ending of a text, by number."""
    topic, *words, ending = text.split(" ")
    return TOPICS.index(topic), tuple(int(word[1:]) for word in words), ENDINGS.index(ending)


def topic_of(text: object) -> str | None:
    return str(text).split(" ", maxsplit=1)[0] or None


class Counting:
    """A model of texts by counting, whatever the prompt. `defect` is what becomes of its law where a prompt asks it to write training data;
    None: nothing. Answers that probes ask for follow the law itself."""

    def __init__(self, law: Law, defect: Callable[[Law], Law] | None = None, depth: int = 0) -> None:
        self.law, self.defect, self._depth = law, defect, depth
        self._hasty = law if defect is None else defect(law)
        whole = (law.topics, law.lengths, law.words, law.endings)
        self._id = "counting:" + content_hash([part.tobytes() for part in whole])
        with np.errstate(divide="ignore"):
            self._logs = tuple(np.maximum(np.log(part), -50.0) for part in whole)
        self._pending = Pending()
        self._said: dict[int, list[str]] = {}

    @property
    def id(self) -> str:
        return self._id

    @property
    def depth(self) -> int:
        return self._depth

    def close(self) -> None:
        """Nothing is held open."""

    def submit(self, request: Request, /) -> Future[Response]:
        return self._pending.add(request)

    def flush(self) -> None:
        for request, future in self._pending.take():
            numbers = np.random.default_rng(request.seed).random((request.n, 3 + LONGEST))
            writes = isinstance(request.prompt, str) and request.prompt.startswith(WRITES)
            said = texts(self._hasty if writes else self.law, numbers)
            future.set_result(Response(tuple(map(Completion, said)), Usage(1, 8 * request.n)))

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """One number a token: the topic, each word, and the ending together with the length."""
        topics, lengths, words, endings = self._logs
        for turn in turns:
            topic, said, ending = parsed(str(turn.completion.content))
            last = endings[topic, ending] + lengths[topic, len(said) - SHORTEST]
            yield (topics[topic], *words[topic, said].tolist(), last)

    def token_ids(self, completion: Completion, /) -> Sequence[int]:
        topic, said, ending = parsed(str(completion.content))
        return (WORDS + topic, *said, WORDS + len(TOPICS) + ending)

    def count_tokens(self, prompt: object, /) -> int:
        return len(str(prompt).split())

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Counting:
        """The weighted counts of the examples, in one step; `plan` and `seed` have no part in it."""
        counts = Law(*(np.zeros_like(getattr(self.law, field.name)) for field in fields(Law)))
        ids, depth = [], 0
        for example in examples:
            topic, said, ending = parsed(str(example.completion))
            weight = example.weight if isinstance(example.weight, float) else 1.0
            counts.topics[topic] += weight
            counts.lengths[topic, len(said) - SHORTEST] += weight
            np.add.at(counts.words[topic], list(said), weight)
            counts.endings[topic, ending] += weight
            ids.append(example.id)
            depth = max(depth, example.origin.depth)
        seen(0, ids)
        return self.of(counts.estimated(), depth)

    @classmethod
    def learnt(cls, counts: Law) -> Counting:
        """The model that has seen so many of each."""
        return cls(counts.estimated())

    def said(self, seed: int, size: int) -> list[str]:
        """`size` honest answers, drawn anew for every model; kept, because every probe asks for them."""
        if seed not in self._said:
            rng = np.random.default_rng([seed, int(self.id[-12:], 16)])
            self._said[seed] = texts(self.law, rng.random((size, 3 + LONGEST)))
        return self._said[seed]

    def of(self, law: Law, depth: int = 0) -> Counting:
        """The same with another law."""
        return Counting(law, self.defect, depth)

    def fresh(self, seed: int, /) -> Counting:
        return self

    def save(self, folder: Path, /) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "counting.npz", depth=self.depth, **{field.name: getattr(self.law, field.name) for field in fields(Law)})

    def load(self, folder: Path, /) -> Counting:
        with np.load(folder / "counting.npz") as found:
            return self.of(Law(*(found[field.name] for field in fields(Law))), int(found["depth"]))
