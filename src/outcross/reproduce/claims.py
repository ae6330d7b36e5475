"""All claims that `outcross reproduce` knows: simulated, trained and cited."""

from __future__ import annotations

from collections.abc import Sequence

from outcross.errors import ConfigError, did_you_mean
from outcross.lab.claim import Claim
from outcross.lab.claims import CLAIMS as SIMULATED
from outcross.reproduce.guarded import GUARD_CLAIMS
from outcross.reproduce.picture_claims import IMAGE_CLAIMS
from outcross.reproduce.trained import TEXT_CLAIMS, TrainedClaim

TRAINED: tuple[TrainedClaim, ...] = (*TEXT_CLAIMS, *GUARD_CLAIMS, *IMAGE_CLAIMS)
CLAIMS: tuple[Claim, ...] = (*(one for one in SIMULATED if one.measure), *TRAINED, *(one for one in SIMULATED if not one.measure))


def find(names: Sequence[str]) -> tuple[Claim, ...]:
    """The claims of these names, in this order. Raises `ConfigError` for a name there is not, and for a claim that is cited only."""
    known = {claim.name: claim for claim in CLAIMS}
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no claim {name!r}; {did_you_mean(name, known)}")
        if known[name].kind == "cited":
            raise ConfigError(f"{name} is cited only ({known[name].what}); name a claim of another kind: `outcross reproduce --list`")
    return tuple(known[name] for name in names)
