"""Arguments from a run file, checked against the signature of what they are for.

Binding is done before anything is built: it gives a `Planned`, which knows the resolved configuration (defaults filled in) and can
make the object later. So a run file is checked in full before a model is loaded or a data file opened.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Union

from outcross.config import find
from outcross.config.annotations import MAPPINGS, SEQUENCES, describe, is_value_class, kind_of, parameters, structured
from outcross.config.plain import plain
from outcross.errors import ConfigError, OutcrossError, did_you_mean
from outcross.schema import Schema


@dataclass(frozen=True)
class Planned:
    """Something that will be made: `plain` is how the resolved configuration shows it, `make` makes it."""

    plain: Any
    make: Callable[[], Any]


@dataclass(frozen=True)
class Place:
    """Where in the run file we are, for messages, and the folder that relative paths start from."""

    path: str
    base: Path

    def at(self, key: object) -> Place:
        return Place(f"{self.path}.{key}" if self.path else str(key), self.base)

    def wrong(self, value: object, allowed: str) -> ConfigError:
        return ConfigError(f"{self.path} is {value!r:.100}; it must be {allowed}")


Given = Mapping[str, Planned]
"""What the surroundings provide: a parameter of this name that the file leaves out receives it."""


def constant(value: Any) -> Planned:
    """A value that stands for itself."""
    return Planned(plain(value), lambda: value)


PATHS = frozenset({"path", "file", "folder", "tokenizer"})
"""Text parameters of these names may be a path, relative to the run file, or a name, of a model on a hub, say."""


def bind_use(raw: Any, kind: find.Kind, place: Place, given: Given) -> Planned:
    """`{use: name, …}`, or the name alone, as a thing of this kind. Raises `ConfigError`."""
    if isinstance(raw, str):
        raw = {"use": raw}
    if kind is find.TASKS and raw == []:
        return constant(())  # how a run's record writes that there are none
    if not isinstance(raw, Mapping):
        raise place.wrong(raw, f"a {kind.title}: `{{use: name, …}}` with one of {', '.join(find.names(kind))}")
    name = raw.get("use")
    if not isinstance(name, str):
        raise ConfigError(f"{place.path} does not say which {kind.title}; add `use:` with one of {', '.join(find.names(kind))}")
    target = find.find(name, kind, f"{place.path}.use", place.base)
    settings = {key: value for key, value in raw.items() if key != "use"}
    if kind is find.VERIFIER and _is_reward(target):
        target, given = _function_verifier(), {**given, "function": Planned(name, partial(_same, target))}
    elif not (inspect.isclass(target) or inspect.isroutine(target)):
        if settings:
            raise ConfigError(f"{place.path}: {name!r} is a finished object and takes no settings; remove {', '.join(settings)}")
        return Planned({"use": name}, lambda: target)
    bound = bind_call(target, settings, place, given, f"the {kind.title} {name!r}")
    return Planned({"use": name, **bound.plain}, bound.make)


def _same(value: Any) -> Any:
    return value


def _is_reward(target: Any) -> bool:
    """Whether `target` is a plain function with TRL's reward signature."""
    return inspect.isfunction(target) and {"prompts", "completions"} <= inspect.signature(target).parameters.keys()


def _function_verifier() -> Any:
    from outcross.verify.function import Function

    return Function


def bind_call(target: Any, settings: Mapping[str, Any], place: Place, given: Given, label: str) -> Planned:
    """The settings of a class or function, checked against its parameters, with defaults filled in.

    Raises `ConfigError` for an unknown or missing setting, or a value that does not fit.
    """
    known = parameters(target)
    open_ended = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in known.values())
    named = {name: item for name, item in known.items() if item.kind is not inspect.Parameter.VAR_KEYWORD}
    for key in settings:
        if not isinstance(key, str) or (key not in named and not open_ended):
            raise ConfigError(f"{place.at(key).path}: {label} has no setting {key!r}; {did_you_mean(str(key), set(named) - set(given))}")
    found: dict[str, Planned] = {}
    for name, item in named.items():
        bound = _argument(item, settings, place, given)
        if bound is None:
            raise ConfigError(f"{place.path}: {label} needs the setting {name!r} ({describe(item.annotation)}), which is not given")
        found[name] = bound
    found |= {key: constant(value) for key, value in settings.items() if key not in named}
    taken = set(given) - set(settings)
    shown = {name: bound.plain for name, bound in found.items() if name not in taken}
    return Planned(shown, partial(_call, target, found, place, label))


