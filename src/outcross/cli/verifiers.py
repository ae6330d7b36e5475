"""Verifiers outside of a run: named on the command line or by a run file, and somewhere to run them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.config.runfile import Plan
    from outcross.stages import Context, Model, Role, Verifier


def from_words(words: Sequence[str]) -> list[Verifier]:
    """Verifiers as a run file would name them: `exact`, `my_module:reward`, `{use: number, tolerance: 0.1}`. Raises `ConfigError`."""
    import yaml

    from outcross.config.bind import Place, bind_value
    from outcross.stages import Verifier

    found = []
    for word in words:
        try:
            raw = yaml.safe_load(word)
        except yaml.YAMLError as error:
            raise ConfigError(f"--verify {word!r} cannot be read: {error}; write a name, or {{use: name, setting: value}}") from None
        found.append(bind_value(raw, Verifier, Place("--verify", Path.cwd()), {}).make())
    return found


def plan_of(path: Path) -> Plan:
    """The plan of a run file or of a run's folder."""
    from outcross.config.runfile import load, of_run
    from outcross.engine.store import RunDir

    return of_run(RunDir(path)) if (path / "manifest.json").is_file() else load(path)


def models_of(plan: Plan | None, verifiers: Sequence[Verifier]) -> dict[Role, Model]:
    """The models that these verifiers ask. Raises `ConfigError` when nobody plays one of their roles."""
    from outcross.stages import name_of, roles_of

    found: dict[Role, Model] = {}
    for verifier in verifiers:
        for role in roles_of(verifier):
            if plan is None:
                raise ConfigError(
                    f"{name_of(verifier)} asks a model in the role {role!r}; name a run file that has one (`models: {{{role}: …}}`)"
                )
            found[role] = found.get(role) or plan.build_model(role)
    return found


@contextmanager
def outside(models: Mapping[Role, Model], seed: int = 0) -> Iterator[Context]:
    """A context for stages outside of any run, with an empty past and a journal that is thrown away. Closes the models."""
    from outcross.engine.budget import Budget, Meter
    from outcross.engine.executor import Executor
    from outcross.engine.journal import Journal
    from outcross.engine.past import Recorded
    from outcross.engine.store import RunDir
    from outcross.stages import Context

    try:
        with tempfile.TemporaryDirectory() as folder, closing(Journal(Path(folder) / "responses.db")) as journal:
            past = Recorded(RunDir(Path(folder)), (), (), Path(folder))
            yield Context(models, past, "verify", 0, seed, Executor(journal, Meter(Budget(), journal)))
    finally:
        for model in models.values():
            model.close()
