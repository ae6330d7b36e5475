"""The nouns of Outcross: every record that stages exchange and the store keeps.

Records are frozen `msgspec` structs. Identifiers are content hashes, so that a sample, the example made from it, the
optimiser step that saw it and the model that came out are one chain that can be walked in both directions.

    Task ──▶ Sample ×n = Group ──▶ Score on each sample ──▶ Drop or Example ──▶ optimiser step ──▶ model
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

Kind = Literal["real", "synthetic", "unknown"]
Proof = Literal["proved", "attested", "none"]
Verdict = Literal["pass", "fail", "error", "abstain"]
Ground = Literal["kernel", "executed", "exact", "trained", "judged", "voted", "human"]
LossName = Literal["nll", "pg", "dpo", "ipo", "sppo", "bt", "kto", "value", "own"]


class Record(msgspec.Struct, frozen=True, kw_only=False, omit_defaults=True):
    """Base of every record: immutable, compared by value, encodable as JSON without loss."""


class Message(Record, frozen=True, omit_defaults=True):
    """One turn of a conversation in the form that chat endpoints and TRL use."""

    role: str
    content: str


class Array(Record, frozen=True, tag="array"):
    """An image, a vector or any other tensor as content: C-ordered bytes with a declared type and shape."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


Content = str | Array
Prompt = str | tuple[Message, ...] | Array


class Origin(Record, frozen=True, omit_defaults=True):
    """Where a record comes from.

    `kind` is what is claimed and `proof` what backs the claim: *proved* (the hash of its registered release matches),
    *attested* (somebody vouches, see `note`) or *none*. Only a real record with proof or attestation counts as real;
    unknown counts as synthetic.
    """

    kind: Kind = "unknown"
    proof: Proof = "none"
    source: str = ""  # release, file or model identifier
    depth: int = 0  # generations of model-written text behind it: 0 for human text
    round: str = ""  # "phase/round" that made it
    parents: tuple[str, ...] = ()  # identifiers of the records it was made from
    verifiers: tuple[str, ...] = ()  # "name@version" of verifiers used inside its generator
    note: str = ""  # who attested and when it was collected; licence

    @property
    def is_real(self) -> bool:
        """Whether the record counts towards the floor of real data."""
        return self.kind == "real" and self.proof != "none"


SYNTHETIC = Origin(kind="synthetic")


class Task(Record, frozen=True, omit_defaults=True):
    """Something to be answered. `answer` is the reference when there is one; verifiers read it, models never do."""

    id: str
    prompt: Prompt
    answer: str | None = None
    subgroup: str | None = None
    origin: Origin = Origin()
    effort: float = 1.0  # relative budget a selector gives it
    columns: tuple[tuple[str, str], ...] = ()  # further named values: shown to verifiers, kept in the record


_WHOLE = 1.0


class Sampling(Record, frozen=True, omit_defaults=True):
    """How a completion is drawn. `temperature` 0 means greedy.

    With `beams` above 1 nothing is drawn: the completions are the most likely ones that a beam search with so many beams comes to, the best
    first, and `n` is at most `beams`. Local language models can (`torch_lm`); all others refuse.
    """

    later: ClassVar[frozenset[str]] = frozenset({"beams"})  # at its default no part of a fingerprint: there were runs before it

    temperature: float = _WHOLE
    top_p: float = _WHOLE
    top_k: int = 0  # 0: the whole vocabulary
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    beams: int = 1

    def __post_init__(self) -> None:
        # Encoders leave out what *is* the default, not what equals it; equal requests must have equal hashes, however they were read.
        for name in ("temperature", "top_p"):
            if getattr(self, name) == _WHOLE:
                msgspec.structs.force_setattr(self, name, _WHOLE)


class Request(Record, frozen=True, omit_defaults=True):
    """One question to a model, for `n` completions. It holds everything that shapes the answer: its hash is the key
    of the journal."""

    prompt: Prompt
    n: int = 1
    sampling: Sampling = Sampling()
    prefix: tuple[int, ...] = ()  # token ids that the completion must continue
    choices: tuple[str, ...] = ()  # ask for the log-probability of each of these answers instead of a text
    schema: str | None = None  # JSON schema that the answer must satisfy
    tools: str | None = None  # JSON list of tool definitions
    seed: int = 0


