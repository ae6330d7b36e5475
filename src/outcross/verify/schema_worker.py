"""The process in which answers are checked against JSON schemas."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

from outcross.errors import ConfigError
from outcross.schema import Schema
from outcross.types import Completion
from outcross.verify.each import Finding
from outcross.verify.worker import Judge, serve

_schema = lru_cache(maxsize=256)(Schema)


def judge(schema: str, answer: str, *, alone: bool) -> Finding:
    """Whether the answer, or with `alone` false a value in it, is JSON of the schema."""
    try:
        wanted = _schema(schema)
    except (ConfigError, ValueError) as error:
        return "error", "the task's schema is no JSON schema", str(error)[:200]
    reading = wanted.reading(Completion(answer))
    if reading.problem:
        return "fail", "no JSON" if reading.problem.startswith("$: no JSON") else "not what the schema says", reading.problem[:200]
    if reading.how and alone:
        return "fail", "more than the JSON", reading.how
    return "pass", "", reading.how


def prepare(settings: Any) -> Judge:
    """The judge, with the JSON reader imported before the first deadline begins."""
    import jsonschema  # noqa: F401
    import referencing  # noqa: F401

    return partial(judge, alone=settings["alone"])


if __name__ == "__main__":
    serve(prepare)
