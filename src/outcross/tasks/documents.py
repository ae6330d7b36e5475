"""Prompts grounded in documents: a folder of text, Markdown or PDF files, in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from outcross.errors import ConfigError, DataError
from outcross.tasks.blocks import Block, markdown_blocks, page_blocks, plain_blocks
from outcross.tasks.chunks import Limits, chunks
from outcross.tasks.folder import File, files_of, lines, pages
from outcross.tasks.seeds import Seed
from outcross.tasks.templates import Template, check_names
from outcross.text import digest
from outcross.types import Origin, Task, content_hash

_COLUMNS = ("path", "title", "headings", "position", "chunk_id")


@dataclass(frozen=True)
class Documents:
    """One task per chunk of the documents that `path` names: a file, a folder with all in it, or a pattern such as `docs/**/*.md`.

    Markdown (.md, .markdown) is cut at its headings first, and fenced code is kept whole where it fits; PDF (needs pypdf) at its pages; all
    else is plain text. A chunk's identifier is the hash of its text; the task names it as its parent, and the document with its hash as its
    source. `path`, `title`, `headings` ("Guide > Install"), `position` (from 1) and `chunk_id` are columns of the task.

    prompt: a Jinja template of `chunk` and these columns.
    size, unit, overlap, least: a chunk has at most `size` characters or words; `overlap` of them are the end of the chunk before, within a
        section; sections shorter than `least` are joined with what follows.
    skip: patterns of files to leave out. Files that begin with a dot are. Any other that cannot be read is an error that names it.
    split: documents whose path hashes into `share` are held out: all chunks of one lie on the same side. None: all.
    attested: who vouches that people wrote the documents, and when; may name the licence. Without it their origin is unknown.

    As `rows` of `compose`, chunks meet attributes, and templates see `chunk` and the columns. Iterating streams.
    """

    path: Path
    prompt: str = "{{ chunk }}"
    size: int = 2000
    unit: Literal["characters", "words"] = "characters"
    overlap: int = 0
    least: int = 0
    skip: tuple[str, ...] = ()
    encoding: str = "utf-8"
    split: Literal["train", "held_out"] | None = None
    share: float = 0.1
    attested: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or self.split not in (None, "train", "held_out"):
            raise ConfigError(
                f"documents: split={self.split!r}, share={self.share}; allowed are train or held_out, and a share between 0 and 1"
            )
        _ = self._limits
        check_names(self._template, ("chunk", *_COLUMNS))

    def identity(self) -> object:
        """What is read, not where it lies: names and hashes of the files with the settings."""
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "path"}
        return {"files": [[file.name, file.digest] for file in self._files()], **settings}

    def __iter__(self) -> Iterator[Task]:
        template = self._template
        for seed in self.seeds():
            prompt = template(seed.values)
            if not prompt.strip():
                raise DataError(f"documents: {seed.place}: the prompt is empty, and a task must ask something")
            identifier = content_hash("documents", seed.columns, prompt)
            origin = seed.origin
            source = Origin(origin.kind, origin.proof, origin.source, parents=(seed.id,), note=origin.note)
            yield Task(identifier, prompt, origin=source, columns=seed.columns)

    def seeds(self) -> Iterator[Seed]:
        """The chunks with their columns, for templates. Raises `DataError` naming files that cannot be read."""
        empty = True
        for file in self._files():
            for seed in self._chunks(file):
                empty = False
                yield seed
        if empty:
            raise DataError(f"documents: {self.path}: no document is left by split={self.split!r}, share={self.share}; loosen one of them")

    def _chunks(self, file: File) -> Iterator[Seed]:
        kind, proof = ("real", "attested") if self.attested else ("unknown", "none")
        origin = Origin(kind, proof, f"{file.name}@blake2b:{file.digest[:32]}", note=self.attested)  # type: ignore[arg-type]
        position = 0
        for chunk in chunks(self._blocks(file), self._limits):
            text = chunk.text.strip()
            if not text:
                continue
            position += 1
            identifier = content_hash("chunk", text)
            title = chunk.title or file.path.stem
            named = (file.name, title, " > ".join(chunk.trail), str(position), identifier)
            columns = tuple(zip(_COLUMNS, named, strict=True))
            values = {**dict(columns), "position": position, "chunk": text}
            yield Seed(identifier, f"chunk {position} of {file.name}", values, columns, origin)

    def _blocks(self, file: File) -> Iterator[Block]:
        if file.kind == "pdf":
            return page_blocks(pages(file.path))
        read = lines(file.path, self.encoding)
        return markdown_blocks(read) if file.kind == "markdown" else plain_blocks(read)

    def _files(self) -> Iterator[File]:
        for file in files_of(Path(self.path), self.skip, self.encoding):
            held_out = digest(f"split\x1f{file.name}") < self.share * 2**64
            if self.split is None or held_out == (self.split == "held_out"):
                yield file

    @property
    def _limits(self) -> Limits:
        return Limits(self.size, self.unit, self.overlap, self.least)

    @property
    def _template(self) -> Template:
        return Template(self.prompt, "documents: prompt")
