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

from outcross.errors import FingerprintError
from outcross.select import All
from outcross.stages import Curator, FitPlan, Gate, Generator, Objective, Probe, Role, RowsGate, RowsProbe, Selector, Verifier
from outcross.types import Example, Task

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Waived:
    """A phase without a floor of real data, and why. The reason heads the report and the card."""

    reason: str


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
    """

    history: Literal["accumulate", "subsample", "replace"] = "accumulate"
    floor: Literal["rows", "anchor"] | Waived = "rows"
    real_floor: float = 0.7
    anchor: float = 0.1
    real_epochs: float = 4.0
    synthetic_epochs: float = 1.0
    budget: int | None = None


@dataclass(frozen=True)
class Learn:
    """What one role learns: objective, training plan, the model it starts from and the one its loss refers to."""

    objective: Objective
    plan: FitPlan = FitPlan()
    start: Literal["champion", "first", "scratch"] = "champion"
    reference: Literal["champion", "first"] | None = None


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
    warning that heads the report, a refused promotion, or the end of the run.
    """

    tasks: Iterable[Task]
    held_out: Iterable[Task]
    real: Iterable[Example] | None
    probes: tuple[Probe, ...]
    gate: Gate
    divergence: Literal["warn", "refuse", "stop"] = "warn"


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
        return _fields(value, [item.name for item in dataclasses.fields(value)], name)
    if isinstance(value, msgspec.Struct):
        return _fields(value, list(value.__struct_fields__), name)
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
