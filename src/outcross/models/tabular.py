"""A toy policy that truly learns: a softmax over a finite set of answers, read off a table of weights.

    logits(prompt)[answer] = Σ_f Σ_g W[f, g],   f over the prompt's features, g over the answer's

Features of a prompt are its last characters by place, their pairs, and the prompt as a whole; those of an answer its
characters by place and the answer as a whole. The row of the whole prompt memorises; all others are shared between prompts and
answers, so that what is learnt on some carries over to the rest. The loss is convex in W, gradients are exact, and a round
takes milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import combinations, islice
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from outcross.errors import ModelError
from outcross.models.local import FLOOR, Floats, Pending, answer, refusal, tempered
from outcross.models.tabular_losses import Collected, Lessons, gradient
from outcross.stages import FitPlan, Model, Seen
from outcross.text import prompt_text
from outcross.types import Content, Example, Prompt, Request, Response, Turn, content_hash

Ints = npt.NDArray[np.int64]
_RECORD, _WEIGHTS = "tabular.json", "weights.npy"
_CHUNK = 1024  # prompts whose logits are computed at once


@dataclass(frozen=True)
class _State:
    """What has been learnt: `weights` (F, G) by features of prompts and of answers. `parts` (V, J) are each answer's columns,
    −1 for none."""

    answers: tuple[str, ...]
    rows: Mapping[str, int]
    weights: Floats
    depth: int
    parts: Ints


@dataclass(frozen=True)
class _Batch:
    """Examples as numbers: `features` (N, K) are rows of the table (−1: none), `lessons` what is learnt from each."""

    ids: tuple[str, ...]
    features: Ints
    lessons: Lessons


class Tabular:
    """A model that answers a prompt with one of the answers it knows; an answer is one token.

    answers: those it knows from the start; it adds those that its examples show.
    window: how many characters at the end of a prompt, and at either end of an answer, it looks at.
    memory: the share of each step that goes into the row of the whole prompt; 0 keeps no such rows.
    """

    def __init__(self, answers: Sequence[str] = (), window: int = 6, memory: float = 1.0) -> None:
        known = tuple(dict.fromkeys(answers))
        parts = _parts(known, window)
        self._build(_State(known, {}, np.zeros((0, _width(parts))), 0, parts), window, memory)

    def _build(self, state: _State, window: int, memory: float) -> None:
        self.window, self.memory, self._state = window, memory, state
        self._pending = Pending()
        rows = sorted(state.rows, key=state.rows.__getitem__)
        learnt = content_hash(window, memory, state.answers, rows, state.weights.tobytes())
        self._id = f"tabular:{learnt}"

    def _with(self, state: _State) -> Tabular:
        made = Tabular.__new__(Tabular)
        made._build(state, self.window, self.memory)
        return made

    @property
    def id(self) -> str:
        return self._id

    @property
    def depth(self) -> int:
        return self._state.depth

    @property
    def answers(self) -> tuple[str, ...]:
        return self._state.answers

    def close(self) -> None:
        """Nothing is held open."""

    # ── asking ─────────────────────────────────────────────────────────────────────────────────────────────────────────
    def submit(self, request: Request, /) -> Future[Response]:
        return self._pending.add(request)

    def flush(self) -> None:
        pending = self._pending.take()
        for start in range(0, len(pending), _CHUNK):
            chunk = pending[start : start + _CHUNK]
            table = self._log_softmax([request.prompt for request, _ in chunk])
            for (request, future), log_probs in zip(chunk, table, strict=True):
                future.set_result(self._answer(request, log_probs))

    def _answer(self, request: Request, log_probs: Floats) -> Response:
        refused = refusal(request, "tabular")
        if not refused and not self.answers:
            refused = "tabular knows no answer yet; give it `answers` or fit it on examples first"
        if refused:
            return Response(error=refused)
        return answer(request, self.answers, log_probs, tempered(log_probs, request.sampling))

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """One number per turn: an answer is one token. An answer it does not know has the log-probability `FLOOR`."""
        place: Mapping[Content, int] = {text: index for index, text in enumerate(self.answers)}
        source = iter(turns)
        while chunk := list(islice(source, _CHUNK)):
            table = self._log_softmax([turn.prompt for turn in chunk])
            for turn, row in zip(chunk, table, strict=True):
                column = place.get(turn.completion.content)
                yield (FLOOR,) if column is None else (max(float(row[column]), FLOOR),)

    def count_tokens(self, prompt: Prompt, /) -> int:
        """1 for an answer it knows, else the number of characters."""
        text = prompt_text(prompt)
        return 1 if text in self.answers else len(text)

    def _log_softmax(self, prompts: Sequence[Prompt]) -> Floats:
        """Log-probabilities (N, V) of all answers."""
        get = self._state.rows.get
        features = _matrix([[get(name, -1) for name in self._features(prompt)] for prompt in prompts])
        return _log_softmax(_logits(self._state.weights, features, self._state.parts))

    def _features(self, prompt: Prompt) -> list[str]:
        return prompt_features(prompt, self.window)

    # ── learning ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Tabular:
        """Stochastic gradient descent on the weighted mean loss of each batch, by `plan` (its `max_length` has no part).

        A fit may mix losses. Raises `ModelError` for one it does not know, and for one that looks at a `reference` when there is none.
        """
        grown, batch = self._read(examples, reference)
        weights = grown.weights.copy()
        pooled = _Pooling(grown.parts)
        speed = np.ones(batch.features.shape[1])
        speed[:1] = self.memory
        total = math.ceil(len(batch.ids) * plan.epochs / plan.batch)
        for step, chosen in enumerate(_batches(len(batch.ids), plan, total, seed)):
            features = batch.features[chosen]
            slope = pooled(gradient(_log_softmax(_logits(weights, features, grown.parts)), batch.lessons, chosen))
            rate = plan.lr * _rate(step, total, plan)
            if plan.weight_decay:
                weights *= 1.0 - rate * plan.weight_decay
            for names, change in zip(features, -rate * slope, strict=True):
                known = names >= 0  # rows of one example are all different, so that none is added to twice
                weights[names[known]] += speed[known, None] * change
            seen(step, [batch.ids[index] for index in chosen])
        return self._with(replace(grown, weights=weights))

    def _read(self, examples: Iterable[Example], reference: Model | None) -> tuple[_State, _Batch]:
        """Room in the table for all that the examples show, and the examples as numbers."""
        rows, place = dict(self._state.rows), {text: index for index, text in enumerate(self.answers)}
        ids: list[str] = []
        features: list[list[int]] = []
        collected, depth = Collected(), self.depth
        for example in examples:
            names = self._features(example.prompt)
            first = [rows.setdefault(names[0], len(rows))] if self.memory else [-1]
            features.append(first + [rows.setdefault(name, len(rows)) for name in names[1:]])
            collected.add(example, lambda said: place.setdefault(str(said), len(place)))
            ids.append(example.id)
            depth = max(depth, example.origin.depth)
        parts = _parts(tuple(place), self.window)
        table = np.zeros((len(rows), _width(parts)))
        table[: self._state.weights.shape[0], : self._state.weights.shape[1]] = self._state.weights
        return _State(tuple(place), rows, table, depth, parts), _Batch(tuple(ids), _matrix(features), collected.lessons(reference))

    def fresh(self, seed: int, /) -> Tabular:
        """The untrained form: it knows the same answers and holds all of them alike. `seed` has no part in it."""
        return Tabular(self.answers, self.window, self.memory)

    # ── keeping ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def save(self, folder: Path, /) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = self._state
        record = {
            "model": "tabular",
            "window": self.window,
            "memory": self.memory,
            "depth": state.depth,
            "answers": state.answers,
            "rows": sorted(state.rows, key=state.rows.__getitem__),
        }
        (folder / _RECORD).write_bytes(msgspec.json.encode(record))
        np.save(folder / _WEIGHTS, state.weights)

    def load(self, folder: Path, /) -> Tabular:
        """Raises `ModelError` when `folder` holds no tabular model."""
        try:
            record = msgspec.json.decode((folder / _RECORD).read_bytes())
            rows = {name: index for index, name in enumerate(record["rows"])}
            answers, window = tuple(record["answers"]), record["window"]
            state = _State(answers, rows, np.load(folder / _WEIGHTS), record["depth"], _parts(answers, window))
            made = Tabular.__new__(Tabular)
            made._build(state, window, record["memory"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{folder} holds no tabular model ({error}); point at a folder that `save` wrote") from None
        return made


def prompt_features(prompt: Prompt, window: int) -> list[str]:
    """The names of a prompt's rows; the whole prompt comes first."""
    text = prompt_text(prompt)
    singles = [f"{place}{character}" for place, character in enumerate(text[: -window - 1 : -1])]
    return [f"={text}", "", *singles, *map("&".join, combinations(singles, 2))]


