"""The interfaces: what a model can do, what each stage of the loop takes and gives, and the `Context` a stage sees.

A stage is a frozen dataclass with `__call__`; its fields are its whole configuration and building one does no work. It
takes an iterable and gives an iterator, so that nothing holds a whole round in memory. Parameters of interfaces are
positional-only: an implementation may call them what it likes.

    tasks ─▶ Selector ─▶ Generator ─▶ Verifier… ─▶ Curator… ─▶ Objective ─▶ (mix) ─▶ Trainable.fit ─▶ Probe… ─▶ Gate
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Generator as PyGenerator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

from outcross.errors import ConfigError, did_you_mean
from outcross.types import (
    Action,
    Alarm,
    Canary,
    Comparison,
    Completion,
    Decision,
    Drop,
    Example,
    Ground,
    Group,
    Measurement,
    Outcome,
    Prompt,
    Request,
    Response,
    Review,
    Task,
    Turn,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Role = str


# ── Models: policy, judge, teacher, critic, reward model. A model offers the capabilities it has. ──────────────────────
@runtime_checkable
class Model(Protocol):
    """Anything that is trained or asked."""

    @property
    def id(self) -> str:
        """Content hash of the weights, or endpoint and name: equal identifiers answer from the same distribution."""

    @property
    def depth(self) -> int:
        """Generations of model-written training data behind it; 0 when it learnt from human data alone."""

    def close(self) -> None: ...


@runtime_checkable
class Completes(Model, Protocol):
    """A model that answers requests. An endpoint keeps its own number in flight and `flush` does nothing; a local model
    batches what the calling thread has submitted and answers all of it at `flush`, deterministically."""

    def submit(self, request: Request, /) -> Future[Response]: ...
    def flush(self) -> None: ...


@runtime_checkable
class Remote(Completes, Protocol):
    """A model outside of this process: answers come while the caller does other things, and `flush` does nothing.

    `split`: the requests for one completion each that stand for one of several, with seeds counting up from its own; empty where the
    server takes the request as it is, or nobody knows yet. Whoever asks them one by one keeps those that came when others are lost."""

    def split(self, request: Request, /) -> Sequence[Request]: ...


@runtime_checkable
class LogProbs(Model, Protocol):
    """A model that scores given text: natural log-probabilities, one per completion token (end token included)."""

    def log_probs(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]: ...


@runtime_checkable
class Values(Model, Protocol):
    """A reward model or value head: one number per completion token, or a single one per turn."""

    def values(self, turns: Iterable[Turn], /) -> Iterator[Sequence[float]]: ...


@runtime_checkable
class Embeds(Model, Protocol):
    """A model that turns texts into vectors of one length, in the order of the texts."""

    def embed(self, texts: Iterable[str], /) -> Iterator[Sequence[float]]: ...


@runtime_checkable
class CountsTokens(Model, Protocol):
    """A model that knows how many of its own tokens a text has; mixtures are floored by this count."""

    def count_tokens(self, prompt: Prompt, /) -> int: ...


@runtime_checkable
class TokenIds(Model, Protocol):
    """A model that names the tokens it scores: the ids behind a completion, one for each number that `log_probs` gives for it."""

    def token_ids(self, completion: Completion, /) -> Sequence[int]: ...


@runtime_checkable
class KeepsLogs(Model, Protocol):
    """A model with something running that writes logs, a server, say; a run gives it the folder of its own logs."""

    def log_to(self, folder: Path, /) -> None: ...


LATER: Mapping[str, bool] = {"later": True}
"""Marks a field that was added when there were runs already: at its default it is no part of a fingerprint, so that theirs stay."""


class Seen(Protocol):
    """Called by `fit` once per optimiser step, in order: the step (from 0), the ids of the examples in it, and in `facts` what the model
    tells of it, where it does: `loss`, `gradient_norm` (before clipping), `learning_rate`, and after a look at the model that the step has led to
    `early_stop`, what its probe found (higher is better)."""

    def __call__(self, step: int, ids: Sequence[str], **facts: float) -> None: ...


@dataclass(frozen=True)
class FitPlan:
    """How to train: part of a recipe's identity. The micro-batch is not here: it belongs to the machine.

    `batch` counts examples per optimiser step, `warmup` is the share of steps, `max_length` is in tokens. `shuffle`: whether each epoch has
    an order of its own, drawn by the seed, or the order in which the examples come, which is what a mixture with a curriculum asks for.
    `stop`: whether the fit may end before its last step.
    """

    lr: float = 1e-4
    epochs: float = 1.0
    batch: int = 64
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.1
    max_length: int = 1024
    weight_decay: float = 0.0
    shuffle: bool = field(default=True, metadata=LATER)
    stop: EarlyStop | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class EarlyStop:
    """A fit ends once a probe finds it no better, and keeps the weights that the probe liked best.

    probe: of items of its own, which no gate sees and nothing is learnt from, since the choice is made by them; its margin is not read.
    every: optimiser steps from one look to the next; the last step is looked at in any case. patience: looks in a row that may bring nothing
    better. Raises `ConfigError`.
    """

    probe: Probe
    every: int = 20
    patience: int = 3

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("patience", self.patience)):
            if value < 1:
                raise ConfigError(f"an early stop has {name}={value}; allowed is 1 or more")


@runtime_checkable
class Trainable(Model, Protocol):
    """A model that can learn. `fit` gives a new model and leaves the old one untouched.

    `fit` calls `seen` with the ids of each optimiser step's examples; it shuffles by `seed` itself, if at all. `save` writes a
    folder, `load` reads one back with this model's machine settings (`load(save(...))` has the same `id`).
    """

    def fit(self, examples: Iterable[Example], /, *, plan: FitPlan, reference: Model | None, seed: int, seen: Seen) -> Self: ...
    def save(self, folder: Path, /) -> None: ...
    def load(self, folder: Path, /) -> Self: ...


@runtime_checkable
class KeepsProgress(Trainable, Protocol):
    """A model whose `fit` goes on where it was killed."""

    def keeping(self, progress: Path, cache: Path, /) -> Self:
        """This model, whose fits keep in `progress` what the fit under way has come to, and in `cache` what other fits may use. The same fit,
        begun again, goes on from there and comes to the same weights; both folders may be removed after it."""


@runtime_checkable
class StopsEarly(Trainable, Protocol):
    """A model whose `fit` may end early, as `FitPlan.stop` says."""

    def watched(self, better: Callable[[Model], float], /) -> Self:
        """This model, whose fits ask `better` what the model that they have come to is worth; higher is better. That model changes once `better`
        has answered, and learns nothing by being asked."""


# ── Talking to models ──────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Ask:
    """A question in a dialogue: which role is asked, and what."""

    role: Role
    request: Request


Dialogue = PyGenerator[Ask, Response, T]
"""A plain generator function that yields what it asks and receives the answer; its return value is the result."""


class Runner(Protocol):
    """Runs dialogues by the thousand and yields their results in input order (see `engine/executor.py`)."""

    def __call__(self, ctx: Context, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]: ...


class Past(Protocol):
    """Read-only: the rounds before this one, and what the run holds of real data."""

    def groups(self, phase: str | None = None, /) -> Iterator[Group]: ...
    def outcomes(self, task_id: str, /) -> Sequence[Outcome]: ...
    def reviews(self) -> Sequence[Review]: ...
    @property
    def real(self) -> Iterable[Example]: ...
    def state(self, stage: str, /) -> Path:
        """A folder for a stage's own index (a deduplicator's, say). It is committed with the round: what a stage writes
        here in a round that is repeated after a crash starts again from the previous round's state."""


