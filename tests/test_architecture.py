"""Imports go down the layers and never up, siblings do not import each other, and there is no cycle."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Literal

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "outcross"
HEAVY = {"torch", "transformers", "peft", "accelerate", "reasoning_gym", "polars", "pandas", "duckdb", "datasets", "gguf", "safetensors"}
STAGES = {"generate", "verify", "curate", "train", "evaluate", "gate", "tasks", "lab"}
VALUES = {
    "estimates",
    "sequential",
    "breakeven",
    "reviews",
    "types",
    "stages",
    "errors",
    "recipe",
    "select",
    "mix",
    "text",
    "schema",
    "structured",
    "judgement",
    "provenance",
    "null",
    "images",
}
READING = {"engine.store", "engine.tables", "engine.recall", "engine.journal"}

# package or module → what it may import besides itself
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "stages": {"types", "errors"},
    "sequential": set(),
    "breakeven": {"sequential", "types"},
    "reviews": {"types", "errors"},
    "text": {"types"},
    "schema": {"types", "errors"},
    "structured": {"types", "errors", "stages", "schema"},
    "judgement": {"types"},
    "provenance": {"types", "errors"},
    "null": {"types", "errors"},
    "images": {"types", "errors"},
    "select": {"types", "stages"},
    "recipe": {"types", "stages", "errors", "select"},
    "mix": {"recipe", "errors"},
    **dict.fromkeys(STAGES, VALUES),
    "models": VALUES | {"train"},
    "engine": VALUES,
    "recipes": VALUES | STAGES,
    "audit": VALUES | STAGES,
    "report": VALUES | READING | {"audit.findings", "audit.kinds"},
    "web": VALUES | READING,
}
EVERYTHING = {"cli", "api", "config", "interop", "quickstart", "reproduce", "__init__", "__main__"}


def modules() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        found[name.removesuffix(".__init__") if name != "__init__" else name] = path
    return found


def imports(path: Path, where: Literal["anywhere", "top", "functions"] = "anywhere") -> set[str]:
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes: list[ast.AST] = {
        "anywhere": lambda: list(ast.walk(tree)),
        "top": lambda: list(tree.body),
        "functions": lambda: [inner for node in functions for inner in ast.walk(node)],
    }[where]()
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if names <= {f"outcross.{name}" for name in modules()} else names | {node.module}
    return found


def own(names: set[str]) -> set[str]:
    known = modules()
    inside = {name.removeprefix("outcross.") for name in names if name.startswith("outcross.")}
    return {name for name in inside if name in known}


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_from_the_layers_below(name: str) -> None:
    place = name.partition(".")[0]
    if place in EVERYTHING:
        return
    for imported in own(imports(modules()[name])):
        target = imported.partition(".")[0]
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


def heavy_modules() -> set[str]:
    """Our modules that load a heavy library when they are imported, directly or through another of ours."""
    graph = {name: imports(path, "top") for name, path in modules().items()}
    found = {name for name, names in graph.items() if {item.partition(".")[0] for item in names} & HEAVY}
    while more := {name for name, names in graph.items() if own(names) & found} - found:
        found |= more
    return found


def test_functions_import_nothing_but_heavy_libraries() -> None:
    """An import inside a function is for what must not be paid at start: heavy libraries, and our modules that load them."""
    heavy = heavy_modules()
    for name, path in modules().items():
        if name.partition(".")[0] in EVERYTHING:
            continue
        inside = own(imports(path, "functions"))
        assert inside <= heavy, f"{name} imports {sorted(inside - heavy)} inside a function, and these are not heavy"


def test_the_core_does_not_import_heavy_libraries_at_start() -> None:
    for name, path in modules().items():
        if name.split(".")[0] in {"types", "stages", "errors", "recipe", "select", "text", "mix", "engine", "api", "cli", "__init__"}:
            found = {item.split(".")[0] for item in imports(path, "top")} & HEAVY
            assert not found, f"{name} imports {sorted(found)} at its top level"
