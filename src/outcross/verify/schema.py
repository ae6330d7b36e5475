"""Answers that must be JSON of a given schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

from outcross.errors import ConfigError, MissingExtra
from outcross.schema import Schema
from outcross.stages import Context, Stage
from outcross.types import Canary, Completion, Ground, Group, Task, Verdict
from outcross.verify.ahead import known
from outcross.verify.each import Finding
from outcross.verify.workers import Job, Workers, scored_by_workers

_LONGEST = 1_000_000  # characters of an answer


@dataclass(frozen=True)
class JsonSchema(Stage):
    """Passes an answer that is JSON of a given schema.

    schema: a JSON schema (in a run file: written out, or the path of a file), or a pydantic model (`module:Name`), whose validators
        count too; or column: the task's column that holds a JSON schema for each task.
    alone: whether the answer must be the JSON and nothing else. Otherwise the last value counts that the schema allows, in a code fence
        or among other text, and the evidence says where it stood. White space at both ends never matters.
    seconds: of CPU time an answer; patterns in schemas can take for ever on some answers, so schemas are checked in worker processes,
        and beyond this one is killed and the verdict is the *error* "timeout". The validators of a model have no deadline.

    JSON is read as the standard has it: a key given twice, NaN and Infinity are not JSON. An answer that was cut off fails, and so
    does one of more than a million characters. A task without the column is abstained on. Needs the extra `structured`.
    """

    schema: Schema | None = None
    column: str = ""
    alone: bool = False
    seconds: float = 2.0
    memory_mb: int = 512
    ground: ClassVar[Ground] = "exact"

    def __post_init__(self) -> None:
        if (self.schema is None) == (not self.column):
            raise ConfigError("json_schema: give either a `schema`, or the `column` of the tasks that holds one")
        if not 0 < self.seconds <= 3600:
            raise ConfigError(f"json_schema: seconds is {self.seconds}; it is more than 0 and at most 3600")
        if self.memory_mb < 128:
            raise ConfigError(f"json_schema: memory_mb is {self.memory_mb}; it is 128 or more")

    @property
    def canaries(self) -> tuple[Canary, ...]:
        """A few short values, with what the schema says of them here, and what is no JSON; with a `column`, under a schema of their own."""
        schema, texts = self.schema or Schema.of({"type": "integer"}), ("{}", "[]", "42", '"text"', "null", "{no JSON", "")
        expected: tuple[Verdict, ...] = tuple("fail" if schema.reading(Completion(text)).problem else "pass" for text in texts)
        columns = ((self.column, schema.text),) if self.column else ()
        return (Canary(Task("short values", "", columns=columns), texts, expected),)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        """Raises `MissingExtra`, before anything is read, when jsonschema is not installed."""
        if find_spec("jsonschema") is None:
            raise MissingExtra("jsonschema", "structured", "the verifier `json_schema`")
        job = Job("schema_worker", self.memory_mb * 2**20, self.seconds, {"alone": self.alone})
        return scored_by_workers(self, groups, job, self._ask)

    def _ask(self, workers: Workers, task: Task, text: str) -> Future[Finding]:
        schema = self.schema.text if self.schema else dict(task.columns).get(self.column, "")
        if not schema:
            return known(("abstain", "the task has no schema", ""))
        if len(text) > _LONGEST:
            return known(("fail", "the answer is too long", f"{len(text)} characters"))
        asked = workers.submit(schema, text)
        return _with_model(asked, self.schema, text) if self.schema and self.schema.model else asked


def _with_model(asked: Future[Finding], schema: Schema, text: str) -> Future[Finding]:
    """The finding of a worker and, where that passes, of the model's own validators, which only this process knows."""
    both: Future[Finding] = Future()

    def settle(done: Future[Finding]) -> None:
        try:
            finding = done.result()
            problem = schema.reading(Completion(text)).problem if finding[0] == "pass" else ""
            both.set_result(("fail", "not what the schema says", problem) if problem else finding)
        except Exception as error:  # the caller waits
            both.set_exception(error)

    asked.add_done_callback(settle)
    return both
