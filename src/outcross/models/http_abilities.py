"""What servers can do, learnt from their replies and never believed: many ignore `n`, schemas or log-probabilities silently."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from outcross.models.http_wire import Call, Reply, Tokens, completions
from outcross.types import Request, Sampling

log = logging.getLogger("outcross.models.http")


@dataclass
class Abilities:
    """What a server was seen to do; None where nothing has shown it yet. Each finding is logged once a process.

    n: several completions a request. log_probs: alternatives of the first token. echo: log-probabilities of a given text.
    seed: the same seed, the same answer. schema: False once an answer to a JSON schema was no JSON; whether a schema is really kept
    is for those who have one to probe (`outcross.structured`). tools: calls of tools. tool_choice: forced ones. usage: tokens
    counted in the reply.
    """

    server: str
    n: bool | None = None
    log_probs: bool | None = None
    echo: bool | None = None
    seed: bool | None = None
    schema: bool | None = None
    tools: bool | None = None
    tool_choice: bool | None = None
    usage: bool | None = None
    probed: set[str] = field(default_factory=set, repr=False)

    def found(self, name: str, able: bool, consequence: str) -> None:
        """Note a finding, unless one stands already."""
        if getattr(self, name) is not None:
            return
        setattr(self, name, able)
        if able:
            log.info("%s: %s works", self.server, name)
        else:
            log.warning("%s: %s does not work; %s", self.server, name, consequence)


@dataclass(eq=False)
class Exchange:
    """One call on its way to a server. `done` gets the reply, or the reason why there is none."""

    request: Request
    call: Call
    done: Callable[[Call, Any], None]
    wanted: Callable[[], bool] = lambda: True
    failures: int = 0
    hung: int = 0
    throttles: int = 0
    waited: float = 0.0
    last: object = None  # the server that was asked last
    left_out: frozenset[str] = frozenset()  # fields it was sent without
    knock: bool = False  # asks only whether a server that is down is back
    owed: Tokens | None = None  # what knocking cost before this could be sent


Post = Callable[[Exchange], None]
Came = Callable[[Call, Reply | str], None]
Ask = Callable[[Request, Call, Came], None]
"""Sends a probe; what it costs is counted in the response of the request that set it off."""

# ── probes: what ordinary traffic cannot show ──────────────────────────────────────────────────────────────────────────
SEED_PROBE = Request("Write a few random words.", sampling=Sampling(max_tokens=12))
_PING = '[{"type":"function","function":{"name":"ping","description":"Ping.","parameters":{"type":"object","properties":{}}}}]'
FORCED_PROBE = Request("Reply with the single word hello.", sampling=Sampling(temperature=0.0, max_tokens=64), tools=_PING)
FREE_PROBE = Request("Call the tool ping.", sampling=Sampling(temperature=0.0, max_tokens=64), tools=_PING)


def probe_seed(ask: Ask, known: Abilities) -> None:
    """Ask twice with one seed and once with another; called when only the seed tells the samples of a request apart."""
    if "seed" in known.probed:
        return
    known.probed.add("seed")
    said: dict[int, list[str]] = {1: [], 2: []}

    def came(call: Call, reply: Reply | str) -> None:
        said[call.seed].append("" if isinstance(reply, str) else str(completions(reply, 1)[0].content))
        if sum(map(len, said.values())) == 3:
            able = said[1][0] == said[1][1] != said[2][0]
            known.found("seed", able, "the same seed gives another answer, or every seed the same: answers repeat only from the journal")

    for seed in (1, 1, 2):
        ask(SEED_PROBE, Call("text", 1, seed), came)


def probe_tools(ask: Ask, known: Abilities) -> None:
    """Force a call that the prompt does not want; if none comes, ask for one. Called when an answer to a request with tools calls none."""
    if "tools" in known.probed or known.tools is not None:
        return
    known.probed.add("tools")

    def forced(call: Call, reply: Reply | str) -> None:
        able = calls_tools(reply)
        known.found("tool_choice", able, "whether a tool is called is left to the model")
        if able:
            known.found("tools", True, "")
        else:
            ask(FREE_PROBE, Call("text"), free)

    def free(call: Call, reply: Reply | str) -> None:
        known.found("tools", calls_tools(reply), "answers are texts that call no tools")

    ask(FORCED_PROBE, Call("text", tool_choice="required"), forced)


def calls_tools(reply: Reply | str) -> bool:
    """Whether any choice of the reply calls a tool."""
    return not isinstance(reply, str) and any(choice.message is not None and bool(choice.message.tool_calls) for choice in reply.choices)
