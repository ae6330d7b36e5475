"""Several judges as one: a panel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from outcross.judgement import Judgement, Member, judgement_of, written
from outcross.stages import Context
from outcross.types import Group, Score
from outcross.verify.combine import _Combined


@dataclass(frozen=True)
class Panel(_Combined):
    """Passes or fails what most of several judges do (a panel of small judges: Verga et al., arXiv:2404.18796). Only members that passed
    or failed a sample have a vote.

    ties: what becomes of as many passes as fails: `abstain`, `fail` or `pass`.

    An error of half of the members or more is an error, so that one lost judge does not decide; with no vote at all it abstains. The value
    is the mean of the voters' values. What each member said stands in the evidence, with its pairs: `outcross.judgement.preferences`
    averages them, and the report tells how well the members agree (Krippendorff's alpha).
    """

    ties: Literal["abstain", "fail", "pass"] = "abstain"

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return self._all_judge(ctx, groups, self._join)

    def _join(self, parts: Sequence[Score]) -> Score:
        members = tuple(Member(part.verifier, part.verdict, part.value, judgement_of(part), part.reason[:80]) for part in parts)
        evidence = written(Judgement(panel=members))
        voters = [part for part in parts if part.verdict in ("pass", "fail")]
        errors = [part for part in parts if part.verdict == "error"]
        if errors and 2 * len(errors) >= len(parts):
            return Score(self.name, self.version, "error", None, f"{errors[0].verifier}: {errors[0].reason}"[:200], evidence)
        if not voters:
            return Score(self.name, self.version, "abstain", None, "no judge of the panel gave a verdict", evidence)
        passed = sum(part.verdict == "pass" for part in voters)
        if 2 * passed == len(voters) and self.ties == "abstain":
            return Score(self.name, self.version, "abstain", None, "a tie", evidence)
        won = 2 * passed > len(voters) or (2 * passed == len(voters) and self.ties == "pass")
        values = [part.value for part in voters if part.value is not None]
        value = sum(values) / len(values) if values else passed / len(voters)
        reason = "" if won else f"{len(voters) - passed} of {len(voters)} judges against it"
        return Score(self.name, self.version, "pass" if won else "fail", value, reason, evidence)