class Usage(Record, frozen=True, omit_defaults=True):
    """Tokens read and written, and money in the currency of the price list."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    money: float = 0.0


class Completion(Record, frozen=True, omit_defaults=True):
    """One answer. `finished` is false when the token limit cut it off: such a text may not be judged as a whole."""

    content: Content
    tokens: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()  # natural log, one per token, of the distribution that was sampled at T = 1
    choice_log_probs: tuple[float, ...] = ()  # one per `Request.choices`: summed over the choice's tokens
    finished: bool = True


class Response(Record, frozen=True, omit_defaults=True):
    """What a model said to a request: `n` completions, or none and the reason in `error`."""

    completions: tuple[Completion, ...] = ()
    usage: Usage = Usage()
    error: str = ""


class Turn(Record, frozen=True, omit_defaults=True):
    """One exchange inside a sample; a plain answer has one, a game or a dialogue several."""

    prompt: Prompt
    completion: Completion
    reward: float | None = None
    value: float | None = None


class Score(Record, frozen=True, omit_defaults=True):
    """A verifier's finding about one sample.

    Only `pass` and `fail` may carry a `value`; an `error` or `abstain` has none and is never read as zero.
    """

    verifier: str
    version: str
    verdict: Verdict
    value: float | None = None
    reason: str = ""
    evidence: str = ""

    def __post_init__(self) -> None:
        if self.verdict in ("error", "abstain") and self.value is not None:
            raise ValueError(
                f"verifier {self.verifier!r} gave value {self.value} with verdict {self.verdict!r}; only pass and fail have a value"
            )


class Sample(Record, frozen=True, omit_defaults=True):
    """One attempt at a task. A failed request is a sample without turns and with the reason in `error`."""

    id: str
    turns: tuple[Turn, ...]
    origin: Origin
    seat: str = "policy"
    scores: tuple[Score, ...] = ()
    error: str = ""

    @property
    def content(self) -> Content:
        """What the last turn answered; the empty text when the request failed."""
        return self.turns[-1].completion.content if self.turns else ""

    @property
    def text(self) -> str:
        """`content` when it is text, else the empty text."""
        content = self.content
        return content if isinstance(content, str) else ""

    @property
    def verdict(self) -> Verdict | None:
        """All verifiers' verdicts in one: fail if any failed, else error, else abstain, else pass; None if unverified."""
        found = {score.verdict for score in self.scores}
        order: tuple[Verdict, ...] = ("fail", "error", "abstain", "pass")
        return next((verdict for verdict in order if verdict in found), None)

    @property
    def value(self) -> float | None:
        """The mean of the verifiers' values; None unless every verdict has one."""
        values = [score.value for score in self.scores]
        if not values or any(value is None for value in values):
            return None
        return sum(value for value in values if value is not None) / len(values)


class Group(Record, frozen=True, omit_defaults=True):
    """A task with all its samples: what verifiers, curators and objectives work on."""

    task: Task
    samples: tuple[Sample, ...]


class Canary(Record, frozen=True, omit_defaults=True):
    """Answers to one task whose verdicts are known before anybody judges them: *gold* where a pass is `expected`, *known bad* where a fail
    is. A verifier that says otherwise is broken. The task's identifier names the canary.

    An answer that is several texts is a sample of so many turns, all of them under the task's prompt.
    """

    task: Task
    answers: tuple[str | tuple[str, ...], ...]
    expected: tuple[Verdict, ...]

    def __post_init__(self) -> None:
        if not self.answers or len(self.answers) != len(self.expected):
            raise ValueError(
                f"the canary {self.task.id!r} has {len(self.answers)} answers and {len(self.expected)} expected verdicts; give one verdict an answer"
            )


class Drop(Record, frozen=True, omit_defaults=True):
    """Samples that a curator set aside, and why. Dropped records are stored, never deleted."""

    group: Group
    curator: str
    reason: str


class Loss(Record, frozen=True, omit_defaults=True):
    """A loss by name, so that it has a fingerprint. `beta` and `clip` are those of the named loss's paper. `form`: `trl` is trl's where that
    differs: "ipo" takes the mean over tokens, where the paper sums; "sppo" has win rates of 1 and 0 (`sppo_hard`); "pg" has the divergence in the
    loss, token by token, where the paper has it in the reward."""

    later: ClassVar[frozenset[str]] = frozenset({"form"})  # at its default no part of a fingerprint: there were runs before it

    name: LossName = "nll"
    beta: float | None = None
    clip: float | None = None
    form: Literal["paper", "trl"] = "paper"


NLL = Loss("nll")


class Example(Record, frozen=True, omit_defaults=True):
    """One row that the optimiser can learn from.

    `weight` and `target` are one number, or one per completion token. `tokens`: the ids that were drawn, where numbers belong to each of them; what was
    drawn may be cut into tokens otherwise than its text is. `origin.parents` names the samples it came from.
    """

    later: ClassVar[frozenset[str]] = frozenset({"tokens"})  # at its default no part of a fingerprint: there were runs before it

    id: str
    prompt: Prompt
    completion: Content
    loss: Loss = NLL
    weight: float | tuple[float, ...] = 1.0
    rejected: Content | None = None
    target: float | tuple[float, ...] | None = None
    old_log_probs: tuple[float, ...] = ()
    origin: Origin = Origin()
    subgroup: str | None = None
    tokens: tuple[int, ...] = ()


