"""Tasks and real examples from data files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from outcross.errors import ConfigError, DataError, did_you_mean
from outcross.provenance import ALGORITHMS, NO_RULE, Rule, judge_of
from outcross.tasks.rows import Row, content_digest, data_files, read
from outcross.text import digest, normalise, prompt_text
from outcross.types import NLL, Example, Loss, Message, Origin, Prompt, Task, content_hash, example_id

_SLOT = "{prompt}"
PAIRS = Loss("dpo", 0.1)
"""The loss of human comparisons; beta = 0.1 as in the DPO paper (arXiv:2305.18290, appendix B)."""


@dataclass(frozen=True)
class Record:
    """A row as Outcross reads it: number in its file, prompt, answer, the answer it was preferred to, further columns; and as the file has it."""

    number: int
    prompt: Prompt
    answer: str | None
    rejected: str | None
    columns: tuple[tuple[str, str], ...]
    row: Row


@dataclass(frozen=True)
class Files:
    """Tasks from a file: JSON lines, CSV or Parquet (compressed or not), or a folder written by `save_to_disk`.

    columns: which column of the file plays which part, for example `{"prompt": "question", "answer": "answer"}`. The parts are
        prompt, answer, rejected, id and subgroup; any other name is kept under that name for verifiers. Without it TRL's formats
        are recognised: prompt/completion, messages (the last assistant turn is the answer), prompt/chosen/rejected, text.
    answer_pattern: a regular expression that finds the answer in its column, for example `#### (.*)`: last match, first group.
    template: the prompt that is made from the file's, for example "Question: {prompt}\\nAnswer:".
    split: "train" and "held_out" are disjoint parts, decided by a hash of the prompt: `share` of all prompts are held out. None: all.
    offset, limit: which of the split's rows, counted from 0.

    Iterating streams the file and raises `DataError` for what is wrong with it, naming the row.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    answer_pattern: str = ""
    template: str = _SLOT
    split: Literal["train", "held_out"] | None = None
    share: float = 0.1
    offset: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        if _SLOT not in self.template:
            raise ConfigError(f"files: template is {self.template!r:.80}, without {_SLOT}; put {_SLOT} where the file's prompt belongs")
        if not 0 < self.share < 1 or self.offset < 0 or (self.limit is not None and self.limit < 1):
            raise ConfigError(
                f"files: share={self.share}, offset={self.offset}, limit={self.limit}; allowed are a share between 0 and 1, "
                "an offset of 0 or more and a limit of 1 or more"
            )
        if self.answer_pattern:
            try:
                re.compile(self.answer_pattern)
            except re.error as error:
                raise ConfigError(f"files: answer_pattern {self.answer_pattern!r} is not a regular expression: {error}") from None

    def identity(self) -> object:
        """What is read, not where it lies: the hash of the content with the settings."""
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("path", "rules")}
        return {"content": content_digest(Path(self.path)), **settings}

    def __iter__(self) -> Iterator[Task]:
        origin = self._origin
        for record in self.records():
            if not prompt_text(record.prompt):
                raise DataError(
                    f"{self.path}, row {record.number}: the prompt is empty, and a task must ask something; map a column to `prompt`"
                )
            given = dict(record.columns)
            identifier = given.pop("id", None) or content_hash("task", record.prompt, record.answer, record.number)
            subgroup = given.pop("subgroup", None)
            yield Task(identifier, record.prompt, record.answer, subgroup, origin, columns=tuple(given.items()))

    def records(self) -> Iterator[Record]:
        """The rows of the split within offset and limit. Raises `DataError` when there are none."""
        stop = None if self.limit is None else self.offset + self.limit
        count = 0
        for record in islice(filter(self._in_split, self._all()), self.offset, stop):
            count += 1
            yield record
        if not count:
            raise DataError(
                f"{self.path}: no row is left by split={self.split!r}, offset={self.offset}, limit={self.limit}; loosen one of them"
            )

    def _all(self) -> Iterator[Record]:
        reader = _Reader(self)
        for number, row in read(Path(self.path)):
            yield reader.record(number, row)

    def _in_split(self, record: Record) -> bool:
        if self.split is None:
            return True
        held_out = digest("split\x1f" + normalise(prompt_text(record.prompt))) < self.share * 2**64
        return held_out == (self.split == "held_out")

    @property
    def _origin(self) -> Origin:
        return Origin("unknown", "none", self._source)

    @cached_property
    def _source(self) -> str:
        return f"{Path(self.path).name}@blake2b:{content_digest(Path(self.path))[:32]}"


