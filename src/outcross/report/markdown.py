"""Pieces of Markdown: tables, and text that breaks neither a table nor YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

SHOWN = 30  # lines of a table


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    listed = list(rows)
    shown = [f"| {' | '.join(row)} |" for row in listed[:SHOWN]]
    more = [f"| … {len(listed) - SHOWN} more |{' |' * (len(heads) - 1)}"] if len(listed) > SHOWN else []
    return "\n".join([f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *shown, *more])


def cell(text: object) -> str:
    """Text that breaks no table."""
    return " ".join(str(text).replace("|", "\\|").split())


def quoted(text: object) -> str:
    """A YAML scalar."""
    return json.dumps(str(text), ensure_ascii=False)
