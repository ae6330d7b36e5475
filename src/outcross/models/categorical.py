"""One distribution over symbols, refitted exactly from counts: the chain in which tails vanish first.

Shumailov et al., Nature 631:755 (2024), the discrete case: M draws from p, then p ← the draws' frequencies, is a
Wright–Fisher chain. A symbol of probability q is lost in one generation with probability (1 − q)^M, expected heterozygosity
1 − Σp² falls by the factor 1 − 1/M each generation, and the only absorbing states are point masses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import msgspec
import numpy as np

from outcross.errors import ModelError
from outcross.models.local import FLOOR, Pending, answer, refusal, tempered
from outcross.stages import FitPlan, Model, Seen
from outcross.types import Example, Prompt, Request, Response, Turn, content_hash

_FILE = "categorical.json"


class Categorical:
    """A model that says one of its symbols, whatever the prompt. `weights` maps symbols to non-negative weights."""

    def __init__(self, weights: Mapping[str, float], depth: int = 0) -> None:
        total = sum(weights.values())
        if not total > 0 or min(weights.values()) < 0:
            raise ModelError(f"categorical needs non-negative weights with a positive sum, not {dict(weights)!r:.120}")
        self.weights = dict(weights)
        self.symbols = tuple(weights)
        self.probs = np.array(list(weights.values()), dtype=np.float64) / total
        with np.errstate(divide="ignore"):
            self._log_probs = np.maximum(np.log(self.probs), FLOOR)
        self._depth = depth
        self._id = "categorical:" + content_hash(self.weights)
        self._pending = Pending()

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
            refused = refusal(request, "categorical")
            future.set_result(Response(error=refused) if refused else self._answer(request))

    def _answer(self, request: Request) -> Response:
        with np.errstate(divide="ignore"):
            drawn_from = tempered(np.log(self.probs), request.sampling)
        return answer(request, self.symbols, self._log_probs, drawn_from)

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        """One number per turn: a symbol is one token. A symbol of probability 0 has the log-probability `FLOOR`."""
        known = dict(zip(self.symbols, self._log_probs.tolist(), strict=True))
        for turn in turns:
            content = turn.completion.content
            yield (known.get(content, FLOOR) if isinstance(content, str) else FLOOR,)

    def count_tokens(self, prompt: Prompt, /) -> int:
        """1 for a symbol, 0 for the empty text."""
        return 1 if prompt else 0

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Categorical:
        """The weighted frequencies of the examples' completions, in one step; `plan` and `seed` have no part in it.

        Symbols that no example shows keep their place with probability 0. Raises `ModelError` for a loss other than
        "nll" and when the examples weigh nothing.
        """
        counts = dict.fromkeys(self.symbols, 0.0)
        ids: list[str] = []
        depth = self.depth
        for example in examples:
            if example.loss.name != "nll" or not isinstance(example.completion, str) or isinstance(example.weight, tuple):
                raise ModelError(
                    f"categorical learns texts with one weight by the loss 'nll', not {example.loss.name!r} (example {example.id})"
                )
            counts[example.completion] = counts.get(example.completion, 0.0) + example.weight
            depth = max(depth, example.origin.depth)
            ids.append(example.id)
        if not sum(counts.values()) > 0:
            raise ModelError("categorical was given no example of positive weight to fit; it needs at least one")
        fitted = Categorical(counts, depth)
        seen(0, ids)
        return fitted

    def fresh(self, seed: int, /) -> Categorical:
        """The untrained form: all symbols alike. `seed` has no part in it."""
        return Categorical(dict.fromkeys(self.symbols, 1.0))

    def save(self, folder: Path, /) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        record = {"model": "categorical", "depth": self.depth, "weights": self.weights}
        (folder / _FILE).write_bytes(msgspec.json.encode(record))

    def load(self, folder: Path, /) -> Categorical:
        """Raises `ModelError` when `folder` holds no categorical model."""
        try:
            record = msgspec.json.decode((folder / _FILE).read_bytes())
            return Categorical(record["weights"], record["depth"])
        except (OSError, KeyError, TypeError, msgspec.DecodeError) as error:
            raise ModelError(f"{folder} holds no categorical model ({error}); point at a folder that `save` wrote") from None
