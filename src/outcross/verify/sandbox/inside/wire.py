"""Frames between processes, and plain values as JSON. Nothing that is received is ever unpickled or evaluated."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

MOST = 16 * 2**20  # bytes of a frame
_ITEMS = 1_000_000  # of an iterator that a program returns


class TooMuch(Exception):
    """A frame is longer than its reader allows."""


class Unsendable(Exception):
    """A value that is not plain data and has no handle."""


def send(descriptor: int, message: Any) -> None:
    """Write one frame: eight bytes of length, then JSON."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    view = memoryview(len(body).to_bytes(8, "big") + body)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int, most: int = MOST) -> Any:
    """Read one frame. Raises `EOFError` at the end, `TooMuch` over `most` bytes, and `ValueError` when it is not JSON."""
    size = int.from_bytes(_exactly(descriptor, 8), "big")
    if size > most:
        raise TooMuch(f"{size} bytes; at most {most} are read")
    return json.loads(_exactly(descriptor, size))


def _exactly(descriptor: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(descriptor, min(size - len(parts), 2**20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


# ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def encode(value: Any, handle: Callable[[Any], Any]) -> Any:
    """`value` as JSON. Subclasses of plain types travel as the plain type, so that no method of theirs is ever trusted.

    `handle` gives the JSON of anything else, or raises `Unsendable`.
    """
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return value
    if kind is int:
        return value if -(2**53) < value < 2**53 else {"i": hex(value)}
    if kind is float:
        return value
    return _compound(value, lambda item: encode(item, handle), handle)


def _compound(value: Any, inner: Callable[[Any], Any], handle: Callable[[Any], Any]) -> Any:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return inner(int.__int__(value))
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, list):
        return [inner(item) for item in list.__iter__(value)]
    if isinstance(value, dict):
        return {"d": [[inner(key), inner(item)] for key, item in dict.items(value)]}
    for kind, tag in _COLLECTIONS:
        if isinstance(value, kind):
            return {tag: [inner(item) for item in kind.__iter__(value)]}
    if isinstance(value, bytes | bytearray):
        return {"b" if isinstance(value, bytes) else "a": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    if isinstance(value, range):
        return {"r": [inner(value.start), inner(value.stop), inner(value.step)]}
    if isinstance(value, Fraction | Decimal):
        return {"n": [type(value).__name__, str(value)]}
    if isinstance(value, Iterator):
        return {"y": [inner(item) for item in _some(value)]}
    return handle(value)


def _some(items: Iterator[Any]) -> Iterator[Any]:
    for count, item in enumerate(items):
        if count == _ITEMS:
            raise Unsendable(f"an iterator of more than {_ITEMS} items")
        yield item


_COLLECTIONS: tuple[tuple[Any, str], ...] = ((tuple, "t"), (set, "s"), (frozenset, "f"), (deque, "q"))
_PLAIN: dict[str, Callable[[Any], Any]] = {"t": tuple, "s": set, "f": frozenset, "q": deque, "y": iter}


def decode(data: Any, handle: Callable[[Any], Any]) -> Any:
    """The value that `encode` wrote. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
    if not isinstance(data, list | dict):
        return data
    if isinstance(data, list):
        return [decode(item, handle) for item in data]
    ((tag, body),) = data.items()
    if tag in _PLAIN:
        return _PLAIN[tag]([decode(item, handle) for item in body])
    if tag == "d":
        return {decode(key, handle): decode(item, handle) for key, item in body}
    if tag == "i":
        return int(body, 16)
    if tag == "b":
        return bytes.fromhex(body)
    if tag == "a":
        return bytearray.fromhex(body)
    if tag == "c":
        return complex(*body)
    if tag == "r":
        return range(*[decode(item, handle) for item in body])
    if tag == "n":
        return {"Fraction": Fraction, "Decimal": Decimal}[body[0]](body[1])
    return handle(data)
