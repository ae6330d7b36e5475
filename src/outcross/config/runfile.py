"""The run file: its schema, how it is loaded, and the recipe, models and options it stands for.

raw YAML ─▶ overrides ─▶ schema ─▶ bind (nothing built yet; `config` is complete) ─▶ build ─▶ Recipe, models
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outcross.config import find, overrides
from outcross.config.annotations import parameters
from outcross.config.bind import Given, Place, Planned, bind_call, bind_use, bind_value, constant
from outcross.config.placement import Seat, placed, read_seats, refuse_absent
from outcross.config.yamlfile import read_yaml
from outcross.engine.budget import Budget
from outcross.engine.conserve import ErrorRule
from outcross.engine.loop import Options
from outcross.engine.proofs import Proof, read_proofs
from outcross.engine.store import RunDir
from outcross.errors import ConfigError, did_you_mean
from outcross.recipe import Bench, Recipe, TasksOnly
from outcross.stages import Model, Probe, Role, Verifier
from outcross.train.machine import Machine

Changes = Sequence[tuple[str, Any]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class BudgetFile(_Strict):
    """Caps; a run that reaches one stops cleanly and can be resumed."""

    tokens: int | None = Field(default=None, gt=0)
    requests: int | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0, strict=False)
    money: float | None = Field(default=None, gt=0, strict=False)


class ErrorsFile(_Strict):
    """How many answers a verifier may be unable to judge: more than `share` of at least `after` of them stop the run, which can be resumed."""

    share: float = Field(default=0.5, ge=0, le=1, strict=False)
    after: int = Field(default=100, gt=0)


class BenchFile(_Strict):
    """What the method is tried on. `real: none` says that there is no data written by people. A recipe that trains nothing needs no
    held-out items, no real data and no probes of a model."""

    tasks: Any
    held_out: Any = None
    real: Any = None
    verify: Any = Field(default_factory=list)
    probes: Any = None
    gate: Any = "non_inferior"
    divergence: Literal["warn", "refuse", "stop"] = Field(
        default="warn", description="what follows when the training reward rises and an independent probe of quality falls"
    )
    final: Any = Field(default=None, description="probes on fresh items, which no gate sees, for the claim at the end of the run")
    alarms: Any = Field(
        default=None, description="tests every probe for harm in every round, and what follows; `alarms` for the usual ladder"
    )


class CardFile(_Strict):
    """What only the user knows and the card of a data set has to say."""

    title: str | None = None
    license: str | None = Field(default=None, description="identifier of the data set's licence, such as cc-by-4.0")
    language: list[str] | None = None
    model_licenses: dict[str, str] | None = Field(default=None, description="by role: the terms that the model's answers are under")
    notes: str | None = None


class RunFile(_Strict):
    """A run file's outermost level."""

    name: str | None = None
    recipe: Any
    bench: BenchFile
    models: dict[str, Any] = Field(default_factory=dict, description="by role; none for a recipe that asks no model")
    machine: dict[str, Any] = Field(default_factory=dict)
    placement: dict[str, Any] = Field(default_factory=dict, description="device or host by role; see config/placement.py")
    budget: BudgetFile = Field(default_factory=BudgetFile)
    errors: ErrorsFile = Field(default_factory=ErrorsFile)
    card: CardFile = Field(default_factory=CardFile)
    seed: int = Field(default=0, ge=0)
    keep_models: Literal["all", "champion"] | int = "all"
    unsafe: bool = False
    journal: str | None = Field(default=None, description="a journal of answers that runs share; None: the run's own, in its folder")
    data_only: int | None = Field(default=None, gt=0, description="rounds of generating and verifying, with no training")
    proofs: list[str] = Field(default_factory=list, description="what `outcross verifier-check` wrote: files, or folders of them")
    track: list[str] = Field(default_factory=list, description="tensorboard, trackio, wandb or mlflow, told beside the run's own record")
    base: str | None = Field(default=None, description="folder that relative paths start from; None: the run file's own")


