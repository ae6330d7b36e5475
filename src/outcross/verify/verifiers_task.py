"""Rewards of a verifiers task (v1) as a verifier: the methods of its class under `@vf.reward`, as they are."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from outcross.errors import ConfigError
from outcross.stages import Context, Stage
from outcross.types import Canary, Ground, Group, Sample, Task
from outcross.verify.called import Noted, called, scored_by_values
from outcross.verify.interop import columns_of, messages_of


@dataclass(frozen=True)
class VerifiersTaskReward(Stage):
    """Scores by the weighted rewards of a Prime Intellect `verifiers` task (v1, the package from 0.2 on): `Task.score` on a trace of the
    prompt and the answer, called once an answer.

    task: the class, a `verifiers.v1.Task`. Its data are made of our task's prompt, `answer` (where it has such a field) and columns, those
        of a column `info` that is a JSON object among them; pydantic reads numbers from text. What does not fit is an *error* verdict.

    The value is the trace's reward, the sum of its rewards by their weights, each of which stands in the evidence with the metrics;
    `passes_at` or more passes. A reward that was left unscored is an error. Raises `ConfigError` for a class that is no such task, one
    without rewards, and one with a reward that needs a `runtime`: outside of that framework there is none.
    """

    task: Callable[..., Any]
    passes_at: float = 1.0
    ground: Ground = "judged"
    canaries: tuple[Canary, ...] = ()

    @property
    def name(self) -> str:
        return self.task.__name__

    @property
    def version(self) -> str:  # type: ignore[override]
        """Follows the class's source."""
        return hashlib.blake2b(inspect.getsource(self.task).encode(), digest_size=4).hexdigest()

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        refuse_unscorable(self.task)
        return scored_by_values(self, groups, self.passes_at, self._values)

    def _values(self, task: Task, samples: Sequence[Sample]) -> list[Any]:
        return called([partial(self._scored, task, sample) for sample in samples])

    def _scored(self, task: Task, sample: Sample) -> Awaitable[Noted]:
        """Raises what pydantic raises of data that do not fit, before anything runs."""
        known = columns_of(task, "info") | ({} if task.answer is None else {"answer": task.answer})
        prompt = task.prompt if isinstance(task.prompt, str) else messages_of(task.prompt)
        theirs = self.task(self.task.data_type()(**(known | {"prompt": prompt})))  # type: ignore[attr-defined]
        return _reward(theirs, _trace(theirs, task, sample))


async def _reward(theirs: Any, trace: Any) -> Noted:
    await theirs.score(trace)
    missing = [name for name, reward in trace.rewards.items() if reward is None]
    if missing or not trace.rewards:
        raise ValueError(f"the reward {missing[0]!r} was left unscored" if missing else "it gave no reward")
    parts = {name: reward.score for name, reward in trace.rewards.items()}
    return Noted(trace.reward, parts | {name: value for name, value in trace.metrics.items() if value is not None})


def _trace(theirs: Any, task: Task, sample: Sample) -> Any:
    """The conversation as that framework records one: a node a message, the answer's as sampled."""
    from verifiers import v1 as vf

    roles = {"system": vf.SystemMessage, "assistant": vf.AssistantMessage}
    said = [roles.get(item["role"], vf.UserMessage)(content=item["content"]) for item in messages_of(task.prompt)]
    said.append(vf.AssistantMessage(content=sample.text))
    nodes = [
        vf.MessageNode(parent=place - 1 if place else None, message=message, sampled=place == len(said) - 1)
        for place, message in enumerate(said)
    ]
    record = vf.TraceTask(type=type(theirs).__name__, data=theirs.data, key=theirs.key, hash=theirs.hash)
    return vf.Trace(task=record, agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes, is_completed=True, ok=True)


def refuse_unscorable(task: Callable[..., Any]) -> None:
    """Raises `ConfigError` for a class whose rewards cannot be had here."""
    try:
        from verifiers.v1 import Task as Theirs
    except ImportError:
        raise ConfigError(
            f"verifiers_task_reward: {task.__name__} is to be a task of the package verifiers, which is not installed; `pip install verifiers`"
        ) from None
    if not isinstance(task, type) or not issubclass(task, Theirs):
        raise ConfigError(f"verifiers_task_reward: {task.__name__} is no verifiers.v1.Task; name the task's class, `module:Class`")
    found = [value for base in task.__mro__ for value in vars(base).values() if getattr(value, "reward", False) is True]
    if not found:
        raise ConfigError(f"verifiers_task_reward: {task.__name__} has no method under @vf.reward")
    for method in found:
        runtime = inspect.signature(method).parameters.get("runtime")
        if runtime is not None and runtime.default is inspect.Parameter.empty:
            raise ConfigError(
                f"verifiers_task_reward: the reward {method.__name__!r} of {task.__name__} needs a runtime (a box with the agent's files), and "
                "here is none; score such tasks in that framework, or give the parameter a default"
            )