class Measurement(Record, frozen=True, omit_defaults=True):
    """What a probe found, ready for a paired test.

    `values` holds one number per item of `items` (the same items whichever model is measured). A statistic that is not
    a mean over items has one entry in `values` and its paired bootstrap `replicates` (same resamples for every model).
    """

    probe: str
    items: tuple[str, ...]
    values: tuple[float, ...]
    replicates: tuple[float, ...] | None = None
    higher_is_better: bool = True
    unit: str = ""

    @property
    def mean(self) -> float:
        """The mean over the items that could be measured; NaN when there are none."""
        values = [value for value in self.values if not math.isnan(value)]
        return sum(values) / len(values) if values else float("nan")


class Check(Record, frozen=True, omit_defaults=True):
    """One line of a gate's reasoning: a probe of the candidate held against one earlier model; of a set of rows, against an
    earlier release, real data or a stated limit.

    `estimate` is candidate minus the other in the probe's unit, signed so that higher is better; `low` its one-sided
    lower confidence bound at `alpha`; the check holds when `low > -margin`, against a limit when `low >= 0`.
    """

    probe: str
    against: Literal["champion", "first", "release", "real", "limit"]
    estimate: float
    low: float
    margin: float
    alpha: float
    power: float  # chance that an unchanged candidate passes
    items: int
    passed: bool
    note: str = ""


class Decision(Record, frozen=True, omit_defaults=True):
    """A gate's answer. `gated` is false for gates that refuse nothing (open, observe): reports then say *ungated*."""

    promote: bool
    reason: str
    gate: str
    checks: tuple[Check, ...] = ()
    alpha_spent: float = 0.0
    gated: bool = True


Action = Literal["note", "warn", "raise_real", "stop", "roll_back"]
ACTIONS: tuple[Action, ...] = ("note", "warn", "raise_real", "stop", "roll_back")  # each includes those before it


class Alarm(Record, frozen=True, omit_defaults=True):
    """A probe on which a candidate is shown to be worse than the first champion, or than the one it was to follow.

    `change` is candidate minus the other in the probe's unit, signed so that higher is better; `low` and `high` its one-sided bounds at
    `alpha` each. `items` are those that moved most, `rows` their texts where the bench knows them; `rounds`: how many rounds in a row.
    """

    probe: str
    against: Literal["champion", "first"]
    change: float
    low: float
    high: float
    alpha: float
    action: Action
    reason: str
    rounds: int = 1
    items: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


class Comparison(Record, frozen=True, omit_defaults=True):
    """What a gate looks at: measurements by probe name of the candidate, of the champion and of the first champion."""

    candidate: Mapping[str, Measurement]
    champion: Mapping[str, Measurement]
    first: Mapping[str, Measurement]
    round: int  # counted over the whole run, from 0
    rounds: int  # how many rounds the run plans
    alpha_left: float


class Review(Record, frozen=True, omit_defaults=True):
    """A person's verdict on a sample."""

    sample_id: str
    reviewer: str
    verdict: Verdict
    reason: str = ""


class Outcome(Record, frozen=True, omit_defaults=True):
    """How one earlier attempt at a task ended."""

    round: str
    verdict: Verdict | None
    value: float | None = None


def content_hash(*parts: Any) -> str:
    """128 bits of BLAKE2b, as 32 hexadecimal digits, over the JSON form of `parts`: equal content, equal identifier.

    Raises `TypeError` for a part that has no JSON form.
    """
    return hashlib.blake2b(_encoder.encode(parts), digest_size=16).hexdigest()


_encoder = msgspec.json.Encoder(order="deterministic")


def sample_id(task_id: str, index: int, turns: tuple[Turn, ...], origin: Origin, seat: str = "policy") -> str:
    """The identifier of the `index`-th sample of a task in a round: equal texts of one group stay two samples."""
    said = [(turn.prompt, turn.completion.content, turn.completion.tokens) for turn in turns]
    return content_hash("sample", task_id, index, said, origin.source, origin.round, seat)


def example_id(prompt: Prompt, completion: Content, loss: Loss, origin: Origin, *more: Any) -> str:
    """The identifier of an example: its content, what is learnt from it and what it was made from."""
    return content_hash("example", prompt, completion, loss, origin.source, origin.round, origin.parents, more)
