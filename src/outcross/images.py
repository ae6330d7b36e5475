"""Images as content: pixels as an `Array`, and a prompt that asks for a class.

A prompt is the class, and after " #" which of its images is meant ("7 #held_out 12"), so that no two items ask the same and held-out items
can be told from others by their prompts.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from outcross.errors import DataError
from outcross.types import Array, Content, Prompt

Floats = npt.NDArray[np.float64]

_MARK = " #"


def packed(pixels: npt.NDArray[Any]) -> Array:
    """An array as content. Its type and shape are kept."""
    return Array(pixels.dtype.name, tuple(int(size) for size in pixels.shape), np.ascontiguousarray(pixels).tobytes())


def to_bytes(intensities: Floats) -> Array:
    """Intensities from 0 to 1 as an image of 256 levels; what lies outside is cut."""
    return packed(np.rint(np.clip(intensities, 0.0, 1.0) * 255).astype(np.uint8))


def intensities(content: Content) -> Floats:
    """The pixels of an image (height, width), from 0 to 1: whole numbers over the largest of their type, others as they are.

    Raises `DataError` for a text, for a shape that is no image's, for bytes that do not fill the shape and for numbers that are not finite.
    """
    if not isinstance(content, Array):
        raise DataError("the content is text, not an image; give arrays of the shape (height, width)")
    try:
        pixels = np.frombuffer(content.data, dtype=np.dtype(content.dtype)).reshape(content.shape)
    except (TypeError, ValueError) as error:
        raise DataError(f"an array says {content.dtype} of shape {content.shape} and holds {len(content.data):,} bytes: {error}") from None
    if pixels.ndim != 2 or not pixels.size:
        raise DataError(f"an image has the shape (height, width), and this array {content.shape}")
    scale = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else 1.0
    found: Floats = pixels.astype(np.float64) / scale
    if not np.isfinite(found).all():
        raise DataError("an image holds numbers that are not finite")
    return found


def asking(kind: str, item: str) -> str:
    """The prompt that asks for an image of a class; `item` tells it from others."""
    return f"{kind}{_MARK}{item}"


def class_of(prompt: Prompt) -> str:
    """The class that a prompt asks for; empty for a prompt that is no text."""
    return prompt.partition(_MARK)[0] if isinstance(prompt, str) else ""


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def png(image: Content) -> bytes:
    """An image of whole numbers as a grey PNG file, of 8 or 16 bits as the array has; nothing is lost. Raises `DataError` for other arrays."""
    intensities(image)  # raises for what is no image
    assert isinstance(image, Array)
    if image.dtype not in ("uint8", "uint16"):
        raise DataError(f"an image of {image.dtype} does not fit in a PNG file without loss; convert it to uint8 or uint16")
    pixels = np.frombuffer(image.data, dtype=np.dtype(image.dtype)).reshape(image.shape)
    (height, width), bits = pixels.shape, 8 * pixels.dtype.itemsize
    lines = pixels.astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    unfiltered = np.concatenate([np.zeros((height, 1), np.uint8), lines], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(unfiltered, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, parts))


def _chunk(part: tuple[bytes, bytes]) -> bytes:
    """Length, name, data and check sum (ISO/IEC 15948, 5.3)."""
    name, data = part
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def grid(images: Sequence[Content], columns: int, gap: int = 2) -> Array:
    """Images of one size in rows of `columns`, on a grey ground, of 256 levels."""
    cells = [intensities(image) for image in images]
    height, width = cells[0].shape[0] + gap, cells[0].shape[1] + gap
    if any(cell.shape != cells[0].shape for cell in cells):
        raise DataError(f"the images have the sizes {sorted({cell.shape for cell in cells})}; a grid takes one size")
    sheet = np.full((-(-len(cells) // columns) * height + gap, columns * width + gap), 0.5)
    for place, cell in enumerate(cells):
        top, left = (place // columns) * height + gap, (place % columns) * width + gap
        sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return to_bytes(sheet)
