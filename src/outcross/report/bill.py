"""The bill of a run: what was asked of each model and what it cost, read from the journal that paid for it, and held against the forecast.

Its totals are the journal's own sums. Answers that were found in the journal were asked once and are counted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from outcross.engine.journal import Journal
from outcross.engine.store import RunDir, read_json
from outcross.errors import StoreError
from outcross.report import numbers as n
from outcross.report.record import Manifest, RoundRecord
from outcross.types import Usage

NAMES = {
    "requests": "requests",
    "prompt_tokens": "tokens read",
    "completion_tokens": "tokens written",
    "money": "money",
    "seconds": "time",
}
COUNTED = ("requests", "prompt_tokens", "completion_tokens")


class Line(msgspec.Struct, frozen=True):
    """What one model was asked, under the roles that it played; of a role that was taught, all the models that held it or were tried.
    `money` is None when nobody gave a price."""

    roles: tuple[str, ...]
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None


class Against(msgspec.Struct, frozen=True):
    """One forecast number of the preview beside what it became; `low` and `high` are the forecast's 95 % interval."""

    what: str
    expected: float
    actual: float
    low: float | None = None
    high: float | None = None

    @property
    def name(self) -> str:
        """What the number counts, in words."""
        return NAMES[self.what]

    @property
    def numbers(self) -> tuple[str, str, str]:
        """Expected, its interval and what it became, as people read them."""
        write = {"money": n.money, "seconds": n.duration}.get(self.what, n.count_about)
        between = "" if self.low is None or self.high is None or self.low == self.high else f"{write(self.low)} – {write(self.high)}"
        return write(self.expected), between, write(self.actual)


class Bill(msgspec.Struct, frozen=True):
    """Answered requests and what all requests cost; `failed` ones got no answer and may have cost as well. `previewed`: the requests that previews asked and what they cost; they are part of the total. `forecast` is empty without a
    preview of this very plan; `complete`: whether the run is over, so that the two can be compared."""

    lines: tuple[Line, ...]
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None
    previewed: tuple[int, float]
    complete: bool
    forecast: tuple[Against, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers should know."""
        asked, cost = self.previewed
        found = ["An answer that was found in the journal is not asked for, or paid, again."]
        if asked:
            price = f", for {n.money(cost)}" if self.money is not None else ""
            found.append(f"Of these, previews asked {n.plural(asked, 'request')}{price}.")
        if self.failed:
            found.append(f"{n.plural(self.failed, 'further request')} got no answer; what those cost is counted.")
        return tuple(found)


def money_of(value: float | None) -> str:
    """Money on the bill; a model without a price did not come free."""
    return "no price given" if value is None else n.money(value)


def read_bill(run: RunDir, manifest: Manifest, rounds: Sequence[RoundRecord], seconds: float, *, complete: bool) -> Bill | None:
    """The bill, or None for a run that asked nobody or whose journal is not there; of one that found everything in a journal that it
    shares it is empty. `seconds`: what its steps took.

    Raises `StoreError` when the journal is damaged.
    """
    if not run.journal.exists():
        return None
    with closing(Journal(run.journal, run.asker, writes=False)) as journal:
        spent, failed = journal.spent(), journal.failed()
    if not spent and not run.asker:
        return None
    lines = tuple(_lines(manifest, rounds, spent))
    requests, prompt_tokens, completion_tokens = (sum(getattr(line, name) for line in lines) for name in COUNTED)
    priced = [line.money for line in lines if line.money is not None]
    money = sum(priced) if priced or not lines else None
    preview = _preview(run)
    previewed = tuple(preview.get("in_all", (0, 0.0)))
    actual = {
        "requests": requests,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "money": money,
        "seconds": seconds,
    }
    same = preview.get("recipe") == manifest.recipe.fingerprint and preview.get("seed") == manifest.seed
    against = tuple(_against(preview.get("expected") or {}, actual)) if same else ()
    counts = (requests, failed, prompt_tokens, completion_tokens)
    return Bill(lines, *counts, money, (int(previewed[0]), float(previewed[1])), complete, against)


def _lines(manifest: Manifest, rounds: Sequence[RoundRecord], spent: Mapping[str, tuple[int, Usage]]) -> Iterator[Line]:
    played = _roles(manifest, rounds)
    rest = [model for model in spent if model not in played]
    together = f"{len(rest)} models of no role, such as early stops look at" if len(rest) > 1 else ""
    found: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for model in spent:
        roles = tuple(played.get(model, ()))
        found.setdefault((roles, (_name(manifest, roles) if roles else together) or model), []).append(model)
    for (roles, name), models in sorted(found.items(), key=lambda item: (not item[0][0], item[0])):
        usage = [spent[model][1] for model in models]
        money = sum(item.money for item in usage)
        yield Line(
            roles,
            name,
            sum(spent[model][0] for model in models),
            sum(item.prompt_tokens for item in usage),
            sum(item.completion_tokens for item in usage),
            money if money or any(_priced(manifest, role) for role in roles) else None,
        )


def _roles(manifest: Manifest, rounds: Sequence[RoundRecord]) -> dict[str, list[str]]:
    """By model id: the roles that it played, as the first model, a candidate or the champion."""
    pairs = [(model.id, role) for role, model in manifest.models.items()]
    pairs += [(fit.model, role) for item in rounds for role, fit in item.fits.items()]
    found: dict[str, list[str]] = {}
    for model, role in sorted(set(pairs)):
        found.setdefault(model, []).append(role)
    return found


def _settings(manifest: Manifest, role: str) -> Mapping[str, Any]:
    """What the run file says of the model of a role; nothing for a run that was started from Python."""
    models = manifest.config.get("models", {}) if isinstance(manifest.config, dict) else {}
    seen: set[str] = set()
    while isinstance(models.get(role), str) and models[role] in models and role not in seen:
        seen.add(role)
        role = models[role]
    found = models.get(role)
    return found if isinstance(found, dict) else {"use": found} if found else {}


def _name(manifest: Manifest, roles: Sequence[str]) -> str:
    """What people call a model: its name at the endpoint, its path, or its kind."""
    settings = _settings(manifest, roles[0]) if roles else {}
    return str(next((settings[key] for key in ("model", "path", "use") if isinstance(settings.get(key), str)), ""))


def _priced(manifest: Manifest, role: str) -> bool:
    price = _settings(manifest, role).get("price")
    return isinstance(price, dict) and price.get("prompt") is not None


def _preview(run: RunDir) -> Mapping[str, Any]:
    """`preview.json`, or nothing: a bill does not depend on it."""
    path: Path = run.root / "preview.json"
    try:
        found = read_json(path) if path.exists() else {}
    except StoreError:
        return {}
    return found if isinstance(found, dict) else {}


def _against(expected: Mapping[str, Any], actual: Mapping[str, float | None]) -> Iterator[Against]:
    for what, became in actual.items():
        told = expected.get(what)
        if isinstance(told, dict) and became is not None:
            yield Against(what, told["expected"], became, told.get("low"), told.get("high"))
