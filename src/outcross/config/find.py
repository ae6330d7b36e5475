"""What a `use:` name in a run file stands for.

There is no registry. `exact` under `verify:` is the class `Exact` somewhere in the package `outcross.verify`, found by reading
the sources without importing them; `my_module:Name` is anything of the user's that Python can import.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from outcross.errors import ConfigError, MissingExtra, did_you_mean


@dataclass(frozen=True)
class Kind:
    """A sort of thing that a run file can name: what people call it, and the package that holds those that ship."""

    title: str
    home: str


RECIPE = Kind("recipe", "outcross.recipes")
MODEL = Kind("model", "outcross.models")
TASKS = Kind("task set", "outcross.tasks")
GENERATOR = Kind("generator", "outcross.generate")
VERIFIER = Kind("verifier", "outcross.verify")
CURATOR = Kind("curator", "outcross.curate")
OBJECTIVE = Kind("objective", "outcross.train")
PROBE = Kind("probe", "outcross.evaluate")
GATE = Kind("gate", "outcross.gate")
ROWS_PROBE = Kind("rows probe", "outcross.evaluate.rows")
ROWS_GATE = Kind("rows gate", "outcross.gate.rows")
MONITOR = Kind("monitor", "outcross.gate.monitors")
SELECTOR = Kind("selector", "outcross.select")


def snake(name: str) -> str:
    """`PassRate` → `pass_rate`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def find(name: str, kind: Kind, place: str, base: Path) -> Any:
    """The class, function or object that `name` stands for.

    `place` is the path in the run file, for messages; `base` the run file's folder, whose modules can be named.
    Raises `ConfigError` when there is no such name.
    """
    if ":" in name:
        return _outside(name, place, base)
    offered = names(kind)
    key = name.replace("-", "_")
    if key not in offered:
        raise ConfigError(
            f"{place}: no {kind.title} is called {name!r}; {did_you_mean(key, offered)}, or `module:Name` for one of your own"
        )
    module, attribute = offered[key]
    return getattr(_load(module, place), attribute)


@cache
def names(kind: Kind) -> dict[str, tuple[str, str]]:
    """Names that a run file may use for a kind: snake-case name → (module, attribute)."""
    found: dict[str, tuple[str, str]] = {}
    for module, path in _sources(kind.home):
        offered = list(_offered(ast.parse(path.read_text(encoding="utf-8")), kind))
        found |= {snake(name): (module, name) for name in offered}
        found |= {name: (module, name) for name in offered if snake(name) == name}  # a function goes before a class
    return found


def _sources(home: str) -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec(home)
    assert spec is not None and spec.origin is not None
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        yield home, origin
        return
    for path in sorted(origin.parent.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{home}.{path.stem}", path


_ANY = {MODEL: ("Model", "Trainable", "Completes"), TASKS: ("Iterable[Task]", "Iterable[Example]")}


def _offered(tree: ast.Module, kind: Kind) -> Iterator[str]:
    """What a module defines of this kind: stages and task sets are classes, recipes functions of a bench, and models and task
    sets may be functions that return such a class."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    if kind is RECIPE:
        yield from (node.name for node in functions if [argument.arg for argument in node.args.args[:1]] == ["bench"])
        return
    made = [node.name for node in classes if _is_one(node, kind)]
    yield from made
    if kind in (MODEL, TASKS):
        returned = {*made, *_ANY.get(kind, ())}
        yield from (node.name for node in functions if node.returns is not None and ast.unparse(node.returns) in returned)


def _is_one(node: ast.ClassDef, kind: Kind) -> bool:
    methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
    if kind in (MODEL, TASKS):
        return {"submit", "id"} <= methods if kind is MODEL else "__iter__" in methods
    return "__call__" in methods and any("dataclass" in ast.unparse(item) for item in node.decorator_list)


def use_name(kind: type) -> str:
    """The `use:` name of a class: the inverse of `find`."""
    home = kind.__module__.split(".")
    return snake(kind.__name__) if home[0] == "outcross" else f"{kind.__module__}:{kind.__qualname__}"


def _load(module: str, place: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in _EXTRAS:
            raise MissingExtra(missing, _EXTRAS[missing], place) from error
        raise


_EXTRAS = {"torch": "torch", "transformers": "torch", "peft": "torch", "accelerate": "torch", "reasoning_gym": "tasks"}


def _outside(name: str, place: str, base: Path) -> Any:
    module_name, _, attribute = name.partition(":")
    for folder in (str(base), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name and not module_name.startswith(f"{error.name}."):
            raise ConfigError(f"{place}: importing {module_name!r} failed: {error}; install it, or fix the import") from error
        looked = f"the run file's folder ({base}), the working directory and PYTHONPATH"
        raise ConfigError(f"{place}: there is no module {module_name!r} (named by {name!r}) in {looked}") from None
    except Exception as error:
        raise ConfigError(f"{place}: importing {module_name!r} raised {type(error).__name__}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [item for item in vars(found) if not item.startswith("_")]
            raise ConfigError(f"{place}: module {module_name!r} has no {part!r}; {did_you_mean(part, public)}")
        found = getattr(found, part)
    return found
