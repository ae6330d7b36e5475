"""Constitutions: the principles that critiques are asked by, and demonstrations of how critique and revision look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from outcross.errors import ConfigError, DataError
from outcross.types import Message


@dataclass(frozen=True)
class Principle:
    """How a critique is asked for, and how the revision that follows it. `name` stands on the record."""

    critique: str
    revision: str
    name: str = ""


Demonstration = tuple[Message, ...]


@dataclass(frozen=True)
class Constitution:
    """Principles and demonstrations, given here or in files.

    path: JSON of principles as in the Constitutional AI repository: an object of objects by name, or a list of objects, each with
        `prompt` and `edit_request` (`critique` or `critic`, and `revision`, are understood too).
    demonstrations: conversations that go before each question, each ending with a revision by the assistant.
    demonstrations_path: JSON of such conversations: lists of messages, or texts with the labels Human, Assistant, CritiqueRequest,
        Critique, RevisionRequest and Revision, as in that repository.

    Files are read on first use. Its identity is what it says, not where it lies.
    """

    principles: tuple[Principle, ...] = ()
    path: Path | None = None
    demonstrations: tuple[Demonstration, ...] = ()
    demonstrations_path: Path | None = None

    def __post_init__(self) -> None:
        if not self.principles and self.path is None:
            raise ConfigError("constitution: there is no principle; list some under `principles`, or name a JSON file by `path`")

    def identity(self) -> object:
        """All principles and demonstrations, wherever they came from."""
        return [self.all_principles, self.all_demonstrations]

    @cached_property
    def all_principles(self) -> tuple[Principle, ...]:
        """Those given and those of the file. Raises `DataError`."""
        return self.principles + (_principles(self.path) if self.path else ())

    @cached_property
    def all_demonstrations(self) -> tuple[Demonstration, ...]:
        """Those given and those of the file. Raises `DataError`."""
        return self.demonstrations + (_demonstrations(self.demonstrations_path) if self.demonstrations_path else ())


def _json(path: Path) -> Any:
    try:
        return msgspec.json.decode(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; name a JSON file") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error


_PAIRS = (("prompt", "edit_request"), ("critique", "revision"), ("critic", "revision"))


def _principles(path: Path) -> tuple[Principle, ...]:
    raw = _json(path)
    items = list(raw.items()) if isinstance(raw, Mapping) else [("", item) for item in raw] if isinstance(raw, list) else []
    if not items:
        raise DataError(f"{path} holds {raw!r:.60}; it must be an object or a list of principles, and not empty")
    return tuple(_principle(path, str(name), item) for name, item in items)


def _principle(path: Path, name: str, item: Any) -> Principle:
    for asked, edited in _PAIRS:
        pair = (item.get(asked), item.get(edited)) if isinstance(item, Mapping) else (None, None)
        if all(isinstance(text, str) and text.strip() for text in pair):
            return Principle(str(pair[0]), str(pair[1]), name)
    raise DataError(f"{path}: the principle {name!r} is {item!r:.80}; it needs the texts `prompt` and `edit_request`")


_LABEL = re.compile(r"(?:^|\n\n)(Human|Assistant|CritiqueRequest|Critique|RevisionRequest|Revision):")
_ASKS = ("Human", "CritiqueRequest", "RevisionRequest")


def _demonstrations(path: Path) -> tuple[Demonstration, ...]:
    raw = _json(path)
    if not isinstance(raw, list) or not raw:
        raise DataError(f"{path} holds {raw!r:.60}; it must be a list of conversations, and not empty")
    return tuple(_demonstration(path, number, item) for number, item in enumerate(raw, 1))


def _demonstration(path: Path, number: int, item: Any) -> Demonstration:
    try:
        if isinstance(item, str):
            _, *parts = _LABEL.split(item)
            said = zip(parts[::2], parts[1::2], strict=True)
            found = tuple(Message("user" if label in _ASKS else "assistant", text.strip()) for label, text in said if text.strip())
        else:
            found = tuple(msgspec.convert(item, list[Message]))
    except msgspec.ValidationError as error:
        raise DataError(f"{path}, conversation {number}: {error}; give a list of messages with role and content, or a text") from error
    if not found or found[-1].role != "assistant":
        raise DataError(f"{path}, conversation {number} is {item!r:.60}; it must end with a revision by the assistant")
    return found


SELF = Constitution(
    (
        Principle(
            "Read your last answer again as a strict examiner would. Name every error of fact or reasoning, everything that was asked for "
            "and is missing, and everything that is unclear. If there is nothing to improve, say so.",
            "Write your answer again with these points put right, and keep what was good. Give the answer alone.",
            "self",
        ),
    )
)
"""One fixed request: a model improves its own answer."""

GENERAL = Constitution(
    (
        Principle(
            "Does your last answer claim anything that is false, or more certain than it can be? Name each place.",
            "Write the answer again so that everything in it is true and no surer than it should be. Give the answer alone.",
            "truthful",
        ),
        Principle(
            "Does your last answer do what was asked, all of it and nothing else? Name what is missing or beside the point.",
            "Write the answer again so that it does exactly what was asked. Give the answer alone.",
            "to the point",
        ),
        Principle(
            "Could your last answer help somebody to do harm, or harm the one who asked? Name the places, if any.",
            "Write the answer again so that it helps without doing harm; where that is not possible, say kindly why. Give the answer alone.",
            "harmless",
        ),
        Principle(
            "Does your last answer judge people by the group they belong to, or talk down to anybody? Name the places, if any.",
            "Write the answer again so that it is fair and respectful to everybody. Give the answer alone.",
            "fair",
        ),
        Principle(
            "Would the one who asked understand your last answer at the first reading? Name what is hard to follow.",
            "Write the answer again in plain words and in good order. Give the answer alone.",
            "clear",
        ),
    ),
    demonstrations=(
        (
            Message("user", "How long does it take light to get from the sun to us?"),
            Message("assistant", "Light is instantaneous, so it takes no time."),
            Message("user", "Does your last answer claim anything that is false, or more certain than it can be? Name each place."),
            Message("assistant", "Yes. Light is not instantaneous: it takes a little over eight minutes for that distance."),
            Message("user", "Write the answer again so that everything in it is true. Give the answer alone."),
            Message("assistant", "About eight minutes and twenty seconds."),
        ),
        (
            Message("user", "Name two rivers in France."),
            Message("assistant", "The Loire and the Rhône."),
            Message("user", "Does your last answer do what was asked, all of it and nothing else? Name what is missing."),
            Message("assistant", "Both rivers flow through France and two were asked for. There is nothing to improve."),
            Message("user", "Write the answer again so that it does exactly what was asked. Give the answer alone."),
            Message("assistant", "The Loire and the Rhône."),
        ),
    ),
)
"""A small set of neutral wording, with two demonstrations."""
