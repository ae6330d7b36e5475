"""Any task family of the package reasoning-gym, by name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from outcross.errors import ConfigError, DataError, MissingExtra, did_you_mean
from outcross.text import digest, normalise
from outcross.types import Origin, Task, content_hash

Split = Literal["train", "held_out", "real"]
SHARES: dict[str, tuple[int, int]] = {"train": (0, 60), "held_out": (60, 80), "real": (80, 100)}
_CHUNK = 500  # items of one generator; some families prepare all of theirs when it is made
_PATIENCE = 20  # chunks in a row without a new question before a family counts as exhausted


@dataclass(frozen=True)
class ReasoningGym:
    """`n` different questions of a family such as "chain_sum", drawn by `seed`; `config` goes to the family's own settings.

    The split of a question is decided by a hash of its text, never by `n` or `seed`: sets of different splits are disjoint even
    in families with few questions. A task's columns name its generator, so that the verifier `reasoning_gym_scorer` makes the
    item again and scores by the family's own rule.

    Iterating raises `DataError` when the split holds fewer than `n` questions, `MissingExtra` without the package.
    """

    family: str
    n: int = 1000
    seed: int = 0
    split: Split = "train"
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"reasoning_gym: n is {self.n}; ask for at least 1 question")
        if self.split not in SHARES:
            raise ConfigError(f"reasoning_gym: split is {self.split!r}; {did_you_mean(self.split, SHARES)}")

    def __iter__(self) -> Iterator[Task]:
        seen: set[int] = set()
        low, high = SHARES[self.split]
        chunk = idle = 0
        while len(seen) < self.n:
            before = len(seen)
            settings = {**self.config, "seed": digest(f"{self.family},{self.seed},{chunk}") >> 33, "size": _CHUNK}
            dataset = _dataset(self.family, json.dumps(settings, sort_keys=True))
            for index in range(_CHUNK):
                entry = dataset[index]
                key = digest(normalise(entry["question"]))
                if low <= key % 100 < high and key not in seen:
                    seen.add(key)
                    yield self._task(entry, settings, index)
                    if len(seen) == self.n:
                        return
            chunk, idle = chunk + 1, idle + 1 if len(seen) == before else 0
            if idle == _PATIENCE:
                raise DataError(
                    f"reasoning_gym: n is {self.n}, and the split {self.split!r} of {self.family!r} gave {len(seen)} different questions; "
                    "ask for fewer or give the family a harder `config`"
                )

    def _task(self, entry: Mapping[str, Any], settings: Mapping[str, Any], index: int) -> Task:
        made = json.dumps(settings, sort_keys=True)
        answer = entry["answer"]
        columns = (("family", self.family), ("settings", made), ("index", str(index)))
        origin = Origin("real", "proved", f"reasoning_gym:{self.family}", note=f"seed={self.seed},split={self.split}")
        identifier = content_hash("reasoning_gym", self.family, entry["question"])
        return Task(identifier, entry["question"], None if answer is None else str(answer), self.family, origin, columns=columns)


@lru_cache(maxsize=8)
def _dataset(family: str, settings: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies leave files open while they are imported
            from reasoning_gym.factory import DATASETS, create_dataset
    except ModuleNotFoundError as error:
        raise MissingExtra("reasoning-gym", "tasks", f"the task family {family!r}") from error
    if family not in DATASETS:
        raise ConfigError(f"reasoning_gym: there is no family {family!r}; {did_you_mean(family, DATASETS)}")
    try:
        return create_dataset(family, **json.loads(settings))
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"reasoning_gym: the family {family!r} refused its settings {settings}: {error}") from error
