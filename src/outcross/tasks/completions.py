"""Completions that somebody has already, with what is known of who wrote them; and their prompts as tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from outcross.errors import DataError
from outcross.tasks.files import Files, Record, _Reader
from outcross.tasks.rows import Row, read
from outcross.text import prompt_text
from outcross.types import NLL, Example, Origin, Task, content_hash, example_id

_ANSWERS = ("completion", "completions", "response", "responses", "answer", "output", "generation", "generations")
_KNOWN: Mapping[str, tuple[str, ...]] = {
    "id": ("task_id", "id"),
    "teacher": ("teacher", "model", "generator"),
    "licence": ("licence", "license"),
    "collected": ("collected", "date", "created"),
    "depth": ("depth",),
    "subgroup": ("subgroup",),
}
"""Parts beside prompt and answer, and the columns that they are looked for in."""


@dataclass(frozen=True)
class Completions(Files):
    """Completions from a file in the formats of `Files`, for the generator `recorded`.

    A row holds a prompt with one completion or a list of them, or messages. `columns` may name, beside the parts of `Files`, columns
    for teacher, licence, collected and depth; `id` is the identifier of the task that was answered. Without `columns`, the usual
    names are recognised.

    teacher, licence, collected: the model that wrote the completions, under which licence, and when, for rows that do not say so.
    depth: generations of model-written text behind them, for rows that do not say so: 1 for a model taught by people's text.

    A row whose teacher is named is synthetic, with the teacher as its source; any other is of unknown origin.
    """

    teacher: str = ""
    licence: str = ""
    collected: str = ""
    depth: int = 1

    def __iter__(self) -> Iterator[Example]:  # type: ignore[override]
        for record in self.records():
            if record.answer is None:
                raise DataError(f"{self.path}, row {record.number}: there is no completion; map a column to `answer`")
            known = dict(record.columns)
            origin = self._made(record, known)
            identifier = example_id(record.prompt, record.answer, NLL, origin, record.number)
            yield Example(identifier, record.prompt, record.answer, origin=origin, subgroup=known.get("subgroup"))

    def _made(self, record: Record, known: Mapping[str, str]) -> Origin:
        teacher = known.get("teacher") or self.teacher
        depth = known.get("depth", str(self.depth))
        if not depth.isdecimal():
            raise DataError(f"{self.path}, row {record.number}: depth is {depth!r:.40}; it must be a whole number, 0 or more")
        said = {"licence": known.get("licence") or self.licence, "collected": known.get("collected") or self.collected}
        note = "; ".join([f"{name} {value}" for name, value in said.items() if value] + ([f"from {self._source}"] if teacher else []))
        parents = (known["id"],) if "id" in known else ()
        return Origin("synthetic" if teacher else "unknown", "none", teacher or self._source, int(depth), "", parents, note=note)

    def _all(self) -> Iterator[Record]:
        reader: _Reader | None = None
        parts: Mapping[str, str] = {}
        for number, row in read(Path(self.path)):
            if reader is None:
                parts = self._parts(row)
                reader = _Reader(dataclasses.replace(self, columns=parts))
            whole = {**dict.fromkeys(parts.values()), **row}  # rows of one file may lack what others say of themselves
            for single in _singly(whole, parts.get("answer", "")):
                yield reader.record(number, single)

    def _parts(self, row: Row) -> Mapping[str, str]:
        """Which column plays which part, from the first row where it is not given."""
        found = dict(self.columns)
        if not {"prompt", "answer", "messages"} & found.keys():
            if "messages" in row:
                found["messages"] = "messages"
            elif "prompt" in row and (answer := next((name for name in _ANSWERS if name in row), "")):
                found |= {"prompt": "prompt", "answer": answer}
            else:
                raise DataError(
                    f"{self.path}: of its columns {', '.join(map(str, row))} none is known to hold completions; say which, for example "
                    'columns={"prompt": "question", "answer": "response", "teacher": "model"}'
                )
        for part, names in _KNOWN.items():
            column = next((name for name in names if name in row and name not in found.values()), None)
            if part not in found and column and not self.columns:
                found[part] = column
        return found


def _singly(row: Row, answer: str) -> Iterator[Row]:
    """The row once for each of its completions."""
    said = row.get(answer)
    if isinstance(said, list) and all(isinstance(item, str) for item in said):
        yield from ({**row, answer: item} for item in said)
    else:
        yield row


@dataclass(frozen=True)
class PromptsOf:
    """The prompts of completions as tasks, each once, in the order of their first completion: nothing is left out when
    `recorded` adopts the same completions.

    A task is called as its completions say, else by its content. Memory: about 100 bytes a prompt.
    """

    completions: Iterable[Example]

    def __iter__(self) -> Iterator[Task]:
        seen: set[str] = set()
        for example in self.completions:
            if not prompt_text(example.prompt):
                raise DataError("prompts_of: a completion has an empty prompt, and a task must ask something; leave it out")
            for identifier in example.origin.parents or (content_hash("task", example.prompt),):
                if identifier not in seen:
                    seen.add(identifier)
                    yield Task(identifier, example.prompt, subgroup=example.subgroup)
