"""Values that say what a run does: a recipe is data, and its fingerprint is its identity.

Literals in a recipe are its identity; device, micro-batch, endpoint and path come from the run file and never enter the
fingerprint. A value without a stable serialisation is refused with its name.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import inspect
import json
import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import msgspec

from outcross.errors import ConfigError, FingerprintError
from outcross.select import All
from outcross.stages import (
    LATER,
    Curator,
    FitPlan,
    Gate,
    Generator,
    Monitor,
    Objective,
    Probe,
    Role,
    RowsGate,
    RowsProbe,
    Selector,
    Verifier,
)
from outcross.types import Example, Task

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Waived:
    """A phase without a floor of real data, and why. The reason heads the report and the card."""

    reason: str


@dataclass(frozen=True)
class Factors:
    """Loss weights by what a row is: those whose `by` is named have its factor, all others `other`.

    by: the model or file that a row is from, its origin (real, synthetic, unknown), its subgroup, or its generation depth.
    factors: by value; names may be patterns with `*` and `?`, of which the first that fits counts.
    """

    by: Literal["source", "origin", "subgroup", "depth"]
    factors: Mapping[str | int, float]
    other: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", {str(name): float(factor) for name, factor in self.factors.items()})
        for name, factor in (*self.factors.items(), ("other", self.other)):
            _check(0 <= factor < math.inf, f"the factor of {name} is {factor}", "a number of 0 or more")


@dataclass(frozen=True)
class Decay:
    """Loss weights that fall with generation depth: the factor is `decay` to the power of the depth."""

    decay: float

    def __post_init__(self) -> None:
        _check(0 < self.decay <= 1, f"decay is {self.decay}", "a number above 0, up to 1")


@dataclass(frozen=True)
class Tilt:
    """Loss weights by score, as in reward-weighted regression (Peters & Schaal, 2007): exp((score - best) / temperature), where the best is
    the highest score of the round's synthetic rows. Rows without a score keep their weight."""

    temperature: float

    def __post_init__(self) -> None:
        _check(0 < self.temperature < math.inf, f"temperature is {self.temperature}", "a number above 0")


@dataclass(frozen=True)
class Threshold:
    """Rows with a score below `at_least` are left out. Rows without a score stay."""

    at_least: float


Weight = Factors | Decay | Tilt | Threshold


@dataclass(frozen=True)
class Cap:
    """At most so many different synthetic `rows` of one source, task, subgroup or generation depth, or such a `share` of all records that
    the optimiser sees, weights and repeats counted. Rows without the value, and real rows, are not capped."""

    by: Literal["source", "task", "subgroup", "depth"]
    rows: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        _check(
            (self.rows is None) != (self.share is None), f"the cap by {self.by} has rows={self.rows} and share={self.share}", "one of them"
        )
        _check(self.rows is None or self.rows > 0, f"the cap by {self.by} is {self.rows} rows", "1 or more")
        _check(self.share is None or 0 < self.share < 1, f"the cap by {self.by} is a share of {self.share}", "a share between 0 and 1")


@dataclass(frozen=True)
class Curriculum:
    """The optimiser meets synthetic rows from `first` to last by this key, every epoch anew; equals in a seeded random order.

    by: difficulty (the share of its round's answers to the task that failed), score, length in tokens, or generation depth. Real rows are
    spread evenly among them, so that every stretch has its share of real data, and are in the same order among themselves where they
    have the key; synthetic rows without it are spread likewise.
    """

    by: Literal["difficulty", "score", "length", "depth"]
    first: Literal["low", "high"] = "low"


def _check(right: bool, seen: str, allowed: str) -> None:
    if not right:
        raise ConfigError(f"mix: {seen}; allowed is {allowed}")


