"""The gate that promotes only what is shown to be no worse than a margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from outcross.errors import ConfigError, GuardError, did_you_mean
from outcross.gate.evidence import OVER_REAL, Evidence, weigh
from outcross.gate.paired import power
from outcross.gate.reason import explain, shortage
from outcross.stages import Stage
from outcross.types import Check, Comparison, Decision, Measurement

Against = Literal["champion", "first"]


@dataclass(frozen=True)
class NonInferior(Stage):
    """Promotes a candidate that is shown, on every guarded probe, to be less than its margin worse than the champion and
    than the first model; on the probes in `superior` it must also be shown better than the champion.

    alpha: the chance, over the whole run, of promoting a model that is worse than a margin. Each round spends an equal
        part of what is left, promoted or not. It is split over rounds and not over probes, because all checks must pass
        (an intersection–union test: Berger, Technometrics 24, 1982).
    minimum_items: fewer refuse, whatever they show.

    Limits. The held-out items are a sample, and the claim is about the population they come from. They are used again each
    round, and a decision tells later rounds one bit about them; the budget does not count that. Estimates of a promoted
    model are a little too good for the same reason: claim a final figure on fresh items.
    Raises `GuardError` when a probe is missing or was not measured on the same items for all models.
    """

    alpha: float = 0.05
    minimum_items: int = 200
    superior: tuple[str, ...] = ()

    def __call__(self, comparison: Comparison, margins: Mapping[str, float], /) -> Decision:
        self._refuse_gaps(comparison, margins)
        alpha = max(0.0, comparison.alpha_left) / max(1, comparison.rounds - comparison.round)
        if alpha <= 0:
            reason = f"refused: nothing is left of the gate's alpha of {self.alpha:g} for round {comparison.round + 1}; plan more rounds"
            return Decision(False, reason, self.name)
        checks = tuple(
            self._check(comparison.candidate[probe], earlier[probe], against, margin, alpha)
            for probe, margin in margins.items()
            for against, earlier in self._earlier(comparison)
        )
        promote = all(check.passed for check in checks)
        return Decision(promote, explain(checks, comparison), self.name, checks, alpha)

    @staticmethod
    def _earlier(comparison: Comparison) -> tuple[tuple[Against, Mapping[str, Measurement]], ...]:
        return (("champion", comparison.champion), ("first", comparison.first))

    def _check(self, candidate: Measurement, other: Measurement, against: Against, margin: float, alpha: float) -> Check:
        better = against == "champion" and candidate.probe in self.superior
        margin = 0.0 if better else margin
        evidence = weigh(candidate, other, alpha)
        enough = evidence.items >= self.minimum_items
        passed = enough and evidence.low > -margin
        notes = ["must be better"] if better else []
        if evidence.lost:
            notes.append(f"{evidence.lost:,} items without a verdict for the candidate count as lost")
        if not enough:
            notes.append(f"{evidence.items:,} items, and at least {self.minimum_items:,} are asked for")
        if not passed and not better and evidence.estimate > -margin:
            notes.append(shortage(evidence, margin, candidate.unit))
        chance = self._power(evidence, margin) if enough else 0.0
        return Check(
            candidate.probe,
            against,
            evidence.estimate,
            evidence.low,
            margin,
            alpha,
            chance,
            evidence.items,
            passed,
            "; ".join(filter(None, notes)),
        )

    @staticmethod
    def _power(evidence: Evidence, margin: float) -> float:
        return power(evidence.items, margin, evidence.alpha, evidence.variance, share=evidence.share)

    def _refuse_gaps(self, comparison: Comparison, margins: Mapping[str, float]) -> None:
        if not margins:
            raise GuardError("the gate has no probe to guard; give the bench probes with margins, or take the gate `open`")
        for probe, margin in margins.items():
            if not margin > 0:
                raise GuardError(f"probe {probe!r} has the margin {margin:g}; a margin is a positive number in the probe's unit")
            for who in ("candidate", "champion", "first"):
                if probe not in getattr(comparison, who):
                    raise GuardError(
                        f"probe {probe!r} was not measured for the {who}; {did_you_mean(probe, getattr(comparison, who))}. "
                        "Measure every guarded probe for the candidate, the champion and the first model"
                    )
        for probe in self.superior:
            if probe not in margins:
                raise ConfigError(f"`superior` names the probe {probe!r}; {did_you_mean(probe, margins)}")
            if comparison.candidate[probe].unit.endswith(OVER_REAL):
                raise ConfigError(
                    f"`superior` names the probe {probe!r}, which is measured against real data: as varied as these is as good as it gets, "
                    "and more is no merit. Ask for a better probe of quality, such as `pass_rate`"
                )
