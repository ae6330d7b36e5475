"""Calling reward functions that others wrote: what they raise and return, as scores."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from outcross.recipe import fingerprint
from outcross.types import Group, Sample, Score, Task
from outcross.verify.each import UNFINISHED, Labelled, with_score

Call = Callable[[], Any]


@dataclass(frozen=True)
class Noted:
    """A value, with what else the function said about the answer."""

    value: Any
    more: Mapping[str, Any]


def function_name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def function_version(function: Any) -> str:
    """Follows the function's source: a changed function is another version, which a recall can tell apart."""
    return hashlib.blake2b(fingerprint(function).encode(), digest_size=4).hexdigest()


def scored_by_values(
    verifier: Labelled, groups: Iterable[Group], passes_at: float, values: Callable[[Task, Sequence[Sample]], Sequence[Any]]
) -> Iterator[Group]:
    """Add the score of each value that `values(task, samples)` gives for the whole answers of a group.

    A value of `passes_at` or more passes; None abstains; an exception, NaN, infinity and another type are *error* verdicts. Answers that
    were cut off are not asked about and fail.
    """
    name, version = verifier.name, verifier.version
    verdict, reason, _ = UNFINISHED
    cut = Score(name, version, verdict, 0.0, reason)
    for group in groups:
        judged = [sample for sample in group.samples if not sample.error and sample.turns[-1].completion.finished]
        found = values(group.task, judged) if judged else ()
        scores = {sample.id: _score(value, passes_at, name, version) for sample, value in zip(judged, found, strict=True)}
        yield Group(
            group.task, tuple(sample if sample.error else with_score(sample, scores.get(sample.id, cut)) for sample in group.samples)
        )


def _score(value: Any, passes_at: float, name: str, version: str) -> Score:
    evidence = ""
    if isinstance(value, Noted):
        value, evidence = value.value, json.dumps(value.more, default=str, ensure_ascii=False)[:200] if value.more else ""
    if isinstance(value, Exception):
        return Score(name, version, "error", None, f"{type(value).__name__}: {value}"[:200])
    if value is None:
        return Score(name, version, "abstain", None, "", evidence)
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):  # a tensor of several numbers raises the last
        return Score(name, version, "error", None, f"it returned {value!r:.60}, which is not a number")
    if not math.isfinite(number):
        return Score(name, version, "error", None, f"it returned {number}, which is not a finite number")
    return Score(name, version, "pass" if number >= passes_at else "fail", number, "", evidence)


def every(values: Any, size: int) -> list[Any]:
    """The values of a function that judges `size` answers at once; an exception, or a wrong form, counts for all of them."""
    if isinstance(values, Exception):
        return [values] * size
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, list | tuple):
        return [TypeError(f"it returned a {type(values).__name__}, not a list of one number per completion")] * size
    if len(values) != size:
        return [ValueError(f"it returned {len(values)} values for {size} completions")] * size
    return list(values)


def called(calls: Sequence[Call]) -> list[Any]:
    """What each call gives, or the exception it raised. Calls of async functions run together, also under a running event loop."""
    found: list[Any] = [_tried(call) for call in calls]
    waiting = [index for index, value in enumerate(found) if inspect.isawaitable(value)]
    if waiting:
        answers = _awaited([found[index] for index in waiting])
        for index, answer in zip(waiting, answers, strict=True):
            found[index] = answer
    return found


def _tried(call: Call) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def _awaited(waiting: Sequence[Awaitable[Any]]) -> list[Any]:
    async def together() -> list[Any]:
        return await asyncio.gather(*waiting, return_exceptions=True)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(together())
    with ThreadPoolExecutor(1) as thread:  # a notebook's loop is busy with its caller
        return thread.submit(asyncio.run, together()).result()


def named_by(function: Callable[..., Any]) -> set[str] | None:
    """The parameters that a function names; None when it takes any."""
    parameters = inspect.signature(function).parameters.values()
    if any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters):
        return None
    return {item.name for item in parameters}
