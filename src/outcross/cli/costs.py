"""What a run will cost, as `preview`, `validate` and `run --dry-run` print it: what is expected beside what it can be at most."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outcross.cli.shell import hint, say, show, table
from outcross.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from rich.table import Table

    from outcross.config.runfile import Plan
    from outcross.engine.expect import Expected, Range
    from outcross.engine.forecast import Forecast
    from outcross.engine.guards import BenchFacts
    from outcross.engine.preview import Preview
    from outcross.recipe import Recipe
    from outcross.stages import Model, Role


@dataclass(frozen=True)
class Costs:
    """Both forecasts of one run. `expected` is None without a preview of its plan; `unpriced`: roles that are asked, with no price given."""

    most: Forecast
    expected: Expected | None
    seen: Preview | None
    unpriced: tuple[Role, ...]


def costs_of(recipe: Recipe, models: Mapping[Role, Model], facts: BenchFacts, out: Path) -> Costs:
    """The forecasts, with the preview that `out` holds. Nothing is asked or written."""
    from outcross.engine.expect import expected
    from outcross.engine.forecast import forecast, price_of
    from outcross.engine.preview import kept, takes_n
    from outcross.engine.store import RunDir

    run = RunDir(out)
    seen = kept(run, recipe, models)
    most = forecast(recipe, models, facts, takes_n(seen) if seen else ())
    unpriced = tuple(role for role in most.roles if role in models and price_of(models[role]) is None)
    return Costs(most, expected(recipe, models, facts, seen, run) if seen else None, seen, unpriced)


def print_costs(found: Costs, plan: Plan, out: Path, path: Path) -> None:
    """The table, what it rests on, and what the caps and the disk say to it. Raises `StoreError` when the disk is too small."""
    free = shutil.disk_usage(existing(out)).free
    if found.most.disk_bytes > free:
        raise StoreError(
            f"the run may need {_bytes(found.most.disk_bytes)} and {out} has {_bytes(free)} free; choose another --out, "
            "or bound the disk with `keep_models: champion` in the run file"
        )
    show(_table(found, free))
    for line in [*_caps(found, plan), *_notes(found)]:
        say(f"    {line}")
    if found.expected is None and found.most.roles:
        hint(f"`outcross preview {path}` asks about a few tasks and gives expected numbers, with time and money")


def existing(path: Path) -> Path:
    """The nearest folder above `path` that exists. Raises `ConfigError` when it is a file."""
    for folder in (path.resolve(), *path.resolve().parents):
        if folder.is_dir():
            return folder
        if folder.exists():
            raise ConfigError(f"{folder} is a file; --out names a folder")
    return Path("/")


def _table(found: Costs, free: float) -> Table:
    most, total = found.most, found.most.total
    disk = f"{_bytes(most.disk_bytes)} of {_bytes(free)} free"
    if found.expected is None:
        rows = [("rounds", f"{most.rounds:,}")]
        rows += [(f"calls to {role}", f"{load.calls:,}") for role, load in most.roles.items()]
        rows += [("tokens read", f"{total.prompt_tokens:,}"), ("tokens written", f"{total.completion_tokens:,}")]
        rows += [("money", _money(found)), ("disk", disk)]
        return table("At most", ("what", "how much"), rows, right=("how much",))
    seen = found.expected
    more = [("rounds", "", "", f"{most.rounds:,}")]
    for role, load in most.roles.items():
        more.append((f"calls to {role}", _about(seen.roles[role].requests) if role in seen.roles else "?", "", f"{load.calls:,}"))
    more.append(("tokens read", *_range(seen.prompt_tokens, _about), f"{total.prompt_tokens:,}"))
    more.append(("tokens written", *_range(seen.completion_tokens, _about), f"{total.completion_tokens:,}"))
    more.append(("money", *(_range(seen.money, _coins) if seen.money else ("no price given", "")), _money(found)))
    more.append(("time", *(_range(seen.seconds, _clock) if seen.seconds else ("not measured", "")), ""))
    more.append(("disk", "", "", disk))
    columns = ("what", "expected", "likely between", "at most")
    return table(f"What the run costs, from a preview of {seen.tasks:,} tasks", columns, more, right=columns[1:])


def _range(found: Range, text: Callable[[float], str]) -> tuple[str, str]:
    between = "" if found.low is None or found.high is None else f"{text(found.low)} – {text(found.high)}"
    return text(found.expected), "" if found.low == found.high else between


def _about(value: float) -> str:
    return f"{value:,.0f}"


def _coins(value: float) -> str:
    from outcross.report.numbers import money

    return money(value)


def _clock(value: float) -> str:
    from outcross.report.numbers import duration

    return duration(value)


def _money(found: Costs) -> str:
    if not found.most.roles:
        return "0, no model is asked"
    left = f"; {', '.join(found.unpriced)}: no price given" if found.unpriced else ""
    return "no price given" if found.most.money is None else f"{_coins(found.most.money)}{left}"


def _caps(found: Costs, plan: Plan) -> Iterator[str]:
    """What each cap of the budget will stop."""
    total, seen = found.most.total, found.expected
    tokens = None if seen is None else seen.prompt_tokens.expected + seen.completion_tokens.expected
    money = None if seen is None or seen.money is None else seen.money.expected
    seconds = None if seen is None or seen.seconds is None else seen.seconds.expected
    caps = plan.file.budget
    for name, cap, likely, most, text in (
        ("tokens", caps.tokens, tokens, total.prompt_tokens + total.completion_tokens, _about),
        ("requests", caps.requests, None if seen is None else seen.requests.expected, total.calls, _about),
        ("seconds", caps.seconds, seconds, None, _about),
        ("money", caps.money, money, found.most.money, _coins),
    ):
        if cap is not None and likely is not None and likely > cap:
            yield f"! the run is expected to take {text(likely)} {name}, and budget.{name} stops it at {text(cap)}; it can be resumed"
        elif cap is not None and most is not None and most > cap:
            yield f"! the run may take {text(most)} {name}, and budget.{name} stops it at {text(cap)}; it can be resumed"
        elif cap is not None and name == "money" and found.most.money is None and found.most.roles:
            yield "! budget.money cannot stop the run: no model that is asked has a `price`"


def _notes(found: Costs) -> Iterator[str]:
    if found.expected is not None:
        yield from found.expected.notes


def _bytes(amount: float) -> str:
    from outcross.report.numbers import size

    return size(amount)
