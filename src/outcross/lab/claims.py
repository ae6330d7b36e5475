"""The claims that `outcross reproduce` can run, and those it can only cite."""

from __future__ import annotations

from collections.abc import Sequence

from outcross.errors import ConfigError, did_you_mean
from outcross.lab import experiments as run
from outcross.lab import rules
from outcross.lab.claim import Claim, exact
from outcross.lab.claims_cited import CITED
from outcross.lab.claims_refit import ALONE, MIXED

FENG = "Feng et al., arXiv:2406.07515"
WYLLIE = "Wyllie et al., arXiv:2403.07857"
SEVENTY = "“At least 70 % real”, folklore"
ALPHAPROOF = "Hubert et al., Nature 2025, AlphaProof"
ABSOLUTE_ZERO = "Zhao et al., arXiv:2505.03335"

_VERIFYING = (
    Claim(
        "verification-none",
        FENG,
        "p* = 1/(1 + ψ/φ)",
        0.5,
        "identity",
        "share of wrong labels at which a linear classifier turns over; nothing filtered",
        run.transition(1.0, 1.0),
        replicates=2_000,
        seconds=1.5,
    ),
    Claim(
        "verification-weak",
        FENG,
        "p* = 1/(1 + ψ/φ)",
        0.75,
        "identity",
        "the same with φ = 0.9, ψ = 0.3: 0.75",
        run.transition(0.9, 0.3),
        replicates=2_000,
        seconds=1.5,
    ),
    Claim(
        "verification-strong",
        FENG,
        "p* = 1/(1 + ψ/φ)",
        0.933,
        "identity",
        "the same with φ = 0.7, ψ = 0.05: 0.933",
        run.transition(0.7, 0.05),
        replicates=2_000,
        seconds=1.5,
    ),
    Claim(
        "minority-temperature",
        WYLLIE,
        "derived",
        None,
        "identity",
        "odds^(1/τ) a round: a 10 % group after 4 rounds at τ = 0.8",
        run.minority,
    ),
    Claim(
        "minority-drift",
        WYLLIE,
        "derived",
        None,
        "identity",
        "2q(1 − q)(1 − 1/M)^g: two groups stay mixed, M = 100, 10 rounds at τ = 1",
        run.two_groups,
    ),
    Claim(
        "minority-floor",
        WYLLIE,
        "derived",
        None,
        "identity",
        "the same 10 % group after 4 rounds at τ = 0.8 when 70 % of the rows are real",
        run.floored_minority,
    ),
    Claim(
        "worst-group-unguarded",
        WYLLIE,
        "derived",
        None,
        "identity",
        "Σ 1/(M q_g): squared error of the minority's mean after 4 rounds at τ = 0.8, 20,000 rows a round, none real",
        run.worst_group,
        replicates=60_000,
    ),
    Claim(
        "worst-group-guarded",
        WYLLIE,
        "derived",
        None,
        "direction",
        "the minority's error after 4 rounds at τ = 0.8 is larger without real rows than with 70 %",
        run.guarded_worst_group,
    ),
)

_SHARES = (
    *(
        Claim(
            f"real-share-{name}",
            SEVENTY,
            "no primary source; derived",
            None,
            "identity",
            f"M·E μ² after 30 fits with {share * 100:.0f} % fresh real rows, M = 20 (1: real rows alone; 30: none)",
            run.real_share(share),
            replicates=160_000,
            seconds=1.5,
        )
        for name, share in (("ten", 0.1), ("thirty", 0.3), ("seventy", 0.7))
    ),
    Claim(
        "real-share-no-step-at-seventy",
        SEVENTY,
        "no primary source; derived",
        None,
        "direction",
        "the error falls more from 30 to 40 % real rows than from 60 to 70 %: 70 % is no threshold",
        run.gains((0.3, 0.4), (0.6, 0.7)),
        seconds=1.0,
    ),
)

_RULES = (
    Claim(
        "alphaproof-second-sample",
        ALPHAPROOF,
        "pseudocode, derived",
        None,
        "identity",
        "visits at which a node is sampled a second time",
        lambda *_: exact(rules.visits_threshold(1), rules.visits_at_samples(1)),
    ),
    Claim(
        "alphaproof-third-sample",
        ALPHAPROOF,
        "pseudocode, derived",
        None,
        "identity",
        "visits at which a node is sampled a third time",
        lambda *_: exact(rules.visits_threshold(2), rules.visits_at_samples(2)),
    ),
    Claim(
        "absolute-zero-difficulty",
        ABSOLUTE_ZERO,
        "the released reward, derived",
        None,
        "identity",
        "success rate of the solver that pays the proposer most, 8 tries",
        lambda *_: exact(rules.best_difficulty_formula(), rules.best_difficulty()),
    ),
    Claim(
        "kuhn-value",
        "Kuhn 1950",
        "a simplified two-person poker",
        -1 / 18,
        "identity",
        "value of Kuhn poker to the first player",
        lambda *_: exact(-1 / 18, rules.kuhn_value()),
    ),
)

CLAIMS: tuple[Claim, ...] = (*ALONE, *MIXED, *_VERIFYING, *_SHARES, *_RULES, *CITED)


def find(names: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of these names, in this order. Raises `ConfigError` for a name there is not."""
    known = {claim.name: claim for claim in CLAIMS}
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no claim {name!r}; {did_you_mean(name, known)}")
    return tuple(known[name] for name in names)
