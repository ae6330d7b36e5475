"""`outcross audit`: would you train on this?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import REFUSED, command, console, hint, say, table
from outcross.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from outcross.audit.examine import Question
    from outcross.audit.findings import Audit, Finding
    from outcross.stages import Embeds

COLOURS = {
    "bad": "bold red",
    "warn": "yellow",
    "note": "bright_black",
    "yes": "bold green",
    "yes, after cleaning": "bold yellow",
    "no": "bold red",
}
EXAMPLE = 150  # characters
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@command
def audit(
    data: Path = typer.Argument(help="JSON lines, CSV, Parquet, or a folder of Hugging Face datasets.", metavar="DATA"),
    real: Path | None = typer.Option(None, "--real", help="Real data that this set should be like.", show_default=False),
    evals: list[Path] = typer.Option([], "--eval", help="A set that models are evaluated on; may be repeated."),
    group: str = typer.Option("", "--group", help="A column whose groups should keep their shares.", metavar="COLUMN", show_default=False),
    columns: list[str] = typer.Option(
        [], "--column", "-c", help="Which column plays a part: prompt, context, answer, rejected, messages.", metavar="PART=NAME"
    ),
    sources: list[str] = typer.Option(
        [], "--real-source", help="Rows whose column is this are real; may be repeated.", metavar="COLUMN=PATTERN"
    ),
    before: str = typer.Option("", "--real-before", help="Rows whose column `collected` is before this day are real.", metavar="DAY"),
    embedder: Path | None = typer.Option(
        None, "--embedder", help="A folder with an encoder: variety and coverage by meaning too, on 300 rows a draw.", show_default=False
    ),
    out: Path | None = typer.Option(None, "--out", "-o", help="Write audit.html and audit.json to this folder.", show_default=False),
    fail_on: str = typer.Option(
        "", "--fail-on", help="Exit with 10 on these findings: kinds (secrets,contamination) or a level (warn, bad).", metavar="WHAT"
    ),
    seed: int = typer.Option(0, help="Of the random samples."),
    as_json: bool = typer.Option(False, "--json", help="Everything as JSON, instead of tables."),
) -> None:
    """Say what is wrong with a data set, the most harmful first, and what repairs it. Nothing leaves this machine."""
    from outcross.audit.examine import audit as examine

    refuse = failing(fail_on)
    folder_for(out)
    question = question_of(data, real, evals, group, columns, sources, before, seed)
    if embedder is not None:
        question = replace(question, embedder=_encoder(embedder, real))
    found = examine(question)
    if as_json:
        import json

        say(json.dumps(found.as_json(), ensure_ascii=False, indent=1))
    else:
        screen = console()
        screen.print(*told(found, question), sep="\n")
    if out is not None:
        _write(found, out)
    hit = [item for item in found.findings if item.kind in refuse or item.level in refuse]
    if hit:
        hint(f"--fail-on {fail_on}: {', '.join(item.kind for item in hit)}")
        raise typer.Exit(REFUSED)


def question_of(
    data: Path, real: Path | None, evals: Sequence[Path], group: str, columns: Sequence[str], sources: Sequence[str], before: str, seed: int
) -> Question:
    """The arguments of `audit` and `clean`, checked before anything is read."""
    from datetime import date

    from outcross.audit.examine import Question
    from outcross.audit.scan import Plan
    from outcross.provenance import CollectedBefore, FromSource, Rule
    from outcross.tasks.rows import data_files

    for path in (data, *([real] if real else []), *evals):
        data_files(path)
    rules: list[Rule] = [FromSource((pattern,), column) for column, pattern in (_pair("--real-source", item) for item in sources)]
    if before:
        try:
            rules.append(CollectedBefore(date.fromisoformat(before)))
        except ValueError:
            raise ConfigError(f"--real-before is {before!r}; write a day as 2022-11-30") from None
    named = dict(_pair("--column", item) for item in columns)
    return Question(data, real, tuple(evals), Plan(named, group, tuple(rules), seed=seed))


def folder_for(out: Path | None) -> None:
    """Raises `ConfigError` when files cannot be written to `out` because it, or what it would stand in, is a file."""
    for place in (out, *out.parents) if out is not None else ():
        if place.exists() and not place.is_dir():
            raise ConfigError(f"--out is {out}, and {place} is a file; name a folder, which is made when there is none")


def visible(text: str) -> str:
    """Text from data without what a terminal would obey: escape sequences and other control characters."""
    return _CONTROLS.sub("\ufffd", text)


def _encoder(folder: Path, real: Path | None) -> Embeds:
    from outcross.models.embedder import embedder
    from outcross.stages import Embeds

    if real is None:
        raise ConfigError("--embedder compares with real data; name it, --real FILE")
    model = embedder(str(folder))
    assert isinstance(model, Embeds)
    return model


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(
            f"{option} is {text!r}; write NAME=VALUE, for example {'answer=summary' if option == '--column' else 'source=wikipedia'}"
        )
    return name, value


def failing(words: str) -> set[str]:
    """The kinds and levels that end the command with 10. Raises `ConfigError` for an unknown one."""
    from outcross.audit.kinds import KINDS

    found = {word.strip() for word in words.split(",") if word.strip()}
    for word in found:
        if word not in (*KINDS, "warn", "bad"):
            raise ConfigError(f"--fail-on names {word!r}; {did_you_mean(word, [*KINDS, 'warn', 'bad'])}")
    return found | ({"bad"} if "warn" in found else set())


def _write(found: Audit, out: Path) -> None:
    import json

    from outcross.report.audit import render

    out.mkdir(parents=True, exist_ok=True)
    (out / "audit.json").write_text(json.dumps(found.as_json(), ensure_ascii=False, indent=1), encoding="utf-8")
    (out / "audit.html").write_text(render(found), encoding="utf-8", errors="replace")
    hint(f"wrote {out / 'audit.html'} and {out / 'audit.json'}")


# ── what is told ───────────────────────────────────────────────────────────────────────────────────────────────────────
def told(found: Audit, question: Question) -> Iterator[RenderableType]:
    """The verdict, the reasons with an example each, the figures, what the set is made of, and what was not looked at."""
    from rich.text import Text

    yield Text("\nWould you train on this?  ", "bold").append(found.answer, COLOURS[found.answer])
    yield Text(found.headline)
    if found.findings:
        yield _reasons(found.findings)
        yield from _examples(found.findings)
    if found.statistics:
        yield _figures(found)
    if found.groups:
        yield _groups(found)
    yield Text.assemble(("\nWhat it is made of  ", "bold"), _made_of(found))
    for check, rows in found.coverage_of_checks:
        yield Text(f"  looked at {rows}: {check}", "bright_black")
    for item in found.unjudged:
        yield Text(f"  not judged: {item}", "yellow")
    if any(item.about.repair in ("drop", "mask") for item in found.findings):
        yield Text(f"\nNext: {clean_words(question)}", "bold")


def _reasons(findings: Sequence[Finding]) -> RenderableType:
    from rich.text import Text

    made = table("", ("harm", "level", "kind", "what was found", "95 % interval", "what to do"), (), right=("harm",))
    for item in findings:
        interval = "all rows counted" if item.low is None or item.high is None else f"{100 * item.low:.1f} to {100 * item.high:.1f} %"
        todo = {"drop": "clean: drop", "mask": "clean: mask", "mix": "mix with real data", "look": "look"}[item.about.repair]
        made.add_row(
            f"{item.harm:.2f}",
            Text(item.level, COLOURS[item.level]),
            item.kind,
            f"{item.about.title}: {visible(item.says)}",
            interval,
            todo,
        )
    return made


def _examples(findings: Sequence[Finding]) -> Iterator[RenderableType]:
    from rich.text import Text

    for item in findings:
        for case in item.cases[:1]:
            text = " ".join(visible(case.text).split())
            cut = f"{text[:EXAMPLE]}…" if len(text) > EXAMPLE else text
            yield Text.assemble((f"  {item.kind}, row {case.row:,}: ", "bold"), f"{visible(case.what)}\n", (f"    {cut}", "bright_black"))


def _figures(found: Audit) -> RenderableType:
    from outcross.audit.against_real import LEVEL

    title = (
        f"Against real text, {found.tokens:,} words each: ± is what a second real sample may differ by ({1 - LEVEL:.0%} over all figures)"
    )
    rows = [
        (item.name, _number(item.value), f"{_number(item.real)} ± {_number(item.null)}", f"{_number(item.low)} to {_number(item.high)}",
         "" if not item.outside else "worse" if item.worse_by else "differs")
        for item in found.statistics
    ]  # fmt: skip
    return table(title, ("figure", "this set", "real", "difference", ""), rows, right=("this set", "real", "difference"))


def _groups(found: Audit) -> RenderableType:
    rows = [
        (visible(one.name), f"{one.rows:,}", f"{one.share:.1%}", f"{one.real_share:.1%}", f"{100 * one.low:+.1f} to {100 * one.high:+.1f}",
         "missing" if one.rows == 0 else "fewer" if one.high < 0 else "more" if one.low > 0 else "")
        for one in found.groups[:20]
    ]  # fmt: skip
    left = f", the first 20 of {len(found.groups):,}" if len(found.groups) > 20 else ""
    return table(
        f"Groups{left}", ("group", "rows", "share", "of real", "points, 95 % over all groups", ""), rows, right=("rows", "share", "of real")
    )


def _made_of(found: Audit) -> str:
    made = found.composition
    parts = [
        f"{made.rows:,} rows, {made.words:,} words, {made.characters:,} characters; {', '.join(f'{part} is `{name}`' for part, name in made.parts.items())}"
    ]
    if made.languages:
        unsure = made.language_rows - sum(made.languages.values())
        told = [*list(made.languages.items())[:4], *([("not sure", unsure)] if unsure > 0 else [])]
        parts.append("languages " + ", ".join(f"{name} {count / made.language_rows:.0%}" for name, count in told))
    if made.sources:
        parts.append("sources " + ", ".join(f"{name} {count / made.rows:.0%}" for name, count in list(made.sources.items())[:5]))
    if made.depths:
        parts.append("generation depth " + ", ".join(f"{depth}: {count / made.rows:.0%}" for depth, count in made.depths.items()))
    origins = [
        f"{kind}{f' ({proof}, {rule})' if proof != 'none' else ''} {rows / made.rows:.0%}"
        for (kind, proof, rule), rows in made.origins.items()
    ]
    unknown = any(kind == "unknown" for kind, _, _ in made.origins)
    parts.append(f"origin {', '.join(origins)}{'; unknown counts as synthetic' if unknown else ''}")
    return "\n  ".join(["", *map(visible, parts)]).lstrip()


def clean_words(question: Question) -> str:
    """The `outcross clean` command that repairs what was found."""
    words = ["outcross clean", str(question.data)]
    words += [f"--real {question.real}"] if question.real else []
    words += [f"--eval {path}" for path in question.evals] + [f"--column {part}={name}" for part, name in question.plan.named.items()]
    return " ".join([*words, "--out cleaned"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
