"""A plain function as a verifier, with the signature of TRL's reward functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from outcross.stages import Context, Stage
from outcross.text import prompt_text
from outcross.types import Canary, Ground, Group, Sample, Task
from outcross.verify.called import called, every, function_name, function_version, named_by, scored_by_values

Reward = Callable[..., Any]


@dataclass(frozen=True)
class Function(Stage):
    """Scores by `function(prompts, completions, **columns) -> list[float | None]`, sync or async, called once a group.

    It receives one prompt and one completion per sample (texts; for conversations lists of `{"role", "content"}` as in TRL), and
    of `completion_ids` and the columns `answer`, `subgroup` and the task's own those that it names, or all if it takes `**columns`.
    What TRL adds of its trainer (`trainer_state`, `log_extra`, `log_metric`) does not exist here: a function that cannot do
    without is an error. A value of `passes_at` or more passes; None abstains. NaN, infinity, another type, a list of another length and
    whatever it raises are *error* verdicts with the reason. Answers that were cut off are not passed on to it and fail.

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
        return function_name(self.function)

    @property
    def version(self) -> str:  # type: ignore[override]
        return function_version(self.function)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        wanted = named_by(self.function)

        def values(task: Task, samples: Sequence[Sample]) -> list[Any]:
            (found,) = called([partial(self.function, **_arguments(task, samples, wanted))])
            return every(found, len(samples))

        return scored_by_values(self, groups, self.passes_at, values)


def _arguments(task: Task, samples: Sequence[Sample], wanted: set[str] | None) -> dict[str, Any]:
    size = len(samples)
    columns = {"answer": task.answer, "subgroup": task.subgroup, **dict(task.columns)}
    chosen: dict[str, Any] = {name: [value] * size for name, value in columns.items() if wanted is None or name in wanted}
    if wanted is None or "completion_ids" in wanted:
        chosen["completion_ids"] = [list(sample.turns[-1].completion.tokens) for sample in samples]
    if isinstance(task.prompt, tuple):
        prompt: Any = [{"role": message.role, "content": message.content} for message in task.prompt]
        said: list[Any] = [[{"role": "assistant", "content": sample.text}] for sample in samples]
    else:
        prompt, said = prompt_text(task.prompt), [sample.text for sample in samples]
    return chosen | {"prompts": [prompt] * size, "completions": said}