def seed_from(*names: Any) -> int:
    """A 63-bit seed that depends on `names` alone: of a context, the run's seed, the round, and what it is asked for."""
    text = "\x1f".join(map(str, names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Context:
    """All that a stage sees besides its input. Nothing else comes from outside."""

    models: Mapping[Role, Model]
    past: Past
    round: str
    index: int  # rounds before this one in the phase
    seed: int
    runner: Runner

    def model(self, role: Role) -> Model:
        """The model that plays `role`. Raises `ConfigError` if the run has none."""
        try:
            return self.models[role]
        except KeyError:
            raise ConfigError(f"no model plays the role {role!r}; {did_you_mean(role, self.models)}. Add it under `models:`.") from None

    def seed_of(self, *names: Any) -> int:
        """A 63-bit seed that depends on the run's seed and `names` alone: the same on every machine and in any order."""
        return seed_from(self.seed, self.round, *names)

    def rng(self, *names: Any) -> random.Random:
        """A random generator of its own for `names`, for example `ctx.rng("draw", task.id)`."""
        return random.Random(self.seed_of(*names))

    def run(self, dialogues: Iterable[Dialogue[T]], /) -> Iterator[T]:
        """Run dialogues, thousands at once, and yield their results in input order. Journal, budget, retries and
        deadlines live here and only here."""
        return self.runner(self, dialogues)


# ── Stages ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True)
class Stage:
    """Base of every stage: what the engine asks of a stage besides calling it. Override what differs.

    `version` enters every record the stage makes: raise it when the stage's behaviour changes.
    """

    roles: ClassVar[tuple[Role, ...]] = ()
    version: ClassVar[str] = "1"
    parallel: ClassVar[bool] = False  # may be sharded over processes

    @property
    def name(self) -> str:
        """The stage's name on the record: the class name in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__).lower()

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        """How many requests `tasks` tasks cost, by role: the forecast multiplies it."""
        return {}


class Named(Protocol):
    """What every stage offers, whether or not it derives from `Stage`."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def roles(self) -> tuple[Role, ...]: ...
    @property
    def parallel(self) -> bool: ...
    def calls(self, tasks: int, /) -> Mapping[Role, int]: ...


class Selector(Protocol):
    """Chooses this round's tasks. Order matters: it is the order of generation. `at_most`: how many of `tasks` tasks."""

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Task]: ...
    def at_most(self, tasks: int, /) -> int: ...


class Generator(Named, Protocol):
    """One group per task, in the order of the tasks. A failed request is a sample with its reason in `error`."""

    def __call__(self, ctx: Context, tasks: Iterable[Task], /) -> Iterator[Group]: ...


class Verifier(Named, Protocol):
    """Adds one score to each sample; keeps groups, samples and their order. Samples with an `error` stay unscored.

    One that has `canaries` (a sequence of `Canary`) is tried on them before every batch; verifiers inside it stand in its field
    `verifier` or `verifiers` and are tried by themselves.

    `ground` says what the verdict rests on. Kernel, executed and exact may serve training and the gate alike; with any
    other the gate needs a probe of another verifier and another judging model.
    """

    @property
    def ground(self) -> Ground: ...
    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]: ...


