"""A model that has learnt from given examples before a run begins."""

from __future__ import annotations

from collections.abc import Iterable

from outcross.stages import FitPlan, Trainable
from outcross.types import Example


def taught(model: Trainable, examples: Iterable[Example], *, plan: FitPlan = FitPlan(), seed: int = 0) -> Trainable:
    """`model` after one fit on `examples`: where a run starts that would else begin with a model that knows nothing.

    It is made anew whenever the run is resumed, so keep it small, or save it once and name the folder. Raises what `fit` raises.
    """
    learnt = model.fit(examples, plan=plan, reference=None, seed=seed, seen=lambda step, ids, **facts: None)
    model.close()
    return learnt
