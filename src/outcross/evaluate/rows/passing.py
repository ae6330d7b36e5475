"""What verifiers found: how often the round's own passed, and whether another one agrees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import msgspec

from outcross.evaluate.rows.chosen import chosen
from outcross.evaluate.undecided import refuse_undecided, why_undecided
from outcross.stages import Bounds, Context, Role, Rows, Stage, Verifier
from outcross.types import Ground, Group, Measurement


@dataclass(frozen=True)
class PassShare(Stage):
    """The share of a task's answers that passed the round's own verifiers, per task, over all that was made. When it falls, tasks, model or
    verifier have changed. It is held against earlier releases alone: real rows went through no verifier. Answers without a verdict do not count."""

    margin: float = 0.1
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"
    ground: ClassVar[Ground] = "exact"

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.margin, against=("release",))

    def __call__(self, ctx: Context, rows: Rows, /) -> Measurement | None:
        found: dict[str, list[int]] = {}
        for group in rows.made():
            for sample in group.samples:
                if sample.verdict in ("pass", "fail"):
                    found.setdefault(group.task.id, []).append(sample.verdict == "pass")
        values = tuple(sum(verdicts) / len(verdicts) for verdicts in found.values())
        return Measurement(self.name, tuple(found), values, unit="share") if found else None


@dataclass(frozen=True)
class Rechecked(Stage):
    """The share of rows that pass `verifier`, which should be another than those that chose them: one row each of at most `most` tasks.

    limit: what the lower bound of that share must reach. margin: how far it may be behind earlier releases. Real rows are not
    checked: they name no task to check them by. More than 5 % of rows without a verdict raise `StageError`.
    """

    verifier: Verifier
    limit: float = 0.9
    margin: float = 0.05
    most: int = 500
    label: str = ""
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "quality"

    @property
    def name(self) -> str:
        return "_".join(filter(None, ("rechecked", self.label or self.verifier.name)))

    @property
    def ground(self) -> Ground:
        return self.verifier.ground

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return self.verifier.roles

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.margin, self.limit, against=("release",))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return self.verifier.calls(min(tasks, self.most))

    def __call__(self, ctx: Context, rows: Rows, /) -> Measurement | None:
        values: dict[str, float] = {}
        undecided: list[tuple[str, str]] = []
        for group in self.verifier(ctx, self._unscored(rows)):
            (sample,) = group.samples
            if sample.verdict in ("pass", "fail"):
                values[group.task.id] = float(sample.verdict == "pass")
            else:
                undecided.append((group.task.id, why_undecided(group)))
        if not values and not undecided:
            return None
        refuse_undecided(self.name, undecided, len(values) + len(undecided))
        return Measurement(self.name, tuple(values), tuple(values.values()), unit="share")

    def _unscored(self, rows: Rows) -> Iterable[Group]:
        """The chosen rows without earlier verdicts. Rows of real data and of files have none, and no task to check them by."""
        wanted = {item.task_id: item.sample for item in chosen(rows, self.most)}
        for group in rows:
            sample = wanted.get(group.task.id)
            if sample is not None and group.task.origin.kind != "real":
                yield Group(group.task, (msgspec.structs.replace(sample, scores=()),))
