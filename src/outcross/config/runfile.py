"""The run file: its schema, how it is loaded, and the recipe, models and options it stands for.

raw YAML ─▶ overrides ─▶ schema ─▶ bind (nothing built yet; `config` is complete) ─▶ build ─▶ Recipe, models
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outcross.config import find, overrides
from outcross.config.bind import Given, Place, Planned, bind_call, bind_use, bind_value, constant
from outcross.config.yamlfile import read_yaml
from outcross.engine.executor import Budget
from outcross.engine.loop import Options
from outcross.engine.store import RunDir
from outcross.errors import ConfigError, did_you_mean
from outcross.recipe import Bench, Recipe
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


class BenchFile(_Strict):
    """What the method is tried on. `real: none` says that there is no data written by people."""

    tasks: Any
    held_out: Any
    real: Any
    verify: Any = Field(default_factory=list)
    probes: Any
    gate: Any = "non_inferior"


class RunFile(_Strict):
    """A run file's outermost level."""

    name: str | None = None
    recipe: Any
    bench: BenchFile
    models: dict[str, Any] = Field(min_length=1)
    machine: dict[str, Any] = Field(default_factory=dict)
    budget: BudgetFile = Field(default_factory=BudgetFile)
    seed: int = Field(default=0, ge=0)
    keep_models: Literal["all", "champion"] | int = "all"
    unsafe: bool = False
    data_only: int | None = Field(default=None, gt=0, description="rounds of generating and verifying, with no training")
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
        planned = self.models[_target(role, self.models)]
        assert isinstance(planned, Planned)
        made: Model = planned.make()
        return made

    def aliases(self, role: Role) -> list[Role]:
        """All roles that the model of `role` plays."""
        target = _target(role, self.models) if role in self.models else role
        return [role, *(other for other in self.models if other != role and _target(other, self.models) == target)]

    def options(self, root: Path) -> Options:
        """What the engine needs beside the recipe. The configuration on the record names paths relative to the run's folder
        `root`, so that both can be moved together."""
        config = {**self.config, "base": os.path.relpath(self.base, root.resolve())}
        budget = Budget(**self.file.budget.model_dump())
        return Options(budget, self.file.unsafe, self.file.keep_models, config, self.file.name)


def of_run(run: RunDir, changes: Changes = ()) -> Plan:
    """The plan that a run was started with, from its record. Raises `ConfigError` for a run that was started from Python."""
    config = run.manifest["config"]
    if not config:
        raise ConfigError(
            f"{run.root} was started from Python and holds no run file; call outcross.run(…, out=…) with the same recipe and models"
        )
    return plan(config, run.root.resolve(), changes)


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
    section = BenchFile if error["loc"][0] == "bench" else BudgetFile if error["loc"][0] == "budget" else RunFile
    allowed = section.model_fields if len(error["loc"]) > 1 or section is RunFile else RunFile.model_fields
    if error["type"] == "extra_forbidden":
        return f"{where}: there is no setting {error['loc'][-1]!r} here; {did_you_mean(str(error['loc'][-1]), allowed)}"
    if error["type"] == "missing":
        advice = "; write `real: none` if you have no data written by people" if where == "bench.real" else ""
        return f"{where} is missing{advice}; `outcross init` writes a complete run file"
    return f"{where} is {error['input']!r:.100}; {error['msg'].removeprefix('Input ')}"


def _bind(file: RunFile, base: Path) -> Plan:
    base = (base / file.base).resolve() if file.base else base
    top = Place("", base)
    bench, verify = _bind_bench(file.bench, top.at("bench"))
    recipe = bind_use(file.recipe, find.RECIPE, top.at("recipe"), {"bench": bench, "verify": verify})
    machine = bind_call(Machine, file.machine, top.at("machine"), {}, "the machine")
    shared: Given = {"machine": machine, "seed": constant(file.seed)}
    models = {role: _bind_model(role, item, file.models, top.at("models").at(role), shared) for role, item in file.models.items()}
    return Plan(file, base, recipe, bench, models, machine)


def _bind_model(role: Role, raw: Any, models: Mapping[str, Any], place: Place, shared: Given) -> Planned | str:
    if isinstance(raw, str) and raw in models:
        _target(role, models)
        return raw
    if isinstance(raw, str) and ":" not in raw and raw not in find.names(find.MODEL):
        raise ConfigError(
            f"{place.path} is {raw!r}, which is neither another role ({', '.join(item for item in models if item != role) or 'there is none'}) "
            f"nor a model; {did_you_mean(raw, find.names(find.MODEL))}"
        )
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
    held_out = once(bind_use(file.held_out, find.TASKS, place.at("held_out"), {}))
    real = constant(None) if file.real in (None, "none") else once(bind_use(file.real, find.TASKS, place.at("real"), {}))
    verify = once(bind_value(file.verify, tuple[Verifier, ...], place.at("verify"), {}))
    given: Given = {"tasks": held_out, "verify": verify, **_only(verify)}  # a fit to real data is measured on rows of its own
    probes = bind_value(file.probes, tuple[Probe, ...], place.at("probes"), given)
    gate = bind_use(file.gate, find.GATE, place.at("gate"), {})
    parts = {"tasks": tasks, "held_out": held_out, "real": real, "probes": probes, "gate": gate}
    shown = {name: item.plain for name, item in (parts | {"verify": verify}).items()}
    return Planned(shown, cache(lambda: Bench(**{name: item.make() for name, item in parts.items()}))), verify


def _only(verify: Planned) -> Given:
    """The bench's verifier for probes that take one, where there is just one."""
    return {"verifier": Planned(verify.plain[0], lambda: verify.make()[0])} if len(verify.plain) == 1 else {}


def once(planned: Planned) -> Planned:
    """The same, made only once: the bench, the probes and the recipe share it."""
    return Planned(planned.plain, cache(planned.make))