@dataclass(frozen=True)
class Plan:
    """A run file that has been checked in full; nothing is built, loaded or opened yet."""

    file: RunFile
    base: Path
    recipe: Planned
    bench: Planned
    models: Mapping[Role, Planned | str]
    machine: Planned
    seats: Mapping[Role, Seat] = field(default_factory=dict)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration: the run file with every default written out."""
        models = {role: item if isinstance(item, str) else item.plain for role, item in self.models.items()}
        outer = self.file.model_dump()
        return {**outer, "recipe": self.recipe.plain, "bench": self.bench.plain, "models": models, "machine": self.machine.plain}

    def build_recipe(self) -> Recipe:
        """Raises `ConfigError`, or `DataError` when the bench's data cannot be read."""
        made = self.recipe.make()
        if not isinstance(made, Recipe):
            raise ConfigError(
                f"recipe: {self.recipe.plain['use']!r} gave a {type(made).__name__}; a recipe function returns an outcross.Recipe"
            )
        return made if self.file.data_only is None else _without_training(made, self.file.data_only)

    def build_bench(self) -> Bench:
        made = self.bench.make()
        assert isinstance(made, Bench)
        return made

    def build_models(self) -> dict[Role, Model]:
        """Models by role; roles that alias one model share the object. This is what loads weights."""
        return {role: self.build_model(role) for role in self.models}

    def build_model(self, role: Role) -> Model:
        """The model that plays `role`. Raises `ConfigError` when the run file names none."""
        if role not in self.models:
            raise ConfigError(f"the run file has no model for the role {role!r}; {did_you_mean(role, self.models)}")
        target = _target(role, self.models)
        planned = self.models[target]
        assert isinstance(planned, Planned)
        if target in self.seats:
            refuse_absent(target, self.seats[target], planned.plain)
        made: Model = planned.make()
        return made

    def aliases(self, role: Role) -> list[Role]:
        """All roles that the model of `role` plays."""
        target = _target(role, self.models) if role in self.models else role
        return [role, *(other for other in self.models if other != role and _target(other, self.models) == target)]

    def proofs(self) -> tuple[Proof, ...]:
        """What the run file names as proofs of its verifiers. Raises `DataError` for one that cannot be read."""
        return read_proofs([self.base / Path(name).expanduser() for name in self.file.proofs])

    def options(self, root: Path) -> Options:
        """What the engine needs beside the recipe. The configuration on the record names paths relative to the run's folder
        `root`, so that both can be moved together."""
        config = {**self.config, "base": os.path.relpath(self.base, root.resolve())}
        budget = Budget(**self.file.budget.model_dump())
        journal = None if self.file.journal is None else self.base / Path(self.file.journal).expanduser()
        errors = ErrorRule(**self.file.errors.model_dump())
        return Options(
            budget,
            self.file.unsafe,
            self.file.keep_models,
            config,
            self.file.name,
            journal,
            errors=errors,
            proofs=self.proofs(),
            track=tuple(self.file.track),
        )


def of_run(run: RunDir, changes: Changes = ()) -> Plan:
    """The plan that a run was started with, from its record. Raises `ConfigError` for a run that was started from Python."""
    config = run.manifest["config"]
    if not config:
        raise ConfigError(
            f"{run.root} was started from Python and holds no run file; call outcross.run(…, out=…) with the same recipe and models"
        )
    return plan({**config, "journal": None}, run.root.resolve(), changes)  # where its answers are, the run has noted itself


def _without_training(recipe: Recipe, rounds: int) -> Recipe:
    first = recipe.phases[0]
    if first.generate is None:
        raise ConfigError(f"the recipe {recipe.name!r} generates nothing in its first phase; there is no data to make")
    return dataclasses.replace(
        recipe, name=f"{recipe.name}_data", phases=(dataclasses.replace(first, learn={}, inner=1, rounds=rounds, until=None),)
    )


def load(path: Path, changes: Changes = ()) -> Plan:
    """Read and check a run file with overrides. Raises `ConfigError` naming the file, the setting and what is allowed."""
    raw = read_yaml(path)
    try:
        return plan(raw, path.resolve().parent, changes)
    except ConfigError as error:
        if type(error) is ConfigError and not str(error).startswith("--"):
            raise ConfigError(f"{path}: {error}") from error.__cause__
        raise


def plan(raw: Mapping[str, Any], base: Path, changes: Changes = ()) -> Plan:
    """Check the settings of a run file; relative paths start from `base`."""
    if not changes:
        return _bind(_outer(raw), base)
    try:
        known = _bind(_outer(raw), base).config
    except ConfigError as first:
        try:
            changed = overrides.apply(raw, raw, changes)  # an override may be what the file lacks
        except ConfigError:
            raise first from None
        return _bind(_outer(changed), base)
    return _bind(_outer(overrides.apply(raw, known, changes)), base)


def _outer(raw: Mapping[str, Any]) -> RunFile:
    try:
        return RunFile.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(_in_words(first)) from None


