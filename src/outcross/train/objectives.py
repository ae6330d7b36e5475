"""Objectives: what is learnt from a round's groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import NLL, Example, Group, Origin, Sample, example_id


@dataclass(frozen=True)
class Imitate(Stage):
    """Learn to say what passed: one row under the loss "nll" per chosen sample.

    best_of: only the samples of highest value, this many a task (best-of-n, arXiv:2112.09332); equals in the order drawn.
    threshold: choose by value, at or above this number, instead of by the verdict *pass*.
    per_task: at most this many samples a task, the first drawn (ReST-EM takes ten, arXiv:2312.06585), so that easy tasks
        do not crowd out hard ones.
    require_verified: False also learns samples that no verifier looked at. Failed requests, errors and abstentions are never learnt.
    """

    best_of: int | None = None
    threshold: float | None = None
    per_task: int | None = None
    require_verified: bool = True

    def __post_init__(self) -> None:
        for field in ("best_of", "per_task"):
            size = getattr(self, field)
            if size is not None and size < 1:
                raise ConfigError(f"imitate: {field} is {size}; take at least 1 sample a task, or None for no limit")
        if not self.require_verified and (self.best_of is not None or self.threshold is not None):
            raise ConfigError(
                "imitate: best_of and threshold choose by value, which unverified samples lack; leave out require_verified: false"
            )

    @property
    def uses_peers(self) -> bool:
        """Best-of compares the samples of a group."""
        return self.best_of is not None

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Example]:
        for group in groups:
            chosen = [sample for sample in group.samples if self._may_learn(sample)]
            if self.best_of is not None:
                chosen = sorted(chosen, key=_minus_value)[: self.best_of]
            for sample in chosen[: self.per_task]:
                yield example_of(sample, group.task.subgroup)

    def _may_learn(self, sample: Sample) -> bool:
        if sample.error or not sample.turns:
            return False
        verdict = sample.verdict
        if verdict is None:
            return not self.require_verified
        if self.threshold is None or verdict in ("error", "abstain"):
            return verdict == "pass"
        value = sample.value
        return value is not None and value >= self.threshold


def example_of(sample: Sample, subgroup: str | None) -> Example:
    """The row that teaches a sample's last answer."""
    turn, made = sample.turns[-1], sample.origin
    origin = Origin(made.kind, made.proof, made.source, made.depth, made.round, (sample.id,), made.verifiers, made.note)
    completion = turn.completion.content
    return Example(example_id(turn.prompt, completion, NLL, origin), turn.prompt, completion, origin=origin, subgroup=subgroup)


def _minus_value(sample: Sample) -> float:
    return -(sample.value or 0.0)
