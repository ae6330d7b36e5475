"""Judging models for tests: they answer from the texts between the fences, by a function that the test gives, and know the obvious."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from outcross.models.scripted import Scripted
from outcross.text import prompt_text
from outcross.types import Completion, Request, Response
from outcross.verify.judge_canaries import obvious

RIGHT = {canary.task.prompt: canary.task.answer for canary in obvious()}
FENCE = re.compile(r"^<(task|answer|answer A|answer B|reference) ([0-9a-f]{16})>\n(.*?)\n</\1 \2>$", re.MULTILINE | re.DOTALL)


def shown(request: Request) -> dict[str, str]:
    """What stands behind the fences of the last question, by name."""
    return {name: text for name, _, text in FENCE.findall(prompt_text(request.prompt))}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def known(seen: Mapping[str, str]) -> dict[str, float]:
    """What a judge says of a canary; empty for every other task."""
    right = RIGHT.get(seen.get("task", ""))
    if right is None:
        return {}
    if "answer" in seen:
        return {"10" if seen["answer"] == right else "1": 1.0}
    return {"A" if seen["answer A"] == right else "B": 1.0}


def weighing(probs: Callable[[Request], Mapping[str, float]], name: str = "") -> Scripted:
    """A judge that gives the log-probabilities of its choices; `probs` gives those of a request with fences."""

    def answer(request: Request) -> Response:
        if not request.choices:
            return Response((Completion("It is what it is."),))
        seen = shown(request)
        found = (known(seen) or probs(request)) if seen else dict.fromkeys((choice.strip() for choice in request.choices), 0.1)
        values = tuple(math.log(max(found.get(choice.strip(), 0.0), 1e-30)) for choice in request.choices)
        return Response((Completion("", choice_log_probs=values),))

    return Scripted(answer, name=name or "weighing")


def biased(quality: Callable[[str], float], bias: float) -> Scripted:
    """The mock labeler: the logit of "the first is better" is the gap in quality plus a bias to the first place."""

    def probs(request: Request) -> dict[str, float]:
        seen = shown(request)
        p = sigmoid(quality(seen["answer A"]) - quality(seen["answer B"]) + bias)
        return {"A": p, "B": 1 - p}

    return weighing(probs)


def saying(says: Callable[[Request, int], str], name: str = "saying") -> Scripted:
    """A judge without log-probabilities; `says` gives the text of completion i."""

    def answer(request: Request) -> Response:
        if request.choices:
            return Response(error="the server gives no log-probabilities, so it cannot weigh choices; judge by sampled answers")
        return Response(tuple(Completion(says(request, index)) for index in range(request.n)))

    return Scripted(answer, name=name)
