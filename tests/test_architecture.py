"""Imports go down the layers and never up, siblings do not import each other, and there is no cycle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "outcross"
HEAVY = {"torch", "transformers", "peft", "accelerate", "reasoning_gym", "polars", "pandas", "duckdb", "datasets", "gguf", "safetensors"}
STAGES = {"generate", "verify", "curate", "train", "evaluate", "gate", "tasks", "lab"}
VALUES = {"types", "stages", "errors", "recipe", "select", "mix", "text"}
READING = {"engine.store", "engine.tables", "engine.recall"}

# package or module → what it may import besides itself
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "stages": {"types", "errors"},
    "text": {"types"},
    "select": {"types", "stages"},
    "recipe": {"types", "stages", "errors", "select"},
    "mix": {"recipe", "errors"},
    **{name: VALUES for name in STAGES},
    "models": VALUES | {"train"},
    "engine": VALUES,
    "recipes": VALUES | STAGES,
    "report": VALUES | READING,
    "web": VALUES | READING,
}
EVERYTHING = {"cli", "api", "config", "quickstart", "__init__", "__main__"}


def modules() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        found[name.removesuffix(".__init__") if name != "__init__" else name] = path
    return found


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(names: set[str]) -> set[str]:
    known = modules()
    inside = {name.removeprefix("outcross.") for name in names if name.startswith("outcross.")}
    return {name for name in inside if name in known}


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_the_layers_below(name: str) -> None:
    place = name.split(".")[0]
    if place in EVERYTHING:
        return
    for imported in own(imports(modules()[name])):
        target = imported.split(".")[0]
        allowed = target == place or target in ALLOWED[place] or imported in ALLOWED[place]
        assert allowed, f"{name} imports {imported}; {place} may import {sorted(ALLOWED[place])}"


def test_nothing_below_the_command_line_imports_it() -> None:
    for name, path in modules().items():
        if name.split(".")[0] not in EVERYTHING:
            assert not {item for item in own(imports(path)) if item.split(".")[0] in EVERYTHING}, name


def test_there_is_no_import_cycle() -> None:
    graph = {name: own(imports(path)) - {name} for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name in done:
            return
        for target in graph[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_functions_import_nothing_but_heavy_libraries() -> None:
    """An import inside a function is for what must not be paid at start: heavy libraries, and our modules that load them."""
    for name, path in modules().items():
        if name.split(".")[0] in EVERYTHING:
            continue
        inside = imports(path) - imports(path, top_level_only=True)
        for imported in own(inside):
            heavy = {item.split(".")[0] for item in imports(modules()[imported])} & HEAVY
            assert heavy, f"{name} imports {imported} inside a function, and that module is not heavy"


def test_the_core_does_not_import_heavy_libraries_at_start() -> None:
    for name, path in modules().items():
        if name.split(".")[0] in {"types", "stages", "errors", "recipe", "select", "text", "mix", "engine", "api", "cli", "__init__"}:
            found = {item.split(".")[0] for item in imports(path, top_level_only=True)} & HEAVY
            assert not found, f"{name} imports {sorted(found)} at its top level"