class Curator(Named, Protocol):
    """Keeps groups, or sets samples aside with a reason. Each sample that came in leaves once, in a Group or a Drop.

    A curator that trims samples off a group changes group baselines: `trims` says so, and phases whose objective
    compares peers refuse it.
    """

    @property
    def trims(self) -> bool: ...
    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group | Drop]: ...


class Objective(Protocol):
    """Turns groups into examples. It sees the whole round and may iterate `groups` as often as it likes.

    `uses_peers`: whether an example depends on the other samples of its group.
    """

    @property
    def uses_peers(self) -> bool: ...
    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterable[Example]: ...


class Probe(Named, Protocol):
    """Measures the model that plays `policy` on held-out items. Items, their order and all draws are the same whichever
    model is measured: tests are paired. `kind`: a bench holds at least one probe of each."""

    @property
    def kind(self) -> Literal["quality", "diversity", "fit"]: ...
    @property
    def ground(self) -> Ground: ...
    @property
    def margin(self) -> float:
        """The loss that the gate may not let through, in the probe's unit; a positive number."""

    def __call__(self, ctx: Context, /) -> Measurement: ...


@runtime_checkable
class Examines(Named, Protocol):
    """A probe that shows what a verifying model is worth: a number between 0 and 1 for each item, `by_chance` on average where it knows nothing."""

    @property
    def by_chance(self) -> float: ...
    def __call__(self, ctx: Context, /) -> Measurement: ...


class Gate(Protocol):
    """Decides whether a candidate becomes the champion."""

    @property
    def alpha(self) -> float:
        """The chance, over the whole run, of promoting a model that is worse than a margin; 0 for ungated."""

    def __call__(self, comparison: Comparison, margins: Mapping[str, float], /) -> Decision: ...


