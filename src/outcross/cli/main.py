"""`outcross`: the commands, in the order in which a person meets them."""

from __future__ import annotations

import os
import sys

import typer

from outcross.cli import (
    audit,
    batch,
    card,
    clean,
    compare,
    doctor,
    du,
    evaluate,
    export,
    gate,
    generate,
    init,
    listing,
    mix,
    prefer,
    preview,
    quickstart,
    recall,
    report,
    reproduce,
    resume,
    review,
    run,
    sample,
    selftest,
    show,
    trace,
    validate,
    verifier_check,
    verify,
)
from outcross.cli.shell import DEBUG

EPILOG = (
    "Exit codes: 0 done (a refused promotion is a result, not a failure) · 1 unexpected · 2 run file, arguments or data · 3 the plan breaks a "
    "guarantee · 4 a stage broke its contract · 5 run folder · 6 budget reached · 7 model · 8 waits for people · 10 a refusal "
    "with --fail-on-refusal, a finding with --fail-on, or too few passes with --fail-under · 130 Ctrl-C. "
    "--debug anywhere shows tracebacks."
)
OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    help="Train models on their own output without collapse: generate, verify, curate, mix with real data, train, evaluate, gate.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START, LOOK, TRY, CARE = "Start and run", "Look at a run", "Use what it made", "Care"
app.command("audit", rich_help_panel=START)(audit.audit)
app.command("clean", rich_help_panel=START)(clean.clean)
app.command("quickstart", rich_help_panel=START)(quickstart.quickstart)
app.command("init", rich_help_panel=START)(init.init)
app.command("validate", rich_help_panel=START, context_settings=OVERRIDES)(validate.validate)
app.command("preview", rich_help_panel=START, context_settings=OVERRIDES)(preview.preview)
app.command("run", rich_help_panel=START, context_settings=OVERRIDES)(run.run)
app.command("resume", rich_help_panel=START)(resume.resume)
app.command("generate", rich_help_panel=START, context_settings=OVERRIDES)(generate.generate)
app.add_typer(batch.app, name="batch", rich_help_panel=START)
app.command("list", rich_help_panel=LOOK)(listing.list_runs)
app.command("show", rich_help_panel=LOOK)(show.show)
app.command("trace", rich_help_panel=LOOK)(trace.trace)
app.command("report", rich_help_panel=LOOK)(report.report)
app.command("gate", rich_help_panel=LOOK)(gate.gate)
app.command("mix", rich_help_panel=LOOK, context_settings=OVERRIDES)(mix.mix)
app.command("du", rich_help_panel=LOOK)(du.du)
app.command("reproduce", rich_help_panel=TRY)(reproduce.reproduce)
app.command("sample", rich_help_panel=TRY)(sample.sample)
app.command("eval", rich_help_panel=TRY)(evaluate.evaluate)
app.command("compare", rich_help_panel=TRY)(compare.compare)
app.command("card", rich_help_panel=TRY)(card.card)
app.command("export", rich_help_panel=TRY)(export.export)
app.command("review", rich_help_panel=CARE)(review.review)
app.command("verifier-check", rich_help_panel=CARE)(verifier_check.verifier_check)
app.command("prefer", rich_help_panel=TRY)(prefer.prefer)
app.command("judge-check", rich_help_panel=CARE)(prefer.judge_check)
app.command("verify", rich_help_panel=TRY)(verify.verify)
app.command("selftest", rich_help_panel=CARE)(selftest.selftest)
app.command("recall", rich_help_panel=CARE)(recall.recall)
app.command("doctor", rich_help_panel=CARE)(doctor.doctor)


@app.callback(invoke_without_command=True)
def outcross(
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),
) -> None:
    if debug:
        os.environ[DEBUG] = "1"
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"outcross {installed('outcross')}")
        raise typer.Exit


def main() -> None:
    """The console script. `--debug` may stand anywhere."""
    words = sys.argv[1:]
    if "--debug" in words:
        words = ["--debug", *(word for word in words if word != "--debug")]
    app(args=words, prog_name="outcross")
