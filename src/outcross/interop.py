"""Outcross verifiers as reward functions of other trainers.

    reward = as_trl_reward(Math())                    # GRPOTrainer(reward_funcs=[reward], …)
    rubric = vf.Rubric(funcs=[as_verifiers_reward(Exact())])
    with as_trl_reward(verifier, models) as reward: …   # closes the models that the verifier asks

A verdict's number goes out as it is. An answer that could not be judged (error, abstain) has none, and never becomes a zero: each
framework is told in its own way. What these verifiers ask is not journalled beyond the process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Self

from outcross.cli.verifiers import outside
from outcross.errors import ConfigError, StageError
from outcross.stages import Context, Model, Role, Verifier, name_of, roles_of
from outcross.types import Completion, Group, Message, Origin, Prompt, Sample, Score, Task, Turn, content_hash, sample_id

_SCALARS = (str, int, float, bool)


class _Exported:
    """Runs a verifier in a thread of its own: a reward function may be called from a running event loop."""

    def __init__(self, verifier: Verifier, models: Mapping[Role, Model] | None, answer: str) -> None:
        missing = [role for role in roles_of(verifier) if role not in (models or {})]
        if missing:
            raise ConfigError(f"{name_of(verifier)} asks a model in the role {missing[0]!r}; pass models={{{missing[0]!r}: model}}")
        self.__name__ = name_of(verifier)
        self._verifier, self._models, self._answer = verifier, models or {}, answer
        self._stack = ExitStack()
        self._ctx: Context | None = None
        self._thread = ThreadPoolExecutor(1, "outcross-reward")

    def close(self) -> None:
        """Let go of the models and of the thread. Workers of a verifier end with each call already."""
        self._thread.submit(self._stack.close).result()
        self._thread.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge(self, groups: Sequence[Group]) -> list[list[Score]]:
        """The verifier's score of each sample. It asks in the thread that opened the context: a journal belongs to one."""
        if self._ctx is None:
            self._ctx = self._stack.enter_context(outside(self._models))
        return [[sample.scores[-1] for sample in group.samples] for group in self._verifier(self._ctx, groups)]

    async def _judge_one(self, prompt: Any, said: str, answer: Any, columns: Mapping[str, Any]) -> Score:
        task = _task(prompt, answer, columns)
        future = self._thread.submit(self._judge, [Group(task, (_sample(task, 0, said, ()),))])
        return (await asyncio.wrap_future(future))[0][0]


class TrlReward(_Exported):
    """A TRL reward function: `None`, which TRL leaves out of its sums, where an answer could not be judged."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """Equal prompts with equal columns are one task, wherever they stand. Text columns are the task's; `completion_ids` its tokens.
        TRL does not say which completions were cut off, so all count as finished."""
        size = len(prompts)
        rows = {key: value for key, value in columns.items() if isinstance(value, list | tuple) and len(value) == size}
        ids = rows.pop("completion_ids", [()] * size)
        answers = rows.pop(self._answer, [None] * size)
        tasks = [_task(prompts[i], answers[i], {key: value[i] for key, value in rows.items()}) for i in range(size)]
        places: dict[str, list[int]] = {}
        for index, task in enumerate(tasks):
            places.setdefault(task.id, []).append(index)
        groups = [
            Group(tasks[held[0]], tuple(_sample(tasks[i], i, _said(completions[i]), ids[i]) for i in held)) for held in places.values()
        ]
        found: list[float | None] = [None] * size
        for held, scores in zip(places.values(), self._thread.submit(self._judge, groups).result(), strict=True):
            for index, score in zip(held, scores, strict=True):
                found[index] = number(score)
        return found


class VerifiersReward(_Exported):
    """A reward function of a verifiers rubric (v0), judged answer by answer. NaN where it could not be judged: an exception or None
    would become 0.0 there, and a NaN shows in the rollout's reward and its group's advantages."""

    async def __call__(self, prompt: Any, completion: Any, answer: Any = None, info: Any = None) -> float:
        value = number(await self._judge_one(prompt, _said(completion), answer, info if isinstance(info, dict) else {}))
        return float("nan") if value is None else value


class VerifiersTaskReward(_Exported):
    """A reward of a verifiers task (v1), judged answer by answer. It raises `StageError` where an answer could not be judged: the trace
    then has an error and no reward, as that framework records what could not be scored."""

    async def __call__(self, task: Any, trace: Any) -> float:
        known = task.model_dump() if hasattr(task, "model_dump") else dict(vars(task))
        prompt, answer = known.pop("prompt", "") or "", known.pop(self._answer, None)
        score = await self._judge_one(prompt, trace.last_reply, answer, known)
        if (value := number(score)) is None:
            raise StageError(f"{score.verifier} could not judge the answer ({score.verdict}): {score.reason}")
        return value


def as_trl_reward(verifier: Verifier, models: Mapping[Role, Model] | None = None, *, answer: str = "answer") -> TrlReward:
    """`verifier` for TRL's GRPOTrainer and RLOOTrainer. `answer`: the data set's column that is the reference. Raises `ConfigError`
    when the verifier asks a model that `models` has not."""
    return TrlReward(verifier, models, answer)


def as_verifiers_reward(verifier: Verifier, models: Mapping[Role, Model] | None = None) -> VerifiersReward:
    """`verifier` for a verifiers rubric, `vf.Rubric(funcs=[…])` (v0). Raises `ConfigError` as `as_trl_reward`."""
    return VerifiersReward(verifier, models, "answer")


def as_verifiers_task_reward(
    verifier: Verifier, models: Mapping[Role, Model] | None = None, *, answer: str = "answer"
) -> VerifiersTaskReward:
    """`verifier` for a verifiers task (v1): `await reward(self.data, trace)` in a method under `@vf.reward`. `answer`: the field of the
    task's data that is the reference. Raises `ConfigError` as `as_trl_reward`."""
    return VerifiersTaskReward(verifier, models, answer)


def number(score: Score) -> float | None:
    """A score's value; of a pass or fail without one 1 or 0; None for an error and an abstention."""
    if score.verdict not in ("pass", "fail"):
        return None
    return score.value if score.value is not None else float(score.verdict == "pass")


def _task(prompt: Any, answer: Any, columns: Mapping[str, Any]) -> Task:
    said: Prompt = prompt if isinstance(prompt, str) else tuple(Message(_part(item, "role"), _part(item, "content")) for item in prompt)
    expected = None if answer is None else answer if isinstance(answer, str) else str(answer)
    named = tuple(sorted((str(key), _text(value)) for key, value in columns.items() if value is not None))
    return Task(content_hash("task", said, expected, named), said, expected, columns=named)


def _sample(task: Task, index: int, said: str, ids: Sequence[int]) -> Sample:
    origin = Origin("synthetic", source="policy", depth=1, parents=(task.id,))
    turns = (Turn(task.prompt, Completion(said, tuple(map(int, ids)))),)
    return Sample(sample_id(task.id, index, turns, origin), turns, origin)


def _said(completion: Any) -> str:
    """A completion's text; of a conversation what its last message says."""
    if isinstance(completion, str):
        return completion
    return _part(completion[-1], "content") if completion else ""


def _part(message: Any, name: str) -> str:
    value = message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)
    return value if isinstance(value, str) else "" if value is None else _text(value)


def _text(value: Any) -> str:
    return str(value) if isinstance(value, _SCALARS) else json.dumps(value, default=str, sort_keys=True)
