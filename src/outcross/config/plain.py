"""Default values as a run file would write them, so that the resolved configuration can be read, edited and run again."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import msgspec

from outcross.config.find import use_name


def plain(value: object) -> Any:
    """`value` in YAML's terms: a stage by its `use:` name and settings, other dataclasses and records by their fields."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value) if item.init}
        is_stage = callable(value) or hasattr(value, "__iter__")
        return {"use": use_name(type(value)), **fields} if is_stage else fields
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if inspect.isclass(value) or inspect.isroutine(value):
        return f"{value.__module__}:{value.__qualname__}"
    return repr(value)
