"""What one request needs of a server: the exchanges it takes, and the response made of their replies."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from outcross.models import http_wire as wire
from outcross.models.http_abilities import Abilities, Came, Exchange, Post, calls_tools, probe_seed, probe_tools
from outcross.models.http_endpoint import Api, Price
from outcross.models.http_wire import Call, Reply
from outcross.types import Completion, Request, Response, Usage


@dataclass(eq=False)
class Asking:
    """One request from its submission to its response. Everything but the constructor runs in the line's thread."""

    request: Request
    future: Future[Response]
    api: Api
    known: Abilities
    price: Price
    closed: Callable[[Asking], None]
    running: bool = False
    open: int = 0
    texts: list[Completion | None] = field(default_factory=list)
    scores: list[tuple[float, ...] | None] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def begin(self, post: Post) -> None:
        self.post = post
        if not self.request.choices:
            self._texts()
        elif self.api == "completions" and self.known.echo is not False:
            self._echoes()
        else:
            self._first()

    def wanted(self) -> bool:
        """Whether anybody still waits; from the first exchange on, the answer is paid for and no longer cancelled."""
        if not self.running:
            self.running = self.future.set_running_or_notify_cancel()
            if not self.running:
                self.closed(self)
        return self.running

    def fail(self, reason: str) -> None:
        """End now, whatever is still under way."""
        if self.wanted() and not self.future.done():
            self.future.set_result(Response(usage=self._usage(), error=reason))

    def _ask(self, call: Call, done: Callable[[Call, Reply], None]) -> None:
        def came(call: Call, reply: Reply | str) -> None:
            if self.future.done():
                return
            self.open -= 1
            if isinstance(reply, str):
                self.errors.append(reply)
            else:
                self._count(reply)
                done(call, reply)
            if not self.open:
                self._finish()

        self.open += 1
        self.post(Exchange(self.request, call, came, self.wanted))

    def _probe(self, request: Request, call: Call, done: Came) -> None:
        """An exchange of a probe: it is paid for here, and what becomes of it spoils no answer."""

        def came(call: Call, reply: Reply | str) -> None:
            if self.future.done():
                return
            self.open -= 1
            if not isinstance(reply, str):
                self._count(reply)
            done(call, reply)
            if not self.open:
                self._finish()

        self.open += 1
        self.post(Exchange(request, call, came))

    def _count(self, reply: Reply) -> None:
        self.known.found("usage", reply.usage is not None, "tokens and money are counted as zero, and budgets cannot hold them")
        if reply.usage is not None:
            self.prompt_tokens += reply.usage.prompt_tokens
            self.completion_tokens += reply.usage.completion_tokens
            self.cached_tokens += reply.usage.cached_tokens

    def _usage(self) -> Usage:
        return self.price.of(self.prompt_tokens, self.completion_tokens, self.cached_tokens)

    # ── texts ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _texts(self) -> None:
        n = self.request.n
        self.texts = [None] * n
        if n > 1 and self.known.n is False:
            self._singly(0)
        else:
            self._ask(Call("text", n, self.request.seed), self._text_came)

    def _singly(self, start: int) -> None:
        """The completions from `start` on, each by a request of its own with a seed of its own."""
        if start < self.request.n:
            probe_seed(self._probe, self.known)
        for index in range(start, self.request.n):
            self._ask(Call("text", 1, self.request.seed + index), self._text_came)

    def _text_came(self, call: Call, reply: Reply) -> None:
        start = call.seed - self.request.seed
        came = wire.completions(reply, call.n)
        self.texts[start : start + len(came)] = came
        self._noted(reply, came)
        if call.n > 1:
            self.known.found("n", len(came) > 1, "n completions are asked for by n requests")
            self._singly(len(came))

    def _noted(self, reply: Reply, came: tuple[Completion, ...]) -> None:
        """What answers show of schemas and tools."""
        if self.request.schema and any(item.finished and not wire.is_json(str(item.content)) for item in came):
            self.known.found("schema", False, "answers are not held to JSON schemas and must be validated")
        if self.request.tools and calls_tools(reply):
            self.known.found("tools", True, "")
        elif self.request.tools:
            probe_tools(self._probe, self.known)

    # ── choices ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _echoes(self) -> None:
        self.scores = [None] * len(self.request.choices)
        for index, choice in enumerate(self.request.choices):
            self._ask(Call("echo", 1, index, choice), self._echo_came)

    def _echo_came(self, call: Call, reply: Reply) -> None:
        found = wire.echoed(reply, str(self.request.prompt), call.suffix)
        self.known.found("echo", found is not None, "given texts cannot be scored; choices are scored by their first token")
        self.scores[call.seed] = found

    def _first(self) -> None:
        if self.known.log_probs is False:
            self.errors.append(self._no_log_probs())
            self._finish()
            return
        self._ask(Call("first"), self._first_came)

    def _first_came(self, call: Call, reply: Reply) -> None:
        found = wire.first_token(reply)
        self.known.found("log_probs", found is not None, "requests with choices fail; judge by sampled answers here")
        if found is None:
            self.errors.append(self._no_log_probs())
            return
        try:
            self.scores = [(value,) for value in wire.of_choices(found, self.request.choices)]
        except ValueError as error:
            self.errors.append(str(error))

    def _no_log_probs(self) -> str:
        return (
            f"{self.known.server} gives no log-probabilities, so it cannot weigh choices; judge by sampled answers, or use another server"
        )

    # ── the end ────────────────────────────────────────────────────────────────────────────────────────────────────────
    def _finish(self) -> None:
        if self.request.choices and not self.errors and None in self.scores:
            self.scores = []
            self._first()  # nothing was echoed
            return
        self.closed(self)
        if self.wanted():
            self.future.set_result(self._response())

    def _response(self) -> Response:
        if self.request.choices and not self.errors:
            scores = [score for score in self.scores if score is not None]
            each = scores[0] if len(scores) == 1 and self.known.echo else ()
            made: tuple[Completion, ...] = (Completion("", log_probs=each, choice_log_probs=tuple(map(sum, scores))),)
        else:
            made = tuple(text for text in self.texts if text is not None)
        return Response(made, self._usage(), self._error(len(made)))

    def _error(self, came: int) -> str:
        if not self.errors:
            return ""
        reasons = "; ".join(dict.fromkeys(self.errors))
        return reasons if not came else f"{self.request.n - came} of {self.request.n} completions failed: {reasons}"
