"""What a judge leaves on the record besides its verdict: who judged, how its probabilities were estimated, and every pair it compared.

A judgement is JSON in `Score.evidence`. It is written by judges (`verify/judge_*.py`) and read here, without loss, by objectives that
need the win probability of each pair (`preferences`) and by reports. Probabilities are rounded to six decimals before anything is
computed from them, so that the record holds the very numbers that the value was made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from outcross.types import Group, Sample, Score, Verdict

KEY = 12  # digits of a sample's identifier that name it within its group
DECIMALS = 6


class Compared(msgspec.Struct, frozen=True, array_like=True):
    """One pair, from one sample's side: the probability that this sample is preferred to `other`.

    other: the first digits of the other sample's identifier, or `reference`, or `baseline`.
    p: over both orders, clamped where the judge clamps. first, second: with this sample shown first and second, as the judge said it.
    principle: the place of the principle that was drawn among the judge's; -1 without one.
    """

    other: str
    p: float
    first: float
    second: float
    principle: int = -1


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one judge of a panel said."""

    verifier: str
    verdict: Verdict
    value: float | None = None
    judgement: Judgement | None = None
    reason: str = ""


class Judgement(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="evidence", tag="judgement"):
    """All of it. `judge` is the identifier of the model that played `role`; it tells rounds apart where a judge is the policy.

    by: the estimator: `log-probabilities`, `8 draws` (the share of so many sampled answers), or `structured answer`.
    pairs: what was compared; unanswered: pairs that the judge could not be asked about.
    mean: the mean score on the judge's scale. marks and reasons: by criterion; reasons are clipped.
    opponent: model and characters of an answer that is no sample of the group (`baseline` or `reference`).
    panel: what each member said.
    """

    role: str = ""
    judge: str = ""
    by: str = ""
    pairs: tuple[Compared, ...] = ()
    unanswered: int = 0
    mean: float | None = None
    principle: int = -1
    marks: Mapping[str, float] = {}
    reasons: Mapping[str, str] = {}
    opponent: tuple[str, int] | None = None
    panel: tuple[Member, ...] = ()


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Judgement)
_BEGIN = '{"evidence":"judgement"'


def written(judgement: Judgement) -> str:
    """The judgement as evidence of a score."""
    return _encoder.encode(judgement).decode()


def judgement_of(score: Score) -> Judgement | None:
    """What a judge wrote into a score; None for a score that no judge gave, or that a combination of verifiers has made of a judge's."""
    if not score.evidence.startswith(_BEGIN):
        return None
    try:
        return _decoder.decode(score.evidence)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


def keys(samples: Iterable[Sample]) -> dict[str, str]:
    """How pairs name the samples of a group, by identifier: its first digits where these are one sample's alone, else all of it."""
    ids = [sample.id for sample in samples]
    shared = Counter(identifier[:KEY] for identifier in ids)
    return {identifier: identifier[:KEY] if shared[identifier[:KEY]] == 1 else identifier for identifier in ids}


def compared(judgement: Judgement) -> tuple[Compared, ...]:
    """The pairs of a judgement; a panel's are the means over the members that judged the pair."""
    if not judgement.panel:
        return judgement.pairs
    found: dict[str, list[Compared]] = {}
    for member in judgement.panel:
        for pair in compared(member.judgement) if member.judgement is not None else ():
            found.setdefault(pair.other, []).append(pair)
    return tuple(Compared(other, *_means(pairs)) for other, pairs in found.items())


def _means(pairs: Sequence[Compared]) -> tuple[float, float, float]:
    size = len(pairs)
    return sum(pair.p for pair in pairs) / size, sum(pair.first for pair in pairs) / size, sum(pair.second for pair in pairs) / size


def preferences(group: Group, verifier: str = "pairwise_judge", role: str | None = None) -> dict[tuple[str, str], float]:
    """The probability that the first sample of a pair is preferred to the second, by their identifiers, as `verifier` judged it by `role`
    (None: whichever role it asked).

    Both orders of a pair are there and add up to 1. Pairs that were not judged are absent, as are those with a sample that is no
    longer in the group: an objective that needs all of them must say so. Where several judges of this name scored, the last counts.
    """
    known = [sample for sample in group.samples if not sample.error]
    of_key = {identifier[:KEY]: identifier for identifier in (sample.id for sample in known)} | {sample.id: sample.id for sample in known}
    found: dict[tuple[str, str], float] = {}
    for sample in known:
        judgements = (judgement_of(score) for score in reversed(sample.scores) if score.verifier == verifier)
        judgement = next((item for item in judgements if item is not None and role in (None, item.role)), None)
        for pair in compared(judgement) if judgement is not None else ():
            other = of_key.get(pair.other)
            if other is not None and other != sample.id:
                found[sample.id, other] = pair.p
                found.setdefault((other, sample.id), 1.0 - pair.p)
    return found
