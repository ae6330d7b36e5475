"""Evol-Instruct: instructions grow harder or more varied step by step, and are answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from outcross.errors import ConfigError
from outcross.generate.rewrite import made_by
from outcross.generate.transcript import answered_sample, failed_sample, heard, in_groups, request_of
from outcross.stages import Ask, Context, Dialogue, Role, Stage
from outcross.text import normalise, prompt_text, words
from outcross.types import Completion, Group, Message, Sample, Sampling, Task, Turn

Operation = Literal["constrain", "deepen", "concretise", "reason", "breadth"]

OPERATIONS: Mapping[Operation, str] = {
    "constrain": "add one more condition or requirement that the answer has to meet",
    "deepen": "ask about the same matter at greater depth and breadth",
    "concretise": "replace general notions by more specific ones",
    "reason": "ask for something that takes several explicit steps of reasoning",
}
_DEEPER = (
    "Make the instruction below a little harder for a good assistant, so that people still understand it and can answer it. To do so, "
    "{how}. Add ten to twenty words at most, keep any table, code or data it has, and do not answer it. Give the new instruction "
    "alone.\n\n{text}"
)
_BROADER = (
    "Think of a new instruction in the same field as the one below, on a rarer matter, of about the same length and difficulty, which "
    "people can understand and answer. Do not answer it. Give the new instruction alone.\n\n{text}"
)
_EQUAL = (
    "Do these two instructions ask for the same, with the same conditions and at the same depth? Say “equal” or “different”, and "
    "nothing else.\n\nFirst: {before}\n\nSecond: {after}"
)
_ECHOES = ("given instruction", "new instruction", "rewritten instruction", "instruction below", "given prompt", "rewritten prompt")
_STOP_WORDS = frozenset(
    words(
        "a an and are as at be but by for from had has have he her his i if in is it its me my no not of on or our she so that the "
        "their them they this to us was we were will with you your"
    )
)
_SORRY_WORDS = 80
_LEAST_WORDS = 3


def bad_evolution(before: str, after: str) -> str:
    """Why an evolved instruction is of no use; empty when it may be.

    It copies words of the request (Evol-Instruct, arXiv:2304.12244 §3.2, rule 4), equals what it came from, or is too short to ask
    anything.
    """
    echo = next((item for item in _ECHOES if item in normalise(after) and item not in normalise(before)), None)
    if echo:
        return f"copies “{echo}” from the request"
    if normalise(before) == normalise(after):
        return "equals the instruction it came from"
    return "too short" if len(words(after)) < _LEAST_WORDS else ""


def bad_answer(answer: str) -> str:
    """Why an answer shows that its instruction is of no use (rules 2 and 3 of the paper); empty when it does not: it apologises in
    fewer than 80 words, or holds nothing but punctuation and stop words."""
    said = words(answer)
    if "sorry" in said and len(said) < _SORRY_WORDS:
        return "the answer apologises"
    return "" if set(said) - _STOP_WORDS else "the answer is punctuation and stop words only"


@dataclass(frozen=True)
class Evolve(Stage):
    """Evolve each task's instruction `steps` times and answer what it became (Evol-Instruct, WizardLM, arXiv:2304.12244 §3.2).

    Each step draws one of `operations` uniformly: add constraints, deepen, concretise, ask for reasoning (in depth), or a new
    instruction in the same field (breadth). An evolution that fails the paper's rules is dropped, and the next step starts again
    from what it came from; when no step succeeds, the sample has failed.

    evolver, role: who evolves, and who answers. judge: a role that says whether an evolution asks for anything new (rule 1); None: nobody.
    keep: whether the `last` evolution becomes a sample, or `all` of them (the paper learns from each, and from the originals).
    plain_text: ask by texts instead of messages, for base models and plain completions.

    A sample's turns are the exchanges as they were; the last, judged and learnt, is the evolved instruction with its answer. Its
    task stays the original: reference answers do not fit.
    """

    steps: int = 1
    operations: tuple[Operation, ...] = get_args(Operation)
    keep: Literal["last", "all"] = "last"
    sampling: Sampling = Sampling()
    answer_sampling: Sampling = Sampling(max_tokens=1024)
    evolver: Role = "policy"
    role: Role = "policy"
    judge: Role | None = None
    plain_text: bool = False

    def __post_init__(self) -> None:
        wrong = [item for item in self.operations if item not in get_args(Operation)]
        if self.steps < 1 or not self.operations or wrong:
            raise ConfigError(
                f"evolve: steps is {self.steps} and operations {list(self.operations)}; take at least 1 step, by some of "
                f"{', '.join(get_args(Operation))}"
            )

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((self.evolver, self.role, *([self.judge] if self.judge else []))))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        each = tasks * self.steps
        judged = Counter({self.judge: each} if self.judge else {})
        return dict(Counter({self.evolver: each}) + Counter({self.role: each}) + judged)

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]:
        return in_groups(ctx, tasks, lambda task: [_Lineage(self, ctx, task).dialogue()])


@dataclass
class _Lineage:
    """One instruction and what it becomes."""

    stage: Evolve
    ctx: Context
    task: Task
    turns: list[Turn] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def dialogue(self) -> Dialogue[list[Sample]]:
        instruction = prompt_text(self.task.prompt)
        last: tuple[int, Turn] | None = None
        for step in range(1, self.stage.steps + 1):
            made = yield from self._step(step, instruction)
            if isinstance(made, str):
                self.notes.append(f"step {step}: {made}")
                continue
            instruction, last = str(made.prompt), (step, made)
            if self.stage.keep == "all":
                self._add(step, made)
        if last is None:
            origin = made_by(self.ctx, self.stage.roles, self.task, "")
            return [failed_sample(self.task, 0, origin, f"no evolution: {'; '.join(self.notes)}")]
        if self.stage.keep == "last":
            self._add(*last)
        return self.samples

    def _step(self, step: int, before: str) -> Dialogue[Turn | str]:
        """The evolved instruction with its answer, or why there is none."""
        stage = self.stage
        operation = stage.operations[self.ctx.rng("operation", self.task.id, step).randrange(len(stage.operations))]
        request = _BROADER.format(text=before)
        if operation != "breadth":
            request = _DEEPER.format(how=OPERATIONS[operation], text=before)
        evolved, why = yield from self._ask(stage.evolver, "evolution", step, request, stage.sampling)
        if evolved is None:
            return why
        after = str(evolved.content)
        why = bad_evolution(before, after)
        if not why and stage.judge:
            why = yield from self._nothing_new(step, before, after)
        if why:
            return f"{operation}: {why}"
        answer, why = yield from self._ask(stage.role, "answer", step, after, stage.answer_sampling)
        why = why if answer is None else bad_answer(str(answer.content))
        if answer is None or why:
            return f"{operation}: {why}"
        self.notes.append(f"step {step}: {operation}")
        return Turn(after, answer)

    def _nothing_new(self, step: int, before: str, after: str) -> Dialogue[str]:
        assert self.stage.judge is not None
        question = _EQUAL.format(before=before, after=after)
        said, why = yield from self._ask(self.stage.judge, "comparison", step, question, self.stage.sampling)
        if said is None:
            return why
        found = [item for item in words(str(said.content)) if item in ("equal", "different")]
        if found[:1] == ["different"]:
            return ""
        return "asks for nothing new" if found else "the judge said neither “equal” nor “different”"

    def _ask(self, role: Role, what: str, step: int, text: str, sampling: Sampling) -> Dialogue[tuple[Completion | None, str]]:
        asked = (Message("user", text),)
        seed = self.ctx.seed_of(what, self.task.id, step)
        answer = yield Ask(role, request_of(asked, sampling, seed, plain_text=self.stage.plain_text))
        found, why = heard(answer, f"the {what}")
        if found is not None:
            self.turns.append(Turn(asked, found))
        return found, why

    def _add(self, step: int, made: Turn) -> None:
        origin = made_by(self.ctx, self._authors(), self.task, "; ".join(self.notes))
        self.samples.append(answered_sample(self.task, step, [*self.turns, made], origin))

    def _authors(self) -> tuple[Role, ...]:
        """Who wrote the instruction, and last who answered it."""
        return (self.stage.evolver, self.stage.role)
