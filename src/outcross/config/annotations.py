"""Annotations as the run file sees them: which kind of thing a parameter wants, and how to say so in words."""

from __future__ import annotations

import dataclasses
import datetime
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec

from outcross import stages
from outcross.config import find
from outcross.types import Example, Task

KINDS: Mapping[Any, find.Kind] = {
    stages.Generator: find.GENERATOR,
    stages.Verifier: find.VERIFIER,
    stages.Curator: find.CURATOR,
    stages.Objective: find.OBJECTIVE,
    stages.Probe: find.PROBE,
    stages.Gate: find.GATE,
    stages.RowsProbe: find.ROWS_PROBE,
    stages.RowsGate: find.ROWS_GATE,
    stages.Monitor: find.MONITOR,
    stages.Selector: find.SELECTOR,
    **dict.fromkeys((stages.Model, stages.Completes, stages.LogProbs, stages.Values, stages.Trainable), find.MODEL),
    Iterable[Task]: find.TASKS,
    Iterable[Example]: find.TASKS,
}


def parameters(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters of a class or function that can be given by name, with resolved annotations and true defaults."""
    hints = _hints(target)
    defaults: dict[str, Any] = {}
    if dataclasses.is_dataclass(target):
        fields = dataclasses.fields(target)
        defaults = {item.name: item.default_factory() for item in fields if callable(item.default_factory)}
    found: dict[str, inspect.Parameter] = {}
    for name, item in inspect.signature(target).parameters.items():
        if item.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY):
            continue
        found[name] = item.replace(annotation=hints.get(name, Any), default=defaults.get(name, item.default))
    return found


def _hints(target: Any) -> dict[str, Any]:
    """Resolved annotations; those that name something only type checkers see are left out, and their values pass unchecked."""
    dataclass_like = dataclasses.is_dataclass(target) or (inspect.isclass(target) and issubclass(target, msgspec.Struct))
    source = target.__init__ if inspect.isclass(target) and not dataclass_like else target
    try:
        return typing.get_type_hints(source, include_extras=True)
    except (NameError, TypeError):
        written = {item.name: item.annotation for item in inspect.signature(target).parameters.values()}
        scope = vars(sys.modules[target.__module__])
        return {name: hint for name, text in written.items() if (hint := _hint(name, text, scope)) is not None}


def _hint(name: str, text: Any, scope: dict[str, Any]) -> Any:
    try:
        return typing.get_type_hints(types.SimpleNamespace(__annotations__={name: text}), scope, include_extras=True)[name]
    except (NameError, TypeError):
        return None


SEQUENCES = {tuple, list, Sequence, Iterable, typing.get_origin(Sequence[int]), typing.get_origin(Iterable[int])}
MAPPINGS = {dict, Mapping, typing.get_origin(Mapping[str, int])}


def kind_of(hint: Any) -> find.Kind | None:
    """The kind of thing that a parameter of this annotation wants; None for values."""
    try:
        return KINDS.get(hint)
    except TypeError:  # an annotation that cannot be hashed
        return None


def is_value_class(hint: Any) -> bool:
    """Whether the annotation is a dataclass or a record, written in a run file as settings."""
    return inspect.isclass(hint) and (dataclasses.is_dataclass(hint) or issubclass(hint, msgspec.Struct))


def structured(hint: Any) -> bool:
    """Whether values of this annotation need more than pydantic: stages, dataclasses, paths, or containers of them."""
    if hint is Path or kind_of(hint) is not None or is_value_class(hint):
        return True
    return any(map(structured, typing.get_args(hint))) if typing.get_origin(hint) is not Literal else False


_PLAIN_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    type(None): "none",
    Any: "anything",
    datetime.date: "a day such as 2024-12-31",
}


def describe(hint: Any) -> str:
    """An annotation in words, for messages."""
    if hint in _PLAIN_WORDS:
        return _PLAIN_WORDS[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin is Annotated:
        limits = ", ".join(str(item) for item in inner[1:])
        return f"{describe(inner[0])} ({limits})"
    if origin in (Union, types.UnionType):
        return " or ".join(_unique(map(describe, inner)))
    if origin is tuple and Ellipsis not in inner:
        return f"[{', '.join(map(describe, inner))}]"
    if origin in MAPPINGS:
        return f"{{{describe(inner[0])}: {describe(inner[1])}}}"
    if origin in SEQUENCES:
        return f"a list of {', '.join(_unique(describe(item) for item in inner if item is not Ellipsis))}"
    kind = kind_of(hint)
    return f"a {kind.title}" if kind else getattr(hint, "__name__", str(hint))


def _unique(items: Iterable[str]) -> Iterator[str]:
    return iter(dict.fromkeys(items))
