"""Caps on what a run may spend, and the meter that is held against them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from outcross.engine.journal import Journal
from outcross.errors import BudgetReached
from outcross.text import prompt_text
from outcross.types import Request, Response


@dataclass(frozen=True)
class Budget:
    """Caps for a whole run; None is no cap. `tokens` counts prompt and completion tokens of every model asked, `seconds`
    the wall clock of all attempts together, `money` what models with a price have cost. Answers that a shared journal held already
    are free.

    Near a cap on tokens or requests fewer are asked at once, counting each answer as long as it may become, so that such a cap is
    passed by one answer a stage at most; one on seconds or money by what is under way, which is still waited for and kept."""

    tokens: int | None = None
    requests: int | None = None
    seconds: float | None = None
    money: float | None = None


class Meter:
    """What has been spent, held against the budget. Earlier attempts' requests, failed ones included, tokens and money come from the
    journal."""

    def __init__(self, budget: Budget, journal: Journal, seconds_before: float = 0.0) -> None:
        self.budget, self._before, self._start = budget, seconds_before, time.monotonic()
        self._lock = threading.Lock()
        spent = journal.spent().values()
        self.requests = sum(count for count, _ in spent) + journal.failed()
        self.prompt_tokens = sum(usage.prompt_tokens for _, usage in spent)
        self.completion_tokens = sum(usage.completion_tokens for _, usage in spent)
        self.money = sum(usage.money for _, usage in spent)
        self._promised_requests = self._promised_tokens = 0

    @property
    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def admit(self, requests: Sequence[Request], *, waiting: bool) -> int:
        """How many of `requests`, from the first on, may be asked now: what the caps hold even if every answer is as long as it may
        be, and at least one unless the stream is `waiting` for answers already. Each is promised until `add` or `withdraw`."""
        with self._lock:
            for count, request in enumerate(requests):
                tokens = most_tokens(request)
                if (count or waiting) and not self._holds(tokens):
                    return count
                self._promised_requests += 1
                self._promised_tokens += tokens
        return len(requests)

    def _holds(self, tokens: int) -> bool:
        caps = (
            (self.budget.tokens, self.tokens + self._promised_tokens + tokens),
            (self.budget.requests, self.requests + self._promised_requests + 1),
        )
        return all(cap is None or spent <= cap for cap, spent in caps)

    def add(self, request: Request, response: Response) -> None:
        with self._lock:
            self._give_back(request)
            self.requests += 1
            self.prompt_tokens += response.usage.prompt_tokens
            self.completion_tokens += response.usage.completion_tokens
            self.money += response.usage.money

    def withdraw(self, request: Request) -> None:
        """A request that was admitted will not be answered."""
        with self._lock:
            self._give_back(request)

    def _give_back(self, request: Request) -> None:
        self._promised_requests -= 1
        self._promised_tokens -= most_tokens(request)

    def check(self) -> None:
        """Raises `BudgetReached` when a cap is reached; called before anything more is asked and between steps."""
        for name, spent, cap in (
            ("tokens", self.tokens, self.budget.tokens),
            ("requests", self.requests, self.budget.requests),
            ("seconds", self.seconds, self.budget.seconds),
            ("money", self.money, self.budget.money),
        ):
            if cap is not None and spent >= cap:
                used = f"{spent:,.4f}" if name == "money" else f"{spent:,.0f}"
                more = f"{2 * spent:.4f}" if name == "money" else f"{2 * spent:.0f}"
                raise BudgetReached(
                    f"the budget of {cap:,} {name} is spent ({used} used); everything is on disk: "
                    f"raise it and resume, for example `outcross resume RUN --budget.{name} {more}`"
                )


def most_tokens(request: Request) -> int:
    """What a request can cost at most: a token of its prompt has at least one character."""
    written = 0 if request.choices else request.n * request.sampling.max_tokens
    return len(prompt_text(request.prompt)) + len(request.prefix) + written
