"""YAML as people expect it: a key given twice is an error, and `1e-3` is a number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from outcross.errors import ConfigError


class _Loader(yaml.SafeLoader):
    pass


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            mark = key_node.start_mark
            raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
# YAML 1.1 reads 1e-3 as text for want of a dot.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. Raises `ConfigError` naming file, line and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"there is no run file {path}; write one with `outcross init {path}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the run file {path}: {error}") from error
    found = _parse(text, str(path))
    if not isinstance(found, Mapping):
        raise ConfigError(f"{path} holds {_sort(found)}, not settings (`key: value` lines); `outcross init` writes one to start from")
    return dict(found)


def parse_value(text: str, name: str) -> Any:
    """One value from the command line."""
    return _parse(text, name)


def _parse(text: str, name: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: {error.problem or error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: {error}") from None


def _sort(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
