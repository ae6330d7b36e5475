"""A run that asks some of its models by letter: it goes as far as the journal answers, and puts what it does not answer aside."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from outcross.engine.executor import Executor
from outcross.engine.journal import request_key
from outcross.errors import BudgetReached
from outcross.stages import Ask, Context, Dialogue, Model
from outcross.types import Request, Response

T = TypeVar("T")
PutAside = Callable[[Any, Request, bytes], Response | None]
"""Takes a question and its journal key for later; or answers it at once with why it cannot be asked."""


class AnswersAwaited(BudgetReached):
    """The run has gone as far as the answers at hand allow."""


@dataclass(frozen=True)
class Collector:
    """The `Runner` of such a run. Models that `by_letter` names are never asked: a dialogue that has a question for one of them which the
    journal does not answer ends there, and the question is put aside; all others are asked as usual by `executor`.

    Each stream gives its results up to the first dialogue that ended so, takes up the questions of all the others, however many
    there are, and then raises `AnswersAwaited`.
    """

    executor: Executor
    by_letter: Callable[[Model], bool]
    put_aside: PutAside

    def __call__(self, ctx: Context, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]:
        waiting = 0
        for ended, result in self.executor(ctx, (self._as_far_as(ctx, dialogue) for dialogue in dialogues)):
            if not ended:
                waiting += 1
            elif not waiting:
                yield result
        if waiting:
            raise AnswersAwaited(f"{waiting:,} dialogues of {ctx.round} wait for answers")

    def _as_far_as(self, ctx: Context, dialogue: Dialogue[T]) -> Dialogue[tuple[bool, T]]:
        """Whether the dialogue came to its end, and its result if it did."""
        try:
            ask = next(dialogue)
            while True:
                model = ctx.model(ask.role)
                answer: Response | None = None
                if self.by_letter(model):
                    missing, known = self._missing(model, ask.request)
                    refused = [self.put_aside(model, *question) for question in missing]
                    if None in refused:
                        dialogue.close()
                        return (False, None)  # type: ignore[return-value]
                    answer = _with_failures(known, [item for item in refused if item is not None])
                if answer is None:
                    answer = yield Ask(ask.role, ask.request)
                ask = dialogue.send(answer)
        except StopIteration as stop:
            return (True, stop.value)

    def _missing(self, model: Model, request: Request) -> tuple[list[tuple[Request, bytes]], list[Response]]:
        """What the journal lacks to answer a request: the request itself, or those of its samples that an earlier answer left out; and
        the samples that it holds."""
        version = getattr(model, "client_version", "")
        journal = self.executor.journal
        whole = request_key(model.id, request, version)
        if journal.get([whole]):
            return [], []
        if request.n < 2 or request.choices:
            return [(request, whole)], []
        each = [msgspec.structs.replace(request, n=1, seed=request.seed + index) for index in range(request.n)]
        keys = [request_key(model.id, item, version) for item in each]
        known = journal.get(keys)
        if not known:
            return [(request, whole)], []
        return [(item, key) for item, key in zip(each, keys, strict=True) if key not in known], [known[key] for key in keys if key in known]


def _with_failures(known: list[Response], refused: list[Response]) -> Response | None:
    """The samples that came beside the reasons of those that will not; None when nothing is refused."""
    if not refused:
        return None
    reasons = "; ".join(dict.fromkeys(item.error for item in refused))
    made = tuple(completion for item in known for completion in item.completions)
    return Response(made, error=f"{len(refused)} of {len(refused) + len(made)} completions failed: {reasons}" if made else reasons)
