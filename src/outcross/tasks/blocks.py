"""Text and Markdown as a stream of blocks: headings, fenced code, and paragraphs with the blank lines that follow them.

The texts of all blocks, one after the other, are the document. No block is longer than `MOST` characters, so that a document of
any size streams: a longer paragraph or fence comes in parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Literal, NamedTuple

MOST = 1 << 16
"""Characters of the longest block, and of the longest piece of a line that is read at once."""

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?\s*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_SETTING = re.compile(r"[\w-]+\s*:")
_TITLE = re.compile(r"^title\s*:\s*[\"']?(.*?)[\"']?\s*$", re.MULTILINE)


class Block(NamedTuple):
    """A piece of a document. `level` and `title` are a heading's (1 to 6); front matter gives its `title`."""

    text: str
    kind: Literal["text", "fence", "heading", "front"] = "text"
    level: int = 0
    title: str = ""


def plain_blocks(lines: Iterable[str]) -> Iterator[Block]:
    """The paragraphs of a text without mark-up."""
    held = _Held()
    for line in lines:
        if held.is_full(line):
            yield from held.taken()
        held.add(line)
    yield from held.taken()


def page_blocks(pages: Iterable[str]) -> Iterator[Block]:
    """The pages of a document, each under a heading `page 1` that has no text."""
    for number, page in enumerate(pages, 1):
        yield Block("", "heading", 2, f"page {number}")
        yield from plain_blocks(f"{page}\n".splitlines(keepends=True))


def markdown_blocks(lines: Iterable[str]) -> Iterator[Block]:
    """The blocks of a Markdown text: headings in both of CommonMark's styles, fences, and YAML front matter."""
    lines = iter(lines)
    head = list(islice(lines, 2))
    if len(head) == 2 and head[0].strip() == "---" and _SETTING.match(head[1]):
        yield _front(head, lines)
        head = []
    lines = chain(head, lines)
    held = _Held()
    for line in lines:
        fence, heading = _opening(line), _HEADING.match(line)
        if fence or heading or held.is_full(line):
            yield from held.taken()
        if fence:
            yield from _fenced(line, fence, lines)
        elif heading:
            yield Block(line, "heading", len(heading[1]), (heading[2] or "").strip())
        elif len(held.lines) == 1 and held.lines[0].strip() and _UNDERLINE.match(line):
            (above,) = held.taken()
            yield Block(above.text + line, "heading", 1 if "=" in line else 2, above.text.strip())
        else:
            held.add(line)
    yield from held.taken()


class _Held:
    """The lines of the paragraph that is being read."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._size = 0

    def add(self, line: str) -> None:
        self.lines.append(line)
        self._size += len(line)

    def is_full(self, line: str) -> bool:
        """Whether the paragraph ends before this line."""
        return bool(self.lines) and (self._size + len(line) > MOST or (not self.lines[-1].strip() and bool(line.strip())))

    def taken(self) -> Iterator[Block]:
        if self.lines:
            text = "".join(self.lines)
            self.lines, self._size = [], 0
            yield Block(text)


def _front(head: list[str], lines: Iterator[str]) -> Block:
    found, size = head, 0
    for line in lines:
        found.append(line)
        size += len(line)
        if line.strip() in ("---", "...") or size > MOST:
            break
    text = "".join(found)
    title = _TITLE.search(text)
    return Block(text, "front", 1, title[1] if title else "")


def _opening(line: str) -> str:
    """The marker of a fence that opens in this line; empty when none does."""
    found = _FENCE.match(line)
    return found[1] if found and not ("`" in found[1] and "`" in found[2]) else ""


def _fenced(first: str, marker: str, lines: Iterator[str]) -> Iterator[Block]:
    closing = re.compile(rf" {{0,3}}{marker[0]}{{{len(marker)},}}\s*$")
    held, size = [first], len(first)
    for line in lines:
        if size + len(line) > MOST:
            yield Block("".join(held), "fence")
            held, size = [], 0
        held.append(line)
        size += len(line)
        if closing.match(line):
            break
    yield Block("".join(held), "fence")
