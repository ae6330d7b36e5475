"""Trackers beside a run's record: what they are told, and that a run does not depend on them."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tiny_lm import tiny
from toys import LEARN, model, phase, play, recipe

from outcross.engine import loop, trackers
from outcross.engine.loop import Options
from outcross.engine.store import RunDir
from outcross.engine.watch import Silent
from outcross.errors import ConfigError
from outcross.recipe import Learn
from outcross.stages import FitPlan
from outcross.train.objectives import Imitate


def curves(run: RunDir) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of TensorBoard's event files, as (step, value): records are a length, its checksum, an event and its checksum."""
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for path in sorted((run.root / "logs" / "tensorboard").rglob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            at += size + 16
            for value in event.summary.value:
                found[value.tag].append((event.step, value.simple_value))
    return found


def test_a_tracker_is_told_what_the_record_says(tmp_path: Path) -> None:
    run = play(recipe(phase(rounds=3)), tmp_path, track=("tensorboard",))
    said = curves(run)
    records = [turn.record for turn in run.rounds()]
    steps = [sum(item["fits"]["policy"]["steps"] for item in records[: index + 1]) for index in range(3)]
    told = [item["measurements"]["pass_rate"]["candidate"] for item in records]
    assert said["probe/pass_rate"] == [(at, pytest.approx(value)) for at, value in zip(steps, told, strict=True)]
    assert [value for _, value in said["round/promoted"]] == [1.0, 1.0, 1.0]
    assert said["mixture/policy/real_records"][0][1] == pytest.approx(records[0]["mixtures"]["policy"]["real_share"]["records"])


def test_after_a_stop_the_curves_go_on(tmp_path: Path) -> None:
    class Stops(Silent):
        def decided(self, round: str, outcome: str, decision: Any, /) -> None:
            if round == "train/0001":
                raise KeyboardInterrupt

    options = Options(track=("tensorboard",))
    with pytest.raises(KeyboardInterrupt):
        loop.run(recipe(phase(rounds=3)), {"policy": model()}, tmp_path, options=options, watch=Stops())
    loop.run(recipe(phase(rounds=3)), {"policy": model()}, tmp_path, options=options)
    whole = play(recipe(phase(rounds=3)), tmp_path.with_name("whole"), seed=0, track=("tensorboard",))
    assert [step for step, _ in curves(RunDir(tmp_path))["probe/real_loss"]][-1] == [step for step, _ in curves(whole)["probe/real_loss"]][
        -1
    ]


@pytest.mark.parametrize("where", ["train/0001/1", "train/0002/0"])
def test_after_a_stop_inner_turns_and_models_of_two_roles_count_once(where: str, tmp_path: Path) -> None:
    class Stops(Silent):
        def stage(self, round: str, stage: str, done: int, total: int | None, counts: Any, /) -> None:
            if round == where and stage.startswith("generate"):
                raise KeyboardInterrupt

    def go(root: Path, watch: Silent) -> dict[str, list[tuple[int, float]]]:
        one = model()
        made = recipe(phase(rounds=3, inner=2, learn={"policy": LEARN, "judge": LEARN}))
        loop.run(made, {"policy": one, "judge": one}, root, options=Options(track=("tensorboard",)), watch=watch)
        return curves(RunDir(root))

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "stopped", Stops())
    said, whole = go(tmp_path / "stopped", Silent()), go(tmp_path / "whole", Silent())
    assert said["round/promoted"] == whole["round/promoted"] and len(whole["round/promoted"]) == 3


def test_a_tracker_that_fails_is_noted_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []

    class Hears(Silent):
        def note(self, text: str, /) -> None:
            notes.append(text)

    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "logs" / "tensorboard").write_text("a file where the tracker wants a folder")
    result = loop.run(recipe(), {"policy": model()}, tmp_path / "run", options=Options(track=("tensorboard",)), watch=Hears())
    assert result.rounds == 2
    assert len([line for line in notes if line.startswith("tensorboard is not told any more")]) == 1


def test_an_unknown_or_absent_tracker_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'wandb'"):
        play(recipe(), tmp_path / "a", track=("wanbd",))
    with pytest.raises(ConfigError, match="the tracker 'mlflow' is not installed: pip install mlflow"):
        play(recipe(), tmp_path / "b", track=("mlflow",))
    assert not list(tmp_path.iterdir())


def test_a_nested_configuration_is_told_flat() -> None:
    assert dict(trackers._flat({"a": {"b": 1, "c": None}, "d": ["x"]})) == {"a.b": 1, "d": "['x']"}


def test_the_loss_of_every_optimiser_step_is_told(tmp_path: Path) -> None:
    learn = Learn(Imitate(), FitPlan(lr=1e-2, epochs=4, batch=16, schedule="constant", warmup=0.0))
    run = play(recipe(phase(rounds=2, learn={"policy": learn})), tmp_path, {"policy": tiny()}, track=("tensorboard",))
    said, steps = curves(run), sum(turn.record["fits"]["policy"]["steps"] for turn in run.rounds())
    assert [step for step, _ in said["policy/loss"]] == list(range(1, steps + 1))
    assert said["policy/loss"][-1][1] < said["policy/loss"][0][1] and all(value > 0 for _, value in said["policy/gradient_norm"])
    assert said["policy/learning_rate"][0][1] == pytest.approx(1e-2)
