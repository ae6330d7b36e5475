"""`outcross preview`: a few rows of a run, for real, and what the whole will cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.memory import memory_lines
from outcross.cli.power import power_lines
from outcross.cli.shell import command, console, hint, say, show, table
from outcross.cli.start import WORDS

if TYPE_CHECKING:
    from outcross.cli.costs import Costs
    from outcross.config.runfile import Plan
    from outcross.engine.preview import Preview, Seen


@command
def preview(
    words: list[str] = WORDS,
    n: int = typer.Option(10, "-n", help="How many tasks to ask about.", min=1),
    out: Path | None = typer.Option(None, "--out", "-o", help="Where the run will go; default runs/NAME.", show_default=False),
    seed: int | None = typer.Option(None, help="Seed of everything random; default the run file's.", show_default=False),
    journal: Path | None = typer.Option(
        None, "--journal", help="A journal of answers that runs share; default the run's own.", show_default=False
    ),
    full: bool = typer.Option(False, "--full", help="Whole prompts and answers instead of one line each."),
    json: bool = typer.Option(False, "--json", help="One JSON object for machines: rows, usage and forecast."),
) -> None:
    """Ask about a few tasks, show the rows, and forecast what the run will cost.

    Tasks of the first round are generated, verified and curated as the run will do it. Nothing is trained or promoted.

    The answers are kept where the run goes: the run that follows finds them and does not ask, or pay, again.
    """
    from outcross.cli.start import default_out, read_words

    path, plan = read_words(words, [("seed", seed)] * (seed is not None))
    out = out or default_out(path, plan)
    seen, costs, memory = look(plan, out, n, journal, quiet=json)
    if json:
        say(_json(seen, costs))
        return
    from outcross.cli.rows import print_rows

    print_rows(seen.rows, full=full)
    _usage(seen.record)
    _counts(seen.record)
    from outcross.cli.costs import print_costs

    print_costs(costs, plan, out, path)
    for line in [*memory, *power_lines(plan.build_recipe(), seen.facts.held_out)]:
        say(f"    {line}")
    price = f" and {_money(seen.record.spent)} in money" if costs.expected and costs.expected.money else ""
    hint(f"\nthe preview asked {seen.record.asked:,} requests{price}; the run in {out} finds them. Next: outcross run {path}")


def look(plan: Plan, out: Path, n: int, journal: Path | None, *, quiet: bool) -> tuple[Seen, Costs, list[str]]:
    """Run the preview in `out`, forecast from it, and write down what it measured; with what is to be said of memory."""
    import dataclasses

    import msgspec

    from outcross.cli.costs import costs_of
    from outcross.cli.progress import watching
    from outcross.engine.preview import keep
    from outcross.engine.preview import preview as ask
    from outcross.engine.store import RunDir
    from outcross.errors import BudgetReached

    root = out.resolve()
    options = plan.options(root)
    options = dataclasses.replace(options, journal=journal or options.journal)
    recipe, models = plan.build_recipe(), plan.build_models()
    try:
        with watching(console(stderr=True), samples=0, quiet=quiet) as watch:
            seen = ask(recipe, models, root, n, seed=plan.file.seed, options=options, watch=watch)
        keep(RunDir(root), seen.record)
        costs = costs_of(recipe, models, seen.facts, out)
        record = msgspec.structs.replace(seen.record, expected=msgspec.to_builtins(costs.expected))
        keep(RunDir(root), record)
        return seen, costs, list(memory_lines(recipe, models))
    except BudgetReached as error:
        raise BudgetReached(str(error).replace("resume RUN", "preview …")) from error
    finally:
        for model in models.values():
            model.close()


def _usage(record: Preview) -> None:
    from outcross.report import numbers as n

    rows = []
    for role in dict.fromkeys(item.role for item in record.used):
        found = [item for item in record.used if item.role == role]
        values = [sum(getattr(item, name) for item in found) for name in ("requests", "completions", "prompt_tokens", "completion_tokens")]
        money = sum(item.money for item in found)
        rows.append((role, *map(n.count, values), n.money(money) if money else "", n.count(round(values[3] / max(1, values[1]), 1))))
    columns = ("role", "questions", "answers", "tokens read", "tokens written", "money", "written per answer")
    show(table(f"What {n.plural(record.tasks, 'task')} took", columns, rows, right=columns[1:]))


def _counts(record: Preview) -> None:
    from outcross.report import numbers as n

    rows = [
        (
            f"{item['stage']} {item['name']}",
            *(n.count(item[name]) for name in ("in", "kept", "dropped", "failed")),
            ", ".join(f"{reason} {amount:,}" for reason, amount in item["detail"].items()),
        )
        for item in record.counts
    ]
    columns = ("stage", "in", "kept", "dropped", "failed", "")
    show(table("What became of the samples", columns, rows, right=columns[1:5]))


def _money(value: float) -> str:
    from outcross.report.numbers import money

    return money(value)


def _json(seen: Seen, costs: Costs) -> str:
    import json

    import msgspec

    found = {
        "rows": [
            {
                "task": task,
                "samples": [
                    {"sample": row.sample, "verdict": row.sample.verdict, "value": row.sample.value}
                    | {"dropped_by": row.curator or None, "reason": row.reason or None}
                    for row in rows
                ],
            }
            for task, rows in seen.rows
        ],
        "preview": seen.record,
        "forecast": {"expected": costs.expected, "at_most": costs.most},
    }
    return json.dumps(msgspec.to_builtins(found), ensure_ascii=False, indent=1)
