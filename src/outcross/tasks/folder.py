"""The documents in a folder: which there are, whether each can be read, and their lines or pages, streamed."""

from __future__ import annotations

import codecs
import difflib
import glob
import hashlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from outcross.errors import ConfigError, DataError, MissingExtra
from outcross.tasks.blocks import MOST

_KINDS: dict[str, Literal["markdown", "text", "pdf"]] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".pdf": "pdf",
}
_SHOWN = 10  # files that a message names


class File(NamedTuple):
    """A document: its path below the folder that was named, how it is read, and the BLAKE2b of its bytes."""

    name: str
    path: Path
    kind: Literal["markdown", "text", "pdf"]
    digest: str


def files_of(path: Path, skip: Sequence[str], encoding: str) -> list[File]:
    """The documents that a file, a folder or a pattern names, by name. Raises `DataError` naming all that cannot be read."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise ConfigError(f"documents: encoding is {encoding!r}, which Python does not know; utf-8, utf-16 and latin-1 are usual") from None
    found: list[File] = []
    bad: list[tuple[str, str]] = []
    for name, place, chosen in _named(path, skip):
        kind = _KINDS.get(place.suffix.lower(), "text" if chosen else None)
        stat = place.stat()
        if kind is None:
            problem, digest = f"its ending is none of {', '.join(_KINDS)}", ""
        else:
            problem, digest = _examined(str(place), kind, encoding, stat.st_size, stat.st_mtime_ns)
        if problem:
            bad.append((name, problem))
        elif kind is not None:
            found.append(File(name, place, kind, digest))
    if bad:
        listed = "; ".join(f"{name}: {problem}" for name, problem in bad[:_SHOWN])
        more = f"; and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
        raise DataError(
            f"documents: {len(bad):,} of {len(bad) + len(found):,} files of {path} cannot be read: {listed}{more}. Mend them, or leave them "
            f"out: skip: [{', '.join(repr(name) for name, _ in bad[:_SHOWN])}]"
        )
    if not found:
        raise DataError(f"documents: {path} names no files{' that are not skipped' if skip else ''}; known endings are {', '.join(_KINDS)}")
    return found


def lines(path: Path, encoding: str) -> Iterator[str]:
    """The lines of a text, with their ends as they are; one that is very long comes in pieces."""
    with path.open(encoding=_tolerant(encoding), newline="") as file:
        while line := file.readline(MOST):
            yield line


def pages(path: Path) -> Iterator[str]:
    """The text of each page of a PDF."""
    try:
        from pypdf import PdfReader
    except ModuleNotFoundError as error:
        raise MissingExtra("pypdf", "pdf", f"reading {path.name}") from error
    return (page.extract_text() for page in PdfReader(path).pages)


def _named(path: Path, skip: Sequence[str]) -> Iterator[tuple[str, Path, bool]]:
    """Name, place and whether its kind was chosen by naming it, of each file."""
    root, places = path, path.rglob("*")
    wild = next((index for index, part in enumerate(path.parts) if any(sign in part for sign in "*?[")), None)
    if wild is not None and not path.exists():
        root, pattern = Path(*path.parts[:wild]), str(Path(*path.parts[wild:]))
        places = root.glob(pattern)
    elif path.is_file():
        root, places = path.parent, path.parent.glob(glob.escape(path.name))
    elif not path.is_dir():
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "relative paths start at the run file's folder"
        raise DataError(f"documents: there is no file or folder {path}; {hint}")
    below = sorted((place.relative_to(root).as_posix(), place) for place in places if place.is_file())
    for name, place in below:
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if not hidden and not any(fnmatch(name, pattern) or fnmatch(place.name, pattern) for pattern in skip):
            yield name, place, wild is not None or place == path


@lru_cache(maxsize=1 << 16)
def _examined(name: str, kind: str, encoding: str, size: int, modified: int) -> tuple[str, str]:
    """What is wrong with a file, or nothing, and its BLAKE2b. Size and time of change make a changed file another one."""
    path = Path(name)
    made = hashlib.blake2b()
    decoder = codecs.getincrementaldecoder(encoding)()
    blank = True
    try:
        with path.open("rb") as file:
            start = file.read(4)
            file.seek(0)
            if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and "16" not in encoding:
                return "it is UTF-16; write it as UTF-8, or set encoding: utf-16", ""
            while block := file.read(1 << 20):
                made.update(block)
                if kind == "pdf":
                    continue
                text = decoder.decode(block)
                if "\0" in text:
                    return "it is binary (holds a null byte)", ""
                blank = blank and not text.strip("\ufeff \t\r\n")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        return f"it is not {encoding} ({error.reason}); convert it, or set `encoding`", ""
    except OSError as error:
        return f"it cannot be opened ({error.strerror})", ""
    if kind == "pdf":
        return _pdf_problem(path), made.hexdigest()
    return "it is empty" if blank else "", made.hexdigest()


def _pdf_problem(path: Path) -> str:
    try:
        found = any(page.strip() for page in pages(path))
    except MissingExtra:
        raise
    except Exception as error:  # pypdf raises whatever a damaged file provokes
        return f"it is no readable PDF ({error})"
    return "" if found else "it has no text (pages of pictures?)"


def _tolerant(encoding: str) -> str:
    """UTF-8 with or without a byte order mark."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
