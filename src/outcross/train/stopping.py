"""Early stops of a fit: looks at the model as it learns, and the best weights so far (after Prechelt, 1998, "Early stopping – but when?")."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from outcross.errors import ConfigError, ModelError
from outcross.stages import FitPlan, Model

FACT = "early_stop"  # what a look found, among what `Seen` is told of a step


@dataclass(frozen=True)
class Look:
    """How a fit is looked at: `measure` says what the model is worth as it is, higher is better; `every` and `patience` as in `EarlyStop`; `probe`: for
    people, what measures."""

    probe: str
    every: int
    patience: int
    measure: Callable[[], float]


class Looks:
    """What the looks at a fit have found, and the weights of the best one, in the CPU's memory.

    course, best: those of an earlier attempt, which is gone on with. Equals do not count as better: the earlier weights stay.
    """

    def __init__(self, look: Look, course: Sequence[float] = (), best: Mapping[str, Tensor] | None = None) -> None:
        self.look, self.course, self.best = look, list(course), dict(best or {})

    def due(self, step: int, steps: int) -> bool:
        """Whether to look after `step` of `steps` optimiser steps."""
        return step % self.look.every == 0 or step == steps

    def take(self, step: int, weights: Mapping[str, Tensor]) -> float:
        """Look; what was found. Raises `ModelError` for what is not a number."""
        found = self.look.measure()
        if not math.isfinite(found):
            raise ModelError(
                f"the early stop's probe {self.look.probe} found {found} after optimiser step {step - 1}, which says of no weights that they are better; "
                "look at its items, or leave `stop` out"
            )
        if not self.course or found > max(self.course):
            self.best = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
        self.course.append(found)
        return found

    @property
    def over(self) -> bool:
        """Whether as many looks as there is patience for have brought nothing better."""
        return bool(self.course) and len(self.course) - 1 - self.course.index(max(self.course)) >= self.look.patience

    @property
    def last_is_best(self) -> bool:
        """Whether the weights of the last look are the best ones."""
        return bool(self.course) and max(self.course[:-1], default=-math.inf) < self.course[-1]


@contextmanager
def looked_at(learner: Any, *, use_cache: bool) -> Iterator[None]:
    """`learner` as it would be used: without dropout, with its cache; then as it was. The random generators are left alone."""
    training, cached, randomness = learner.training, learner.config.use_cache, torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state(learner.device) if learner.device.type == "cuda" else None
    learner.eval()
    learner.config.use_cache = use_cache
    try:
        yield
    finally:
        learner.train(training)
        learner.config.use_cache = cached
        torch.set_rng_state(randomness)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu, learner.device)


def look_of(plan: FitPlan, better: Callable[[Model], float] | None, model: Callable[[], Model]) -> Look | None:
    """How a fit by `plan` is looked at: by `better`, which is asked about the `model` that it has come to; None if it shall not. Raises `ConfigError` if there
    is nobody to ask."""
    if plan.stop is None:
        return None
    name = plan.stop.probe.name
    if better is None:
        raise ConfigError(
            f"the plan stops early by the probe {name}, which a run measures; outside of a run, say what is better with "
            "`model.watched(better).fit(…)`, or leave `stop` out of the plan"
        )
    return Look(name, plan.stop.every, plan.stop.patience, lambda: better(model()))
