"""What a structured answer must be: a JSON schema as a value, and the reading of answers against it.

Needs the extra `structured`. `format` is not checked, as the standard has it; the validators of a pydantic model are.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from outcross.errors import ConfigError, FingerprintError, MissingExtra
from outcross.types import Completion, content_hash

SHOWN = 300  # characters of a finding
_STARTS = 200  # places in a text where a value is looked for
_FENCED = re.compile(r"```[ \t]*[\w-]*[ \t]*\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What an answer is under a schema: canonical JSON in `text`, or what is wrong with it in `problem`.

    `how`: where the JSON stood, if the answer held more than that.
    """

    text: str = ""
    how: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Schema:
    """A JSON schema (draft 2020-12 unless it says otherwise), and the pydantic model that it comes from, if any.

    Make one with `Schema.of`. Raises `ConfigError` for what is no schema, or refers to a document that is not in it.
    """

    text: str
    model: type[Any] | None = None

    def __post_init__(self) -> None:
        _validator(self.text)

    @classmethod
    def of(cls, given: Schema | type[Any] | Mapping[str, Any]) -> Schema:
        """A pydantic model, or a JSON schema as a mapping. The order of its fields is kept: models write in this order."""
        if isinstance(given, Schema):
            return given
        if isinstance(given, Mapping):
            return cls(_written(given, "the schema"))
        if not isinstance(given, type) or not hasattr(given, "model_json_schema"):
            raise ConfigError(f"schema is {given!r:.80}; give a pydantic model, a JSON schema as a mapping, or the path of a file with one")
        return cls(_written(given.model_json_schema(), given.__name__), given)

    @classmethod
    def read(cls, path: Path) -> Schema:
        """A file with a JSON schema."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"there is no file {path} with a JSON schema; a pydantic model is named `module:Name`") from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} holds no JSON schema: {error}") from None
        return cls(_written(found, str(path)))

    def identity(self) -> object:
        """The schema and the source of the model's classes: validators are part of what it is."""
        return [self.text, content_hash(*_sources(self.model, set())) if self.model else ""]

    def reading(self, completion: Completion) -> Reading:
        """Read an answer: the whole text, else the last value in a code fence or among other text that the schema allows."""
        said = completion.content
        if not isinstance(said, str):
            return Reading(problem="the answer is an array, not text")
        if not completion.finished:
            return Reading(problem="the answer was cut off")
        first = ""
        for found, how in _values(said):
            problem = self._problem(found)
            if not problem:
                return Reading(json.dumps(found, ensure_ascii=False, separators=(",", ":")), how)
            first = first or problem
        return Reading(problem=first or _no_json(said))

    def _problem(self, found: Any) -> str:
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            error = best_match(_validator(self.text).iter_errors(found))
        except (RecursionError, Unresolvable) as failure:
            return f"$: cannot be checked: {type(failure).__name__}: {failure}"[:SHOWN]
        if error is not None:
            rule = "/".join(map(str, error.absolute_schema_path))
            return f"{error.json_path}: {_clipped(error.message)} (schema: {rule})"
        return self._problem_of_model(found)

    def _problem_of_model(self, found: Any) -> str:
        if self.model is None:
            return ""
        from pydantic import ValidationError

        try:
            self.model.model_validate_json(json.dumps(found))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            return f"${path}: {_clipped(first['msg'])} (validator of {self.model.__name__})"
        except Exception as error:  # a validator of the user's
            return f"$: {type(error).__name__}: {_clipped(str(error))} (validator of {self.model.__name__})"
        return ""


@lru_cache(maxsize=64)
def _validator(text: str) -> Any:
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry
    except ImportError:
        raise MissingExtra("jsonschema", "structured", "an answer with a schema") from None
    schema = json.loads(text)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"the schema is no JSON schema: {error.json_path}: {_clipped(error.message)}") from None
    away = next((item for item in _references(schema) if not item.startswith("#")), None)
    if away is not None:
        raise ConfigError(f"the schema refers to {away!r:.80}, which is not in it; put it under `$defs` and refer to `#/$defs/…`")
    return kind(schema, registry=Registry())  # one that fetches nothing


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        found = schema.get("$ref")
        if isinstance(found, str):
            yield found
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _written(schema: Any, name: str) -> str:
    if not isinstance(schema, Mapping):
        raise ConfigError(f"{name} is a {type(schema).__name__}, not a JSON schema; give a mapping such as {{type: object, properties: …}}")
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is not JSON: {error}") from None


def _sources(kind: type[Any], seen: set[type[Any]]) -> list[str]:
    """The sources of a model's classes: its own, those it derives from and those of its fields; pydantic's left out."""
    found: list[str] = []
    for item in kind.__mro__:
        if item in seen or item.__module__.partition(".")[0] in ("pydantic", "builtins", "typing", "enum", "abc"):
            continue
        seen.add(item)
        try:
            found.append(textwrap.dedent(inspect.getsource(item)))
        except (OSError, TypeError):
            raise FingerprintError(
                f"the source of {item.__module__}:{item.__qualname__} cannot be read; put the model into a file, or give its JSON schema"
            ) from None
        for field in getattr(item, "model_fields", {}).values():
            for inner in _classes(field.annotation):
                found += _sources(inner, seen)
    return found


def _classes(hint: Any) -> Iterator[type[Any]]:
    if isinstance(hint, type) and hasattr(hint, "model_fields"):
        yield hint
    for inner in typing.get_args(hint):
        yield from _classes(inner)


# ── JSON in answers ────────────────────────────────────────────────────────────────────────────────────────────────────
def _values(said: str) -> Iterator[tuple[Any, str]]:
    """The JSON values of an answer, likeliest first, and where each stood: the text itself; fenced ones and then objects and lists
    among other text, from the last to the first."""
    whole = _parsed(said.strip())
    if whole is not None:
        yield whole[0], ""
        return
    for block in reversed(_FENCED.findall(said)[-_STARTS:]):
        found = _parsed(block.strip())
        if found is not None:
            yield found[0], "taken out of a code fence"
    yield from ((value, "taken out of other text") for value in reversed(list(_inside(said))))


def _inside(said: str) -> Iterator[Any]:
    place = 0
    for _ in range(_STARTS):
        opening = re.compile(r"[{\[]").search(said, place)
        if opening is None:
            return
        place = opening.start()
        try:
            value, place = _decoder.raw_decode(said, place)
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            place += 1
            continue
        yield value


def _parsed(text: str) -> tuple[Any] | None:
    """The value in a tuple; None for what is no JSON, has a key twice, a number that is not finite, or half a surrogate pair."""
    try:
        value = _decoder.decode(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return (value,)


def _no_json(said: str) -> str:
    try:
        _decoder.decode(said.strip())
    except (ValueError, RecursionError) as error:
        return f"$: no JSON: {_clipped(str(error))}"
    return "$: no JSON: half a surrogate pair in a text"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key is given twice among {[key for key, _ in pairs]!r:.100}")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number of JSON, or too large")
    return value


_decoder = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)


def _clipped(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