def answer_features(text: str, window: int) -> list[str]:
    """The names of an answer's columns."""
    return [f"={text}", *_places("<", text[:window]), *_places(">", text[: -window - 1 : -1])]


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _matrix(rows: Sequence[Sequence[int]]) -> Ints:
    """Rows of unequal length as a matrix, filled up with −1."""
    width = max(map(len, rows), default=0)
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows], dtype=np.int64).reshape(len(rows), width)


def _parts(answers: Sequence[str], window: int) -> Ints:
    """The columns (V, J) of each answer, numbered in the order in which answers first show them: more answers add columns
    and move none."""
    columns: dict[str, int] = {}
    rows = []
    for text in answers:
        rows.append([columns.setdefault(name, len(columns)) for name in answer_features(text, window)])
    return _matrix(rows)


def _places(end: str, characters: str) -> list[str]:
    return [f"{end}{place}{character}" for place, character in enumerate(characters)]


def _width(parts: Ints) -> int:
    return int(parts.max(initial=-1)) + 1


class _Pooling:
    """Slopes by answer (N, V) summed up to slopes by column (N, G)."""

    def __init__(self, parts: Ints) -> None:
        answers, places = np.nonzero(parts >= 0)
        order = np.argsort(parts[answers, places], kind="stable")
        self._answers = answers[order]
        self._starts = np.searchsorted(parts[answers, places][order], np.arange(_width(parts)))

    def __call__(self, slope: Floats) -> Floats:
        return np.add.reduceat(slope[:, self._answers], self._starts, axis=1)


