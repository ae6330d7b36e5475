"""What a recall finds, and what going on with a run leaves alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from toys import TASKS, phase, play, recipe

from outcross.engine.recall import recall
from outcross.engine.store import RunDir
from outcross.errors import ConfigError
from outcross.generate.draw import Draw
from outcross.stages import Context, Stage
from outcross.types import Group, Sample, Task


@dataclass(frozen=True)
class Guided(Stage):
    """Draws with the help of a verifier inside the generator, which is noted in the origin of every other sample."""

    inner: Draw = Draw(n=2)

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        for group in self.inner(ctx, tasks):
            yield Group(group.task, (self._noted(group.samples[0]), *group.samples[1:]))

    @staticmethod
    def _noted(sample: Sample) -> Sample:
        return msgspec.structs.replace(sample, origin=msgspec.structs.replace(sample.origin, verifiers=("pruner@1",)))


def test_a_verifier_inside_a_generator_is_recalled(tmp_path: Path) -> None:
    run = play(recipe(phase(generate=Guided(), rounds=1)), tmp_path)
    found = recall(run, "pruner")
    noted = {sample.id for group in run.rounds()[0].groups() for sample in group.samples if sample.origin.verifiers}
    assert noted and noted <= set(found.samples)
    assert len(found.samples) == len(TASKS)  # one sample of each task, kept or dropped
    with pytest.raises(ConfigError, match=r"never used the verifier 'exakt'; did you mean 'exact'"):
        recall(run, "exakt")


def test_a_recall_reaches_into_the_round_that_was_stopped_half_way(tmp_path: Path) -> None:
    made = recipe(phase(rounds=2))
    run = play(made, tmp_path)
    whole = recall(run, "exact")
    run.rounds()[1].record_path.unlink()  # as if killed just before the round was complete
    stopped = RunDir(tmp_path)
    assert len(stopped.rounds()) == 1
    assert recall(stopped, "exact") == replace(whole, promoted=("train/0000/model",)) != whole


def test_going_on_removes_what_a_kill_left_half_written_and_nobody_elses_files(tmp_path: Path) -> None:
    made = recipe(phase(rounds=1))
    play(made, tmp_path)
    ours = [
        tmp_path / "manifest.json.tmp",
        tmp_path / "train" / "0000" / "groups.parquet.tmp",
        tmp_path / "start" / "model.tmp" / "weights",
    ]
    ours[2].parent.mkdir()
    theirs = [tmp_path / "notes.tmp", tmp_path / "thesis" / "chapter.tmp"]
    theirs[1].parent.mkdir()
    for path in (*ours, *theirs):
        path.write_text("x")
    (tmp_path / "champion.tmp").symlink_to("nowhere")
    play(made, tmp_path)
    assert all(path.exists() for path in theirs)
    assert not [path for path in tmp_path.rglob("*.tmp") if path not in theirs]
