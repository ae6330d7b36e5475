"""Several verifiers as one: all of them, the first that knows, a weighted sum, a majority, and another try after an error.

A combination leaves one score on a sample; what each part said stands in its evidence, and its version names theirs, so that a recall
of a part finds what the combination let in.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from outcross.errors import ConfigError
from outcross.judgement import judgement_of
from outcross.stages import Context, Role, Stage, Verifier, calls_of, name_of, roles_of, version_of
from outcross.types import Ground, Group, Sample, Score, Verdict

GROUNDS: tuple[Ground, ...] = ("kernel", "executed", "exact", "human", "trained", "voted", "judged")
"""From the firmest to the weakest."""


@dataclass(frozen=True)
class _Combined(Stage):
    verifiers: tuple[Verifier, ...]
    own_version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        if not self.verifiers:
            raise ConfigError(f"{self.name}: verifiers is empty; name at least one")

    @property
    def ground(self) -> Ground:
        """The weakest of the parts': any of them may decide."""
        return max((verifier.ground for verifier in self.verifiers), key=GROUNDS.index)

    @property
    def version(self) -> str:  # type: ignore[override]
        """`1(exact@1,math@1)`: its own version and its parts'."""
        return f"{self.own_version}({','.join(f'{name_of(item)}@{version_of(item)}' for item in self.verifiers)})"

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(role for verifier in self.verifiers for role in roles_of(verifier)))

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        """What all parts would cost together, for one answer a task."""
        return self.calls_for(tasks, 1)

    def calls_for(self, tasks: int, samples: int, /) -> Mapping[Role, int]:
        """What all parts would cost together, for so many answers a task."""
        total: Counter[Role] = Counter()
        for verifier in self.verifiers:
            total.update(calls_of(verifier, tasks, samples))
        return total

    def _all_judge(self, ctx: Context, groups: Iterable[Group], join: Callable[[Sequence[Score]], Score]) -> Iterator[Group]:
        """Every part judges every sample; `join` makes one score of theirs."""
        size = len(self.verifiers)
        stream: Iterable[Group] = groups
        for verifier in self.verifiers:
            stream = verifier(ctx, stream)
        for group in stream:
            yield Group(group.task, tuple(item if item.error else _joined(item, size, join) for item in group.samples))

    def _score(self, verdict: Verdict, value: float | None, reason: str, parts: Sequence[Score]) -> Score:
        evidence = "; ".join(f"{part.verifier} {part.verdict}{f' {part.value:g}' if part.value is not None else ''}" for part in parts)
        more = next((f": {part.evidence}" for part in parts if part.verdict == verdict and part.evidence), "")
        return Score(self.name, self.version, verdict, value, reason, f"{evidence}{more}"[:200])


def _joined(sample: Sample, size: int, join: Callable[[Sequence[Score]], Score]) -> Sample:
    earlier, parts = sample.scores[:-size], sample.scores[-size:]
    return Sample(sample.id, sample.turns, sample.origin, sample.seat, (*earlier, join(parts)), sample.error)


def _reason(parts: Sequence[Score], verdict: Verdict) -> str:
    """Why the first part with this verdict gave it."""
    part = next(part for part in parts if part.verdict == verdict)
    return f"{part.verifier}: {part.reason}" if part.reason else part.verifier


@dataclass(frozen=True)
class AllOf(_Combined):
    """Passes what every part passes. A fail of one decides; without one, an error, then an abstention does. The value is the least."""

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return self._all_judge(ctx, groups, self._join)

    def _join(self, parts: Sequence[Score]) -> Score:
        return _strictest(self, parts, ("fail", "error", "abstain", "pass"), min)


@dataclass(frozen=True)
class AnyOf(_Combined):
    """Passes what at least one part passes. Without a pass, an error, then an abstention decides: a part that could not judge might
    have passed it. The value is the largest."""

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return self._all_judge(ctx, groups, self._join)

    def _join(self, parts: Sequence[Score]) -> Score:
        return _strictest(self, parts, ("pass", "error", "abstain", "fail"), max)