@dataclass(frozen=True)
class Mixture:
    """What the optimiser sees in a round: this round's examples, the accepted ones of earlier rounds, and real rows.

    history: *accumulate* keeps every accepted example; *subsample* draws as many from that pool as this round made, without
        replacement (Kazdan et al., arXiv:2410.16713); *replace* forgets them (needs `unsafe: true` in the run file).
    floor: *rows*: real rows are learnt by their own loss beside the others and make up at least `real_floor` of all
        records and of all tokens, weights and repeats counted; *anchor*: for own-sample losses, real rows enter every round with the
        total weight `anchor` relative to the others; or `Waived(reason)`.
    real_epochs: how often a real row may be repeated in one round to hold the floor; beyond it synthetic rows wait.
    budget: how many records the optimiser sees in the round; None: each synthetic record once, and real ones for the floor.
    synthetic_epochs: how often a synthetic row may be repeated to fill its share of a budget; beyond it real rows fill it.
    weights: factors of the rows' loss weights, multiplied; the floor counts them, and a row whose weight becomes 0 is left out. Factors
        and not chances of being drawn, because a factor holds exactly and not only on average.
    caps: the most of one source, task, subgroup or depth. order: a curriculum; None: a seeded shuffle, anew in every epoch.
    """

    history: Literal["accumulate", "subsample", "replace"] = "accumulate"
    floor: Literal["rows", "anchor"] | Waived = "rows"
    real_floor: float = 0.7
    anchor: float = 0.1
    real_epochs: float = 4.0
    synthetic_epochs: float = 1.0
    budget: int | None = None
    weights: tuple[Weight, ...] = field(default=(), metadata=LATER)
    caps: tuple[Cap, ...] = field(default=(), metadata=LATER)
    order: Curriculum | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class Learn:
    """What one role learns: objective, training plan, the model it starts from and the one its loss refers to. `real`: real rows of its
    own, such as people's comparisons for a reward model; `()`: none; None: the bench's."""

    objective: Objective
    plan: FitPlan = FitPlan()
    start: Literal["champion", "first", "scratch"] = "champion"
    reference: Literal["champion", "first"] | None = None
    real: Iterable[Example] | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class Expert:
    """Rows wait for people: what a round made enters no mixture and no release before a signed acceptance sample of it passed.

    limit: the share of errors that people may find in the whole batch; it is accepted once the share is shown to be at most this, and
        rejected once it is shown to be above. alpha: the chance of either mistake, over all looks together (`outcross.sequential`).
    wait: whether the run stops, resumably, until people have decided. If not, it goes on with what has been admitted so far, and a batch
        that is accepted later enters the next round's mixture.
    """

    limit: float = 0.05
    alpha: float = 0.05
    wait: bool = True


Admit = Literal["expert"] | Expert | None
"""How rows are admitted. "expert": by people, with the settings that `Expert` has by itself."""


@dataclass(frozen=True)
class Bench:
    """What a method is tried on. The same bench serves every method.

    `tasks` are for training, `held_out` never reaches a generator of a phase, `real` is data written by people (None: the
    run is headed *no real anchor*). `divergence`: what follows when the training reward rises and an independent probe of quality falls: a
    warning that heads the report, a refused promotion, or the end of the run. `alarms`: tests every probe, and further ones, against the first
    champion and the last one in every round, and says what follows. `final`: probes on fresh items, which no gate ever sees; the first and the
    last champion are measured with them once, when the run ends, for a claim that was not selected for.
    """

    tasks: Iterable[Task]
    held_out: Iterable[Task]
    real: Iterable[Example] | None
    probes: tuple[Probe, ...]
    gate: Gate
    divergence: Literal["warn", "refuse", "stop"] = "warn"
    alarms: Monitor | None = field(default=None, metadata=LATER)
    final: tuple[Probe, ...] = field(default=(), metadata=LATER)


TasksOnly = Annotated[Bench, "tasks are enough"]
"""The bench of a recipe that trains nothing: it may hold no held-out items, no probes and no real data."""


@dataclass(frozen=True)
class Release:
    """What the rows of a data-only round must pass to be released: probes of rows, and the gate that holds them against real data and
    against what was released before, which is `against` (rows of an earlier run) and the released rounds of this one."""

    probes: tuple[RowsProbe, ...]
    gate: RowsGate
    against: Iterable[Example] = ()


@dataclass(frozen=True)
class Phase:
    """Rounds of one kind. `learn` empty: data only, tested by `release` where there is one. `probes` and `gate` None: the bench's.
    `generate` None: learns from real data and history alone. `inner`: turns of generate → verify → learn → fit before probes and gate.
    `until`: the phase ends early once this probe's mean reaches the number. `admit`: whether people look before anything is learnt."""

    name: str
    generate: Generator | None
    learn: Mapping[Role, Learn] = field(default_factory=dict)
    verify: tuple[Verifier, ...] = ()
    curate: tuple[Curator, ...] = ()
    tasks: Selector = All()
    mix: Mixture = Mixture()
    probes: tuple[Probe, ...] | None = None
    gate: Gate | None = None
    inner: int = 1
    rounds: int = 1
    until: tuple[str, float] | None = None
    release: Release | None = None
    admit: Admit = None

    @property
    def expert(self) -> Expert | None:
        """How people admit this phase's rows; None when they are not asked."""
        return Expert() if self.admit == "expert" else self.admit


