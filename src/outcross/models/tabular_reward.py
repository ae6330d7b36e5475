"""A toy reward model that truly learns: a linear value of an answer to a prompt, over the features of the toy policy.

    r(prompt, answer) = Σ_f Σ_g W[f, g],   f over the prompt's features, g over the answer's, and over its length

The loss of a comparison is convex in W and its gradient exact; what is learnt on some prompts and answers carries over to the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from outcross.errors import ModelError
from outcross.models.local import Floats
from outcross.models.tabular import _batches, _rate, answer_features, prompt_features
from outcross.stages import FitPlan, Model, Seen
from outcross.text import prompt_text
from outcross.types import Content, Example, Prompt, Turn, content_hash

_RECORD, _WEIGHTS = "tabular_reward.json", "weights.npy"
Features = tuple[tuple[str, ...], Mapping[str, float]]


class TabularReward:
    """Gives one number a turn (`Values`) and learns from comparisons by the loss "bt", with hard labels or soft ones, and from numbers by
    "value". An untrained one gives 0 to everything.

    window: how many characters at the end of a prompt, and at either end of an answer, it looks at.
    """

    def __init__(self, window: int = 6, *, weights: Mapping[str, float] | None = None, depth: int = 0) -> None:
        self.window, self.depth = window, depth
        self._weights = dict(weights or {})
        self.id = f"tabular_reward:{content_hash(window, sorted(self._weights.items()))}"

    def close(self) -> None:
        """Nothing is held open."""

    def values(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """One number per turn."""
        for turn in turns:
            features = self._features(turn.prompt, turn.completion.content)
            yield (math.fsum(self._weights.get(name, 0.0) * size for name, size in features.items()),)

    def count_tokens(self, prompt: Prompt, /) -> int:
        """The number of characters."""
        return len(prompt_text(prompt))

    def _features(self, prompt: Prompt, said: Content) -> dict[str, float]:
        text = said if isinstance(said, str) else ""
        mine, asked = answer_features(text, self.window), prompt_features(prompt, self.window)
        each = (len(asked) * len(mine)) ** -0.5  # together of length 1, so that a step does not grow with the texts
        return {f"{f}\x1f{g}": each for f in asked for g in mine} | {"length": math.log1p(len(text)) / 4}

    # ── learning ───────────────────────────────────────────────────────────────────────────────────────────────────────
    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> TabularReward:
        """Stochastic gradient descent on the weighted mean loss of each batch: −p log σ(Δ) − (1 − p) log σ(−Δ) of a pair, where p is the
        row's target, 1 without one (arXiv:2309.00267 §2.1), and (r − target)² of a number. Raises `ModelError` for another loss."""
        rows = list(examples)
        names: dict[str, int] = {name: place for place, name in enumerate(self._weights)}
        matrix = [self._difference(row, names) for row in rows]
        weights = np.zeros(len(names))
        weights[: len(self._weights)] = list(self._weights.values())
        total = math.ceil(len(rows) * plan.epochs / plan.batch)
        for step, chosen in enumerate(_batches(len(rows), plan, total, seed)):
            change = np.zeros_like(weights)
            for number in chosen:
                places, sizes = matrix[number]
                np.add.at(change, places, _slope(rows[number], float(weights[places] @ sizes)) * sizes)
            share = plan.lr * _rate(step, total, plan)
            weights *= 1.0 - share * plan.weight_decay
            weights -= share * change / len(chosen)
            seen(step, [rows[number].id for number in chosen])
        depth = max([self.depth, *(row.origin.depth for row in rows)])
        return TabularReward(self.window, weights=dict(zip(names, weights.tolist(), strict=True)), depth=depth)

    def _difference(self, row: Example, names: dict[str, int]) -> tuple[Any, Floats]:
        """The features of a row's answer less those of the rejected one, as places and sizes."""
        found = self._features(row.prompt, row.completion)
        if row.loss.name == "bt" and row.rejected is not None:
            for name, size in self._features(row.prompt, row.rejected).items():
                found[name] = found.get(name, 0.0) - size
        elif row.loss.name != "value" or row.target is None:
            raise ModelError(
                f"tabular_reward cannot learn example {row.id} by the loss {row.loss.name!r}; it learns pairs by bt and targets by value"
            )
        places = np.array([names.setdefault(name, len(names)) for name in found], dtype=np.int64)
        return places, np.array(list(found.values()))

    # ── keeping ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def fresh(self, seed: int, /) -> TabularReward:
        """The untrained form. `seed` has no part in it."""
        return TabularReward(self.window)

    def save(self, folder: Path, /) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        record = {"model": "tabular_reward", "window": self.window, "depth": self.depth, "features": list(self._weights)}
        (folder / _RECORD).write_bytes(msgspec.json.encode(record))
        np.save(folder / _WEIGHTS, np.array(list(self._weights.values())))

    def load(self, folder: Path, /) -> TabularReward:
        """Raises `ModelError` when `folder` holds no tabular reward model."""
        try:
            record = msgspec.json.decode((folder / _RECORD).read_bytes())
            weights = dict(zip(record["features"], np.load(folder / _WEIGHTS).tolist(), strict=True))
            return TabularReward(record["window"], weights=weights, depth=record["depth"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{folder} holds no tabular reward model ({error}); point at a folder that `save` wrote") from None


def tabular_reward(window: int = 6) -> Model:
    """A toy reward model, untrained: a linear value over the features of the toy policy. It learns from comparisons by the loss "bt".

    window: how many characters at the end of a prompt, and at either end of an answer, it looks at.
    """
    return TabularReward(window)


def _slope(row: Example, value: float) -> float:
    """The derivative of a row's loss by the value, or by the difference of two."""
    assert not isinstance(row.weight, tuple) and not isinstance(row.target, tuple)
    if row.loss.name == "bt":
        p = 1.0 if row.target is None else row.target
        return row.weight * (_sigmoid(value) - p)
    return 2 * row.weight * (value - (row.target or 0.0))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))
