"""`outcross validate`: everything that can be checked without spending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.costs import costs_of, print_costs
from outcross.cli.memory import memory_lines
from outcross.cli.power import power_lines
from outcross.cli.shell import command, say
from outcross.cli.start import WORDS

if TYPE_CHECKING:
    from outcross.config.runfile import Plan
    from outcross.engine.proofs import Proof
    from outcross.recipe import Recipe
    from outcross.stages import Model, Role


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
    check(plan, out or default_out(path, plan), path)


def check(plan: Plan, out: Path, path: Path) -> None:
    """Print every check as it passes. Raises at the first that does not."""
    from outcross.engine import stopping
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
    for line in _coverage(recipe.bench.tasks):
        say(f"    {line}")
    models = plan.build_models()
    say(f"✓ models: {', '.join(f'{role} {type(model).__name__} {model.id[:20]}' for role, model in models.items())}")
    proofs = plan.proofs()
    headings = check_plan(recipe, models, unsafe=plan.file.unsafe, proofs=proofs)
    check_floor(recipe, facts)
    stopping.check(recipe, facts)
    say("✓ guarantees: the plan keeps them" + ("; the report will be headed" if headings else ""))
    for heading in headings:
        say(f"    ! {heading}")
    for line in _proven(recipe, models, proofs):
        say(f"    {line}")
    for line in _canaries(recipe):
        say(f"    {line}")
    for line in [*memory_lines(recipe, models), *power_lines(recipe, facts.held_out)]:
        say(f"    {line}")
    print_costs(costs_of(recipe, models, facts, out), plan, out, path)
    for model in models.values():
        model.close()


def _coverage(tasks: object) -> list[str]:
    """What a task set that plans its diversity covers."""
    report = getattr(tasks, "coverage", None)
    return str(report()).splitlines() if callable(report) else []


def _phases(recipe: Recipe) -> Iterator[str]:
    from outcross.stages import name_of

    for phase in recipe.phases:
        steps = [phase.generate, *phase.verify, *phase.curate]
        names = " → ".join(name_of(step) for step in steps if step is not None)
        taught = " · teaches " + ", ".join(phase.learn) if phase.learn else " · data only"
        yield f"phase {phase.name}: {phase.rounds} × ({names}){taught}"
        for role, learn in phase.learn.items():
            if (stop := learn.plan.stop) is not None:
                yield f"    {role} may stop early by {stop.probe.name}, every {stop.every} steps; what these looks ask is not in the table below"


def _proven(recipe: Recipe, models: Mapping[Role, Model], proofs: Sequence[Proof]) -> Iterator[str]:
    """What shows that verifiers whose ground is an opinion beat no filter."""
    from outcross.engine.proofs import proof_for
    from outcross.stages import name_of

    verifiers = {name_of(verifier): verifier for phase in recipe.phases for verifier in phase.verify}
    for name, verifier in verifiers.items():
        proof = proof_for(verifier, models, proofs)
        if proof is not None:
            says = proof.forecast
            yield (
                f"proof of {name}@{proof.version}: on {proof.rows:,} labelled answers it keeps {says.keeps_right.estimate:.0%} of right and "
                f"{says.keeps_wrong.estimate:.0%} of wrong ones; {says.wrong.estimate:.0%} are wrong, break-even is at {says.break_even.estimate:.0%}"
            )


def _canaries(recipe: Recipe) -> Iterator[str]:
    """How many answers of known verdict each verifier is tried on before a batch."""
    from outcross.engine.canaries import leaves, verifying
    from outcross.engine.guards import probes_of
    from outcross.stages import canaries_of, name_of, parts_of

    probes = [probe for phase in recipe.phases for probe in (probes_of(recipe.bench, phase) if phase.learn else ())]
    probes += [probe for phase in recipe.phases if phase.release for probe in phase.release.probes]  # type: ignore[misc]
    used = [item for phase in recipe.phases for item in verifying(phase)] + [item for probe in probes for item in parts_of(probe)]
    for verifier in leaves(used):
        known = [verdict for canary in canaries_of(verifier) for verdict in canary.expected]
        if known:
            yield f"canaries of {name_of(verifier)}: {known.count('pass')} gold, {known.count('fail')} known bad, before every batch"
        else:
            yield f"! no canaries: nothing would tell if {name_of(verifier)} were broken; declare answers whose verdicts you know"
