"""What to keep of a set: the rows that an audit finds nothing to repair in, with passages masked.

Masking comes first, so that rows which only differ in a secret are seen as the duplicates they become. Then rows with a fault of their own go,
and only what is left is compared: a row is never dropped as the copy of one that is dropped too. So cleaning a cleaned set drops nothing.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from outcross.audit.copies import copies
from outcross.audit.examine import FORMAT, Question, scan_real
from outcross.audit.kinds import KINDS, ROW_KINDS
from outcross.audit.scan import Marks, Scan, indexed, scan
from outcross.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Cleaning:
    """What to do with each row. reasons: row (from 0) → kind and what was found, of the rows that go; mask: kinds that are masked;
    parts: part → column, of the set."""

    rows: int
    reasons: Mapping[int, tuple[str, str]]
    mask: tuple[str, ...]
    parts: Mapping[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """Rows that go, by kind."""
        found = Counter(kind for kind, _ in self.reasons.values())
        return {kind: found[kind] for kind in ROW_KINDS if found[kind]}


def kinds_of(only: Collection[str], skip: Collection[str]) -> tuple[str, ...]:
    """The kinds that are repaired. Raises `ConfigError` for an unknown one, or when none is left."""
    for name in (*only, *skip):
        if name not in ROW_KINDS:
            raise ConfigError(f"there is no kind {name!r} that cleaning repairs; {did_you_mean(name, ROW_KINDS)}")
    found = tuple(kind for kind in ROW_KINDS if (not only or kind in only) and kind not in skip)
    if not found:
        raise ConfigError(f"--only {','.join(only)} without --skip {','.join(skip)} leaves nothing to do; name another kind")
    return found


def cleaning(question: Question, kinds: Collection[str], drop: Collection[str] = ()) -> Cleaning:
    """Decide about each row. kinds: which faults are repaired; drop: of those that are masked otherwise, which cost the row.

    Reads the set and the real data once each. Raises as `audit`.
    """
    for name in drop:
        if name not in KINDS or KINDS[name].repair != "mask":
            maskable = [kind for kind in ROW_KINDS if KINDS[kind].repair == "mask"]
            raise ConfigError(f"--drop names {name!r}; {did_you_mean(name, maskable)} (the other kinds are always dropped)")
    mask = tuple(kind for kind in kinds if KINDS[kind].repair == "mask" and kind not in drop)
    question = replace(question, plan=replace(question.plan, mask=mask))
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        index, names = indexed(question.evals, question.plan.named) if question.evals else (None, [])
        data = scan(question.data, work / "data", question.plan, index, names)
        real = scan_real(question, data, work) if "memorised" in kinds else None
        judge = _Judge(data, real, work / "unique", frozenset(kinds) - set(mask))
        reasons = judge.reasons("template")
        left = data.rows - len(reasons)
        if sum(row not in reasons for row in data.marks.get("template", ())) <= FORMAT * left:
            reasons = judge.reasons()
    return Cleaning(data.rows, dict(sorted(reasons.items())), mask, data.parts)


@dataclass(frozen=True)
class _Judge:
    """Why rows go, once the set has been read."""

    data: Scan
    real: Scan | None
    work: Path
    kinds: frozenset[str]

    def reasons(self, *without: str) -> dict[int, tuple[str, str]]:
        """By row: the first kind of the table that it has. Copies are looked for among rows without another fault."""
        kinds = self.kinds - set(without)
        found: dict[int, tuple[str, str]] = {}
        _note(found, self.data.marks, kinds)
        if {"duplicates", "memorised", "near"} & kinds:
            stays = np.ones(self.data.rows, np.bool_)
            stays[[*found, *self.data.marks.get("unreadable", ())]] = False
            _note(found, copies(self.data, self.real, self.work, stays), kinds)
        return found


def _note(reasons: dict[int, tuple[str, str]], marks: Marks, kinds: Collection[str]) -> None:
    for kind in ROW_KINDS:
        for row, what in marks.get(kind, {}).items() if kind in kinds else ():
            reasons.setdefault(row, (kind, what))
