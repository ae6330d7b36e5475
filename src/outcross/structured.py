"""Structured answers as dialogues: is the schema kept by the model, and if not, tell, validate, correct once.

Nothing is dropped: an answer that stays invalid is a failed sample with all its raw turns.
"""

from __future__ import annotations

from dataclasses import dataclass

from outcross.errors import ConfigError
from outcross.schema import Schema
from outcross.stages import Ask, Dialogue, Role
from outcross.types import Array, Completion, Message, Prompt, Request, Response, Sampling

QUOTED = 8_000  # characters of an invalid answer that the model sees again
_HELLO = "Reply with the single word hello."


@dataclass(frozen=True)
class Settled:
    """What became of an answer: the completions, raw ones first; the valid one last unless there is an `error`. `note`: what was done
    to it."""

    completions: tuple[Completion, ...]
    note: str = ""
    error: str = ""


def kept(schema: Schema, role: Role, sampling: Sampling) -> Dialogue[bool]:
    """Whether the model holds its answers to this schema: one that does cannot answer with the word it is asked for. Through a dialogue,
    so that the journal keeps the finding and a resumed run asks as it did before."""
    greedy = Sampling(temperature=0.0, max_tokens=sampling.max_tokens)
    response: Response = yield Ask(role, Request(_HELLO, sampling=greedy, schema=schema.text))
    if response.error or not response.completions:
        return False
    reading = schema.reading(response.completions[0])
    return not reading.problem and not reading.how


def told(schema: Schema, prompt: Prompt) -> Prompt:
    """The prompt with the schema after it, in its last message where it is a conversation."""
    return _after(prompt, f"Answer with JSON only, valid under this JSON schema:\n{schema.text}")


def settled(schema: Schema, asked: Request, role: Role, completion: Completion, seed: int, label: str) -> Dialogue[Settled]:
    """Read one answer to `asked`; an invalid one gets one correction turn. `label` names the record in the error.

    An answer that was cut off gets none: the next would be cut off as well.
    """
    first = schema.reading(completion)
    if not first.problem:
        return Settled((_canonical(completion, first.text),), first.how)
    if not completion.finished:
        advice = f"raise sampling.max_tokens ({asked.sampling.max_tokens})"
        return Settled((completion,), error=_reason(first.problem, label, completion, advice))
    again = Request(_correction(schema, asked.prompt, completion, first.problem), 1, asked.sampling, schema=asked.schema, seed=seed)
    response: Response = yield Ask(role, again)
    if not response.completions:
        reason = _reason(first.problem, label, completion, "resume or run again: the correction got no answer")
        return Settled((completion,), error=f"{reason}; correction: {response.error or 'no completion came'}")
    second = response.completions[0]
    found = schema.reading(second)
    if found.problem:
        advice = "simplify the schema, or ask a model or server that keeps it"
        return Settled((completion, second), error=_reason(f"{found.problem}, corrected from {first.problem}", label, second, advice))
    note = f"corrected once: {first.problem}" + (f"; {found.how}" if found.how else "")
    return Settled((completion, _canonical(second, found.text)), note)


def _reason(problem: str, label: str, raw: Completion, advice: str) -> str:
    """Begins with what is counted alike; the raw text itself stands in the sample's turns."""
    shown = raw.content if isinstance(raw.content, str) else ""
    return f"invalid under its schema: {problem}; {label}; raw text {shown!r:.120}; next: {advice}"


def _canonical(completion: Completion, text: str) -> Completion:
    """The completion with JSON of one layout as its content; tokens and log-probabilities stay only where they are of that text."""
    return completion if completion.content == text else Completion(text)


def _correction(schema: Schema, asked: Prompt, completion: Completion, problem: str) -> Prompt:
    said = str(completion.content)
    said = said if len(said) <= QUOTED else f"{said[:QUOTED]}…"
    advice = f"This answer is not valid. {problem}\nAnswer again with JSON only, valid under this JSON schema:\n{schema.text}"
    if isinstance(asked, tuple):
        return (*asked, Message("assistant", said), Message("user", advice))
    return f"{asked}\n\n{said}\n\n{advice}"  # models of plain text read no messages


def _after(prompt: Prompt, text: str) -> Prompt:
    if isinstance(prompt, Array):
        raise ConfigError("a schema was given, and the task's prompt is an array; leave `schema` empty")
    if isinstance(prompt, str):
        return f"{prompt}\n\n{text}"
    last = prompt[-1]
    return (*prompt[:-1], Message(last.role, f"{last.content}\n\n{text}"))
