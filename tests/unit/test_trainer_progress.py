"""Fits that were stopped go on from their last checkpoint, to the same weights, and ask a reference nothing again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_lm import LLAMA, SUMS, tiny, weights

from outcross.models.sequence_classifier import sequence_classifier
from outcross.models.torch_lm import Lora, TorchLM
from outcross.stages import FitPlan, KeepsProgress
from outcross.train.progress import Progress
from outcross.train.trainer import OutcrossTrainer
from outcross.types import Example, Loss, Turn

PLAN = FitPlan(lr=1e-2, epochs=4.0, batch=3, schedule="cosine")
PAIRS = tuple(Example(f"p{i}", f"{i}+{i}=", str(2 * i), Loss("dpo"), rejected=str(i)) for i in range(1, 9))


class Stop(Exception):
    """The process dies."""


class Noted:
    """What a fit told, until it is stopped after `last` steps."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.told: list[tuple[int, tuple[str, ...], dict[str, float]]] = []

    def __call__(self, step: int, ids: Sequence[str], **facts: float) -> None:
        self.told.append((step, tuple(ids), facts))
        if self.last is not None and step + 1 == self.last:
            raise Stop


def learn(model: Any, noted: Noted, rows: Iterable[Example] = SUMS, reference: Any = None, plan: FitPlan = PLAN) -> Any:
    return model.fit(rows, plan=plan, reference=reference, seed=5, seen=noted)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The optimiser steps that were computed, in every fit of a test."""
    computed: list[int] = []
    training_step = OutcrossTrainer.training_step

    def counted(self: OutcrossTrainer, *args: Any, **kwargs: Any) -> Any:
        computed.append(self.step)
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(OutcrossTrainer, "training_step", counted)
    return computed


DROPS = {**LLAMA, "attention_dropout": 0.2}
MODELS = {
    "full": lambda: tiny(checkpoint_seconds=0.0),
    "dropout": lambda: tiny(DROPS, checkpoint_seconds=0.0),
    "low rank": lambda: tiny(lora=Lora(r=2, dropout=0.3), checkpoint_seconds=0.0),
}


@pytest.mark.parametrize("last", [1, 5, 10])
@pytest.mark.parametrize("name", MODELS)
def test_a_fit_that_was_stopped_ends_with_the_same_bits(name: str, last: int, tmp_path: Path, steps: list[int]) -> None:
    model = MODELS[name]()
    whole = Noted()
    expected = weights(learn(model, whole))
    kept = model.keeping(tmp_path / "fit", tmp_path)
    assert isinstance(model, KeepsProgress)
    with pytest.raises(Stop):
        learn(kept, Noted(last))
    del steps[:]
    again = Noted()
    found = learn(kept, again)
    assert steps[0] == last - 1  # the step in which it died was told before it was kept, so it is taken again
    assert torch.equal(weights(found), expected) and again.told == whole.told
    assert torch.equal(weights(model), weights(MODELS[name]()))  # the start stays as it is


def test_a_reward_model_goes_on_too(tmp_path: Path, steps: list[int]) -> None:
    tiny().save(tmp_path / "lm")
    pairs = [Example(f"b{i}", f"{i}+{i}=", str(2 * i), Loss("bt"), rejected=str(i + 1)) for i in range(8)]
    model = sequence_classifier(str(tmp_path / "lm"), new_head=True, machine=tiny(checkpoint_seconds=0.0).machine)
    whole = learn(model, Noted(), pairs)
    kept = model.keeping(tmp_path / "fit", tmp_path)
    with pytest.raises(Stop):
        learn(kept, Noted(4), pairs)
    del steps[:]
    assert learn(kept, Noted(), pairs).id == whole.id and steps[0] == 3


def test_another_fit_does_not_go_on_from_it(tmp_path: Path, steps: list[int]) -> None:
    kept = tiny(checkpoint_seconds=0.0).keeping(tmp_path / "fit", tmp_path)
    with pytest.raises(Stop):
        learn(kept, Noted(5))
    for change in ({"rows": SUMS[1:]}, {"plan": FitPlan(lr=2e-2, epochs=4.0, batch=3)}):
        del steps[:]
        with pytest.raises(Stop):
            learn(kept, Noted(2), **change)  # type: ignore[arg-type]
        assert steps == [0, 1]


def test_a_damaged_checkpoint_is_named_and_the_fit_begins_anew(tmp_path: Path, steps: list[int], caplog: pytest.LogCaptureFixture) -> None:
    model = tiny(checkpoint_seconds=0.0)
    kept = model.keeping(tmp_path / "fit", tmp_path)
    with pytest.raises(Stop):
        learn(kept, Noted(5))
    path = tmp_path / "fit" / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    del steps[:]
    assert learn(kept, Noted()).id == learn(model, Noted()).id and steps[0] == 0
    assert "checkpoint.pt cannot be read" in caplog.text


def test_checkpoints_take_a_fiftieth_of_the_time_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("outcross.train.progress.time.monotonic", lambda: clock[0])
    progress = Progress(tmp_path, "a", _since=0.0)
    clock[0] = 29.0
    assert not progress.due()
    clock[0] = 31.0
    assert progress.due()
    progress._took = 2.0
    clock[0] = 99.0
    assert not progress.due()
    clock[0] = 101.0
    assert progress.due()
    assert not Progress(tmp_path, "a", 200.0, _since=0.0).due() and Progress(tmp_path, "a", 100.0, _since=0.0).due()


class Asked:
    """A reference that counts the answers it scores."""

    def __init__(self, model: TorchLM, dies_at: int | None = None) -> None:
        self.model, self.asked, self.id, self.dies_at = model, 0, model.id, dies_at

    depth = 0

    def close(self) -> None: ...

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]:
        said = list(turns)
        if self.dies_at is not None and self.asked + len(said) > self.dies_at:
            raise Stop
        self.asked += len(said)
        yield from self.model.log_probs(said)


def test_a_reference_is_asked_once_whatever_happens(tmp_path: Path) -> None:
    model, reference = tiny(checkpoint_seconds=0.0), Asked(tiny(seed=3))
    expected = learn(model, Noted(), PAIRS, reference).id
    assert reference.asked == 16
    kept = model.keeping(tmp_path / "fit", tmp_path)
    with pytest.raises(Stop):
        learn(kept, Noted(3), PAIRS, reference)
    assert learn(kept, Noted(), PAIRS, reference).id == expected and reference.asked == 32
    more = (*PAIRS, Example("p9", "9+9=", "18", Loss("dpo"), rejected="9"))
    learn(kept, Noted(), more, reference)  # a later round, with the earlier rounds' rows in it
    assert reference.asked == 34
    learn(kept, Noted(), more, Asked(tiny(seed=4)))  # another model's numbers are its own
    assert reference.asked == 34


def test_what_a_reference_said_is_kept_by_the_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the same questions meet in the same batches after a stop."""
    monkeypatch.setattr("outcross.train.encode.CHUNK", 3)
    model = tiny(checkpoint_seconds=0.0)
    expected = learn(model, Noted(), PAIRS, tiny(seed=3)).id
    kept = model.keeping(tmp_path / "fit", tmp_path)
    with pytest.raises(Stop):
        learn(kept, Noted(), PAIRS, Asked(tiny(seed=3), dies_at=13))
    left = Asked(tiny(seed=3))
    assert learn(kept, Noted(), PAIRS, left).id == expected and left.asked == 4


def test_what_a_reference_said_is_asked_again_where_the_file_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, reference = tiny(), Asked(tiny(seed=3))
    expected = learn(model, Noted(), PAIRS, reference).id
    (tmp_path / "references.db").write_bytes(b"neither rows nor columns" * 400)
    assert learn(model.keeping(tmp_path / "fit", tmp_path), Noted(), PAIRS, reference).id == expected and reference.asked == 32
    assert (
        "references.db cannot be used (file is not a database), so the reference is asked again; if it is damaged, remove it" in caplog.text
    )
