"""What models that run in this process share: the requests a thread has submitted, and exact draws from a distribution."""

from __future__ import annotations

import bisect
import math
import random
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from outcross.types import Completion, Request, Response, Sampling, Usage

Floats = npt.NDArray[np.float64]

FLOOR = math.log(1e-9)
"""The log-probability given to a text that a toy model cannot say: finite, so that means over items stay finite."""


class Pending:
    """The requests each thread has submitted and not yet flushed. A thread sees its own alone, so what is batched
    together depends on that thread's input and never on timing."""

    def __init__(self) -> None:
        self._local = threading.local()

    def add(self, request: Request) -> Future[Response]:
        future: Future[Response] = Future()
        try:
            self._local.items.append((request, future))
        except AttributeError:
            self._local.items = [(request, future)]
        return future

    def take(self) -> list[tuple[Request, Future[Response]]]:
        """This thread's requests in the order of submission; they are no longer pending."""
        items: list[tuple[Request, Future[Response]]] = getattr(self._local, "items", [])
        self._local.items = []
        return items


def refusal(request: Request, model: str) -> str:
    """Why a model that says one whole answer cannot take `request`; empty when it can."""
    for field in ("prefix", "schema", "tools"):
        if getattr(request, field):
            return f"{model} cannot answer a request with {field}={getattr(request, field)!r:.60}; leave it empty"
    if request.sampling.beams > 1:
        return f"{model} has no beam search (beams={request.sampling.beams}); leave `beams` out"
    return ""


def answer(request: Request, texts: Sequence[str], log_probs: Floats, scores: Floats) -> Response:
    """`request.n` draws among `texts`, or the log-probabilities of `request.choices`.

    `log_probs` (V,) is the model's distribution over `texts` and `scores` (V,) the same after `tempered`. An answer is one
    token, whose number is its place in `texts`.
    """
    prompt_tokens = len(request.prompt) if isinstance(request.prompt, str) else 1
    if request.choices:
        place = {text: index for index, text in enumerate(texts)}
        found = tuple(float(log_probs[place[text]]) if text in place else FLOOR for text in request.choices)
        return Response((Completion("", choice_log_probs=found),), Usage(prompt_tokens, 0))
    cumulated = np.cumsum(scores).tolist()
    rng = random.Random(request.seed)
    drawn = (min(bisect.bisect_right(cumulated, rng.random() * cumulated[-1]), len(texts) - 1) for _ in range(request.n))
    said = tuple(Completion(texts[index], (index,), (float(log_probs[index]),)) for index in drawn)
    return Response(said, Usage(prompt_tokens, request.n))


def tempered(log_probs: Floats, sampling: Sampling) -> Floats:
    """The distribution (V,) that is drawn from: temperature, then top-k, then top-p. Temperature 0 is the first of the
    most likely answers."""
    if sampling.temperature == 0:
        chosen = np.zeros_like(log_probs)
        chosen[int(np.argmax(log_probs))] = 1.0
        return chosen
    scaled = log_probs / sampling.temperature
    probs: Floats = np.exp(scaled - scaled.max())
    probs /= probs.sum()
    if sampling.top_k or sampling.top_p < 1.0:
        order = np.argsort(-probs, kind="stable")
        before = np.cumsum(probs[order]) - probs[order]
        keep = before < sampling.top_p
        if sampling.top_k:
            keep[sampling.top_k :] = False
        kept = np.zeros_like(probs)
        kept[order[keep]] = probs[order[keep]]
        probs = kept
    return probs
