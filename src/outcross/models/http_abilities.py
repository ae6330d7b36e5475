"""What servers can do, learnt from their replies and never believed: many ignore `n`, schemas or log-probabilities silently."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from outcross.models.http_wire import Call, Reply, completions
from outcross.types import Request, Sampling

log = logging.getLogger("outcross.models.http")


@dataclass
class Abilities:
    """What a server was seen to do; None where nothing has shown it yet. Each finding is logged once a process.

    n: several completions a request. log_probs: alternatives of the first token. echo: log-probabilities of a given text.
    seed: the same seed, the same answer. schema: answers held to a JSON schema. usage: tokens counted in the reply.
    """

    server: str
    n: bool | None = None
    log_probs: bool | None = None
    echo: bool | None = None
    seed: bool | None = None
    schema: bool | None = None
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
    done: Callable[[Call, Reply | str], None]
    wanted: Callable[[], bool] = lambda: True
    failures: int = 0
    hung: int = 0
    throttles: int = 0
    waited: float = 0.0
    last: object = None  # the server that was asked last


Post = Callable[[Exchange], None]

# ── probes: what ordinary traffic cannot show ──────────────────────────────────────────────────────────────────────────
_COLOUR = '{"type":"object","properties":{"colour":{"type":"string","enum":["blue"]}},"required":["colour"],"additionalProperties":false}'
SCHEMA_PROBE = Request("Reply with the single word hello.", sampling=Sampling(temperature=0.0, max_tokens=32), schema=_COLOUR)
SEED_PROBE = Request("Write a few random words.", sampling=Sampling(max_tokens=12))


def probe_schema(post: Post, known: Abilities) -> None:
    """Ask once for what the schema forbids: a server that holds answers to schemas cannot say it."""
    if "schema" in known.probed:
        return
    known.probed.add("schema")

    def came(call: Call, reply: Reply | str) -> None:
        said = "" if isinstance(reply, str) else str(completions(reply, 1)[0].content)
        try:
            able = msgspec.json.decode(said) == {"colour": "blue"}
        except msgspec.DecodeError:
            able = False
        known.found("schema", able, "answers are not held to JSON schemas and must be validated")

    post(Exchange(SCHEMA_PROBE, Call("text"), came))


def probe_seed(post: Post, known: Abilities) -> None:
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
        post(Exchange(SEED_PROBE, Call("text", 1, seed), came))