def _in_words(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    sections: dict[str, type[_Strict]] = {"bench": BenchFile, "budget": BudgetFile, "errors": ErrorsFile, "card": CardFile}
    section = sections.get(str(error["loc"][0]), RunFile)
    allowed = section.model_fields if len(error["loc"]) > 1 or section is RunFile else RunFile.model_fields
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no setting {error['loc'][-1]!r} here; {did_you_mean(str(error['loc'][-1]), allowed)}"
    if error["type"] == "missing":
        return _missing(where)
    return f"{where} is {error['input']!r:.100}; {error['msg'].removeprefix('Input ')}"


def _missing(where: str) -> str:
    advice = "; write `real: none` if you have no data written by people" if where == "bench.real" else ""
    return f"{where} is missing{advice}; `outcross init` writes a complete run file"


def _refuse_half_a_bench(file: RunFile, place: Place) -> None:
    """A recipe that trains states its held-out items, its real data and its probes; one that only makes rows may leave them out."""
    name = file.recipe if isinstance(file.recipe, str) else file.recipe["use"]
    target = find.find(name, find.RECIPE, place.path, place.base)
    if file.data_only is not None or parameters(target)["bench"].annotation == TasksOnly:
        return
    for key in ("held_out", "real", "probes"):
        if key not in file.bench.model_fields_set or (key == "held_out" and _is_none(file.bench.held_out)):
            raise ConfigError(_missing(f"bench.{key}"))


def _is_none(raw: Any) -> bool:
    return raw in (None, "none", [])


def _bind(file: RunFile, base: Path) -> Plan:
    base = (base / file.base).resolve() if file.base else base
    top = Place("", base)
    bench, verify = _bind_bench(file.bench, top.at("bench"))
    recipe = bind_use(file.recipe, find.RECIPE, top.at("recipe"), {"bench": bench, "verify": verify})
    _refuse_half_a_bench(file, top.at("recipe"))
    machine = bind_call(Machine, file.machine, top.at("machine"), {}, "the machine")
    shared: Given = {"machine": machine, "seed": constant(file.seed)}
    seats = read_seats(file.placement, file.models, lambda role: _target(role, file.models))
    models = {role: _bind_model(role, item, file, seats, top.at("models").at(role), shared) for role, item in file.models.items()}
    return Plan(file, base, recipe, bench, models, machine, seats)


def _bind_model(role: Role, raw: Any, file: RunFile, seats: Mapping[Role, Seat], place: Place, shared: Given) -> Planned | str:
    models = file.models
    if isinstance(raw, str) and raw in models:
        _target(role, models)
        return raw
    if isinstance(raw, str) and ":" not in raw and raw not in find.names(find.MODEL):
        raise ConfigError(
            f"{place.path} is {raw!r}, which is neither another role ({', '.join(item for item in models if item != role) or 'there is none'}) "
            f"nor a model; {did_you_mean(raw, find.names(find.MODEL))}"
        )
    if role in seats:
        raw, given = placed(role, raw, seats[role], place, file.machine)
        shared = {**shared, **given}
    return once(bind_use(raw, find.MODEL, place, shared))


def _target(role: Role, models: Mapping[str, Any]) -> Role:
    """The role at the end of a chain of aliases."""
    seen = [role]
    while isinstance(models[seen[-1]], str) and models[seen[-1]] in models:
        if models[seen[-1]] in seen:
            raise ConfigError(
                f"models.{role}: the roles {' → '.join([*seen, models[seen[-1]]])} name each other in a circle; give one of them a model"
            )
        seen.append(models[seen[-1]])
    return seen[-1]


def _bind_bench(file: BenchFile, place: Place) -> tuple[Planned, Planned]:
    tasks = once(bind_use(file.tasks, find.TASKS, place.at("tasks"), {}))
    held_out = constant(()) if _is_none(file.held_out) else once(bind_use(file.held_out, find.TASKS, place.at("held_out"), {}))
    real = constant(None) if _is_none(file.real) else once(bind_use(file.real, find.TASKS, place.at("real"), {}))
    verify = once(bind_value(file.verify, tuple[Verifier, ...], place.at("verify"), {}))
    given: Given = {"tasks": held_out, "verify": verify, **_only(verify)}  # a fit to real data is measured on rows of its own
    probes = bind_value(file.probes or [], tuple[Probe, ...], place.at("probes"), given)
    gate = bind_use(file.gate, find.GATE, place.at("gate"), {})
    parts = {"tasks": tasks, "held_out": held_out, "real": real, "probes": probes, "gate": gate, "divergence": constant(file.divergence)}
    if not _is_none(file.final):
        parts["final"] = bind_value(file.final, tuple[Probe, ...], place.at("final"), _only(verify))
    if not _is_none(file.alarms):
        parts["alarms"] = bind_use(file.alarms, find.MONITOR, place.at("alarms"), given)
    shown = {name: item.plain for name, item in (parts | {"verify": verify}).items()}
    return Planned(shown, cache(lambda: Bench(**{name: item.make() for name, item in parts.items()}))), verify


def _only(verify: Planned) -> Given:
    """The bench's verifier for probes that take one, where there is just one."""
    return {"verifier": Planned(verify.plain[0], lambda: verify.make()[0])} if len(verify.plain) == 1 else {}


def once(planned: Planned) -> Planned:
    """The same, made only once: the bench, the probes and the recipe share it."""
    return Planned(planned.plain, cache(planned.make))