@dataclass(frozen=True)
class Recipe:
    """A method: its name, the paper it follows, what it is tried on, and its phases."""

    name: str
    paper: str
    bench: Bench
    phases: tuple[Phase, ...]


@runtime_checkable
class HasIdentity(Protocol):
    """A value that knows better than its fields what it is: a data file is its content hash, not its path."""

    def identity(self) -> object: ...


def fingerprint(value: object) -> str:
    """128 bits over the canonical form of a recipe or any part of it: the same in every process and Python version.

    Raises `FingerprintError` naming the value that has no stable form.
    """
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def canonical(value: object, name: str = "recipe") -> Any:
    """`value` as plain JSON: dataclasses and records by their type and fields, functions by their source.

    `name` is the path shown in errors. Raises `FingerprintError`.
    """
    if value is None or isinstance(value, bool | int | str):
        return {"enum": f"{_type_name(type(value))}.{value.name}"} if isinstance(value, enum.Enum) else value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise FingerprintError(f"{name} is {value!r}; use a finite number, or None for no limit")
        return {"float": value.hex()}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, HasIdentity):
        return {"type": _type_name(type(value)), "identity": canonical(value.identity(), f"{name}.identity()")}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, [item.name for item in dataclasses.fields(value) if not _left_alone(value, item)], name)
    if isinstance(value, msgspec.Struct):
        return _fields(value, [item for item in value.__struct_fields__ if not _struct_left_alone(value, item)], name)
    if isinstance(value, Mapping):
        wrong = [key for key in value if not isinstance(key, str)]
        if wrong:
            raise FingerprintError(f"{name} has the key {wrong[0]!r} of type {type(wrong[0]).__name__}; keys must be text")
        return {"map": {key: canonical(item, f"{name}[{key!r}]") for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [canonical(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        items = [canonical(item, f"{name}{{…}}") for item in value]
        return {"set": sorted(items, key=lambda item: json.dumps(item, sort_keys=True))}
    if isinstance(value, type):
        return {"class": _type_name(value)}
    if inspect.isfunction(value):
        return _function(value, name)
    raise FingerprintError(_refusal(value, name))


def _left_alone(value: object, item: dataclasses.Field[Any]) -> bool:
    return "later" in item.metadata and getattr(value, item.name) == item.default


def _struct_left_alone(value: msgspec.Struct, item: str) -> bool:
    if item not in getattr(type(value), "later", ()):
        return False
    known = {field.name: field.default for field in msgspec.structs.fields(type(value))}
    return bool(getattr(value, item) == known[item])


def _fields(value: object, names: list[str], name: str) -> Any:
    found: dict[str, Any] = {"type": _type_name(type(value))}
    version = getattr(value, "version", None)
    if isinstance(version, str):
        found["version"] = version
    for item in names:
        found[item] = canonical(getattr(value, item), f"{name}.{item}")
    return found


def _function(function: Any, name: str) -> Any:
    if function.__name__ == "<lambda>":
        raise FingerprintError(f"{name} is a lambda, which has no stable identity; write it as a named function with `def`")
    if function.__closure__:
        captured = ", ".join(function.__code__.co_freevars)
        raise FingerprintError(
            f"{name} is the function {function.__name__!r}, which captures {captured} from outside; pass these as fields of a frozen dataclass"
        )
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise FingerprintError(
            f"{name} is the function {function.__name__!r}, whose source cannot be read; put it into a file or a notebook cell"
        ) from None
    return {"function": function.__qualname__, "source": hashlib.blake2b(source.encode(), digest_size=16).hexdigest()}


def _type_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _refusal(value: object, name: str) -> str:
    advice = (
        "a path is a machine choice: name the data by its content"
        if isinstance(value, PurePath)
        else ("use text, numbers, None, lists, mappings, records or frozen dataclasses, or give it an `identity()` method")
    )
    return f"{name} is {value!r:.80} of type {_type_name(type(value))}, which has no stable serialisation; {advice}"
