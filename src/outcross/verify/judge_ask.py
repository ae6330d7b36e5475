"""Asking a judge: probabilities of a few fixed answers, by log-probabilities or, where there are none, by sampled answers."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from outcross.stages import Ask, Context, CountsTokens, Dialogue, Role
from outcross.types import Group, Prompt, Request, Response, Sample, Sampling, Score
from outcross.verify.each import UNFINISHED, Labelled

T = TypeVar("T")
log = logging.getLogger("outcross.verify.judge")
_UNABLE = ("log-probabilit", "more than one token", "likeliest first tokens")
_PRIMED = "First the number one: 1\nThen the number ten: 10\nThe number ten again: "
_THOUGHT = "</think>"


@dataclass(frozen=True)
class Sampled:
    """How often a judge without log-probabilities is asked the same question, and how it answers; the share of an answer among those
    that can be read stands for its probability."""

    n: int = 8
    sampling: Sampling = Sampling(max_tokens=64)


@dataclass(frozen=True)
class Way:
    """How the model of a role is asked. `weighs`: it gives log-probabilities of choices. `nested`: "10" is several tokens to it, of
    which "1" is the first, so that the probability of "1" holds that of "10"."""

    weighs: bool = True
    nested: bool = False


@dataclass(frozen=True)
class Weighed:
    """The probability of each choice, or why there is none."""

    probs: tuple[float, ...] = ()
    by: str = ""
    error: str = ""


def way_of(ctx: Context, role: Role, choices: Sequence[str]) -> Way:
    """What the model of `role` can do, asked through a dialogue, so that the journal keeps the finding. Says once a process that a judge
    gives no log-probabilities."""
    ((way, why),) = ctx.run([_finding(role, tuple(choices))])
    model = ctx.model(role)
    if not way.weighs:
        _say(role, model.id, why)
    if way.weighs and "10" in choices and isinstance(model, CountsTokens):
        return Way(nested=model.count_tokens("10") > model.count_tokens("1"))
    return way


def _finding(role: Role, choices: tuple[str, ...]) -> Dialogue[tuple[Way, str]]:
    numbers = "10" in choices
    asked = _PRIMED if numbers else f"Reply with the letter {choices[0]} alone."
    response: Response = yield Ask(role, Request(asked, choices=("1", "10") if numbers else choices))
    if response.error:
        unable = any(text in response.error for text in _UNABLE)
        return Way(weighs=not unable), response.error
    found = response.completions[0].choice_log_probs if response.completions else ()
    if not found:
        return Way(weighs=False), "the answer holds no log-probabilities of the choices"
    return Way(nested=numbers and found[0] > found[1]), ""


@cache
def _say(role: Role, model: str, why: str) -> None:
    log.warning("the judge %r (%s) cannot weigh answers by log-probabilities and is asked several times instead: %s", role, model, why)


def weighed(role: Role, prompt: Prompt, choices: Sequence[str], way: Way, sampled: Sampled, seed: int) -> Dialogue[Weighed]:
    """The probabilities of `choices` as answers to `prompt`, renormalised over them. After a plain text an answer begins with a space."""
    if way.weighs:
        given = tuple(f" {choice}" for choice in choices) if isinstance(prompt, str) else tuple(choices)
        response: Response = yield Ask(role, Request(prompt, choices=given))
        return of_log_probs(response, choices, nested=way.nested)
    response = yield Ask(role, Request(prompt, sampled.n, sampled.sampling, seed=seed))
    return of_texts(response, choices, sampled.n)


def of_log_probs(response: Response, choices: Sequence[str], *, nested: bool) -> Weighed:
    """A softmax over the choices' log-probabilities. `nested`: what a choice shares with a longer one that it begins is taken off it."""
    found = response.completions[0].choice_log_probs if response.completions else ()
    if response.error or len(found) != len(choices):
        return Weighed(error=f"the judge did not answer: {response.error or 'no log-probabilities of the choices came'}")
    most = max(found)
    if not math.isfinite(most) or any(math.isnan(value) for value in found):
        return Weighed(error=f"the judge's log-probabilities are {list(found)!r:.80}")
    mass = [math.exp(value - most) for value in found]
    if nested:
        longer = {short: [j for j, long in enumerate(choices) if j != i and long.startswith(short)] for i, short in enumerate(choices)}
        mass = [own - sum(mass[j] for j in longer[choice] if mass[j] < own) for own, choice in zip(mass, choices, strict=True)]
    total = sum(mass)
    return Weighed(tuple(value / total for value in mass), "log-probabilities")


def of_texts(response: Response, choices: Sequence[str], asked: int) -> Weighed:
    """The shares of the choices among answers that name exactly one; unreadable ones count for none, and half of them are too many."""
    texts = [str(item.content) for item in response.completions]
    votes = Counter(said for text in texts if (said := named(text, choices)) is not None)
    if 2 * votes.total() <= asked:
        why = response.error or (f"for example {texts[0]!r:.60}" if texts else "no answer came")
        return Weighed(error=f"the judge's answers cannot be read: {votes.total()} of {asked} name one of {', '.join(choices)}; {why}")
    return Weighed(tuple(votes[choice] / votes.total() for choice in choices), f"{asked} draws")


def named(text: str, choices: Sequence[str]) -> str | None:
    """The one choice that an answer names; None when it names none or several. What was thought aloud before it does not count."""
    said = re.sub(r"(?i)\bout of 10\b", "", text.rpartition(_THOUGHT)[2])
    options = "|".join(sorted(map(re.escape, choices), key=len, reverse=True))
    found = set(re.findall(rf"(?<![\w.,/])(?:{options})(?!\w|[.,]\d)", said))
    return found.pop() if len(found) == 1 else None


# ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def can_be_judged(sample: Sample) -> bool:
    """Whether a sample is a whole answer in text."""
    return not sample.error and sample.turns[-1].completion.finished and isinstance(sample.content, str)


def not_judged(verifier: Labelled, sample: Sample) -> Score:
    """The score of an answer that cannot be judged as a whole."""
    if not isinstance(sample.content, str):
        return Score(verifier.name, verifier.version, "error", None, "the answer is an array, not text")
    return Score(verifier.name, verifier.version, UNFINISHED[0], 0.0, UNFINISHED[1])


def nonce_of(ctx: Context, *key: str | int) -> str:
    """The number on the fence of one request."""
    return f"{ctx.rng('judge fence', *key).getrandbits(64):016x}"


def in_order(
    ctx: Context, groups: Iterable[Group], dialogues: Callable[[Group], Sequence[Dialogue[T]]], join: Callable[[Group, list[T]], Group]
) -> Iterator[Group]:
    """Groups joined with what their dialogues gave, in order. The dialogues of many groups run side by side."""
    waiting: deque[tuple[Group, int]] = deque()

    def each() -> Iterator[Dialogue[T | None]]:
        for group in groups:
            begun = dialogues(group)
            waiting.append((group, len(begun)))
            if begun:
                yield from begun
            else:
                yield _nothing()

    said: list[T] = []
    for one in ctx.run(each()):
        group, count = waiting[0]
        if count:
            said.append(one)  # type: ignore[arg-type]  # only a group without questions gives None
        if len(said) == count:
            waiting.popleft()
            yield join(group, said)
            said = []


def _nothing() -> Dialogue[None]:
    """A dialogue that asks nothing: a group without a question keeps its place in the order."""
    yield from ()
