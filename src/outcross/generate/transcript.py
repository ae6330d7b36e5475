"""What stages of several exchanges share: conversations as messages or as plain text, answers read back, groups put together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from outcross.errors import ConfigError
from outcross.stages import Context, Dialogue
from outcross.types import Array, Completion, Group, Message, Origin, Prompt, Request, Response, Sample, Sampling, Task, Turn, sample_id

_LABELS = {"user": "User", "assistant": "Assistant"}
NEXT = "\n\nUser:"  # where a base model begins to write the other side's turn


def messages_of(prompt: Prompt, stage: str) -> tuple[Message, ...]:
    """A prompt as a conversation. Raises `ConfigError` for an array."""
    if isinstance(prompt, Array):
        raise ConfigError(f"{stage}: it asks in words, and a task's prompt is an array; choose tasks of text")
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def written(messages: Sequence[Message]) -> str:
    """A conversation as plain text up to where the assistant begins to speak; system messages stand without a label."""
    parts = [f"{_LABELS[item.role]}: {item.content}" if item.role in _LABELS else item.content for item in messages]
    return "\n\n".join([*parts, "Assistant:"])


def request_of(messages: tuple[Message, ...], sampling: Sampling, seed: int, *, plain_text: bool) -> Request:
    """One question. As plain text, the answer ends where the model would go on with the user's next turn."""
    if not plain_text:
        return Request(messages, 1, sampling, seed=seed)
    stop = sampling.stop if NEXT in sampling.stop else (*sampling.stop, NEXT)
    return Request(written(messages), 1, msgspec.structs.replace(sampling, stop=stop), seed=seed)


def heard(response: Response, what: str, *, whole: bool = True) -> tuple[Completion | None, str]:
    """The answer with white space around it removed, or None and why there is none. `whole`: one that was cut off is none."""
    if response.error or not response.completions:
        return None, f"{what} failed: {response.error or 'the model gave no completion'}"
    said = response.completions[0]
    if not isinstance(said.content, str):
        return None, f"{what} is an array, not text"
    if not said.content.strip():
        return None, f"{what} is empty"
    if whole and not said.finished:
        return None, f"{what} was cut off at the token limit"
    return Completion(said.content.strip(), finished=said.finished), ""


def failed_sample(task: Task, index: int, origin: Origin, reason: str, seat: str = "policy") -> Sample:
    """A sample that came to nothing, and why."""
    return Sample(sample_id(task.id, index, (), origin, seat), (), origin, seat, (), reason)


def answered_sample(task: Task, index: int, turns: Sequence[Turn], origin: Origin, seat: str = "policy") -> Sample:
    """A sample of these exchanges; the last one is what verifiers judge and objectives teach."""
    found = tuple(turns)
    return Sample(sample_id(task.id, index, found, origin, seat), found, origin, seat)


def in_groups(ctx: Context, tasks: Iterable[Task], dialogues: Callable[[Task], Sequence[Dialogue[Sequence[Sample]]]]) -> Iterator[Group]:
    """One group per task of what its dialogues give, in their order. The dialogues of a task, at least one, run side by side."""
    waiting: deque[tuple[Task, int]] = deque()

    def each() -> Iterator[Dialogue[Sequence[Sample]]]:
        for task in tasks:
            begun = dialogues(task)
            waiting.append((task, len(begun)))
            yield from begun

    samples: list[Sample] = []
    done = 0
    for made in ctx.run(each()):
        samples.extend(made)
        done += 1
        task, count = waiting[0]
        if done == count:
            waiting.popleft()
            yield Group(task, tuple(samples))
            samples, done = [], 0
