"""`outcross reproduce`: published claims, run here and judged."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from outcross.cli.shell import command, hint, say, show, table
from outcross.errors import ConfigError

if TYPE_CHECKING:
    from outcross.lab.claim import Claim, Result


class Scale(StrEnum):
    """How many replicates: 1, 10 or 100 times those of the claim."""

    toy = "toy"
    small = "small"
    full = "full"


@command
def reproduce(
    names: list[str] = typer.Argument(None, help="Claims to run.", metavar="[CLAIM]...", show_default=False),
    everything: bool = typer.Option(False, "--all", help="Run every claim that can be run here."),
    listing: bool = typer.Option(False, "--list", help="Show every claim and run none."),
    scale: Scale = typer.Option(Scale.toy, help="1, 10 or 100 times the replicates."),
    seed: int = typer.Option(0, help="The same seed gives the same numbers.", min=0),
) -> None:
    """Run published claims about collapse and set theory, paper and our numbers side by side."""
    if sum(map(bool, (names, everything, listing))) != 1:
        raise ConfigError("say what to run: --list shows all claims; then name some of them, or give --all")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the matrices are small: more threads only wait for each other
    from outcross.lab.claims import CLAIMS, find

    if listing:
        _list(CLAIMS)
        return
    chosen = find(names) if names else tuple(claim for claim in CLAIMS if claim.measure)
    _run(chosen, scale, seed)


def _list(claims: tuple[Claim, ...]) -> None:
    rows = [
        (
            claim.name,
            claim.kind,
            "" if claim.published is None else _number(claim.published),
            claim.what,
            claim.paper,
            claim.place,
            _cost(claim),
        )
        for claim in claims
    ]
    show(table("Claims", ("claim", "kind", "published", "what", "paper", "place", "replicates"), rows, right=("published", "replicates")))
    say(_tally(claim.kind for claim in claims))


def _cost(claim: Claim) -> str:
    return f"{claim.replicates:,}" if claim.measure else "not run"


def _run(claims: tuple[Claim, ...], scale: Scale, seed: int) -> None:
    results = []
    for number, claim in enumerate(claims, 1):
        hint(f"{number}/{len(claims)} {claim.name}")
        results.append(claim.run(scale.value, seed))
    rows = [_row(claim, result) for claim, result in zip(claims, results, strict=True)]
    columns = ("claim", "kind", "theory", "published", "ours", "verdict")
    show(table(f"Scale {scale.value}, seed {seed}; ours ± half a 95 % interval", columns, rows, right=columns[2:5]))
    for kind in dict.fromkeys(claim.kind for claim in claims):
        say(f"{kind}: {_tally(result.verdict for claim, result in zip(claims, results, strict=True) if claim.kind == kind)}")


def _row(claim: Claim, result: Result) -> tuple[str, ...]:
    theory = "> 0" if result.theory is None else _number(result.theory)
    published = "" if claim.published is None else _number(claim.published)
    ours = _number(result.ours) + (f" ± {result.half_width:.2g}" if result.standard_error else " (exact)")
    return claim.name, claim.kind, theory, published, ours, result.verdict


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _tally(words: Iterable[str]) -> str:
    return " · ".join(f"{word} {count}" for word, count in Counter(words).items())
