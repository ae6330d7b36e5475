"""`outcross verifier-check`: is a verifier good enough that selection by it beats no filter?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from outcross.cli.shell import command, hint, say, show, table
from outcross.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from outcross.breakeven import Forecast, Labelled, Rate
    from outcross.config.runfile import Plan
    from outcross.engine.proofs import Proof
    from outcross.stages import Model, Role, Verifier
    from outcross.types import Group, Prompt, Sample

LABELS = {"right": True, "pass": True, "true": True, "1": True, "wrong": False, "fail": False, "false": False, "0": False}
OWN = ("prompt", "answer", "label", "verdict", "subgroup", "task_id", "sample_id", "reference", "model", "verdicts", "reviewer", "reason")


@command
def verifier_check(
    verifier: str = typer.Argument(help="The verifier: its name in the run file, or a `use:` value such as exact.", metavar="VERIFIER"),
    labels: Path = typer.Option(..., "--labels", help="Answers of the policy with the columns prompt, answer, label (right or wrong)."),
    run: Path | None = typer.Option(
        None, "--run", help="The run file, or run, that uses it: brings its settings and models.", show_default=False
    ),
    out: Path | None = typer.Option(
        None, "--out", "-o", help="Where the proof goes; default proofs/ beside the run file.", show_default=False
    ),
    as_json: bool = typer.Option(False, "--json", help="JSON instead of tables."),
    seed: int = typer.Option(0, help="Seed of what the verifier draws.", min=0),
) -> None:
    """Measure a verifier on labelled answers, and say what selection by it will do.

    The labels have to be a random draw of the policy's own answers; of several answers to one task one counts. Further columns: subgroup;
    task_id (answers of one task stand together, for votes); reference (the task's reference answer); model (which gave the answer). A file of
    `outcross review RUN --draw N --all` will do as it is, once it is filled in.

    A run whose judges, votes or trained verifiers teach asks for the proof that this writes: name it under `proofs:`.
    """
    from outcross.engine.proofs import proof_for
    from outcross.stages import name_of

    plan = None if run is None else _plan(run)
    made = _verifier(verifier, plan)
    models = _models(made, plan)
    try:
        proof = check(made, models, labels, seed)
    finally:
        for model in models.values():
            model.close()
    path = out or _default_out(run, proof)
    _write(path, proof)
    if as_json:
        import msgspec

        found = {**msgspec.to_builtins(proof), "forecast": proof.forecast, "proof": str(path)}
        say(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
        return
    _print(proof, name_of(made))
    say(f"proof: {path}")
    if proof_for(made, models, (proof,)) is not None:
        hint(f"name it in the run file: `proofs: [{path}]`")


def check(verifier: Verifier, models: Mapping[Role, Model], labels: Path, seed: int = 0) -> Proof:
    """What a verifier says of labelled answers, counted. Raises `DataError` for a file that cannot be used."""
    from outcross.breakeven import counted
    from outcross.engine.proofs import MOST_ALPHA, Proof, asked_by
    from outcross.recipe import fingerprint
    from outcross.stages import name_of, version_of
    from outcross.tasks.rows import content_digest

    groups, known, answers_of = read_labels(labels)
    said = list(_said(verifier, models, groups, seed))
    strata = dict.fromkeys(subgroup for _, subgroup, _ in said if subgroup is not None)
    return Proof(
        verifier=name_of(verifier),
        version=version_of(verifier),
        ground=verifier.ground,
        settings=fingerprint(verifier),
        models=asked_by(verifier, models),
        labels=content_digest(labels)[:32],
        rows=len(known),
        alpha=MOST_ALPHA,
        counts=counted((known[sample], verdict) for sample, _, verdict in said),
        subgroups={name: counted((known[sample], verdict) for sample, at, verdict in said if at == name) for name in strata},
        answers_of=answers_of,
    )


def _said(verifier: Verifier, models: Mapping[Role, Model], groups: Iterable[Group], seed: int) -> Iterator[tuple[str, str | None, Any]]:
    """Sample, subgroup and verdict of one random answer of every task: the tests need draws that do not depend on each other."""
    import tempfile
    from contextlib import closing

    from outcross.engine.budget import Budget, Meter
    from outcross.engine.executor import Executor
    from outcross.engine.journal import Journal
    from outcross.engine.past import Recorded
    from outcross.engine.store import RunDir
    from outcross.stages import Context
    from outcross.types import content_hash

    with tempfile.TemporaryDirectory() as folder, closing(Journal(Path(folder) / "responses.db")) as journal:
        past = Recorded(RunDir(Path(folder)), (), (), Path(folder))
        ctx = Context(models, past, "check", 0, seed, Executor(journal, Meter(Budget(), journal)))
        for group in verifier(ctx, groups):
            sample = min(group.samples, key=lambda item: content_hash(seed, item.id))
            yield sample.id, group.task.subgroup, sample.scores[-1].verdict


def read_labels(path: Path) -> tuple[list[Group], dict[str, bool], tuple[str, ...]]:
    """Labelled answers as groups, their labels by sample, and the models that gave them. Raises `DataError` naming the row."""
    from outcross.tasks.rows import read
    from outcross.types import Group, Task, content_hash

    tasks: dict[str, Task] = {}
    samples: dict[str, list[Sample]] = {}
    known: dict[str, bool] = {}
    answered: dict[str, None] = {}
    for number, row in read(path):
        label = _label(path, number, row)
        if label is None:
            continue
        prompt, answer = _prompt(path, number, row), row.get("answer")
        if not isinstance(answer, str):
            raise DataError(f"{path}, row {number}: `answer` is {answer!r:.60}; it must be the text that the policy answered")
        key = str(row.get("task_id") or content_hash("task", prompt))
        more = tuple((str(name), str(value)) for name, value in row.items() if name not in OWN and isinstance(value, str | int | float))
        tasks.setdefault(key, Task(key, prompt, _text(row.get("reference")), _text(row.get("subgroup")), columns=more))
        made = _sample(key, len(known), prompt, answer, str(row.get("model") or ""))
        samples.setdefault(key, []).append(made)
        known[made.id] = label
        if row.get("model"):
            answered[str(row["model"])] = None
    if not known:
        raise DataError(f"{path} holds no labelled row; write right or wrong into the column `label`")
    return [Group(task, tuple(samples[key])) for key, task in tasks.items()], known, tuple(answered)


def _label(path: Path, number: int, row: Mapping[str, Any]) -> bool | None:
    """What people say; None where nobody has looked yet."""
    if "label" not in row and "verdict" not in row:
        raise DataError(f"{path}, row {number}: there is no column `label` (right or wrong); its columns are {', '.join(map(str, row))}")
    said = str(row["label"] if "label" in row else row["verdict"]).strip().lower()
    if said in ("", "none", "abstain"):
        return None
    if said not in LABELS:
        raise DataError(f"{path}, row {number}: the label is {said!r}; {did_you_mean(said, LABELS)}")
    return LABELS[said]


def _prompt(path: Path, number: int, row: Mapping[str, Any]) -> Prompt:
    from outcross.types import Message

    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in prompt):
        return tuple(Message(str(item["role"]), str(item["content"])) for item in prompt)
    raise DataError(f"{path}, row {number}: `prompt` is {prompt!r:.60}; it must be text, or a list of messages with role and content")


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


def _sample(task: str, number: int, prompt: Prompt, answer: str, model: str) -> Sample:
    from outcross.types import Completion, Origin, Sample, Turn, sample_id

    turns, origin = (Turn(prompt, Completion(answer)),), Origin("synthetic", source=model)
    return Sample(sample_id(task, number, turns, origin), turns, origin)


def _plan(path: Path) -> Plan:
    from outcross.config.runfile import load, of_run
    from outcross.engine.store import RunDir

    return of_run(RunDir(path)) if (path / "manifest.json").is_file() else load(path)


def _verifier(name: str, plan: Plan | None) -> Verifier:
    """The verifier of this name in the plan's phases, or one made from a `use:` value."""
    from outcross.config import find
    from outcross.config.bind import Place, bind_use
    from outcross.config.yamlfile import parse_value
    from outcross.stages import name_of

    if plan is not None:
        offered = {name_of(item): item for phase in plan.build_recipe().phases for item in phase.verify}
        if name not in offered:
            raise ConfigError(f"the run file has no verifier {name!r}; {did_you_mean(name, offered)}")
        return offered[name]
    made: Verifier = bind_use(parse_value(name, "verifier"), find.VERIFIER, Place("verifier", Path.cwd()), {}).make()
    return made


def _models(verifier: Verifier, plan: Plan | None) -> dict[Role, Model]:
    from outcross.stages import name_of, roles_of

    roles = roles_of(verifier)
    if roles and plan is None:
        raise ConfigError(f"{name_of(verifier)} asks the role {roles[0]!r}; name the run file that has a model for it with --run")
    return {} if plan is None else {role: plan.build_model(role) for role in roles}


def _default_out(run: Path | None, proof: Proof) -> Path:
    beside = run.parent if run is not None and run.is_file() else Path()
    return beside / "proofs" / f"{proof.verifier}-{proof.settings[:8]}-{proof.labels[:8]}.json"


def _write(path: Path, proof: Proof) -> None:
    from outcross.engine.store import write_json

    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, proof)


