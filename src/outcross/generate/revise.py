"""Critique and revision: a draft is criticised by a principle and written again, as often as asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from outcross.errors import ConfigError
from outcross.generate.principles import GENERAL, SELF, Constitution, Principle
from outcross.generate.transcript import answered_sample, failed_sample, heard, in_groups, messages_of, request_of
from outcross.stages import Ask, Context, Dialogue, Role, Stage
from outcross.types import Completion, Group, Message, Origin, Request, Sample, Sampling, Task, Turn


@dataclass(frozen=True)
class Revise(Stage):
    """Draw an answer, then `steps` times: ask for its critique, then for a revision (Constitutional AI, arXiv:2212.08073 §3.1).

    Each step draws a principle afresh, uniformly; the pair of prompt and revision is then put as a fresh one. A step whose critique or
    revision fails, is empty, or whose revision is cut off leaves the text as it was and says so in the origin's note; when no step
    succeeds, the sample has failed, since its text is still the draft.

    n: drafts a task, each revised on its own.
    constitution: principles and demonstrations; `self` is one fixed request (self-revision), `general` a small neutral set.
    critic: the role that criticises and revises; the drafts are by `role`.
    keep: which texts become samples: the `last` revision, all `revisions` (the paper learns from each), or `all`, with the draft under
        the seat "draft" for objectives that compare; the others have the seat "policy".
    plain_text: ask by texts instead of messages, for base models and plain completions.

    A sample's turns are the exchanges as they were, without the demonstrations, and last the task's own prompt with the text arrived
    at: this pair is judged and learnt.
    """

    n: int = 1
    steps: int = 1
    constitution: Constitution | Literal["self", "general"] = "self"
    sampling: Sampling = Sampling()
    critique_sampling: Sampling | None = None
    revision_sampling: Sampling | None = None
    role: Role = "policy"
    critic: Role = "policy"
    keep: Literal["last", "revisions", "all"] = "last"
    plain_text: bool = False

    def __post_init__(self) -> None:
        if self.n < 1 or self.steps < 1:
            raise ConfigError(f"revise: n is {self.n} and steps {self.steps}; both must be at least 1 (for drafts alone, use `draw`)")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((self.role, self.critic)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return dict(Counter({self.role: tasks * self.n}) + Counter({self.critic: tasks * self.n * self.steps * 2}))

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        return in_groups(ctx, tasks, lambda task: [_Thread(self, ctx, task, index).dialogue() for index in range(self.n)])

    @property
    def chosen(self) -> Constitution:
        """The constitution itself, where it was given by name."""
        if isinstance(self.constitution, Constitution):
            return self.constitution
        return SELF if self.constitution == "self" else GENERAL


@dataclass
class _Thread:
    """One draft and what becomes of it."""

    stage: Revise
    ctx: Context
    task: Task
    index: int
    turns: list[Turn] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    revised: int = 0

    def dialogue(self) -> Dialogue[list[Sample]]:
        stage = self.stage
        asked = messages_of(self.task.prompt, stage.name)
        answer = yield Ask(stage.role, self._first())
        text, why = heard(answer, "the draft", whole=False)
        if text is None:
            return [failed_sample(self.task, self._number(0), self._origin(stage.role), why)]
        self.turns.append(Turn(self.task.prompt, text))
        if stage.keep == "all":
            self.samples.append(answered_sample(self.task, self._number(0), self.turns, self._origin(stage.role), "draft"))
        last = 0
        for step in range(1, stage.steps + 1):
            better = yield from self._step(step, (*asked, _assistant(text)))
            if better is None:
                continue
            text, last = better, step
            self.revised += 1
            if stage.keep != "last":
                self._add(step, text)
        if not self.revised:
            reason = f"no revision: {'; '.join(self.notes)}"
            self.samples.append(failed_sample(self.task, self._number(stage.steps), self._origin(stage.critic), reason))
        elif stage.keep == "last":
            self._add(last, text)
        return self.samples

    def _first(self) -> Request:
        """A text is asked as it is, as any other generator asks it."""
        stage, seed = self.stage, self.ctx.seed_of("draft", self.task.id, self.index)
        if isinstance(self.task.prompt, str):
            return Request(self.task.prompt, 1, stage.sampling, seed=seed)
        return request_of(messages_of(self.task.prompt, stage.name), stage.sampling, seed, plain_text=stage.plain_text)

    def _step(self, step: int, said: tuple[Message, ...]) -> Dialogue[Completion | None]:
        """Critique and revision of the last answer of `said`; None, and a note, when there is no revision."""
        stage = self.stage
        principle = self._principle(step)
        asked = (*said, Message("user", principle.critique))
        critique = yield from self._ask("critique", step, asked, stage.critique_sampling, whole=False)
        if critique is None:
            return None
        again = (*asked, _assistant(critique), Message("user", principle.revision))
        revision = yield from self._ask("revision", step, again, stage.revision_sampling, whole=True)
        if revision is not None and principle.name:
            self.notes.append(f"step {step}: {principle.name}")
        return revision

    def _ask(
        self, what: str, step: int, messages: tuple[Message, ...], sampling: Sampling | None, *, whole: bool
    ) -> Dialogue[Completion | None]:
        stage = self.stage
        seed = self.ctx.seed_of(what, self.task.id, self.index, step)
        shown = _shown_first(messages, stage.chosen.all_demonstrations)
        answer = yield Ask(stage.critic, request_of(shown, sampling or stage.sampling, seed, plain_text=stage.plain_text))
        text, why = heard(answer, f"the {what}", whole=whole)
        if text is None:
            self.notes.append(f"step {step}: {why}; the text before it stands")
        else:
            self.turns.append(Turn(messages, text))
        return text

    def _principle(self, step: int) -> Principle:
        offered = self.stage.chosen.all_principles
        return offered[self.ctx.rng("principle", self.task.id, self.index, step).randrange(len(offered))]

    def _add(self, step: int, text: Completion) -> None:
        turns = [*self.turns, Turn(self.task.prompt, text)]
        self.samples.append(answered_sample(self.task, self._number(step), turns, self._origin(self.stage.critic)))

    def _origin(self, author: Role) -> Origin:
        """Of a text by `author`; a revision also descends from the model that wrote its draft."""
        roles = self.stage.roles if author == self.stage.critic else (self.stage.role,)
        depth = max(self.ctx.model(role).depth for role in roles) + 1
        drafted = self.ctx.model(self.stage.role).id
        source = self.ctx.model(author).id
        notes = [*([f"draft by {drafted}"] if source != drafted else []), *self.notes]
        return Origin("synthetic", "none", source, depth, self.ctx.round, (self.task.id,), note="; ".join(notes))

    def _number(self, step: int) -> int:
        return self.index * (self.stage.steps + 1) + step


def _assistant(text: Completion) -> Message:
    assert isinstance(text.content, str)
    return Message("assistant", text.content)


def _shown_first(messages: tuple[Message, ...], demonstrations: tuple[tuple[Message, ...], ...]) -> tuple[Message, ...]:
    """Demonstrations before the conversation, after its system messages."""
    start = next((index for index, item in enumerate(messages) if item.role != "system"), 0)
    return (*messages[:start], *(item for one in demonstrations for item in one), *messages[start:])
