"""A plain function as a verifier, with the signature of TRL's reward functions."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from outcross.recipe import fingerprint
from outcross.stages import Context, Stage
from outcross.text import prompt_text
from outcross.types import Canary, Ground, Group, Sample, Score
from outcross.verify.each import UNFINISHED, with_score

Reward = Callable[..., list[float | None]]


@dataclass(frozen=True)
class Function(Stage):
    """Scores by `function(prompts, completions, **columns) -> list[float | None]`, called once a group.

    It receives one prompt and one completion per sample (texts; for conversations lists of `{"role", "content"}` as in TRL), and
    of the columns `answer`, `subgroup` and the task's own those that it names, or all if it takes `**columns`. A value of
    `passes_at` or more passes; None abstains. NaN, infinity, another type, a list of another length and whatever it raises are *error*
    verdicts with the reason. Answers that were cut off are not passed on to it and fail.

    canaries: answers whose verdicts you know, good and bad ones, for example `{task: {id: sum, prompt: "2+2=", answer: "4"}, answers: ["4",
        "5"], expected: [pass, fail]}`; the function is tried on them before every batch.
    ground: what the function's verdict rests on. Say "judged" if it asks a model: the gate then needs another probe.
    """

    function: Reward
    passes_at: float = 1.0
    ground: Ground = "exact"
    canaries: tuple[Canary, ...] = ()

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @property
    def version(self) -> str:  # type: ignore[override]
        """Follows the function's source: a changed function is another version, which a recall can tell apart."""
        return hashlib.blake2b(fingerprint(self.function).encode(), digest_size=4).hexdigest()

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        name, version = self.name, self.version
        wanted = _named(self.function)
        for group in groups:
            judged = [sample for sample in group.samples if not sample.error and sample.turns[-1].completion.finished]
            found = iter(self._scores(group, judged, wanted, name, version))
            verdict, reason, _ = UNFINISHED
            cut = Score(name, version, verdict, 0.0, reason)
            asked = {sample.id for sample in judged}
            yield Group(
                group.task,
                tuple(
                    sample if sample.error else with_score(sample, next(found) if sample.id in asked else cut) for sample in group.samples
                ),
            )

    def _scores(self, group: Group, samples: Sequence[Sample], wanted: set[str] | None, name: str, version: str) -> list[Score]:
        if not samples:
            return []

        def all_of(reason: str) -> list[Score]:
            return [Score(name, version, "error", None, reason[:200])] * len(samples)

        try:
            values: Any = self.function(**_arguments(group, samples, wanted))
        except Exception as error:
            return all_of(f"{type(error).__name__}: {error}")
        if not isinstance(values, list | tuple):
            return all_of(f"it returned a {type(values).__name__}, not a list of one number per completion")
        if len(values) != len(samples):
            return all_of(f"it returned {len(values)} values for {len(samples)} completions")
        return [self._score(value, name, version) for value in values]

    def _score(self, value: Any, name: str, version: str) -> Score:
        if value is None:
            return Score(name, version, "abstain")
        try:
            number = float(value)
        except (TypeError, ValueError):
            return Score(name, version, "error", None, f"it returned {value!r:.60}, which is not a number")
        if not math.isfinite(number):
            return Score(name, version, "error", None, f"it returned {number}, which is not a finite number")
        return Score(name, version, "pass" if number >= self.passes_at else "fail", number)


def _named(function: Reward) -> set[str] | None:
    """The parameters that the function names; None when it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters):
        return None
    return {item.name for item in parameters}


def _arguments(group: Group, samples: Sequence[Sample], wanted: set[str] | None) -> dict[str, Any]:
    task, size = group.task, len(samples)
    columns = {"answer": task.answer, "subgroup": task.subgroup, **dict(task.columns)}
    chosen = {name: [value] * size for name, value in columns.items() if wanted is None or name in wanted}
    if isinstance(task.prompt, tuple):
        prompt: Any = [{"role": message.role, "content": message.content} for message in task.prompt]
        said: list[Any] = [[{"role": "assistant", "content": sample.text}] for sample in samples]
    else:
        prompt, said = prompt_text(task.prompt), [sample.text for sample in samples]
    return {"prompts": [prompt] * size, "completions": said, **chosen}