def _logits(weights: Floats, features: Ints, parts: Ints) -> Floats:
    """Sums (N, V) over the features of each prompt and each answer; added up one by one, without a matrix product, so that
    a prompt's logits do not depend on what it is batched with or on how many threads there are."""
    shared = np.zeros((len(features), weights.shape[1]))
    for column in features.T:
        known = column >= 0
        shared[known] += weights[column[known]]
    logits = np.zeros((len(features), len(parts)))
    for part in parts.T:
        known = part >= 0
        logits[:, known] += shared[:, part[known]]
    return logits


def _log_softmax(logits: Floats) -> Floats:
    if not logits.shape[1]:
        return logits
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def _batches(count: int, plan: FitPlan, total: int, seed: int) -> Iterator[Ints]:
    """The example numbers of each of `total` steps: a new order every epoch, or always the given one, each example once in it."""
    rng = np.random.default_rng(seed)
    waiting = np.zeros(0, dtype=np.int64)
    left = round(count * plan.epochs)
    for _ in range(total):
        size = min(plan.batch, left)
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(count) if plan.shuffle else np.arange(count)])
        yield waiting[:size]
        waiting, left = waiting[size:], left - size


def _rate(step: int, total: int, plan: FitPlan) -> float:
    """The share of the learning rate at a step: linear warm-up, then the plan's schedule."""
    warm = plan.warmup * total
    if step < warm:
        return (step + 1) / (math.floor(warm) + 1)
    done = (step - warm) / max(total - warm, 1)
    if plan.schedule == "linear":
        return 1.0 - done
    return 0.5 * (1.0 + math.cos(math.pi * done)) if plan.schedule == "cosine" else 1.0
