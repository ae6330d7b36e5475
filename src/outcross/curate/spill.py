"""Groups on disk: for stages that read a round twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from outcross.types import Group


def spilled(groups: Iterable[Group], path: Path) -> Iterator[Group]:
    """The groups as they come, each written to `path` on its way: length (8 bytes, little-endian) and MessagePack."""
    encoder = msgspec.msgpack.Encoder()
    with path.open("wb") as file:
        for group in groups:
            data = encoder.encode(group)
            file.write(len(data).to_bytes(8, "little") + data)
            yield group


def unspilled(path: Path) -> Iterator[Group]:
    """The groups of a file that `spilled` wrote, in order."""
    decoder = msgspec.msgpack.Decoder(Group)
    with path.open("rb") as file:
        while head := file.read(8):
            yield decoder.decode(file.read(int.from_bytes(head, "little")))