def _strictest(stage: _Combined, parts: Sequence[Score], order: tuple[Verdict, ...], pick: Callable[[Iterable[float]], float]) -> Score:
    found = {part.verdict for part in parts}
    verdict = next(item for item in order if item in found)
    values = [part.value for part in parts if part.verdict == verdict and part.value is not None]
    return stage._score(verdict, pick(values) if values else None, _reason(parts, verdict), parts)


@dataclass(frozen=True)
class WeightedSum(_Combined):
    """The mean of the parts' values by `weights`; `passes_at` or more passes.

    An error of any part is an error, else an abstention an abstention: a missing part is not a zero.
    """

    weights: tuple[float, ...] = ()
    passes_at: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights and (len(self.weights) != len(self.verifiers) or min(self.weights) < 0 or not sum(self.weights)):
            raise ConfigError(
                f"weighted_sum: weights are {self.weights} for {len(self.verifiers)} verifiers; give each one a number of 0 or more, not all 0"
            )

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return self._all_judge(ctx, groups, self._join)

    def _join(self, parts: Sequence[Score]) -> Score:
        for verdict in ("error", "abstain"):
            if any(part.verdict == verdict for part in parts):
                return self._score(verdict, None, _reason(parts, verdict), parts)
        values = [part.value for part in parts]
        if None in values:
            silent = next(part.verifier for part in parts if part.value is None)
            return self._score("error", None, f"{silent} gave no value", parts)
        weights = self.weights or (1.0,) * len(parts)
        value = sum(weight * (item or 0.0) for weight, item in zip(weights, values, strict=True)) / sum(weights)
        return self._score("pass" if value >= self.passes_at else "fail", value, "", parts)


@dataclass(frozen=True)
class Majority(_Combined):
    """Passes or fails what more than half of all parts do. Without such a majority it abstains; where errors alone prevent one, it is
    an error. The value of a pass or fail is the share of parts that passed."""

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return self._all_judge(ctx, groups, self._join)

    def _join(self, parts: Sequence[Score]) -> Score:
        said = Counter(part.verdict for part in parts)
        share = said["pass"] / len(parts)
        for verdict in ("pass", "fail"):
            if said[verdict] > len(parts) / 2:
                return self._score(verdict, share, f"{said[verdict]} of {len(parts)}", parts)
        if said["error"] and max(said["pass"], said["fail"]) + said["error"] > len(parts) / 2:
            return self._score("error", None, _reason(parts, "error"), parts)
        return self._score("abstain", None, "no majority", parts)


@dataclass(frozen=True)
class Unanimous(_Combined):
    """Passes or fails what all parts do, and abstains where they disagree: put it before a person, `first_decisive: [unanimous, human]`."""

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        return self._all_judge(ctx, groups, self._join)

    def _join(self, parts: Sequence[Score]) -> Score:
        found = {part.verdict for part in parts}
        if "error" in found:
            return self._score("error", None, _reason(parts, "error"), parts)
        if len(found) > 1:
            return self._score("abstain", None, "the verifiers disagree", parts)
        values = [part.value for part in parts if part.value is not None]
        verdict = parts[0].verdict
        return self._score(verdict, sum(values) / len(values) if values else None, _reason(parts, verdict), parts)


@dataclass(frozen=True)
class FirstDecisive(_Combined):
    """The verdict of the first part that passes or fails a sample; later parts see only what earlier ones left open. Put cheap ones
    first. Where none decides: an error if the last word was one, else an abstention."""

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        stream: Iterator[Group] = self._all_judge_first(ctx, groups)
        for verifier in self.verifiers[1:]:
            stream = judged_again(ctx, verifier, stream, _open, self._next)
        return stream

    def _all_judge_first(self, ctx: Context, groups: Iterable[Group]) -> Iterator[Group]:
        for group in self.verifiers[0](ctx, groups):
            yield Group(group.task, tuple(item if item.error else _joined(item, 1, self._first) for item in group.samples))

    def _first(self, parts: Sequence[Score]) -> Score:
        (part,) = parts
        return self._score(part.verdict, part.value, _reason(parts, part.verdict), parts)

    def _next(self, before: Score, after: Score) -> Score:
        reason = f"{after.verifier}: {after.reason}" if after.reason else after.verifier
        value = "" if after.value is None else f" {after.value:g}"
        evidence = f"{before.evidence}; {after.verifier} {after.verdict}{value}: {after.evidence}"
        return Score(self.name, self.version, after.verdict, after.value, reason, evidence[:200])


