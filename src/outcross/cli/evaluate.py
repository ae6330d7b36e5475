"""`outcross eval`: the probes of a bench on any model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import command, hint, say, show, table
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.config.runfile import Plan
    from outcross.stages import Model
    from outcross.types import Measurement


@command
def evaluate(
    model: str = typer.Argument(help="A run (its champion), a model folder, a hub name or a .gguf file.", metavar="MODEL"),
    bench: Path = typer.Argument(help="A run file, or a run: its held-out items and probes.", metavar="BENCH"),
    seed: int | None = typer.Option(
        None, help="Seed of the draws; default the bench's, so that results can be compared.", show_default=False
    ),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of a table."),
) -> None:
    """Measure a model with the probes of a run file or run.

    The draws are those of a run with the same seed, so that results can be compared. Intervals are 95 %.
    """
    from outcross.cli.models import load_model
    from outcross.config.runfile import load, of_run
    from outcross.engine.store import RunDir

    plan = of_run(RunDir(bench)) if (bench / "manifest.json").is_file() else load(bench)
    if not plan.bench.plain["probes"]:
        raise ConfigError(f"{bench} has no probes; name some under bench.probes")
    hint(f"measuring {model} …")
    measured = measure(plan, load_model(model), plan.file.seed if seed is None else seed)
    rows = [_row(item) for item in measured.values()]
    if as_json:
        say(json.dumps({"model": model, "bench": str(bench), "probes": rows}, indent=1))
        return
    show(table(f"{model} on {bench}", ("probe", "value", "95 % interval", "items", "better"), map(_cells, rows), right=("value", "items")))


def measure(plan: Plan, model: Model, seed: int) -> Mapping[str, Measurement]:
    """Every probe of the plan's bench on `model`, with the draws that a run of this seed would make."""
    from outcross.engine.budget import Budget, Meter
    from outcross.engine.executor import Executor
    from outcross.engine.journal import Journal
    from outcross.engine.past import Recorded
    from outcross.engine.store import PRIMARY, RunDir
    from outcross.stages import Context

    bench = plan.build_bench()
    played = plan.aliases(PRIMARY)
    models = {role: plan.build_model(role) for role in plan.models if role not in played} | dict.fromkeys(played, model)
    with tempfile.TemporaryDirectory() as folder, closing(Journal(Path(folder) / "responses.db")) as journal:
        past = Recorded(RunDir(Path(folder)), (), bench.real if bench.real is not None else (), Path(folder))
        ctx = Context(models, past, "probe", 0, seed, Executor(journal, Meter(Budget(), journal)))
        return {probe.name: probe(ctx) for probe in bench.probes}


def _row(found: Measurement) -> dict[str, Any]:
    from outcross.report.intervals import mean_interval

    estimate = mean_interval(found)
    return {
        "probe": found.probe,
        "value": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "items": len(found.items),
        "unit": found.unit,
        "higher_is_better": found.higher_is_better,
    }


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    from outcross.report.numbers import quantity, with_unit, words

    unit = row["unit"]
    interval = "" if row["low"] is None else f"{quantity(row['low'], unit)} to {quantity(row['high'], unit)}"
    better = "higher" if row["higher_is_better"] else "lower"
    return words(row["probe"]), with_unit(row["value"], unit), interval, f"{row['items']:,}", better
