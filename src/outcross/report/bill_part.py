"""The bill as a section of the report."""

from __future__ import annotations

from collections.abc import Iterator

from outcross.errors import StoreError
from outcross.report import numbers as n
from outcross.report.bill import Bill, money_of
from outcross.report.element import Child, clip, el
from outcross.report.parts import table
from outcross.report.read import Reading


def bill_part(reading: Reading) -> Iterator[Child]:
    """What each model was asked and what it cost, and how that compares with the forecast of the preview."""
    try:
        found = reading.bill
    except StoreError as error:
        yield el("h2", "Bill")
        yield el("p", clip(f"The bill cannot be read: {error}", 600))
        return
    if found is None:
        return
    yield el("h2", "Bill")
    yield el("p", " ".join(found.notes), class_="soft")
    yield table(["role", "model", "#requests", "#tokens read", "#tokens written", "#money"], [*_lines(found), _total(found)])
    if found.forecast:
        yield el("h3", "Held against the forecast")
        so_far = "" if found.complete else " The run is not over: its numbers are those so far."
        yield el("p", f"What the preview led to expect of the whole run.{so_far}", class_="soft")
        rows = [(item.name, *item.numbers) for item in found.forecast]
        yield table(["", "#expected", "#likely between", "#became" if found.complete else "#so far"], rows)


def _lines(found: Bill) -> Iterator[tuple[Child, ...]]:
    for line in found.lines:
        numbers = map(n.count, (line.requests, line.prompt_tokens, line.completion_tokens))
        yield (", ".join(line.roles) or "–", clip(n.short(line.model), 60), *numbers, money_of(line.money))


def _total(found: Bill) -> tuple[Child, ...]:
    numbers = map(n.count, (found.requests, found.prompt_tokens, found.completion_tokens))
    return tuple(el("b", cell) if cell else None for cell in ("total", "", *numbers, money_of(found.money)))
