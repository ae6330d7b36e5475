"""What a stage may know of the rounds before its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from outcross.engine.store import RoundDir, RunDir, read_json
from outcross.engine.tables import rows_of
from outcross.types import Example, Group, Outcome, Review


@dataclass(frozen=True)
class Recorded:
    """The `Past` of a round: complete rounds before it, tombstones applied. `folder` is the round's own, for states."""

    run: RunDir
    before: tuple[RoundDir, ...]
    real: Iterable[Example]
    folder: Path

    @cached_property
    def _buried(self) -> frozenset[str]:
        return self.run.tombstones()

    def groups(self, phase: str | None = None, /) -> Iterator[Group]:
        """Groups of earlier rounds, without tombstoned samples."""
        for earlier in self.before:
            if phase is None or earlier.phase == phase:
                for group in earlier.groups():
                    yield self._without_buried(group)

    def _without_buried(self, group: Group) -> Group:
        if not self._buried:
            return group
        return Group(group.task, tuple(sample for sample in group.samples if sample.id not in self._buried))

    @cached_property
    def _outcomes(self) -> dict[str, list[Outcome]]:
        found: dict[str, list[Outcome]] = {}
        for earlier in self.before:
            for part in earlier.parts():
                for row in rows_of(part / "groups.parquet", ["id", "task_id", "verdict", "value"]):
                    if row["id"] in self._buried:
                        continue
                    found.setdefault(row["task_id"], []).append(Outcome(earlier.label, row["verdict"], row["value"]))
        return found

    def outcomes(self, task_id: str, /) -> Sequence[Outcome]:
        """How earlier attempts at a task ended. The first call reads the verdicts of all earlier rounds."""
        return self._outcomes.get(task_id, [])

    def reviews(self) -> Sequence[Review]:
        """People's verdicts that had come in when the round began."""
        folder = self.folder.parent if self.folder.name.startswith("inner_") else self.folder
        path = folder / "reviews.json"
        return [msgspec.convert(item, Review) for item in read_json(path)] if path.exists() else []

    def state(self, stage: str, /) -> Path:
        """The stage's folder in this round; at first it is a copy of the one of the last accepted round, or of the inner turn before."""
        own = self.folder / "state" / stage
        if not own.exists():
            turn = self.folder.name.removeprefix("inner_")
            earlier: Path | None
            if turn != self.folder.name and int(turn) > 0:
                earlier = self.folder.with_name(f"inner_{int(turn) - 1}") / "state" / stage
            else:
                earlier = next((item.parts()[-1] / "state" / stage for item in reversed(self.before) if item.accepted), None)
            own.parent.mkdir(parents=True, exist_ok=True)
            if earlier is not None and earlier.exists():
                shutil.copytree(earlier, own)
            else:
                own.mkdir()
        return own
