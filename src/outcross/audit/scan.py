"""One pass over a file: the checks that look at every row, the shelf that near duplicates are found on, and a random sample of the texts.

The calling process reads and shelves, others look at the rows. Memory: 12 bytes and the band keys per row, what was found, the sample, and
some thousand rows on their way.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from outcross.audit.documents import Document, mapped, parts_of, reader
from outcross.audit.faults import faults_of, masker
from outcross.curate.minhash import Bands
from outcross.curate.overlap import OverlapIndex
from outcross.curate.shelf import Shelf, Writer
from outcross.provenance import Finding as Origin
from outcross.provenance import Rule, judge_of
from outcross.tasks.rows import data_files, read
from outcross.text import digest, normalise

Marks = dict[str, dict[int, str]]
"""Kind → row (from 0) → what was found."""

SIMILAR, GRAM = 0.8, 5  # Lee et al. 2021, as in `near_dedup`
CONTAMINATED = 0.5  # Phi-4's r
_BATCH = 1024
_ALONE = 20_000  # rows up to which starting processes costs more than it saves
_SAMPLED = 20_000
NO_GROUP = "(no value)"
_SOURCES = ("source", "dataset", "subset", "origin", "config")


@dataclass(frozen=True)
class Plan:
    """What to look for. named: part → column; group: a column; rules: of origin; mask: kinds that are masked before anything is looked at."""

    named: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    rules: tuple[Rule, ...] = ()
    mask: tuple[str, ...] = ()
    faults: bool = True
    seed: int = 0
    workers: int = 0  # 0: all cores but one


@dataclass
class Scan:
    """What a pass found. hashes: uint64 (rows,) of the normalised texts; sample: (row, document) of rows drawn at random."""

    path: Path
    parts: Mapping[str, str]
    others: tuple[str, ...]  # columns that were not looked at
    shelf: Shelf
    hashes: Any
    words: Any
    characters: int
    marks: Marks
    sample: list[tuple[int, Document]]
    groups: Counter[str]
    sources: Counter[str]
    origins: Counter[Origin]
    depths: Counter[int]

    @property
    def rows(self) -> int:
        return len(self.words)


def scan(path: Path, folder: Path, plan: Plan, index: OverlapIndex | None = None, names: Sequence[str] = ()) -> Scan:
    """Read `path` once; the shelf goes to `folder`. `index` with the `names` of its items: what rows must not stand in.

    Raises `DataError` for a file that is missing, empty or damaged, naming the row, or without a text column.
    """
    pass_ = _Pass(path, plan)
    with ExitStack() as stack:
        writer = stack.enter_context(Writer(folder, "word", GRAM, Bands.at(SIMILAR)))
        look = _Looker(plan, index, tuple(names))
        for batch, (found, hashes, words, characters) in _looked_at(look, pass_.batches(), plan, stack):
            pass_.note(batch, found, hashes, words, characters)
            for document in batch:
                writer.add("", _answers(document), document.prompt)
    return pass_.done(Shelf(folder))


def _answers(document: Document) -> str:
    """What is compared: both answers of a comparison; a text that only asks is compared as a text."""
    return "\n".join(filter(None, (document.answer, document.rejected)))


Looked = tuple[list[tuple[int, str, str]], list[int], list[int], int]


class _Looker:
    """What the other processes do with some documents."""

    def __init__(self, plan: Plan, index: OverlapIndex | None, names: tuple[str, ...]) -> None:
        self._faults, self._index, self._names = plan.faults, index, names

    def __call__(self, batch: Sequence[Document]) -> Looked:
        found: list[tuple[int, str, str]] = []
        if self._faults:
            found += [(place, kind, what) for place, document in enumerate(batch) for kind, what in faults_of(document)]
        if self._index is not None:
            found += self._contaminated(batch, self._index)
        hashes = [digest(normalise("\x1f".join((item.prompt, item.answer, item.rejected)))) for item in batch]
        words = [sum(len(text.split()) for text in item.texts) for item in batch]
        return found, hashes, words, sum(len(text) for item in batch for text in item.texts)

    def _contaminated(self, batch: Sequence[Document], index: OverlapIndex) -> Iterator[tuple[int, str, str]]:
        texts = [(place, text) for place, document in enumerate(batch) for text in document.texts]
        for (place, _), overlap in zip(texts, index.of([text for _, text in texts]), strict=True):
            if overlap.item >= 0:
                yield place, "contamination", f"“{_cut(overlap.passage)}” stands in {self._names[overlap.item]}"
            elif overlap.ratio >= CONTAMINATED:
                shared = f"{overlap.ratio:.0%} of the 7-grams stand in {self._names[overlap.nearest]}"
                yield place, "contamination", f"{shared}, the first “{overlap.shared[0]}”"


def _cut(passage: str, limit: int = 30) -> str:
    spoken = passage.split(" ")
    return passage if len(spoken) <= limit else " ".join([*spoken[:limit], "…"])


_own: list[_Looker] = []  # of a process that looks


def _begin(looker: _Looker) -> None:
    _own[:] = [looker]


def _look(batch: Sequence[Document]) -> Looked:
    return _own[0](batch)


def _looked_at(look: _Looker, batches: Iterator[list[Document]], plan: Plan, stack: ExitStack) -> Iterator[tuple[list[Document], Looked]]:
    """Each batch with what was found in it, in order. A short file is looked at here, a long one by other processes."""
    first = list(islice(batches, _ALONE // _BATCH + 1))
    rest = next(batches, None) if len(first) > _ALONE // _BATCH else None
    if rest is None:
        yield from ((batch, look(batch)) for batch in first)
        return
    workers = plan.workers or max(1, (os.cpu_count() or 2) - 1)
    start = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    pool = stack.enter_context(ProcessPoolExecutor(workers, multiprocessing.get_context(start), initializer=_begin, initargs=(look,)))
    waiting: deque[Any] = deque()
    for batch in chain(first, [rest], batches):
        waiting.append((batch, pool.submit(_look, batch)))
        if len(waiting) > 8 * workers:
            ready, answer = waiting.popleft()
            yield ready, answer.result()
    yield from ((ready, answer.result()) for ready, answer in waiting)


class _Pass:
    """Counts while a file goes by."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self._path, self._plan = path, plan
        self._judge = judge_of(plan.rules, data_files(path))
        self._rng = random.Random(plan.seed)
        self._parts: dict[str, str] = {}
        self._others: tuple[str, ...] = ()
        self._sources: tuple[str, ...] = ()
        self._hashes: list[Any] = []
        self._words: list[Any] = []
        self._rows = self._characters = 0
        self._marks: Marks = {}
        self._sample: list[tuple[int, Document]] = []
        self._counts: tuple[Counter[str], Counter[str], Counter[Origin], Counter[int]] = (Counter(), Counter(), Counter(), Counter())

    def batches(self) -> Iterator[list[Document]]:
        rows = read(self._path)
        first = next(rows)
        self._parts = parts_of(self._path, first[1], self._plan.named)
        if self._plan.group and self._plan.group not in first[1]:
            self._parts = parts_of(self._path, first[1], {**self._plan.named, "answer": self._plan.group})  # raises, naming the columns
        self._sources = tuple(name for name in _SOURCES if isinstance(first[1].get(name), str))[:1]
        self._others = tuple(name for name in first[1] if name not in (*self._parts.values(), self._plan.group, "outcross"))
        document, change = reader(self._parts), masker(self._plan.mask) if self._plan.mask else None
        batch: list[Document] = []
        for _, row in chain([first], rows):
            self._compose(row)
            one = document(mapped(row, self._parts, change) if change else row)
            batch.append(one)
            if len(batch) == _BATCH:
                yield batch
                batch = []
        yield batch

    def _compose(self, row: Mapping[str, Any]) -> None:
        groups, sources, origins, depths = self._counts
        if self._plan.group:
            group = row.get(self._plan.group)
            groups[NO_GROUP if group is None else str(group)] += 1
        for name in self._sources:
            sources[str(row.get(name))] += 1
        lineage = row.get("outcross")
        if isinstance(lineage, dict) and "kind" in lineage:
            depths[int(lineage.get("depth") or 0)] += 1
            origins[Origin(lineage["kind"], lineage.get("proof") or "none", "lineage column")] += 1
        else:
            origins[self._judge(row)] += 1

    def note(
        self, batch: Sequence[Document], found: Iterable[tuple[int, str, str]], hashes: Sequence[int], words: Sequence[int], characters: int
    ) -> None:
        for place, kind, what in found:
            self._marks.setdefault(kind, {}).setdefault(self._rows + place, what)
        self._hashes.append(np.array(hashes, np.uint64))
        self._words.append(np.array(words, np.int32))
        self._characters += characters
        for row, document in enumerate(batch, self._rows):
            if len(self._sample) < _SAMPLED:
                self._sample.append((row, document))
            elif (place := int(self._rng.random() * (row + 1))) < _SAMPLED:
                self._sample[place] = (row, document)
        self._rows += len(batch)

    def done(self, shelf: Shelf) -> Scan:
        hashes, words = np.concatenate(self._hashes), np.concatenate(self._words)
        sample = sorted(self._sample, key=lambda item: item[0])
        return Scan(self._path, self._parts, self._others, shelf, hashes, words, self._characters, self._marks, sample, *self._counts)


def indexed(paths: Collection[Path], named: Mapping[str, str]) -> tuple[OverlapIndex, list[str]]:
    """The items of evaluation sets, prompts and answers that are long enough to be told apart, and their names. Raises as `scan`."""
    names: list[str] = []

    def items() -> Iterator[str]:
        for path in paths:
            document: Callable[[Mapping[str, Any]], Document] | None = None
            for number, row in read(path):
                if document is None:
                    document = reader(parts_of(path, row, named if set(named.values()) <= row.keys() else {}))
                found = document(row)
                for text in found.texts:
                    if text == found.prompt or not found.prompt or len(text.split()) >= 13:
                        names.append(f"{path.name}, row {number}")
                        yield text

    return OverlapIndex(items()), names
