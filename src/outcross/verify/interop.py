"""Reward functions written for verl, verifiers and OpenRLHF, as they are. Those of TRL: `verify/function.py`.

Whether such a function compares, executes or asks a model cannot be seen from outside. Its ground is *judged* until you say otherwise:
the gate then wants another probe, and a run wants proof that the verifier beats none (`outcross verifier-check`). `ground: exact` says
that you know better. What goes wrong in a function is an *error* verdict, never the zero that these frameworks record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.text import prompt_text
from outcross.types import Canary, Ground, Group, Prompt, Sample, Task
from outcross.verify.called import Noted, called, every, function_name, function_version, named_by, scored_by_values


@dataclass(frozen=True)
class VerlReward(Stage):
    """Scores by verl's `compute_score(data_source, solution_str, ground_truth, extra_info)`, sync or async, called once an answer.

    It returns a number, or a dict with `score`; the dict's other entries are the evidence. `ground_truth` is the task's answer;
    `extra_info` holds the task's columns, those of a column `extra_info` that is a JSON object, and `num_turns`; `data_source` is the
    task's column of that name, else this setting. A value of `passes_at` or more passes; None abstains; NaN and what it raises are errors.
    """

    function: Callable[..., Any]
    passes_at: float = 1.0
    ground: Ground = "judged"
    data_source: str = ""
    canaries: tuple[Canary, ...] = ()

    @property
    def name(self) -> str:
        return function_name(self.function)

    @property
    def version(self) -> str:  # type: ignore[override]
        return function_version(self.function)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored_by_values(self, groups, self.passes_at, self._values)

    def _values(self, task: Task, samples: Sequence[Sample]) -> list[Any]:
        known = {"data_source": dict(task.columns).get("data_source", self.data_source), "ground_truth": task.answer}
        calls = [
            partial(
                self.function, **known, solution_str=item.text, extra_info=columns_of(task, "extra_info") | {"num_turns": len(item.turns)}
            )
            for item in samples
        ]
        return [_keyed(value, "score") for value in called(calls)]


@dataclass(frozen=True)
class VerifiersReward(Stage):
    """Scores by a reward function of a Prime Intellect `verifiers` rubric (v0), sync or async, called once an answer.

    It receives what it names of `prompt`, `completion` (both as messages), `answer`, `info` (the task's columns, and those of a column
    `info` that is a JSON object), `task`, `state` (a dict of all these) and `parser`. Several with weights: `weighted_sum`
    of them. A value of `passes_at` or more passes; None abstains; NaN and what it raises are errors.

    parser: what the function's rubric was given as `parser`, where it names one. Raises `ConfigError` for a function of whole groups
    (`completions`, `states`), which is none of a single answer.
    """

    function: Callable[..., Any]
    passes_at: float = 1.0
    ground: Ground = "judged"
    parser: Callable[..., Any] | None = None
    canaries: tuple[Canary, ...] = ()

    def __post_init__(self) -> None:
        plural = sorted((named_by(self.function) or set()) & {"prompts", "completions", "states", "answers", "infos"})
        if plural:
            raise ConfigError(
                f"verifiers_reward: {self.name} takes {', '.join(plural)}: it judges whole groups; use `function` (TRL's form)"
            )

    @property
    def name(self) -> str:
        return function_name(self.function)

    @property
    def version(self) -> str:  # type: ignore[override]
        return function_version(self.function)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored_by_values(self, groups, self.passes_at, self._values)

    def _values(self, task: Task, samples: Sequence[Sample]) -> list[Any]:
        wanted = named_by(self.function)
        calls = []
        for sample in samples:
            info = columns_of(task, "info")
            known: dict[str, Any] = {"prompt": messages_of(task.prompt), "completion": [{"role": "assistant", "content": sample.text}]}
            known |= {"answer": task.answer or "", "info": info, "task": info.get("task", "default")}
            known |= {"state": dict(known)} | ({} if self.parser is None else {"parser": self.parser})
            calls.append(partial(self.function, **{name: value for name, value in known.items() if wanted is None or name in wanted}))
        return called(calls)


@dataclass(frozen=True)
class OpenrlhfReward(Stage):
    """Scores by OpenRLHF's `reward_func(queries, prompts, labels)`, called once a group.

    It returns numbers (a list or a tensor), or a dict with `rewards` and perhaps `scores` and `extra_logs`; `rewards` count. A query is
    the prompt's text followed by the answer's, without the chat template that OpenRLHF writes them in; a label is the task's answer.
    A value of `passes_at` or more passes; None abstains; NaN, a list of another length and what it raises are errors.
    """

    function: Callable[..., Any]
    passes_at: float = 1.0
    ground: Ground = "judged"
    canaries: tuple[Canary, ...] = ()

    @property
    def name(self) -> str:
        return function_name(self.function)

    @property
    def version(self) -> str:  # type: ignore[override]
        return function_version(self.function)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return scored_by_values(self, groups, self.passes_at, self._values)

    def _values(self, task: Task, samples: Sequence[Sample]) -> list[Any]:
        prompt, size = prompt_text(task.prompt), len(samples)
        queries = [prompt + sample.text for sample in samples]
        (found,) = called([partial(self.function, queries=queries, prompts=[prompt] * size, labels=[task.answer] * size)])
        found = _keyed(found, "rewards")
        return every(found.value if isinstance(found, Noted) else found, size)


def _keyed(value: Any, key: str) -> Any:
    """The number of a dict, or whatever else was returned."""
    if not isinstance(value, Mapping):
        return value
    if key not in value:
        return KeyError(f"it returned a dict without {key!r}: {', '.join(map(str, value))}"[:150])
    return Noted(value[key], {name: item for name, item in value.items() if name != key})


def columns_of(task: Task, nested: str) -> dict[str, Any]:
    """The task's columns; one called `nested` that is a JSON object is opened."""
    found: dict[str, Any] = dict(task.columns)
    try:
        inner = json.loads(found.get(nested, ""))
    except ValueError:
        return found
    if isinstance(inner, dict):
        del found[nested]
        found |= inner
    return found


def messages_of(prompt: Prompt) -> list[dict[str, str]]:
    if isinstance(prompt, tuple):
        return [{"role": message.role, "content": message.content} for message in prompt]
    return [{"role": "user", "content": prompt_text(prompt)}]