class Monitor(Protocol):
    """Says what moved for the worse, promoted or not. It is asked once a round that taught something; the engine acts on what it says.

    `alpha`: the chance, over the whole run, that it speaks of anything when nothing got worse. `probes`: measured beside the gate's, and not
    guarded. `step`, `most`: by how much "raise_real" lifts the floor of real data of the rounds that follow, and the highest it may lift it to.
    `acts`: the strongest action that it may ask for.
    """

    @property
    def alpha(self) -> float: ...
    @property
    def probes(self) -> tuple[Probe, ...]: ...
    @property
    def step(self) -> float: ...
    @property
    def most(self) -> float: ...
    @property
    def acts(self) -> Action: ...
    def __call__(self, comparison: Comparison, margins: Mapping[str, float], before: Sequence[Sequence[Alarm]], /) -> tuple[Alarm, ...]:
        """`before`: the alarms of the run's earlier rounds, in order."""


# ── Releases: sets of rows instead of models ───────────────────────────────────────────────────────────────────────────
class Rows(Protocol):
    """A set of rows: what a round would release, what was released before, or real data. It can be read as often as one likes."""

    def __iter__(self) -> Iterator[Group]:
        """Tasks with the samples that are rows; a task without any is left out."""

    def made(self) -> Iterator[Group]:
        """All that was made for them, failed or set aside too; the samples of a task may come in several groups."""


@dataclass(frozen=True)
class Bounds:
    """What a gate asks of a probe's value, in its unit.

    margin: how far the rows may be behind those they are compared with; None: no comparison. against: with what.
    limit: what they must reach in any case; None: nothing.
    either_way: they may be as little above as below, for values of which neither more nor less is better.
    exact: the value is about these very rows and nothing beyond them, so that it has no interval.
    """

    margin: float | None = None
    limit: float | None = None
    against: tuple[Literal["release", "real"], ...] = ("release", "real")
    either_way: bool = False
    exact: bool = False


class RowsProbe(Named, Protocol):
    """Measures a set of rows: per task in `items`, or one value with bootstrap `replicates`. The value may not depend on how many
    rows there are, because sets of different sizes are compared. None: there is nothing of the kind to be measured in these rows."""

    @property
    def kind(self) -> Literal["quality", "diversity", "fit"]: ...
    @property
    def ground(self) -> Ground: ...
    @property
    def bounds(self) -> Bounds: ...
    def __call__(self, ctx: Context, rows: Rows, /) -> Measurement | None: ...


class RowsGate(Protocol):
    """Decides whether a round's rows are released. In the comparison, `champion` is what was released before and `first` real
    data; either is empty where there is none. `alpha`: as of `Gate`."""

    @property
    def alpha(self) -> float: ...
    def __call__(self, comparison: Comparison, bounds: Mapping[str, Bounds], /) -> Decision: ...


def roles_of(stage: object) -> tuple[Role, ...]:
    """The roles a stage asks; none when it does not say."""
    return tuple(getattr(stage, "roles", ()))


def name_of(stage: object) -> str:
    """The name of a stage on the record."""
    return str(getattr(stage, "name", type(stage).__name__))


def version_of(stage: object) -> str:
    """The version of a stage on the record."""
    return str(getattr(stage, "version", "1"))


def calls_of(stage: object, tasks: int, samples: int) -> Mapping[Role, int]:
    """Requests, by role, for `tasks` tasks with `samples` answers each: what the stage says in `calls`, or in `calls_for(tasks, samples)`
    where it depends on both."""
    if (of_both := getattr(stage, "calls_for", None)) is not None:
        return dict(of_both(tasks, samples))
    counter = getattr(stage, "calls", None)
    return {} if counter is None else dict(counter(tasks))


def canaries_of(verifier: object) -> tuple[Canary, ...]:
    """The answers of known verdict that a verifier declares for itself; none when it declares none. Raises `ConfigError` for what is no
    sequence of canaries."""
    found = getattr(verifier, "canaries", ())
    if not isinstance(found, list | tuple) or not all(isinstance(item, Canary) for item in found):
        raise ConfigError(
            f"the canaries of {name_of(verifier)} are {found!r:.80}; they must be a list or tuple of outcross.Canary, as a field or a property"
        )
    return tuple(found)


def parts_of(stage: object) -> tuple[Verifier, ...]:
    """The verifiers that stand in a stage's fields `verifier` and `verifiers`: of a combination, a generator or a probe."""
    inside = getattr(stage, "verifiers", ())
    found = (*inside, getattr(stage, "verifier", None)) if isinstance(inside, tuple) else (getattr(stage, "verifier", None),)
    return tuple(item for item in found if callable(item) and hasattr(item, "ground"))
