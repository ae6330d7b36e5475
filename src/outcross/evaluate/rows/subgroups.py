"""Whether every planned subgroup is there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

from outcross.stages import Bounds, Context, Rows, Stage
from outcross.types import Ground, Measurement


@dataclass(frozen=True)
class Subgroups(Stage):
    """Of the subgroup that fared worst, its share among the rows' tasks over its share among the tasks that were asked: 1 when verifying and
    curating touch all subgroups alike, 0 when one of them is gone. It is a statement about these very rows, so that it has no interval; the
    measurement's item names the subgroup. Tasks without a subgroup do not count."""

    limit: float = 0.5
    kind: ClassVar[Literal["quality", "diversity", "fit"]] = "diversity"
    ground: ClassVar[Ground] = "exact"

    @property
    def bounds(self) -> Bounds:
        return Bounds(limit=self.limit, exact=True)

    def __call__(self, ctx: Context, rows: Rows, /) -> Measurement | None:
        asked = Counter({group.task.id: group.task.subgroup for group in rows.made()}.values())
        left = Counter(group.task.subgroup for group in rows)
        del asked[None], left[None]
        if len(asked) < 2:
            return None
        total, kept = sum(asked.values()), max(1, sum(left.values()))
        share, worst = min((left[name] / kept * total / count, str(name)) for name, count in asked.items())
        return Measurement(self.name, (worst,), (share,))
