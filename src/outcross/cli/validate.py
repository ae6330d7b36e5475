"""`outcross validate`: everything that can be checked without spending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.costs import costs_of, print_costs
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
    say("✓ guarantees: the plan keeps them" + ("; the report will be headed" if headings else ""))
    for heading in headings:
        say(f"    ! {heading}")
    for line in _proven(recipe, models, proofs):
        say(f"    {line}")
    for line in _canaries(recipe):
        say(f"    {line}")
    for line in _gates(recipe, facts.held_out):
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
