"""`outcross prefer` and `outcross judge-check`: two files of answers compared by a judge, and a judge compared with people's labels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import command, hint, say, show, table
from outcross.errors import ConfigError, DataError

if TYPE_CHECKING:
    from outcross.estimates import Estimate
    from outcross.types import Group, Sample, Score
    from outcross.verify.judge_pairwise import PairwiseJudge

JUDGE = "pairwise_judge"


@dataclass(frozen=True)
class Judged:
    """One comparison: the probability that the first answer is better, over both orders, and with it shown first and second."""

    task: str
    subgroup: str
    p: float
    first: float
    second: float
    lengths: tuple[int, int]

    @property
    def turned(self) -> bool:
        """Whether the verdict changes with the order."""
        return (self.first - 0.5) * (self.second - 0.5) < 0


@dataclass(frozen=True)
class Line:
    """A set of comparisons in figures. `at_equal_length`: None where lengths or labels do not vary enough to tell."""

    name: str
    preferred: Estimate
    at_equal_length: Estimate | None
    ties: int
    turned: Estimate
    errors: int


@command
def prefer(
    a: Path = typer.Argument(help="Answers: AlpacaEval's model outputs (instruction, output), or prompts and completions.", metavar="A"),
    b: Path = typer.Argument(help="The answers that they are held against.", metavar="B"),
    run: Path = typer.Option(help="The run file, or run, whose models judge: it names a model for the role `judge`.", metavar="RUN_FILE"),
    out: Path | None = typer.Option(None, "--out", "-o", help="Write AlpacaEval's annotations as JSON.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of a table."),
    seed: int = typer.Option(0, help="Seed of what the judge draws.", min=0),
) -> None:
    """How often a judge prefers the answers of A to those of B.

    Each pair is asked in both orders. The win rate is told as it is, and at equal length: judges like long answers. Answers are matched
    by their prompts. The settings of a pairwise_judge in the run file are kept.
    """
    if out is not None and (out.is_dir() or not out.resolve().parent.is_dir()):
        raise ConfigError(f"--out is {out}; name a file in a folder that there is")
    mine, theirs = _answers(a), _answers(b)
    shared = [prompt for prompt in mine if prompt in theirs]
    if not shared:
        raise DataError(f"{a} and {b} have no prompt in common; both must answer the same instructions")
    groups = [_against(mine[prompt], theirs[prompt].samples[0].text) for prompt in shared]
    found = _compared(groups, run, seed)
    left = len(mine) + len(theirs) - 2 * len(shared)
    lines = [line_of("A preferred to B", [item for _, item in found if item is not None], sum(item is None for _, item in found))]
    if out is not None:
        out.write_text(json.dumps([*_annotations(a, b, found, run)], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _print(lines, f"{a.name} against {b.name}: {len(shared):,} prompts", "preferred", as_json)
    if left and not as_json:
        hint(f"{left:,} prompts stand in one file alone and were left out")
    _tell_length(lines[0], as_json)


@command
def judge_check(
    pairs: Path = typer.Argument(help="Comparisons that people made: prompt, chosen, rejected, and perhaps subgroup.", metavar="PAIRS"),
    run: Path = typer.Option(help="The run file, or run, that names a model for the role `judge`.", metavar="RUN_FILE"),
    limit: int | None = typer.Option(None, help="Only so many pairs, the first ones.", min=1, show_default=False),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of a table."),
    seed: int = typer.Option(0, help="Seed of what the judge draws.", min=0),
) -> None:
    """How often a judge prefers what people chose, by group.

    A tie counts half. Also how often its verdict changes with the order, and how often it agrees where both answers are equally long.
    """
    found = _compared(list(_labelled(pairs, limit)), run, seed)
    by_group: dict[str, list[Judged | None]] = {"all": [item for _, item in found]}
    for group, item in found:
        if group.task.subgroup is not None:
            by_group.setdefault(group.task.subgroup, []).append(item)
    lines = [
        line_of(name, [x for x in items if x is not None], sum(x is None for x in items))
        for name, items in by_group.items()
        if name == "all" or any(x is not None for x in items)
    ]
    _print(lines, f"{pairs.name}: {len(found):,} pairs", "agrees with people", as_json)
    silent = [name for name in by_group if name not in {line.name for line in lines}]
    if silent and not as_json:
        hint(f"no verdict on any pair of {', '.join(silent)}: left out of the table")
    low = lines[0].preferred.low
    if not as_json and (low is None or low <= 0.5):
        hint("this judge is not shown to agree with people more often than a coin; a run that it teaches needs `unsafe: true`")


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _answers(path: Path) -> dict[str, Group]:
    """The first whole answer to each prompt of a file, as a group of one."""
    from outcross.tasks.answered import answered
    from outcross.text import prompt_text
    from outcross.types import Group

    found: dict[str, Group] = {}
    for group in answered(path, {}):
        whole = [sample for sample in group.samples if not sample.error]
        if whole:
            found.setdefault(prompt_text(group.task.prompt), Group(group.task, (whole[0],)))
    if not found:
        raise DataError(f"{path} holds no answer; it needs the columns instruction and output, or prompt and completion")
    return found


def _labelled(path: Path, limit: int | None) -> Iterator[Group]:
    from itertools import islice

    from outcross.tasks.files import RealFiles
    from outcross.tasks.rows import read
    from outcross.types import Completion, Group, Sample, Task, Turn

    grouped = {"prompt": "prompt", "answer": "chosen", "rejected": "rejected", "subgroup": "subgroup"}
    columns = grouped if set(grouped.values()) <= set(next(read(path))[1]) else {}
    for pair in islice(RealFiles(path, columns=columns), limit):
        if not isinstance(pair.completion, str) or not isinstance(pair.rejected, str):
            raise DataError(
                f"{path}: the row {pair.id[:12]} has no rejected answer; judge-check reads comparisons: prompt, chosen, rejected"
            )
        task = Task(pair.id, pair.prompt, pair.rejected, pair.subgroup)
        yield Group(task, (Sample(pair.id, (Turn(pair.prompt, Completion(pair.completion)),), pair.origin),))


def _against(group: Group, other: str) -> Group:
    from outcross.types import Group, Task

    task = group.task
    return Group(Task(task.id, task.prompt, other, task.subgroup), group.samples)


# ── judging ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _compared(groups: Sequence[Group], run: Path, seed: int) -> list[tuple[Group, Judged | None]]:
    """Each group's answer held against its task's; None where the judge gave no verdict. Its canaries are tried first."""
    from outcross.cli.verifiers import models_of, outside, plan_of
    from outcross.engine import canaries

    plan = plan_of(run)
    judge = _judge([verifier for phase in plan.build_recipe().phases for verifier in phase.verify])
    with outside(models_of(plan, [judge]), seed) as ctx:
        canaries.check(ctx, [judge], "prefer")
        return [(group, _judged(group, group.samples[0])) for group in judge(ctx, groups)]


def _judge(verifiers: Iterable[object]) -> PairwiseJudge:
    """The run file's pairwise judge, wherever it stands, held against the other file's answer; else one of the usual settings."""
    from outcross.stages import parts_of
    from outcross.verify.judge_pairwise import PairwiseJudge

    waiting = list(verifiers)
    while waiting:
        verifier = waiting.pop(0)
        if isinstance(verifier, PairwiseJudge):
            return replace(verifier, against="reference")
        waiting += parts_of(verifier)
    return PairwiseJudge(against="reference")


def _judged(group: Group, sample: Sample) -> Judged | None:
    from outcross.judgement import judgement_of

    score: Score | None = next((item for item in sample.scores if item.verifier == JUDGE), None)
    judgement = judgement_of(score) if score is not None and score.value is not None else None
    if judgement is None or not judgement.pairs:
        return None
    pair, other = judgement.pairs[0], group.task.answer or ""
    return Judged(group.task.id, group.task.subgroup or "", pair.p, pair.first, pair.second, (len(sample.text), len(other)))


def line_of(name: str, found: Sequence[Judged], errors: int) -> Line:
    """Figures of some comparisons, with intervals over tasks. Raises `DataError` when there is none."""
    from outcross.estimates import logistic, share

    tasks = [item.task for item in found]
    preferred, turned = share([item.p for item in found], tasks), share([float(item.turned) for item in found], tasks)
    if preferred is None or turned is None:
        raise DataError(f"{name}: the judge gave no verdict on any of {errors:,} pairs; `outcross selftest` tries it alone")
    ratios = [math.log(max(1, item.lengths[0]) / max(1, item.lengths[1])) for item in found]
    fitted = logistic(ratios, [item.p for item in found], tasks)
    return Line(name, preferred, fitted.at_zero if fitted else None, sum(item.p == 0.5 for item in found), turned, errors)


# ── what comes out ─────────────────────────────────────────────────────────────────────────────────────────────────────
def _annotations(a: Path, b: Path, found: Iterable[tuple[Group, Judged | None]], run: Path) -> Iterator[Mapping[str, Any]]:
    """AlpacaEval's form: output_2 is the model, output_1 what it is held against, and `preference` 1 plus the probability of output_2."""
    from outcross.text import prompt_text

    for group, item in found:
        yield {
            "instruction": prompt_text(group.task.prompt),
            "output_1": group.task.answer,
            "generator_1": b.stem,
            "output_2": group.samples[0].text,
            "generator_2": a.stem,
            "annotator": f"outcross {JUDGE} of {run.name}",
            "preference": None if item is None else 1 + item.p,
        }


def _print(lines: Sequence[Line], title: str, what: str, as_json: bool) -> None:
    if as_json:
        say(json.dumps([asdict(item) for item in lines], indent=1))
        return
    columns = ("", "pairs", what, "at equal length", "ties", "verdict turns with the order", "no verdict")
    rows = (
        (
            item.name,
            f"{item.preferred.items:,}",
            _told(item.preferred),
            _told(item.at_equal_length),
            f"{item.ties:,}",
            _told(item.turned),
            f"{item.errors:,}",
        )
        for item in lines
    )
    show(table(title, columns, rows, right=columns[1:]))


def _told(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    interval = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:.1%} to {estimate.high:.1%})"
    return f"{estimate.mean:.1%}{interval}"


def _tell_length(line: Line, as_json: bool) -> None:
    """Says when what A gains over B is mostly its length."""
    fair = line.at_equal_length
    if as_json or fair is None:
        return
    gain, left = line.preferred.mean - 0.5, fair.mean - 0.5
    if gain > 0 and left < gain / 2:
        hint(f"most of the gain is length: {gain:+.1%} over a tie as it is, {left:+.1%} where both answers are equally long")