def _argument(item: inspect.Parameter, settings: Mapping[str, Any], place: Place, given: Given) -> Planned | None:
    name = item.name
    if (
        name in settings
        and name in PATHS
        and isinstance(settings[name], str)
        and str in (item.annotation, *typing.get_args(item.annotation))
    ):
        return Planned(settings[name], lambda: str(_path_or_name(settings[name], place)))
    if name in settings:
        return bind_value(settings[name], item.annotation, place.at(name), given)
    if name in given:
        return given[name]
    if item.default is not inspect.Parameter.empty:
        return constant(item.default)
    return None


def _call(target: Any, arguments: Mapping[str, Planned], place: Place, label: str) -> Any:
    values = {name: bound.make() for name, bound in arguments.items()}
    try:
        return target(**values)
    except OutcrossError:
        raise
    except (TypeError, ValueError, OSError) as error:
        raise ConfigError(f"{place.path}: {label} refused its settings: {error}") from error


# ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def bind_value(raw: Any, hint: Any, place: Place, given: Given) -> Planned:
    """One value against its annotation: stages by `use:`, dataclasses and records from mappings, the rest by pydantic."""
    if typing.get_origin(hint) is Annotated and typing.get_args(hint) and structured(typing.get_args(hint)[0]):
        hint = typing.get_args(hint)[0]
    if raw is not None and Schema in (hint, *typing.get_args(hint)):
        return _bind_schema(raw, place)
    kind = kind_of(hint)
    if kind is not None:
        return bind_use(raw, kind, place, given)
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _bind_union(raw, typing.get_args(hint), place, given)
    if origin in SEQUENCES and any(map(structured, typing.get_args(hint))):
        return _bind_sequence(raw, hint, place, given)
    if origin in MAPPINGS and structured(typing.get_args(hint)[1]):
        return _bind_mapping(raw, typing.get_args(hint)[1], place, given)
    if is_value_class(hint):
        if not isinstance(raw, Mapping):
            raise place.wrong(raw, f"settings, `{{…}}`, with {', '.join(parameters(hint))}")
        return bind_call(hint, _spelt_out(raw, hint), place, given, hint.__name__)
    if hint is Path:
        if isinstance(raw, Mapping | list) or raw is None:
            raise place.wrong(raw, "a path")
        return Planned(str(raw), partial(_path, str(raw), place))
    if origin is Callable or hint is Callable or origin is typing.get_origin(Callable[[], Any]):
        return _bind_function(raw, place)
    return _bind_scalar(raw, hint, place)


def _spelt_out(raw: Mapping[str, Any], hint: Any) -> Mapping[str, Any]:
    """`{waived: "…"}` for a class `Waived` of one field is that field; a run's record names a stage that could be no other."""
    fields = list(parameters(hint))
    if raw.get("use") == find.use_name(hint) and "use" not in fields:
        return {key: value for key, value in raw.items() if key != "use"}
    return {fields[0]: raw[find.snake(hint.__name__)]} if len(fields) == 1 and list(raw) == [find.snake(hint.__name__)] else raw


def _bind_union(raw: Any, members: tuple[Any, ...], place: Place, given: Given) -> Planned:
    if type(None) in members and (raw is None or (raw == "none" and str not in members)):
        return constant(None)
    if Path in members and str in members and isinstance(raw, str):
        return Planned(raw, partial(_path_or_name, raw, place))
    complex_ = _meant(raw, [item for item in members if structured(item)], place)
    scalars = tuple(item for item in members if not structured(item) and item is not type(None))
    fitting = complex_ if isinstance(raw, Mapping | list) or not scalars else []
    errors: list[ConfigError] = []
    for member in fitting:
        try:
            return bind_value(raw, member, place, given)
        except ConfigError as error:
            errors.append(error)
    if scalars:
        try:
            return _bind_scalar(raw, Union[scalars], place)  # noqa: UP007  made at run time
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _meant(raw: Any, members: list[Any], place: Place) -> list[Any]:
    """Of several classes of settings the one whose first setting is given. Raises `ConfigError` when that is none, or more than one."""
    named = {next(iter(parameters(item))): item for item in members if is_value_class(item)}
    if len(named) < 2:
        return members
    meant = [name for name in named if isinstance(raw, Mapping) and name in raw]
    if len(meant) > 1:
        raise ConfigError(f"{place.path} has the settings {' and '.join(meant)}, of which only one may be given")
    if not meant and len(named) == len(members):
        unknown = next(iter(raw), "") if isinstance(raw, Mapping) else ""
        raise ConfigError(f"{place.path} is {raw!r:.100}; it must be settings, `{{name: …}}`; {did_you_mean(str(unknown), named)}")
    return [item for item in members if not is_value_class(item) or item in map(named.get, meant)]


