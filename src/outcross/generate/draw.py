"""Plain sampling: `n` completions of each task from one role."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from outcross.errors import ConfigError
from outcross.schema import Schema
from outcross.stages import Ask, Context, Dialogue, Role, Stage
from outcross.structured import Settled, kept, settled, told
from outcross.types import Array, Group, Message, Origin, Prompt, Request, Response, Sample, Sampling, Task, Turn, sample_id

_SLOT = "{prompt}"


@dataclass(frozen=True)
class Draw(Stage):
    """Ask a role for `n` completions of each task.

    template: what is asked, with the task's prompt in place of `{prompt}`: worked examples for a few-shot prompt go before it.
        For a conversation it is applied to the last user message.
    system: a system message put before the prompt, which then becomes a conversation; empty for none.
    learn_template: whether the record, and so what is learnt, keeps template and system message. By default it holds the
        bare prompt of the task: the model is shown examples to generate and learns to do without them.
    schema: what every answer must be: a pydantic model or a JSON schema; in a run file `module:Name`, the path of a JSON file, or the
        schema itself. A model that does not keep it is told the schema, and each answer is validated; an invalid one gets one
        correction turn. The content of a sample is canonical JSON; the raw answer is the turn before, where it was corrected, and the
        origin's note says what was done. What stays invalid is a failed sample with its raw turns.
    """

    n: int = 4
    sampling: Sampling = Sampling()
    role: Role = "policy"
    seat: str = "policy"
    template: str = _SLOT
    system: str = ""
    learn_template: bool = False
    schema: Schema | type[Any] | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.schema is not None:
            object.__setattr__(self, "schema", Schema.of(self.schema))
        if self.n < 1:
            raise ConfigError(f"draw: n is {self.n}; ask for at least 1 completion a task")
        if _SLOT not in self.template:
            raise ConfigError(f"draw: template is {self.template!r:.80}, without {_SLOT}; put {_SLOT} where the task's prompt belongs")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.role,)

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return {self.role: tasks if self.schema is None else tasks * (1 + self.n) + 1}  # each answer may be corrected

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        model = ctx.model(self.role)
        if isinstance(self.schema, Schema):
            return self._structured(ctx, tasks, self.schema, model.id, model.depth + 1)
        return ctx.run(self._dialogue(ctx, task, model.id, model.depth + 1) for task in tasks)

    def _structured(self, ctx: Context, tasks: Iterable[Task], schema: Schema, source: str, depth: int) -> Iterator[Group]:
        (constrains,) = ctx.run([kept(schema, self.role, self.sampling)])
        yield from ctx.run(self._dialogue(ctx, task, source, depth, schema, constrains) for task in tasks)

    def _dialogue(
        self, ctx: Context, task: Task, source: str, depth: int, schema: Schema | None = None, constrains: bool = False
    ) -> Dialogue[Group]:
        asked = self._asked(task.prompt if schema is None or constrains else told(schema, task.prompt))
        request = Request(
            asked, self.n, self.sampling, schema=schema.text if schema and constrains else None, seed=ctx.seed_of("draw", task.id)
        )
        response: Response = yield Ask(self.role, request)
        origin = Origin("synthetic", "none", source, depth, ctx.round, (task.id,))
        prompt = asked if self.learn_template else task.prompt
        samples = []
        for index, completion in enumerate(response.completions):
            if schema is None:
                found = Settled((completion,))
            else:
                seed, label = ctx.seed_of("correct", task.id, index), f"task {task.id!r}, answer {index}"
                found = yield from settled(schema, request, self.role, completion, seed, label)
            samples.append(self._sample(task, index, prompt, found, origin))
        return Group(task, self._samples(task, samples, response, origin))

    def _sample(self, task: Task, index: int, prompt: Prompt, found: Settled, origin: Origin) -> Sample:
        turns = tuple(Turn(prompt, completion) for completion in found.completions)
        noted = msgspec.structs.replace(origin, note=found.note) if found.note else origin
        return Sample(sample_id(task.id, index, turns, origin, self.seat), turns, noted, self.seat, (), found.error)

    def _samples(self, task: Task, samples: list[Sample], response: Response, origin: Origin) -> tuple[Sample, ...]:
        count = len(samples)
        if response.error or count != self.n:
            reason = response.error or f"the model gave {count} completions of the {self.n} asked for"
            samples.append(Sample(sample_id(task.id, count, (), origin, self.seat), (), origin, self.seat, (), reason))
        return tuple(samples)

    def _asked(self, prompt: Prompt) -> Prompt:
        if self.template != _SLOT:
            prompt = self._filled(prompt)
        if not self.system:
            return prompt
        if isinstance(prompt, str):
            prompt = (Message("user", prompt),)
        if isinstance(prompt, Array):
            raise ConfigError("draw: a system message was given, and the task's prompt is an array; leave `system` empty")
        return (Message("system", self.system), *prompt)

    def _filled(self, prompt: Prompt) -> Prompt:
        if isinstance(prompt, str):
            return self.template.replace(_SLOT, prompt)
        if isinstance(prompt, Array):
            raise ConfigError("draw: a template was given, and the task's prompt is an array; leave `template` as it is")
        last = max((index for index, message in enumerate(prompt) if message.role == "user"), default=-1)
        if last < 0:
            raise ConfigError("draw: a template was given, and the task's conversation has no user message to apply it to")
        filled = Message("user", self.template.replace(_SLOT, prompt[last].content))
        return (*prompt[:last], filled, *prompt[last + 1 :])
