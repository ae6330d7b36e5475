"""`outcross selftest`: verifiers on answers whose verdicts are known."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, hint, show, table
from outcross.errors import CanaryFailed, ConfigError, OutcrossError

if TYPE_CHECKING:
    from outcross.config.runfile import Plan
    from outcross.engine.canaries import Found
    from outcross.stages import Context, Verifier

LEVELS = ("namespaces", "container by command", "process")  # how the evidence of a sandboxed verdict begins


@dataclass(frozen=True)
class Line:
    """One verifier: what its canaries came to. `failed`: the message of the first that was wrong."""

    verifier: str
    version: str = ""
    ground: str = ""
    gold: str = ""
    bad: str = ""
    other: str = ""
    isolation: str = ""
    took: str = ""
    result: str = ""
    failed: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        return (self.verifier, self.version, self.ground, self.gold, self.bad, self.other, self.isolation, self.took, self.result)


@command
def selftest(
    words: list[str] = typer.Argument(
        None,
        help="A run file or a run, or verifiers such as exact or '{use: code, seconds: 2}'; default: all that ship.",
        metavar="RUN_FILE | USE",
        show_default=False,
    ),
) -> None:
    """Try verifiers on answers whose verdicts are known.

    Gold answers must pass and known-bad ones fail. The same is done before every batch of a run. Exits with 4 if any is wrong.
    """
    from outcross.cli.verifiers import from_words, models_of, outside, plan_of

    plan: Plan | None = None
    absent: dict[str, list[str]] = {}
    if words and len(words) == 1 and _is_file(words[0]):
        plan = plan_of(Path(words[0]))
        verifiers = _of_plan(plan)
    elif words:
        verifiers = from_words(words)
    else:
        verifiers, absent = _shipped()
    with outside(models_of(plan, verifiers), plan.file.seed if plan else 0) as ctx:
        lines = [_tried(ctx, verifier) for verifier in _each(verifiers)]
    names = ("verifier", "version", "ground", "gold", "known bad", "other", "isolation", "time", "")
    show(
        table(
            "Canaries: gold answers must pass, known-bad ones must fail",
            names,
            (item.cells for item in lines),
            right=names[3:6],
        )
    )
    for need, lacking in absent.items():
        hint(f"not tried, since they need {need}: {', '.join(lacking)}; try a run's own with `outcross selftest RUN_FILE`")
    failed = [item.failed for item in lines if item.failed]
    if failed:
        raise CanaryFailed("\n".join(failed))
    if plan is not None and not lines:
        hint("the run has no verifier")


def _is_file(word: str) -> bool:
    path = Path(word)
    return path.suffix in (".yaml", ".yml") or (path / "manifest.json").is_file()


def _of_plan(plan: Plan) -> list[Verifier]:
    """Every verifier that a run would use: in its generators, its rounds, and its probes."""
    from outcross.engine.canaries import verifying
    from outcross.engine.guards import probes_of
    from outcross.stages import parts_of

    recipe = plan.build_recipe()
    found: list[Verifier] = []
    for phase in recipe.phases:
        probes = (*probes_of(recipe.bench, phase), *(phase.release.probes if phase.release else ()))
        found += [*verifying(phase), *(item for probe in probes for item in parts_of(probe))]
    return found


def _each(verifiers: Sequence[Verifier]) -> list[Verifier]:
    from outcross.engine.canaries import leaves

    return leaves(verifiers)


def _shipped() -> tuple[list[Verifier], dict[str, list[str]]]:
    """All that ship and need neither settings nor a model; the names of the others, by what they need."""
    from outcross.cli.verifiers import from_words
    from outcross.config.find import VERIFIER, names
    from outcross.stages import roles_of

    found: list[Verifier] = []
    absent: dict[str, list[str]] = {"settings": [], "a model": []}
    for name in names(VERIFIER):
        try:
            (verifier,) = from_words([name])
        except ConfigError:
            absent["settings"].append(name)
            continue
        if roles_of(verifier):
            absent["a model"].append(name)
        else:
            found.append(verifier)
    return found, absent


def _tried(ctx: Context, verifier: Verifier) -> Line:
    from outcross.engine import canaries
    from outcross.stages import canaries_of, name_of, version_of

    known = (name_of(verifier), version_of(verifier), verifier.ground)
    try:
        if not canaries_of(verifier):
            return Line(*known, result="! no canaries: nothing would tell if it were broken")
        began = time.monotonic()
        found = canaries.results(ctx, verifier)
    except CanaryFailed:
        raise
    except OutcrossError as error:
        return Line(*known, result=f"– cannot run here: {error}")
    took = f"{time.monotonic() - began:.2f} s"
    counted = canaries.summed(verifier, found, "selftest")
    cells = (*known, str(counted.gold), str(counted.bad), str(counted.other), next(_isolation(found), ""), took)
    try:
        canaries.tell_wrong(verifier, found)
    except CanaryFailed as error:
        wrong = sum(len(item.wrong) for item in found)
        return Line(*cells, result=f"✗ {wrong} wrong", failed=str(error))
    return Line(*cells, result="✓")


def _isolation(found: Sequence[Found]) -> Iterator[str]:
    """The level that the evidence names."""
    for item in found:
        for score in item.scores:
            level = score.evidence.partition(";")[0]
            if level.startswith(LEVELS):
                yield level