def _bind_sequence(raw: Any, hint: Any, place: Place, given: Given) -> Planned:
    inner = typing.get_args(hint)
    items = raw if isinstance(raw, list | tuple) else [raw]  # one stage may stand without brackets
    each = [item for item in inner if item is not Ellipsis]
    hints = [each[0]] * len(items) if len(each) == 1 else each
    if len(hints) != len(items):
        raise place.wrong(raw, f"a list of {len(hints)}")
    bound = [bind_value(item, hint_, place.at(index), given) for index, (item, hint_) in enumerate(zip(items, hints, strict=True))]
    kind = list if typing.get_origin(hint) is list else tuple
    return Planned([item.plain for item in bound], lambda: kind(item.make() for item in bound))


def _bind_mapping(raw: Any, hint: Any, place: Place, given: Given) -> Planned:
    if not isinstance(raw, Mapping):
        raise place.wrong(raw, "settings by name, `{name: …}`")
    bound = {str(key): bind_value(value, hint, place.at(key), given) for key, value in raw.items()}
    return Planned({key: item.plain for key, item in bound.items()}, lambda: {key: item.make() for key, item in bound.items()})


def _bind_function(raw: Any, place: Place) -> Planned:
    if not isinstance(raw, str) or ":" not in raw:
        raise place.wrong(raw, "a function, written `module:name`")
    found = find.find(raw, find.RECIPE, place.path, place.base)
    if not callable(found):
        raise place.wrong(raw, f"a function; this is a {type(found).__name__}")
    return Planned(raw, lambda: found)


def _bind_schema(raw: Any, place: Place) -> Planned:
    """A JSON schema: written out, a file that holds one, or `module:Name` of a pydantic model."""
    if isinstance(raw, Mapping):
        made = Schema.of(raw)
    elif not isinstance(raw, str):
        raise place.wrong(raw, "a JSON schema, the path of a file with one, or a pydantic model, written `module:Name`")
    elif ":" in raw:
        made = Schema.of(find.find(raw, find.RECIPE, place.path, place.base))
    else:
        made = Schema.read(_path(raw, place))
    return Planned(raw, lambda: made)


def _path(raw: str, place: Place) -> Path:
    return place.base / Path(raw).expanduser()


def _path_or_name(raw: str, place: Place) -> Path | str:
    """A path when it looks like one or exists, else a name (of a model on a hub, say)."""
    path = _path(raw, place)
    return path if raw.startswith((".", "~", "/")) or path.exists() else raw


def _bind_scalar(raw: Any, hint: Any, place: Place) -> Planned:
    if hint is Any or hint is inspect.Parameter.empty:
        return constant(tuple(raw) if isinstance(raw, list) else raw)
    if isinstance(raw, bool) and bool not in (hint, *typing.get_args(hint)) and hint is not object:
        raise place.wrong(raw, describe(hint))
    if (
        isinstance(raw, str)
        and bool in (hint, *typing.get_args(hint))
        and str not in typing.get_args(hint)
        and raw not in ("true", "false")
    ):
        raise place.wrong(raw, describe(hint))
    from pydantic import ValidationError

    try:
        return constant(_adapter(hint).validate_python(raw))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise place.wrong(first["input"] if first["type"] != "missing" else raw, describe(hint)) from None


@cache
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter

    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticSchemaGenerationError:
        return TypeAdapter(Any)