@dataclass(frozen=True)
class RealFiles(Files):
    """Real examples from a file, in the formats of `Files`. Comparisons (chosen and rejected) are learnt by the loss "dpo",
    all other rows by "nll".

    attested: who vouches that people wrote the data, and when it was collected; may name the licence. With it the rows are real.
    registered: the SHA-256 (64 hexadecimal digits) or BLAKE2b-512 (128) of a release whose origin is known. A file with that hash
        is proved real; one with another hash is refused. With neither, the rows are of unknown origin and do not count as real.
    rules: where single rows come from, by their columns, or the file by its hash or signature (`outcross.provenance`); the first that
        holds decides, and `registered` and `attested` speak of the rows that no rule knows.
    """

    attested: str = ""
    registered: str = ""
    rules: tuple[Rule, ...] = ()

    def identity(self) -> object:
        """As of `Files`, with the rules that there are."""
        found = super().identity()
        return {**found, "rules": self.rules} if self.rules and isinstance(found, dict) else found

    def __iter__(self) -> Iterator[Example]:  # type: ignore[override]
        whole, judge = self._origin, judge_of(self.rules, data_files(Path(self.path)))
        for record in self.records():
            found = judge(record.row)
            origin = whole if found == NO_RULE else Origin(found.kind, found.proof, self._source, note=found.rule)
            if not record.answer:
                raise DataError(f"{self.path}, row {record.number}: there is no answer to learn; map a column to `answer`")
            loss = NLL if record.rejected is None else PAIRS
            identifier = example_id(record.prompt, record.answer, loss, origin, record.number)
            subgroup = dict(record.columns).get("subgroup")
            yield Example(identifier, record.prompt, record.answer, loss, rejected=record.rejected, origin=origin, subgroup=subgroup)

    @property
    def _origin(self) -> Origin:
        if self.registered:
            self._check_registered()
            return Origin("real", "proved", self._source, note=self.attested)
        if self.attested:
            return Origin("real", "attested", self._source, note=self.attested)
        return Origin("unknown", "none", self._source)

    def _check_registered(self) -> None:
        algorithm = ALGORITHMS.get(len(self.registered))
        if algorithm is None:
            raise ConfigError(f"real_files: registered has {len(self.registered)} digits; a SHA-256 has 64 and a BLAKE2b-512 has 128")
        found = content_digest(Path(self.path), algorithm)
        if found != self.registered.lower():
            raise DataError(
                f"{self.path} has the {algorithm} {found}, not the registered {self.registered}; it is not that release: "
                "get it again, or leave out `registered`"
            )


class _Reader:
    """Rows of one file as records. What the first row shows decides the format."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._parts: Mapping[str, str] = {}

    def record(self, number: int, row: Row) -> Record:
        if not self._parts:
            self._parts = self._files.columns or self._recognised(row)
        values = {part: self._value(number, row, column) for part, column in self._parts.items()}
        prompt: Prompt
        answer: str | None
        if "messages" in values:
            prompt, answer = self._conversation(number, values.pop("messages"))
        else:
            prompt = self._prompt(number, values.pop("prompt", ""))
            answer = self._text(number, "answer", values.pop("answer", None))
        rejected = self._text(number, "rejected", values.pop("rejected", None))
        texts = ((part, self._text(number, part, value)) for part, value in values.items())
        columns = tuple((part, value) for part, value in texts if value is not None)
        return Record(number, self._filled(number, prompt), self._found(number, answer), rejected, columns, row)

    def _recognised(self, row: Row) -> Mapping[str, str]:
        """The parts of TRL's formats, by the columns that are there."""
        for parts in _FORMATS:
            if set(parts.values()) <= row.keys():
                return parts
        raise DataError(
            f"{self._files.path}: its columns {', '.join(map(str, row))} are none of TRL's formats (prompt and completion; messages; prompt, chosen "
            'and rejected; text; prompt); say which is which, for example columns={"prompt": "question", "answer": "answer"}'
        )

    def _value(self, number: int, row: Row, column: str) -> Any:
        try:
            return row[column]
        except KeyError:
            raise DataError(
                f"{self._files.path}, row {number}: there is no column {column!r}; {did_you_mean(column, map(str, row))}"
            ) from None

    def _wrong(self, number: int, part: str, value: object, allowed: str) -> DataError:
        column = self._parts.get(part, part)
        return DataError(
            f"{self._files.path}, row {number}: column {column!r} holds {value!r:.60} of type {type(value).__name__}; it must be {allowed}"
        )

    def _prompt(self, number: int, value: Any) -> Prompt:
        if isinstance(value, str):
            return value
        return self._messages(number, "prompt", value, "text or a list of messages")

    def _messages(self, number: int, part: str, value: Any, allowed: str) -> tuple[Message, ...]:
        try:
            found = tuple(Message(item["role"], item["content"]) for item in value)
        except (TypeError, KeyError):
            raise self._wrong(number, part, value, allowed) from None
        if not found or not all(isinstance(text, str) for item in found for text in (item.role, item.content)):
            raise self._wrong(number, part, value, f"{allowed}, each with a role and a content of text")
        return found

    def _conversation(self, number: int, value: Any) -> tuple[Prompt, str]:
        found = self._messages(number, "messages", value, "a list of messages")
        if len(found) < 2 or found[-1].role != "assistant":
            raise self._wrong(number, "messages", value, "a conversation that ends with a turn of the assistant")
        return found[:-1], found[-1].content

    def _text(self, number: int, part: str, value: Any) -> str | None:
        """Text as it is, whole numbers as their digits, a reply in messages as its content; None stays None."""
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if part in ("answer", "rejected") and isinstance(value, list):
            return self._messages(number, part, value, "text or a list with the assistant's message")[-1].content
        raise self._wrong(number, part, value, "text or a whole number")

    def _filled(self, number: int, prompt: Prompt) -> Prompt:
        if self._files.template == _SLOT:
            return prompt
        if not isinstance(prompt, str):
            raise DataError(
                f"{self._files.path}, row {number}: the prompt is a conversation, and a template is for texts; leave out `template`"
            )
        return self._files.template.replace(_SLOT, prompt)

    def _found(self, number: int, answer: str | None) -> str | None:
        if not self._files.answer_pattern or answer is None:
            return answer
        matches = list(re.finditer(self._files.answer_pattern, answer))
        if not matches:
            raise DataError(
                f"{self._files.path}, row {number}: answer_pattern {self._files.answer_pattern!r} finds nothing in the answer …{answer[-60:]!r}"
            )
        match = matches[-1]
        return (match.group(1) if match.re.groups else match.group()).strip()


_FORMATS: tuple[Mapping[str, str], ...] = (
    {"prompt": "prompt", "answer": "chosen", "rejected": "rejected"},
    {"prompt": "prompt", "answer": "completion"},
    {"messages": "messages"},
    {"answer": "text"},
    {"prompt": "prompt", "answer": "answer"},
    {"prompt": "prompt"},
)
