"""Plain sampling: `n` completions of each task from one role."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from outcross.errors import ConfigError
from outcross.stages import Ask, Context, Dialogue, Role, Stage
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
    """

    n: int = 4
    sampling: Sampling = Sampling()
    role: Role = "policy"
    seat: str = "policy"
    template: str = _SLOT
    system: str = ""
    learn_template: bool = False

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"draw: n is {self.n}; ask for at least 1 completion a task")
        if _SLOT not in self.template:
            raise ConfigError(f"draw: template is {self.template!r:.80}, without {_SLOT}; put {_SLOT} where the task's prompt belongs")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.role,)

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return {self.role: tasks}

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        model = ctx.model(self.role)
        return ctx.run(self._dialogue(ctx, task, model.id, model.depth + 1) for task in tasks)

    def _dialogue(self, ctx: Context, task: Task, source: str, depth: int) -> Dialogue[Group]:
        asked = self._asked(task.prompt)
        seed = ctx.seed_of("draw", task.id)
        response: Response = yield Ask(self.role, Request(asked, self.n, self.sampling, seed=seed))
        origin = Origin("synthetic", "none", source, depth, ctx.round, (task.id,))
        prompt = asked if self.learn_template else task.prompt
        return Group(task, self._samples(task, prompt, response, origin))

    def _samples(self, task: Task, prompt: Prompt, response: Response, origin: Origin) -> tuple[Sample, ...]:
        samples = []
        for index, completion in enumerate(response.completions):
            turns = (Turn(prompt, completion),)
            samples.append(Sample(sample_id(task.id, index, turns, origin, self.seat), turns, origin, self.seat))
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
