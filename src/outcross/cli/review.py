"""`outcross review`: which samples people are to look at, and what their verdicts show about a round's batch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, hint, open_run, say
from outcross.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from outcross.engine.admission import Batch
    from outcross.engine.store import RoundDir, RunDir
    from outcross.recipe import Expert
    from outcross.sequential import Finding


@command
def review(
    folder: Path = typer.Argument(help="The folder of the run.", metavar="RUN"),
    label: str | None = typer.Option(
        None, "--round", help="The round, such as train/0000; default the one that waits, else the last.", show_default=False
    ),
    draw: int | None = typer.Option(
        None, "--draw", help="Write a file with this many samples that nobody was shown yet.", min=1, show_default=False
    ),
    by: str | None = typer.Option(
        None,
        "--by",
        help="Draw as many of each stratum: subgroup or verdict. For looking; admission counts the random order.",
        show_default=False,
    ),
    everything: bool = typer.Option(
        False, "--all", help="Draw from all answers of the round, kept or not, without verdicts: labels for `outcross verifier-check`."
    ),
    sign: str | None = typer.Option(None, "--sign", help="Your name, under what the verdicts show.", metavar="NAME", show_default=False),
) -> None:
    """Draw samples for people, see how far their verdicts decide, and sign.

    People write pass or fail into `verdict`, their name into `reviewer` and, if they like, a `reason`. Verdicts count from the next round on,
    where a fail is a tombstone: the sample is never learnt from again. In a phase with `admit: expert` the signed sample decides on the batch.
    """
    from outcross.engine.admission import Batch

    if by not in (None, "subgroup", "verdict"):
        raise ConfigError(f"--by is {by!r}; {did_you_mean(by or '', ('subgroup', 'verdict'))}")
    run = open_run(folder)
    turn = _round(run, label)
    if everything and draw is None:
        raise ConfigError("--all is for drawing; add --draw N. What is signed is the batch that would be learnt")
    batch = Batch(run, turn, run.manifest["seed"], everything)
    if not batch.order:
        raise ConfigError(f"{turn.label} holds no samples to look at; its answers failed, or it was stopped before they were complete")
    if draw is not None:
        path, count = batch.draw(draw, by)  # type: ignore[arg-type]
        say(f"{path}: {count:,} samples of {turn.label}, in random order")
        then = f"outcross verifier-check VERIFIER --labels {path}" if everything else f"outcross review {folder} shows what they decide"
        hint(f"write pass or fail into `verdict` and your name into `reviewer`; then {then}")
        return
    expert = _expert(run, turn.phase)
    found = batch.look(batch.verdicts(), expert) if sign is None else batch.sign(sign, expert)
    _tell(batch, expert, found)
    if sign is not None:
        say(f"{sign} signed: the batch is {found.decision}ed")
        hint(f"next: outcross resume {folder}")


def _round(run: RunDir, label: str | None) -> RoundDir:
    begun = {turn.label: turn for turn in run.begun()}
    if not begun:
        raise ConfigError(f"{run.root} has not begun a round yet; there is nothing to review")
    if label is None:
        return list(begun.values())[-1]
    if label not in begun:
        raise ConfigError(f"there is no round {label!r}; {did_you_mean(label, begun)}")
    return begun[label]


def _expert(run: RunDir, phase: str) -> Expert:
    """What the phase asks of an acceptance sample; where it asks none, what would be asked."""
    from outcross.recipe import Expert

    found = next((item.get("expert") for item in run.manifest["phases"] if item["name"] == phase), None)
    return Expert() if found is None else Expert(**found)


def _tell(batch: Batch, expert: Expert, found: Finding) -> None:
    low, high = found.interval
    say(f"{batch.turn.label}: {batch.missing(found)}")
    say(
        f"error share of the batch: {low:.1%} to {high:.1%}, whenever you stop looking ({1 - expert.alpha:.0%} confidence); the limit is {expert.limit:.1%}"
    )
    told = {"accept": "enough: accept the batch", "reject": "enough: reject the batch", "go on": "not enough: go on looking"}
    say(told[found.decision])
