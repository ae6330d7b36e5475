"""A fake model for tests of your own stages and recipes: it says what it is told to say, fast, and counts what it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future

from outcross.models.local import Pending
from outcross.recipe import fingerprint
from outcross.text import prompt_text
from outcross.types import Completion, Prompt, Request, Response, Usage

Said = str | Sequence[str] | Response
Script = Mapping[str, str | Sequence[str]] | Sequence[str] | Callable[[Request], Said]


class Scripted:
    """Answers by a script.

    answers: a mapping from prompts to a text or several, a list of texts for every prompt, or a function of the request which
        gives a text, several, or a whole `Response`. Of several texts, completion i of a request is number (seed + i) modulo
        their number: which one it is does not depend on what else was asked.
    failing: prompts that are answered by an error instead.
    name: stands in for a fingerprint of the script in `id`; needed for functions that have none, such as lambdas.

    A prompt that the mapping lacks is answered by an error; what a function raises becomes its request's exception.
    `requests` counts what was answered, by all threads together.
    """

    def __init__(self, answers: Script, failing: Collection[str] = (), name: str = "", depth: int = 0) -> None:
        self._answers, self._failing = answers, frozenset(failing)
        self._id = f"scripted:{name or fingerprint([answers, sorted(failing)])}"
        self._depth = depth
        self._pending = Pending()
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Completion, ...]] = {}
        if not callable(answers) and not isinstance(answers, Mapping):
            self._listed = _completions(answers)
        self.requests = 0

    @property
    def id(self) -> str:
        return self._id

    @property
    def depth(self) -> int:
        return self._depth

    def close(self) -> None:
        """Nothing is held open."""

    def submit(self, request: Request, /) -> Future[Response]:
        return self._pending.add(request)

    def flush(self) -> None:
        pending = self._pending.take()
        for request, future in pending:
            try:
                future.set_result(self._answer(request))
            except Exception as error:
                future.set_exception(error)
        with self._lock:
            self.requests += len(pending)

    def count_tokens(self, prompt: Prompt, /) -> int:
        """The number of words."""
        return len(prompt_text(prompt).split())

    def _answer(self, request: Request) -> Response:
        asked = request.prompt if isinstance(request.prompt, str) else prompt_text(request.prompt)
        if asked in self._failing:
            return Response(error="scripted to fail")
        if callable(self._answers):
            said = self._answers(request)
            if isinstance(said, Response):
                return said
            texts = _completions(said)
        else:
            found = self._of_prompt(asked)
            if found is None:
                return Response(error=f"the script has no answer to {asked!r:.100}")
            texts = found
        size = len(texts)
        if size == 1:
            completions = texts * request.n
        else:
            completions = tuple([texts[(request.seed + index) % size] for index in range(request.n)])
        return Response(completions, Usage(len(asked), request.n))

    def _of_prompt(self, asked: str) -> tuple[Completion, ...] | None:
        if not isinstance(self._answers, Mapping):
            return self._listed
        found = self._known.get(asked)
        if found is None and asked in self._answers:
            found = self._known[asked] = _completions(self._answers[asked])
        return found


def _completions(said: str | Iterable[str]) -> tuple[Completion, ...]:
    texts = (said,) if isinstance(said, str) else tuple(said)
    if not texts:
        raise ValueError("a script needs at least one text; it was given an empty list")
    return tuple(Completion(text) for text in texts)
