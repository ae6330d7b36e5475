"""Rows as documents: which columns hold the text, and what a row asks and answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from outcross.errors import ConfigError, DataError, did_you_mean

Row = Mapping[str, Any]
PARTS = ("prompt", "context", "answer", "rejected", "messages")
_NAMES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialogue", "chat"),
    "answer": ("chosen", "completion", "response", "output", "answer", "text", "content", "solution", "story", "document"),
    "rejected": ("rejected",),
    "prompt": ("prompt", "instruction", "question", "query", "problem", "input"),
}
_LABELS = ("role", "from", "name", "type", "id", "tool_call_id")  # of turns and their parts: no text that anybody wrote


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a row. `readable` is False where a column that should hold text holds something else or nothing. `pieces`: all that its text
    columns say, each cell and turn by itself and the arguments of tools with them: what `mapped` would change."""

    prompt: str
    answer: str
    rejected: str
    readable: bool
    pieces: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.prompt, self.answer, self.rejected)))


def parts_of(path: object, row: Row, named: Mapping[str, str]) -> dict[str, str]:
    """Part → column, as `named` or by the usual names. Raises `ConfigError` for an unknown part, `DataError` without a text column."""
    for part in named:
        if part not in PARTS:
            raise ConfigError(f"--column names the part {part!r}; {did_you_mean(part, PARTS)}")
    for part, column in named.items():
        if column not in row:
            raise DataError(f"{path} has no column {column!r} for {part}; {did_you_mean(column, map(str, row))}")
    found = dict(named) or {part: name for part, names in _NAMES.items() for name in [next((n for n in names if n in row), "")] if name}
    if not named and "messages" in found:
        found = {"messages": found["messages"]}
    if not named and found.get("prompt") == "instruction" and "input" in row:
        found["context"] = "input"
    if not {"answer", "messages", "prompt"} & found.keys():
        raise DataError(
            f"{path}: its columns {', '.join(map(str, row))} have none of the usual names for text ("
            f"{', '.join(name for names in _NAMES.values() for name in names)}); say which it is, for example --column answer=summary"
        )
    return found


def reader(parts: Mapping[str, str]) -> Callable[[Row], Document]:
    """What makes documents of rows."""
    asked = [parts[name] for name in ("prompt", "context") if name in parts]
    answer, rejected, messages = parts.get("answer"), parts.get("rejected"), parts.get("messages")
    columns = tuple(dict.fromkeys(parts.values()))

    def document(row: Row) -> Document:
        pieces = tuple(piece for name in columns for piece in _pieces(row.get(name)))
        if messages:
            turns = _turns(row.get(messages))
            return Document("\n".join(turns[:-1]), turns[-1], "", True, pieces) if turns else Document("", "", "", False, pieces)
        prompts = [_text(row.get(name)) for name in asked]
        said, other = _text(row.get(answer)) if answer else "", _text(row.get(rejected)) if rejected else ""
        main = said if answer else prompts[0]
        readable = bool(main and main.strip()) and other is not None
        return Document("\n".join(filter(None, prompts)), said or "", other or "", readable, pieces)

    return document


def _text(value: Any) -> str | None:
    """A cell as text; None for what is neither text, a number nor a conversation."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    turns = _turns(value)
    return "\n".join(turns) if turns else None


def _turns(value: Any) -> list[str]:
    """The contents of a conversation, OpenAI's or ShareGPT's names, or one written as a text; empty for anything else. A turn that says nothing,
    as one that calls a tool does, is left out."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if not isinstance(value, list):
        return []
    found = []
    for item in value:
        said = _content(item.get("content", item.get("value")) if isinstance(item, dict) else item)
        if said is None:
            return []
        found.append(said)
    return [said for said in found if said]


def _content(value: Any) -> str | None:
    """What a turn says, with the texts of its parts one after another; None for what is no turn."""
    if isinstance(value, list):
        return "\n".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
    return "" if value is None else value if isinstance(value, str) else None


def mapped(row: Row, parts: Mapping[str, str], change: Callable[[str], str]) -> dict[str, Any]:
    """The row with its text columns changed; of a conversation also what tools are called with, and not who says it and what it is called."""
    columns = set(parts.values())
    return {name: _changed(value, change) if name in columns else value for name, value in row.items()}


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if isinstance(value, dict):
        return {name: item if name in _LABELS else _changed(item, change) for name, item in value.items()}
    return value


def _pieces(value: Any) -> Iterator[str]:
    """The texts in a cell that `_changed` would change, and numbers, which it leaves."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_pieces, value))
    elif isinstance(value, dict):
        yield from chain.from_iterable(_pieces(item) for name, item in value.items() if name not in _LABELS)
