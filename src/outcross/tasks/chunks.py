"""Documents cut into chunks: at headings first, then between paragraphs, sentences and words, and in fenced code only between lines and
only when a fence is longer than a chunk.

The bodies of all chunks, one after the other, are the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, NamedTuple

from outcross.errors import ConfigError
from outcross.tasks.blocks import Block

_SENTENCE = re.compile(r"(?:[.!?…][\"'”’)\]]*\s+|[。！？]\s*|\n)")
_WORD = re.compile(r"\S+\s*")


@dataclass(frozen=True)
class Limits:
    """How long chunks are: at most `size` characters or words, `overlap` of them from the end of the chunk before (of the same section).
    Sections shorter than `least` are joined with what follows."""

    size: int = 2000
    unit: Literal["characters", "words"] = "characters"
    overlap: int = 0
    least: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= 2 * self.overlap <= self.size or not 0 <= self.least <= self.size:
            raise ConfigError(
                f"documents: size={self.size}, overlap={self.overlap}, least={self.least}; allowed are a size of 1 or more, an overlap of "
                "at most half of it and a least of at most the size"
            )
        if self.unit not in ("characters", "words"):
            raise ConfigError(f"documents: unit is {self.unit!r}; allowed: characters, words")

    def length(self, text: str) -> int:
        """How long a text is, in the unit."""
        return len(text) if self.unit == "characters" else len(text.split())

    def cut(self, text: str, room: int, kind: str) -> int:
        """Where to cut a text that is longer than `room`: the last place that fits, after a line of code, a sentence or a word."""
        limit = room
        if self.unit == "words":
            limit = next((found.end() for number, found in enumerate(_WORD.finditer(text), 1) if number == room), len(text))
        window = text[:limit]
        if kind == "fence":
            ends = [window.rfind("\n") + 1]
        else:
            sentence = max((found.end() for found in _SENTENCE.finditer(window)), default=0)
            words = [found.start() for found in re.finditer(r"\S+$", window)]
            ends = [sentence if 2 * sentence > limit else 0, *(words if text[limit : limit + 1].strip() else [limit])]
        return next((end for end in ends if end > 0), limit)

    def tail(self, text: str) -> str:
        """The overlap with the next chunk: the last whole words of a text."""
        if not self.overlap:
            return ""
        if self.unit == "words":
            starts = [found.start() for found in _WORD.finditer(text)]
            return text[starts[-self.overlap] :] if len(starts) > self.overlap else text
        part = text[-self.overlap :]
        space = re.search(r"\s", part)
        return part[space.end() :] if space and len(part) < len(text) else part


class Chunk(NamedTuple):
    """A piece of a document with the trail of headings that it stands under. `text` is its `body` after the overlap."""

    text: str
    body: str
    trail: tuple[str, ...]
    title: str  # of the document, as far as it has been read; empty when it has none


def chunks(blocks: Iterable[Block], limits: Limits) -> Iterator[Chunk]:
    """Cut a document of blocks. Memory: one chunk and one block."""
    packer = _Packer(limits)
    for block in blocks:
        if block.kind in ("heading", "front"):
            yield from packer.heading(block)
        else:
            yield from packer.text(block)
    yield from packer.end()


class _Run:
    """Texts in a row and their length together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.texts: list[str] = []
        self.length = 0
        self.is_blank = True

    def add(self, text: str) -> None:
        self.texts.append(text)
        self.length += self._limits.length(text)
        self.is_blank = self.is_blank and not text.strip()

    def taken(self) -> str:
        text = "".join(self.texts)
        self.texts, self.length, self.is_blank = [], 0, True
        return text


class _Packer:
    """Fills one chunk after the other. Headings wait for the text that they head."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._most = limits, limits.size - limits.overlap
        self._title, self._before = "", ""
        self._trail: list[tuple[int, str]] = []
        self._held = _Run(limits)  # the chunk, with the headings within it
        self._heads = _Run(limits)  # headings, and blank lines after them
        self._trails: list[tuple[str, ...]] = []  # of the texts in the chunk

    def heading(self, block: Block) -> Iterator[Chunk]:
        length = self._limits.length(block.text)
        if self._held.length >= max(self._limits.least, 1):
            yield from self._emit(section=True)
        if self._heads.length and self._heads.length + length > self._most:
            yield from self._settled()
            yield from self._emit(section=True)
        if block.level == 1 and not self._title:
            self._title = block.title
        if block.kind == "heading":
            self._trail = [*((level, title) for level, title in self._trail if level < block.level), (block.level, block.title)]
        if length > self._most:
            yield from self.text(Block(block.text))
        else:
            self._heads.add(block.text)

    def text(self, block: Block) -> Iterator[Chunk]:
        if not block.text.strip():
            (self._heads if self._heads.texts else self._held).add(block.text)
            return
        left, length = block.text, self._limits.length(block.text)
        while True:
            room = self._most - self._held.length - self._heads.length
            if length <= room:
                self._add(left)
                return
            if not self._held.is_blank or (self._held.texts and room < 1):
                yield from self._emit(section=bool(self._heads.texts))
            elif 4 * room < self._most and self._heads.texts:
                yield from self._settled()
                yield from self._emit(section=False)
            else:
                cut = self._limits.cut(left, max(room, 1), block.kind)
                self._add(left[:cut])
                left = left[cut:]
                length = self._limits.length(left)
                yield from self._emit(section=False)

    def end(self) -> Iterator[Chunk]:
        yield from self._settled()
        if self._held.texts:
            yield from self._emit(section=True)

    def _settled(self) -> Iterator[Chunk]:
        """Headings that no text follows join the chunk, or begin one where they do not fit."""
        if self._held.texts and self._held.length + self._heads.length > self._most:
            yield from self._emit(section=True)
        self._add("")

    def _add(self, text: str) -> None:
        for held in (self._heads.taken(), text):
            if held:
                self._held.add(held)
        self._trails.append(tuple(title for _, title in self._trail if title))

    def _emit(self, *, section: bool) -> Iterator[Chunk]:
        """What is held as a chunk. `section`: the next one begins a section, and shares no text with this one."""
        body = self._held.taken()
        yield Chunk(self._before + body, body, _common(self._trails), self._title)
        self._before = "" if section else self._limits.tail(body)
        self._trails = []


def _common(trails: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The headings that all of these trails begin with."""
    return tuple(titles[0] for titles in takewhile(lambda titles: len(set(titles)) == 1, zip(*trails)))