# ── what is printed ────────────────────────────────────────────────────────────────────────────────────────────────────
def _print(proof: Proof, name: str) -> None:
    from outcross.breakeven import forecast

    says = proof.forecast
    strata = {"all": (proof.counts, says), **{item: (found, forecast(found, proof.alpha)) for item, found in proof.subgroups.items()}}
    columns = (
        "answers",
        "right",
        "wrong",
        "keeps of right (φ)",
        "keeps of wrong (ψ)",
        "break-even p*",
        "wrong now (p)",
        "abstains",
        "errors",
    )
    show(
        table(
            f"{name}@{proof.version} ({proof.ground}) on {proof.rows:,} labelled answers, one of each task counted",
            columns,
            (_row(*item) for item in strata.items()),
        )
    )
    say(f"intervals: φ, ψ, p and p* of a row hold together with {1 - proof.alpha:.0%} confidence; each row for itself")
    for line in _told(says):
        say(line)


def _row(name: str, found: tuple[Labelled, Forecast]) -> tuple[str, ...]:
    counts, says = found
    abstains, errors = counts.right.abstained + counts.wrong.abstained, counts.right.errors + counts.wrong.errors
    rates = (says.keeps_right, says.keeps_wrong, says.break_even, says.wrong)
    return name, f"{counts.right.judged:,}", f"{counts.wrong.judged:,}", *map(_percent, rates), f"{abstains:,}", f"{errors:,}"


def _percent(rate: Rate) -> str:
    return "?" if math.isnan(rate.estimate) else f"{rate.estimate:.1%} ({rate.low:.1%} to {rate.high:.1%})"


def _told(says: Forecast) -> Iterator[str]:
    yield f"right answers before selection: {_percent(says.before)}; after: {_percent(says.after)}"
    below = "shown to be below break-even" if says.below else "not shown to be below break-even"
    purer = (
        "right answers are kept more often than wrong ones" if says.purer else "not shown to keep right answers more often than wrong ones"
    )
    verdict = {"helps": "selection helps", "hurts": "selection hurts", "cannot be shown": "that selection helps cannot be shown"}[says.says]
    yield f"{verdict}: the share of errors is {below}; {purer}"
    if math.isnan(says.after.estimate):
        yield "it kept none of them, so that nothing can be said of what it keeps"
    elif says.says == "cannot be shown":
        yield (
            "no number of labels would show it at these rates"
            if says.more is None
            else f"labels of about {says.more:,} more tasks would decide"
        )
