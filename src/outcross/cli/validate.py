"""`outcross validate`: everything that can be checked without spending."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, say, show
from outcross.cli.start import WORDS
from outcross.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from rich.table import Table

    from outcross.config.runfile import Plan
    from outcross.engine.forecast import Forecast
    from outcross.recipe import Recipe


@command
def validate(
    words: list[str] = WORDS,
    out: Path | None = typer.Option(None, "--out", "-o", help="Where the run would go; default runs/NAME.", show_default=False),
    config: bool = typer.Option(False, "--config", help="Print the resolved configuration, defaults filled in, as YAML."),
) -> None:
    """Check a run file in full and say what the run would cost.

    Nothing is asked, trained or written.
    """
    from outcross.cli.start import default_out, read_words

    path, plan = read_words(words)
    if config:
        import yaml

        say(yaml.safe_dump(plan.config, sort_keys=False, allow_unicode=True).rstrip())
        return
    check(plan, out or default_out(path, plan))


def check(plan: Plan, out: Path) -> None:
    """Print every check as it passes. Raises at the first that does not."""
    from outcross.engine.forecast import forecast
    from outcross.engine.guards import check_bench, check_floor, check_plan
    from outcross.recipe import fingerprint

    say("✓ run file: every setting is known and fits")
    recipe = plan.build_recipe()
    say(f"✓ recipe: {recipe.name}{f' ({recipe.paper})' if recipe.paper else ''}, fingerprint {fingerprint(recipe)}")
    for line in _phases(recipe):
        say(f"    {line}")
    facts = check_bench(recipe.bench)
    say(
        f"✓ data: {facts.tasks:,} tasks, {facts.held_out:,} held-out items, {facts.real:,} real rows; nothing held out among tasks or real rows"
    )
    models = plan.build_models()
    say(f"✓ models: {', '.join(f'{role} {type(model).__name__} {model.id[:20]}' for role, model in models.items())}")
    headings = check_plan(recipe, models, unsafe=plan.file.unsafe)
    check_floor(recipe, facts)
    say("✓ guarantees: the plan keeps them" + ("; the report will be headed" if headings else ""))
    for heading in headings:
        say(f"    ! {heading}")
    for line in _gates(recipe, facts.held_out):
        say(f"    {line}")
    expected = forecast(recipe, models, facts)
    _afford(plan, expected, out)
    show(_costs(expected, out))
    for model in models.values():
        model.close()


def _phases(recipe: Recipe) -> Iterator[str]:
    from outcross.stages import name_of

    for phase in recipe.phases:
        steps = [phase.generate, *phase.verify, *phase.curate]
        names = " → ".join(name_of(step) for step in steps if step is not None)
        taught = " · teaches " + ", ".join(phase.learn) if phase.learn else " · data only"
        yield f"phase {phase.name}: {phase.rounds} × ({names}){taught}"


DIFFERING = 0.2  # of the answers, between two models as good as each other: what a forecast has to assume


def _gates(recipe: Recipe, held_out: int) -> Iterator[str]:
    """How likely each gated phase's pass-rate margins let an unchanged candidate through: the price of a small bench."""
    from outcross.engine.guards import gate_of, probes_of
    from outcross.gate.paired import items_needed, power, visible_drop

    for phase in recipe.phases:
        alpha = gate_of(recipe.bench, phase).alpha / sum(item.rounds for item in recipe.phases if item.learn) if phase.learn else 0
        fewest = getattr(gate_of(recipe.bench, phase), "minimum_items", 0)
        if alpha and held_out < fewest:
            yield f"! the gate of {phase.name} refuses every round: {held_out:,} held-out items, and it asks for at least {fewest:,}"
        for probe in probes_of(recipe.bench, phase) if alpha else ():
            if probe.kind == "quality":
                chance = power(held_out, probe.margin, alpha, DIFFERING, share=True)
                needed = items_needed(probe.margin, alpha, DIFFERING, share=True)
                seen = visible_drop(held_out, alpha, DIFFERING, share=True)
                yield (
                    f"gate of {phase.name}: a candidate exactly as good passes the {100 * probe.margin:g}-point margin of {probe.name} {chance:.0%} of "
                    f"the time (α {alpha:.4f} a round, if {DIFFERING:.0%} of answers differ); 80 % take {needed:,} items, or {100 * seen:.1f} points"
                )


def _afford(plan: Plan, expected: Forecast, out: Path) -> None:
    """Raises `StoreError` when the disk is too small for the run."""
    free = shutil.disk_usage(_existing(out)).free
    if expected.disk_bytes > free:
        raise StoreError(
            f"the run may need {_bytes(expected.disk_bytes)} and {out} has {_bytes(free)} free; choose another --out, "
            "or bound the disk with `keep_models: champion` in the run file"
        )
    cap = plan.file.budget.tokens
    if cap is not None and expected.completion_tokens > cap:
        say(f"    ! the run may write {expected.completion_tokens:,} tokens, and budget.tokens stops it at {cap:,}; it can be resumed")


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that exists. Raises `ConfigError` when it is a file."""
    for folder in (path.resolve(), *path.resolve().parents):
        if folder.is_dir():
            return folder
        if folder.exists():
            raise ConfigError(f"{folder} is a file; --out names a folder")
    return Path("/")


def _costs(expected: Forecast, out: Path) -> Table:
    from outcross.cli.shell import table

    free = shutil.disk_usage(_existing(out)).free
    rows = [
        ("rounds", f"{expected.rounds:,}"),
        *((f"calls to {role}", f"{calls:,}") for role, calls in expected.calls.items()),
        ("tokens written", f"{expected.completion_tokens:,}"),
        ("disk", f"{_bytes(expected.disk_bytes)} of {_bytes(free)} free"),
    ]
    return table("At most", ("what", "how much"), rows, right=("how much",))


def _bytes(amount: float) -> str:
    from outcross.report.numbers import size

    return size(amount)
