"""What unit tests of stages share: a synchronous runner, a past without rounds, and short ways to make records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from outcross.stages import Completes, Context, Dialogue, Model
from outcross.types import Completion, Example, Group, Origin, Outcome, Prompt, Review, Sample, Score, Task, Turn, sample_id

T = TypeVar("T")


def run_all(ctx: Context, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]:
    """Dialogues one after the other, each question answered at once."""
    for dialogue in dialogues:
        try:
            ask = next(dialogue)
            while True:
                model = ctx.model(ask.role)
                assert isinstance(model, Completes)
                future = model.submit(ask.request)
                model.flush()
                ask = dialogue.send(future.result(timeout=0))
        except StopIteration as stop:
            yield stop.value


@dataclass(frozen=True)
class NoPast:
    """A past without rounds; stages keep their state under `folder`."""

    folder: Path
    real: Sequence[Example] = ()

    def groups(self, phase: str | None = None, /) -> Iterator[Group]:
        return iter(())

    def outcomes(self, task_id: str, /) -> Sequence[Outcome]:
        return ()

    def reviews(self) -> Sequence[Review]:
        return ()

    def state(self, stage: str, /) -> Path:
        folder = self.folder / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def context(folder: Path, models: Mapping[str, Model] | None = None, label: str = "phase/0000", seed: int = 0) -> Context:
    return Context(models or {}, NoPast(folder), label, 0, seed, run_all)


def sample(text: str, index: int = 0, prompt: Prompt = "2+2=", finished: bool = True, **fields: Any) -> Sample:
    origin = Origin("synthetic", "none", "model", 1, "phase/0000", ("task",))
    turns = (Turn(prompt, Completion(text, finished=finished)),)
    return Sample(sample_id("task", index, turns, origin), turns, origin, **fields)


def failed(index: int = 0, reason: str = "timed out") -> Sample:
    origin = Origin("synthetic", "none", "model", 1, "phase/0000", ("task",))
    return Sample(sample_id("task", index, (), origin), (), origin, error=reason)


def group(*samples: Sample | str, answer: str | None = "4", prompt: Prompt = "2+2=", **fields: Any) -> Group:
    made = [sample(item, index, prompt) if isinstance(item, str) else item for index, item in enumerate(samples)]
    return Group(Task("task", prompt, answer, **fields), tuple(made))


def score(verdict: Any, value: float | None = None, verifier: str = "exact") -> Score:
    return Score(verifier, "1", verdict, value)


def verdicts(groups: Iterable[Group]) -> list[list[str | None]]:
    return [[item.verdict for item in one.samples] for one in groups]
