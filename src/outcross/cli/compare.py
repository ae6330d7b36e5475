"""`outcross compare`: the gate's paired test on any two models or files of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import REFUSED, command, hint, say, show, table
from outcross.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from outcross.types import Measurement

COLUMNS = ("metric", "A", "B", "A − B", "95 % interval", "items", "shown at least", "margin", "power", "")
SHARE_MARGIN = 0.02  # two points
SHOWN = 3  # identifiers named in a message


@dataclass(frozen=True)
class Compared:
    """A against B on one metric. `difference`, `low` and `high` are A − B as measured, with a 95 % interval; `at_least` is the one-sided
    bound at alpha, signed so that higher is better, that decides."""

    metric: str
    unit: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    items: int
    at_least: float
    margin: float
    power: float
    not_worse: bool
    better: bool
    note: str


@command
def compare(
    a: str = typer.Argument(help="A run, a file of results or measurements; with --bench also a model.", metavar="A"),
    b: str = typer.Argument(help="What A is held against.", metavar="B"),
    margin: list[str] = typer.Option(
        [],
        help="How much worse A may be, as a number or metric=number; default a run's own margins, else 0.02 for shares.",
        metavar="[METRIC=]NUMBER",
    ),
    metric: list[str] = typer.Option([], help="Only these metrics; default all that both have.", show_default=False),
    alpha: float = typer.Option(0.05, help="The chance of calling A not worse when it is worse by the margin."),
    superior: bool = typer.Option(False, "--superior", help="Ask that A is better, not only not worse."),
    lower_is_better: bool = typer.Option(False, "--lower-is-better", help="Of files that do not say so themselves, such as losses."),
    bench: Path | None = typer.Option(None, help="Measure two models with the probes of this run or run file.", show_default=False),
    fail_on_refusal: bool = typer.Option(False, "--fail-on-refusal", help="Exit code 10 when A is not shown to be good enough."),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of a table."),
) -> None:
    """The gate's paired test on two runs, files of results, or models.

    Reads runs, measurements, JSONL and CSV with an identifier and numbers, samples logged by lm-eval, and logs of inspect. Items are
    matched by identifier. Each metric is tested at alpha on its own.
    """
    if not 0 < alpha < 0.5:
        raise ConfigError(f"--alpha {alpha:g} is not between 0 and 0.5")
    mine, theirs = (_measurements(name, bench, lower_is_better) for name in (a, b))
    names = _metrics(mine, theirs, metric)
    margins = _margins(margin, {name: mine[name].unit for name in names}, _recorded(bench, a, b))
    found = [compared(mine[name], theirs[name], margins[name], alpha, (a, b)) for name in names]
    good = all(item.better if superior else item.not_worse for item in found)
    if as_json:
        say(
            json.dumps(
                {"a": a, "b": b, "alpha": alpha, "superior": superior, "holds": good, "metrics": [asdict(item) for item in found]}, indent=1
            )
        )
    else:
        show(table(f"{a} (A) against {b} (B), α {alpha:g}", COLUMNS, map(_cells, found), right=COLUMNS[1:9]))
        for item in found:
            say(_told(item, superior))
    if fail_on_refusal and not good:
        raise typer.Exit(REFUSED)


def compared(mine: Measurement, theirs: Measurement, margin: float, alpha: float, names: tuple[str, str]) -> Compared:
    """The paired test of the gate (`outcross.gate.evidence.weigh`). Raises `DataError` where the items are not the same."""
    import msgspec

    from outcross.gate.evidence import OVER_REAL, weigh
    from outcross.gate.paired import power
    from outcross.gate.reason import shortage
    from outcross.report.intervals import paired

    _refuse_other_items(mine, theirs, names)
    if mine.unit != theirs.unit and {mine.unit, theirs.unit} == {"share", ""}:  # one file's numbers happen to lie between 0 and 1
        mine, theirs = (msgspec.structs.replace(found, unit="") for found in (mine, theirs))
    evidence = weigh(mine, theirs, alpha)
    over_real = mine.unit.endswith(OVER_REAL)
    interval = paired(mine, theirs)
    notes = [shortage(evidence, margin, mine.unit)] if evidence.low <= -margin and evidence.estimate > -margin else []
    if over_real:
        notes.append("held against the lower of B and real data: more than real is no merit, so that no side is called better")
    if evidence.lost:
        notes.append(f"{evidence.lost:,} items that A has no value for count as lost")
    return Compared(
        mine.probe,
        mine.unit,
        mine.mean,
        theirs.mean,
        *((interval.mean, interval.low, interval.high) if interval else (evidence.estimate, None, None)),
        evidence.items,
        evidence.low,
        margin,
        power(evidence.items, margin, evidence.alpha, evidence.variance, share=evidence.share),
        evidence.low > -margin,
        evidence.low > 0 and not over_real,
        "; ".join(filter(None, notes)),
    )


def _measurements(name: str, bench: Path | None, lower: bool) -> Mapping[str, Measurement]:
    from outcross.cli.results import read_results

    if bench is None:
        return read_results(Path(name), lower)
    from outcross.cli.evaluate import measure
    from outcross.cli.models import load_model
    from outcross.config.runfile import load, of_run
    from outcross.engine.store import RunDir

    plan = of_run(RunDir(bench)) if (bench / "manifest.json").is_file() else load(bench)
    hint(f"measuring {name} …")
    return measure(plan, load_model(name), plan.file.seed)


def _metrics(mine: Mapping[str, Measurement], theirs: Mapping[str, Measurement], wanted: Sequence[str]) -> list[str]:
    both = [name for name in mine if name in theirs]
    for name in wanted:
        if name not in both:
            raise ConfigError(f"A and B have no metric {name!r} in common; {did_you_mean(name, both)}")
    if not both:
        raise DataError(f"A has {', '.join(mine)} and B has {', '.join(theirs)}: no metric in common; give the same name to both")
    return list(wanted) or both


def _recorded(bench: Path | None, *names: str) -> dict[str, float]:
    """The margins on the record of the first run among what was named."""
    from outcross.engine.store import RunDir

    for folder in map(Path, (str(bench or ""), *names)):
        if folder.name and (folder / "manifest.json").is_file():
            return {probe["name"]: probe["margin"] for probe in RunDir(folder).manifest["probes"]}
    return {}


def _margins(words: Sequence[str], units: Mapping[str, str], recorded: Mapping[str, float]) -> dict[str, float]:
    from outcross.cli.gate import margins_of

    named = margins_of([word for word in words if "=" in word])
    for name in named:
        if name not in units:
            raise ConfigError(f"--margin names the metric {name!r}; {did_you_mean(name, units)}")
    everywhere = margins_of([f"all={word}" for word in words if "=" not in word]).get("all")
    found: dict[str, float] = {}
    for name, unit in units.items():
        default = recorded.get(name, SHARE_MARGIN if unit == "share" else None) if everywhere is None else everywhere
        margin = named.get(name, default)
        if margin is None:
            raise ConfigError(f"{name!r} is no share and has no margin; state one in its unit (--margin {name}=…) or choose with --metric")
        found[name] = margin
    return found


def _refuse_other_items(mine: Measurement, theirs: Measurement, names: tuple[str, str]) -> None:
    from outcross.gate.evidence import SHARED

    own, other = set(mine.items), set(theirs.items)
    both, everything = own & other, own | other
    if len(both) >= SHARED * len(everything):
        return
    only = [
        f"only in {name}: {', '.join(sorted(rest)[:SHOWN])}" for name, rest in zip(names, (own - other, other - own), strict=True) if rest
    ]
    raise DataError(
        f"{mine.probe}: {names[0]} and {names[1]} share {len(both):,} of {len(everything):,} items, and a paired test needs "
        f"{SHARED:.0%} ({'; '.join(only)}); compare results on the same items"
    )


def _cells(item: Compared) -> tuple[str, ...]:
    from outcross.gate.reason import amount
    from outcross.report.numbers import difference, quantity, signed

    interval = "" if item.low is None or item.high is None else f"{difference(item.low, item.unit)} to {difference(item.high, item.unit)}"
    values = (quantity(item.a, item.unit), quantity(item.b, item.unit), signed(item.difference, item.unit), interval, f"{item.items:,}")
    verdict = "better" if item.better else "not worse" if item.not_worse else "not shown"
    return item.metric, *values, amount(item.at_least, item.unit), amount(item.margin, item.unit), f"{item.power:.0%}", verdict


def _told(item: Compared, superior: bool) -> str:
    from outcross.gate.reason import amount

    margin, note = amount(item.margin, item.unit), f" ({item.note})" if item.note else ""
    if superior and not item.better:
        return f"{item.metric}: A is not shown to be better than B (at least {amount(item.at_least, item.unit)}){note}"
    if item.better:
        return f"{item.metric}: A is better than B by at least {amount(item.at_least, item.unit)}{note}"
    if item.not_worse:
        return f"{item.metric}: A is less than {margin} worse than B{note}"
    return f"{item.metric}: A may be worse than B by {amount(-item.at_least, item.unit)}; the margin is {margin}{note}"