@dataclass(frozen=True)
class Retried(Stage):
    """A verifier that is asked again, up to `times`, about samples on which it gave an error: for judges on endpoints and time-outs on a
    busy machine. The score stays the verifier's own; the evidence says how often it was asked."""

    verifier: Verifier
    times: int = 2

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ConfigError(f"retried: times is {self.times}; ask again at least once, or leave it out")
        if getattr(self.verifier, "uses_peers", False):
            raise ConfigError(
                f"retried: {name_of(self.verifier)} compares the answers to a task with each other, and another try would see only those "
                "without a verdict; leave `retried` out"
            )

    @property
    def name(self) -> str:
        return name_of(self.verifier)

    @property
    def version(self) -> str:  # type: ignore[override]
        return version_of(self.verifier)

    @property
    def ground(self) -> Ground:
        return self.verifier.ground

    @property
    def roles(self) -> tuple[Role, ...]:  # type: ignore[override]
        return roles_of(self.verifier)

    def calls(self, tasks: int, /) -> Mapping[Role, int]:
        """Without errors; each costs one call more."""
        return self.calls_for(tasks, 1)

    def calls_for(self, tasks: int, samples: int, /) -> Mapping[Role, int]:
        return calls_of(self.verifier, tasks, samples)

    def __call__(self, ctx: Context, groups: Iterable[Group], /) -> Iterator[Group]:
        stream = self.verifier(ctx, groups)
        for attempt in range(2, self.times + 2):
            stream = judged_again(ctx, self.verifier, stream, _failed, _noted(attempt))
        return stream


def _noted(attempt: int) -> Callable[[Score, Score], Score]:
    def last(before: Score, after: Score) -> Score:
        evidence = after.evidence if judgement_of(after) else f"asked {attempt} times; {after.evidence}"[:200]
        return Score(after.verifier, after.version, after.verdict, after.value, after.reason, evidence)

    return last


def _open(sample: Sample) -> bool:
    return sample.scores[-1].verdict in ("error", "abstain")


def _failed(sample: Sample) -> bool:
    return sample.scores[-1].verdict == "error"


def judged_again(
    ctx: Context,
    verifier: Verifier,
    groups: Iterable[Group],
    needed: Callable[[Sample], bool],
    join: Callable[[Score, Score], Score],
) -> Iterator[Group]:
    """Let `verifier` judge the answered samples that are `needed`, and only these; `join(last, new)` takes the place of their last score.

    Groups leave whole and in order; those without such a sample pass the verifier empty, so that nothing waits for the next that has one.
    """
    waiting: deque[Group] = deque()

    def wanted() -> Iterator[Group]:
        for group in groups:
            waiting.append(group)
            yield Group(group.task, tuple(sample for sample in group.samples if not sample.error and needed(sample)))

    for judged in verifier(ctx, wanted()):
        group = waiting.popleft()
        new = {sample.id: sample.scores[-1] for sample in judged.samples}
        yield Group(group.task, tuple(_again(sample, new[sample.id], join) if sample.id in new else sample for sample in group.samples))


def _again(sample: Sample, new: Score, join: Callable[[Score, Score], Score]) -> Sample:
    scores = (*sample.scores[:-1], join(sample.scores[-1], new))
    return Sample(sample.id, sample.turns, sample.origin, sample.seat, scores, sample.error)
