"""`outcross verify`: verifiers on any file."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import REFUSED, command, hint, say, show, table
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from outcross.engine.conserve import Counter
    from outcross.stages import Context, Verifier
    from outcross.types import Group, Sample, Verdict

ORDER: tuple[Verdict, ...] = ("pass", "fail", "error", "abstain")
REASONS = 12  # lines of reasons
SHOWN = 60  # characters of a text


@dataclass
class Tallied:
    """What was found in a file: answers by their verdict from all verifiers together, and the reasons of each verifier, with one case."""

    verdicts: Tally[Verdict | None] = field(default_factory=Tally)
    reasons: Tally[tuple[str, Verdict, str]] = field(default_factory=Tally)
    cases: dict[tuple[str, Verdict, str], str] = field(default_factory=dict)

    def add(self, group: Group, number: int) -> None:
        for sample in group.samples:
            self.verdicts[sample.verdict] += 1
            for score in sample.scores:
                if score.verdict != "pass" or score.reason:
                    key = (score.verifier, score.verdict, score.reason)
                    self.reasons[key] += 1
                    self.cases.setdefault(key, f"{sample.text!r:.{SHOWN}}{f' ({score.evidence:.{SHOWN}})' if score.evidence else ''}")

    @property
    def answers(self) -> int:
        return self.verdicts.total()


@command
def verify(
    file: Path = typer.Argument(
        help="JSON lines, CSV or Parquet with prompts and completions; add the reference in `answer`.", metavar="FILE"
    ),
    by: list[str] = typer.Option(
        [], "--verify", "-v", help="A verifier, such as exact or '{use: number, tolerance: 0.1}'; may be repeated.", metavar="USE"
    ),
    run: Path | None = typer.Option(
        None, "--run", help="A run file, or a run: its verifiers, and its models for those that ask any.", show_default=False
    ),
    columns: list[str] = typer.Option(
        [], "--column", "-c", help="Which column plays a part: prompt=question, completion=output, answer=gold.", metavar="PART=NAME"
    ),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Write every answer with its scores, .parquet or .jsonl.", show_default=False
    ),
    fail_under: float = typer.Option(
        0.0, "--fail-under", help="Exit with 10 unless at least this share of all answers passes.", min=0, max=1
    ),
    as_json: bool = typer.Option(False, "--json", help="The counts as JSON."),
) -> None:
    """Judge the answers in any file.

    The verifiers' canaries are tried first; one that fails ends the command with 4 and nothing is judged.
    """
    from outcross.cli.verifiers import from_words, models_of, outside, plan_of
    from outcross.engine import canaries
    from outcross.tasks.answered import answered

    plan = plan_of(run) if run is not None else None
    verifiers = from_words(by) or (_own(plan.build_recipe().phases) if plan else [])
    if not verifiers:
        raise ConfigError("no verifier is named; say which, --verify exact, or name a run file that has some, --run run.yaml")
    if out is not None and out.suffix not in (".parquet", ".jsonl"):
        raise ConfigError(f"--out is {out}; the name must end in .parquet or .jsonl")
    groups = answered(file, _parts(columns))
    found, counters = Tallied(), [_counter(item) for item in verifiers]
    with outside(models_of(plan, verifiers), plan.file.seed if plan else 0) as ctx:
        canaries.check(ctx, verifiers, "verify")
        judged = _counted(_judged(ctx, verifiers, counters, groups), found)
        if out is None:
            for _ in judged:
                pass
        else:
            _write(out, judged)
            hint(f"every answer with its scores: {out}")
    if as_json:
        say(_as_json(found, counters))
    else:
        show(*_tables(file, found, counters))
        for name in canaries.without(verifiers):
            hint(f"no canaries: nothing would tell if {name} were broken")
    if found.verdicts["pass"] < fail_under * found.answers:
        say(f"{found.verdicts['pass'] / found.answers:.1%} of the answers passed, fewer than {fail_under:.1%}")
        raise typer.Exit(REFUSED)


def _own(phases: Sequence[Any]) -> list[Verifier]:
    return list(next((phase.verify for phase in phases if phase.verify), ()))


def _parts(columns: Iterable[str]) -> dict[str, str]:
    found = {}
    for item in columns:
        part, equals, name = item.partition("=")
        if not equals or not name:
            raise ConfigError(f"--column is {item!r}; write PART=NAME, for example --column completion=output")
        found[part] = name
    return found


def _counter(verifier: Verifier) -> Counter:
    from outcross.engine.conserve import Counter
    from outcross.stages import name_of

    return Counter("verify", name_of(verifier))


def _judged(ctx: Context, verifiers: Sequence[Verifier], counters: Sequence[Counter], groups: Iterable[Group]) -> Iterable[Group]:
    from outcross.engine.conserve import verified

    for verifier, counter in zip(verifiers, counters, strict=True):
        groups = verified(verifier, ctx, groups, counter)
    return groups


def _counted(groups: Iterable[Group], found: Tallied) -> Iterator[Group]:
    for number, group in enumerate(groups):
        found.add(group, number)
        yield group


# ── what is told ───────────────────────────────────────────────────────────────────────────────────────────────────────
def _tables(file: Path, found: Tallied, counters: Sequence[Counter]) -> Iterator[RenderableType]:
    rows = [(item.name, f"{item.into:,}", *(f"{item.detail[verdict]:,}" for verdict in ORDER), _pace(item)) for item in counters]
    if len(counters) > 1:
        rows.append(("all together", f"{found.answers:,}", *(f"{found.verdicts[verdict]:,}" for verdict in ORDER), ""))
    names = ("verifier", "in", *ORDER, "time an answer")
    yield table(f"{file.name}: in = pass + fail + error + abstain", names, rows, right=names[1:])
    if found.reasons:
        most = found.reasons.most_common(REASONS)
        lines = [
            (name, verdict, f"{count:,}", reason or "–", found.cases[name, verdict, reason]) for (name, verdict, reason), count in most
        ]
        left = len(found.reasons) - len(most)
        title = f"Reasons{f', and {left:,} rarer ones' if left else ''}"
        yield table(title, ("verifier", "verdict", "answers", "reason", "for example"), lines, right=("answers",))


def _pace(counter: Counter) -> str:
    seconds = counter.took()["seconds_per_sample"]
    return f"{1000 * seconds:.2f} ms"


def _as_json(found: Tallied, counters: Sequence[Counter]) -> str:
    import json

    verifiers = {item.name: _by_verdict(item.into, item.detail) | {"seconds": item.took()["seconds"]} for item in counters}
    reasons = [
        {"verifier": name, "verdict": verdict, "reason": reason, "answers": count}
        for (name, verdict, reason), count in found.reasons.most_common()
    ]
    together = _by_verdict(found.answers, found.verdicts)
    return json.dumps({"verifiers": verifiers, "all": together, "reasons": reasons}, ensure_ascii=False, indent=1)


def _by_verdict(into: int, counts: Mapping[Any, int]) -> dict[str, Any]:
    return {"in": into} | {verdict: counts.get(verdict, 0) for verdict in ORDER}


def _write(path: Path, groups: Iterable[Group]) -> None:
    from outcross.cli.rowfiles import write_file

    write_file(path, (_row(group, sample) for group in groups for sample in group.samples))


def _row(group: Group, sample: Sample) -> dict[str, Any]:
    task = group.task
    prompt: Any = task.prompt
    if isinstance(prompt, tuple):
        prompt = [{"role": item.role, "content": item.content} for item in prompt]
    return {
        "task_id": task.id,
        "prompt": prompt,
        "completion": sample.text,
        "answer": task.answer,
        "subgroup": task.subgroup,
        "columns": [{"name": name, "value": value} for name, value in task.columns],
        "verdict": sample.verdict,
        "value": sample.value,
        "scores": [{name: getattr(score, name) for name in score.__struct_fields__} for score in sample.scores],
    }
