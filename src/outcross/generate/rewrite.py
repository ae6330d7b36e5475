"""Text made from given text: rephrased, or turned round into the instruction that it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from outcross.errors import ConfigError
from outcross.generate.transcript import answered_sample, failed_sample, heard, in_groups, request_of
from outcross.stages import Ask, Context, Dialogue, Role, Stage
from outcross.text import normalise, prompt_text
from outcross.types import Completion, Group, Message, Origin, Sample, Sampling, Task, Turn

_SLOT = "{text}"
Source = Literal["prompt", "answer"]

STYLES: Mapping[str, str] = {
    "easy": "Tell the content of the following text in the simplest words, so that a small child could follow it. "
    "Give the new text alone.\n\n{text}",
    "wikipedia": "Write the following text again in clear and correct prose of good quality, as an encyclopedia would. "
    "Keep every fact and add none. Give the new text alone.\n\n{text}",
    "hard": "Write the following text again in terse and learned language that only a scholar of the field would use. "
    "Keep every fact and add none. Give the new text alone.\n\n{text}",
    "qa": "Turn the content of the following text into a conversation of several exchanges, each a question marked “Question:” and "
    "its answer marked “Answer:”. Use nothing that the text does not say. Give the conversation alone.\n\n{text}",
}
"""The four styles of WRAP (arXiv:2401.16380, §3.1), in our own words."""


def source_text(task: Task, source: Source) -> str:
    """The text that is rewritten; empty when the task has none."""
    return prompt_text(task.prompt) if source == "prompt" else task.answer or ""


@dataclass(frozen=True)
class Rephrase(Stage):
    """Say a task's text in other words: web text in several styles is learnt faster than web text alone (WRAP, arXiv:2401.16380).

    styles: `easy`, `wikipedia` (medium), `hard`, `qa`, or a request of your own with `{text}` where the text belongs; `n` samples
        of each. A sample's style stands in its origin's note.
    source: `prompt`: the task's prompt is a text, and its rephrasing is learnt as a text, after nothing; `answer`: the reference
        answer is rephrased and learnt as the answer to the task's prompt.
    plain_text: ask by texts instead of messages, for base models and plain completions.

    A rephrasing that is cut off at the token limit has failed: choose documents in chunks (the paper's have 300 tokens).
    """

    styles: tuple[str, ...] = ("wikipedia",)
    source: Source = "prompt"
    n: int = 1
    sampling: Sampling = Sampling(max_tokens=1024)
    role: Role = "policy"
    plain_text: bool = False

    def __post_init__(self) -> None:
        wrong = [style for style in self.styles if style not in STYLES and _SLOT not in style]
        if wrong or not self.styles:
            told = f"{wrong[0]!r:.80} is" if wrong else "there is"
            raise ConfigError(f"rephrase: {told} no style; allowed: {', '.join(STYLES)}, or a request of your own that contains {_SLOT}")
        if self.n < 1:
            raise ConfigError(f"rephrase: n is {self.n}; ask for at least 1 sample of each style")

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return (self.role,)

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        return {self.role: tasks * self.n * len(self.styles)}

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        wanted = [style for style in self.styles for _ in range(self.n)]
        return in_groups(ctx, tasks, lambda task: [self._dialogue(ctx, task, *item) for item in enumerate(wanted)])

    def _dialogue(self, ctx: Context, task: Task, index: int, style: str) -> Dialogue[tuple[Sample, ...]]:
        origin = made_by(ctx, (self.role,), task, f"rephrased: {style if style in STYLES else 'own request'}")
        given = source_text(task, self.source)
        if not given.strip():
            return (failed_sample(task, index, origin, f"the task has no {self.source} to rephrase"),)
        asked = (Message("user", STYLES.get(style, style).replace(_SLOT, given)),)
        seed = ctx.seed_of("rephrase", task.id, index)
        answer = yield Ask(self.role, request_of(asked, self.sampling, seed, plain_text=self.plain_text))
        text, why = heard(answer, "the rephrasing")
        if text is None:
            return (failed_sample(task, index, origin, why),)
        learnt = Turn("" if self.source == "prompt" else task.prompt, text)
        return (answered_sample(task, index, (Turn(asked, text), learnt), origin),)


@dataclass(frozen=True)
class InstructionReversal(Stage):
    """Find the instruction that a given text or program answers, and learn the text as its answer (instruction back-translation,
    arXiv:2308.06259 §2.2; Phi-4, arXiv:2412.08905 §2.2).

    source: where the text stands: the task's `prompt` or its reference `answer`.
    request: what is asked, with `{text}` where the text belongs.
    regenerate: a role that answers the instruction found, so that a verifier can hold its answer against the text (Phi-4 keeps code
        only if what is generated from the instruction is faithful to it); None: nobody does.

    A sample's turns are: the request → the instruction; with `regenerate`, the instruction → its new answer; last the instruction → the
    given text, which is judged and learnt. An instruction that repeats the text whole, or was cut off, has failed.
    """

    source: Source = "prompt"
    request: str = (
        "Below is a text or a program that somebody was asked to write. Write the instruction they were given: complete, in your own "
        "words, and without quoting the result. Give the instruction alone.\n\n{text}"
    )
    regenerate: Role | None = None
    n: int = 1
    sampling: Sampling = Sampling()
    answer_sampling: Sampling = Sampling(max_tokens=1024)
    role: Role = "policy"
    plain_text: bool = False

    def __post_init__(self) -> None:
        if _SLOT not in self.request or self.n < 1:
            raise ConfigError(
                f"instruction_reversal: n is {self.n} and the request {self.request!r:.60}; n must be at least 1, with {_SLOT}"
            )

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((self.role, *([self.regenerate] if self.regenerate else []))))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        again = {self.regenerate: tasks * self.n} if self.regenerate else {}
        return dict(Counter({self.role: tasks * self.n}) + Counter(again))

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        return in_groups(ctx, tasks, lambda task: [self._dialogue(ctx, task, index) for index in range(self.n)])

    def _dialogue(self, ctx: Context, task: Task, index: int) -> Dialogue[tuple[Sample, ...]]:
        origin = made_by(ctx, (self.role,), task, "the instruction is synthetic, the answer is the task's text")
        given = source_text(task, self.source)
        if not given.strip():
            return (failed_sample(task, index, origin, f"the task has no {self.source} to find an instruction for"),)
        asked = (Message("user", self.request.replace(_SLOT, given)),)
        answer = yield Ask(self.role, request_of(asked, self.sampling, ctx.seed_of("reverse", task.id, index), plain_text=self.plain_text))
        found, why = heard(answer, "the instruction")
        if found is not None and normalise(given) in normalise(str(found.content)):
            found, why = None, "the instruction repeats the text"
        if found is None:
            return (failed_sample(task, index, origin, why),)
        turns = [Turn(asked, found)]
        instruction = str(found.content)
        if self.regenerate:
            again = (Message("user", instruction),)
            seed = ctx.seed_of("regenerate", task.id, index)
            answer = yield Ask(self.regenerate, request_of(again, self.answer_sampling, seed, plain_text=self.plain_text))
            new, why = heard(answer, "the new answer", whole=False)
            turns += [Turn(instruction, new)] if new else []
            origin = made_by(ctx, (self.role,), task, f"{origin.note}; {why}" if why else origin.note)
        return (answered_sample(task, index, (*turns, Turn(instruction, Completion(given))), origin),)


def made_by(ctx: Context, roles: tuple[Role, ...], task: Task, note: str) -> Origin:
    """The origin of a text that the last of `roles` wrote with the others' help."""
    models = [ctx.model(role) for role in roles]
    depth = max(model.depth for model in models) + 1
    return Origin("synthetic", "none", models[-1].id, depth, ctx.round, (task.id,), note=note)
