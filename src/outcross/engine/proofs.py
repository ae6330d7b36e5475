"""Proofs that a verifier beats no filter: what `outcross verifier-check` found, for which verifier, settings and judging models.

Verdicts of a judge, a vote or a trained model may teach only where selection by them was shown to help (`outcross.breakeven`). A proof holds
the counts; what they show is worked out anew whenever it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from outcross.breakeven import Forecast, Labelled, forecast
from outcross.engine.store import read_json
from outcross.errors import DataError
from outcross.recipe import fingerprint
from outcross.stages import Model, Role, Verifier, name_of, roles_of, version_of
from outcross.types import Ground, Record

FORMAT = 1
DOUBTFUL: tuple[Ground, ...] = ("trained", "judged", "voted")


class Proof(Record, frozen=True, omit_defaults=False, kw_only=True, dict=True):
    """What was found of a verifier on labelled answers of the policy.

    settings: the fingerprint of the verifier with its settings. models: the identifiers of the models that it asked, by role. answers_of:
    identifiers of the models that gave the answers, where the labels name them. labels: the hash of the labelled file.
    """

    format: int = FORMAT
    verifier: str
    version: str
    ground: Ground
    settings: str
    models: Mapping[Role, str]
    labels: str
    rows: int
    alpha: float
    counts: Labelled
    subgroups: Mapping[str, Labelled] = {}
    answers_of: tuple[str, ...] = ()

    @cached_property
    def forecast(self) -> Forecast:
        """What the counts show."""
        return forecast(self.counts, self.alpha)


def asked_by(verifier: Verifier, models: Mapping[Role, Model]) -> dict[Role, str]:
    """The identifiers of the models that a verifier asks, by role."""
    return {role: models[role].id for role in sorted(roles_of(verifier)) if role in models}


def read_proofs(paths: Sequence[Path]) -> tuple[Proof, ...]:
    """The proofs in files and in folders of files. Raises `DataError` for one that cannot be read."""
    return tuple(_read(path) for path in _files(paths))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(path.glob("*.json"))
        elif path.is_file():
            yield path
        else:
            raise DataError(
                f"there is no proof {path}; `outcross verifier-check` writes one, and a file or folder of them is named under `proofs:`"
            )


def _read(path: Path) -> Proof:
    try:
        found = msgspec.convert(read_json(path), Proof)
    except msgspec.ValidationError as error:
        raise DataError(f"{path} is no proof of a verifier ({error}); write it with `outcross verifier-check`") from None
    if found.format != FORMAT or not 0 < found.alpha <= MOST_ALPHA:
        raise DataError(
            f"{path} has format {found.format} and alpha {found.alpha:g}; this version reads format {FORMAT} and an alpha of at most {MOST_ALPHA:g}. "
            "Write it anew with `outcross verifier-check`"
        )
    return found


MOST_ALPHA = 0.05


def why_unproven(verifier: Verifier, models: Mapping[Role, Model], proofs: Sequence[Proof]) -> str | None:
    """Why none of the proofs shows that this verifier beats no filter; None when one does."""
    named = [proof for proof in proofs if proof.verifier == name_of(verifier)]
    if not named:
        return "nothing shows that selection by it beats no filter"
    reasons = [_why_not(proof, verifier, models) for proof in named]
    return None if None in reasons else "; ".join(dict.fromkeys(filter(None, reasons)))


def proof_for(verifier: Verifier, models: Mapping[Role, Model], proofs: Sequence[Proof]) -> Proof | None:
    """The first proof that shows it."""
    return next((proof for proof in proofs if proof.verifier == name_of(verifier) and _why_not(proof, verifier, models) is None), None)


def _why_not(proof: Proof, verifier: Verifier, models: Mapping[Role, Model]) -> str | None:
    if proof.version != version_of(verifier):
        return f"its proof is of version {proof.version}, and this is {version_of(verifier)}"
    asked = asked_by(verifier, models)
    if dict(proof.models) != asked:
        return f"its proof asked {_named(proof.models)}, and the run asks {_named(asked)}"
    if proof.settings != fingerprint(verifier):
        return "its proof was made with other settings"
    if proof.answers_of and "policy" in models and models["policy"].id not in proof.answers_of:
        return f"its proof is about answers of {', '.join(proof.answers_of)}, and the policy is {models['policy'].id}"
    says = proof.forecast
    if says.says != "helps":
        told = "selection by it hurts" if says.says == "hurts" else "that selection by it helps cannot be shown"
        gaps = [
            *(["not shown to keep right answers more often than wrong ones"] if not says.purer else []),
            *([f"not shown to be below break-even at {says.break_even.estimate:.0%}"] if not says.below else []),
        ]
        return (
            f"{told}: it keeps {says.keeps_right.estimate:.0%} of right and {says.keeps_wrong.estimate:.0%} of wrong answers, "
            f"{says.wrong.estimate:.0%} of the answers are wrong: {' and '.join(gaps)}"
        )
    return None


def _named(models: Mapping[Role, str]) -> str:
    return ", ".join(f"{role} {name}" for role, name in models.items()) or "no model"
