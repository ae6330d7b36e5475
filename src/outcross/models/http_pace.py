"""How many requests an endpoint gets at a time, and when it is left alone. Knows no clock: callers pass monotonic seconds.

Additive increase and multiplicative decrease as in DCTCP (Alizadeh et al., SIGCOMM 2010, eq. 2): after each round of as many answers
as are allowed at once, the limit grows by one if none was throttled, else it shrinks by half the share that was. A stray 429 thus
costs a fraction of a slot, where halving on each would hold 64 slots at a dozen with 1 % of them; a server that refuses everything still sees
the limit halve every round.
"""

from __future__ import annotations

import math
from typing import Literal

Outcome = Literal["fine", "throttled", "failed"]
FAILURES_IN_A_ROW = 8  # after as many, with no answer between them, a server counts as down
LONGEST_REST_S = 30.0
_MEMORY = 1 / 16  # weight of the newest answer in `pressure`


class Pace:
    """The pace of one endpoint. `limit` is what is allowed at once, `most` what it may grow to."""

    def __init__(self, most: int) -> None:
        self.most, self.limit = most, float(most)
        self.in_flight = 0
        self.rest_until = -math.inf
        self.down_since: float | None = None
        self._failures = self._rests = 0
        self._answers = self._throttled = 0
        self._pressure = 0.0

    def free(self, now: float) -> bool:
        """Whether one more request may go out. A server that is down gets one at a time, to see whether it is back."""
        allowed = 1 if self.down_since is not None else int(self.limit)
        return self.in_flight < allowed and now >= self.rest_until

    def sent(self) -> None:
        self.in_flight += 1

    def back(self, outcome: Outcome, now: float, wait: float = 0.0) -> None:
        """An exchange came to its end. `wait`: the seconds a throttling server asked for."""
        self.in_flight -= 1
        if outcome == "failed":
            self._fail(now)
            return
        self._failures = self._rests = 0
        self.down_since = None
        self._mark(outcome == "throttled")
        if outcome == "throttled" and self._pressure > 0.5:  # most are refused: the wait is meant for all, not for one
            self.rest_until = max(self.rest_until, now + wait)

    def slow(self) -> None:
        """An answer took so long that more load would cost answers: it counts as throttled, beside its outcome."""
        self._mark(True)

    def _mark(self, throttled: bool) -> None:
        self._answers += 1
        self._throttled += throttled
        self._pressure += _MEMORY * (throttled - self._pressure)
        if self._answers < self.limit:
            return
        if self._throttled:
            self.limit = max(1.0, self.limit * (1 - self._throttled / self._answers / 2))
        else:
            self.limit = min(float(self.most), self.limit + 1)
        self._answers = self._throttled = 0

    def _fail(self, now: float) -> None:
        self._failures += 1
        if self._failures < FAILURES_IN_A_ROW:
            return
        self.down_since = now if self.down_since is None else self.down_since
        if now >= self.rest_until:  # of those that fail together, the first sets the rest
            self.rest_until = now + min(LONGEST_REST_S, 0.25 * 2**self._rests)
            self._rests += 1
