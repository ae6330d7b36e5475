"""Conservation: what passes from stage to stage inside a round is neither lost, doubled, reordered nor altered, and nothing
held out comes along.

Every stage runs inside one of these: `generated`, `verified`, `curated`. `Counter` proves that in = kept + dropped + failed.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from outcross.engine.guards import asked_text
from outcross.engine.stopwatch import Stopwatch
from outcross.engine.store import DISK_ERRORS
from outcross.errors import HALF, GuardError, OutcrossError, StageError, StoreError, TooManyErrors
from outcross.stages import Verifier
from outcross.text import HeldOutIndex
from outcross.types import Drop, Group, Sample, Task

Counts = dict[str, Any]
REPAIR = (
    "`outcross selftest` tries it alone. When it works again as before (its sandbox, its package, its endpoint), `outcross resume RUN`; a verifier "
    "that was changed makes another run, which finds the answers of this one by `--journal RUN/responses.db`"
)
"""What to do about a verifier that stopped a run."""
EMPTY = "empty answer"


@dataclass
class Counter:
    """Samples into and out of one stage. `close` raises `StageError` unless in = kept + dropped + failed."""

    stage: str
    name: str
    into: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    detail: Tally[str] = field(default_factory=Tally)
    errors: Tally[str] = field(default_factory=Tally)  # a verifier's, by reason
    watch: Stopwatch = field(default_factory=Stopwatch)

    def counts(self) -> Counts:
        """The stage's line in the round's record."""
        return {
            "stage": self.stage,
            "name": self.name,
            "in": self.into,
            "kept": self.kept,
            "dropped": self.dropped,
            "failed": self.failed,
            "detail": dict(sorted(self.detail.items())),
        }

    def unjudged(self) -> str:
        """How many answers a verifier could not judge, and why most often."""
        judged = self.into - self.detail["not judged: no answer"]
        (reason, count), *others = self.errors.most_common()
        more = f"; and {len(others):,} other reasons" if others else ""
        return f"{self.name} could not judge {self.errors.total():,} of {judged:,} answers, which teach nothing: {count:,} × {reason or 'no reason given'}{more}"

    def took(self) -> dict[str, float]:
        """How long a verifier took, for metrics.jsonl: clocks are no part of the record."""
        judged = self.into - self.detail["not judged: no answer"]
        return {
            "seconds": round(self.watch.seconds, 6),
            "samples": judged,
            "seconds_per_sample": round(self.watch.seconds / judged, 9) if judged else 0.0,
        }

    def close(self) -> None:
        if self.into != self.kept + self.dropped + self.failed:
            raise StageError(
                f"{self.stage} {self.name}: {self.into} came in, {self.kept} kept + {self.dropped} dropped + {self.failed} failed came out; "
                "a stage must pass on or set aside everything it takes"
            )


@dataclass(frozen=True)
class ErrorRule:
    """When a verifier that cannot judge stops the run: errors on more than `share` of at least `after` answers of a round."""

    share: float = 0.5
    after: int = 100

    def check(self, counter: Counter) -> None:
        """Raises `TooManyErrors` with the most frequent reasons."""
        errors = counter.detail["error"]
        judged = counter.into - counter.detail["not judged: no answer"]
        if judged < self.after or errors <= self.share * judged:
            return
        reasons = "; ".join(f"{count:,} × {reason or 'no reason given'}" for reason, count in counter.errors.most_common(3))
        raise TooManyErrors(
            f"verify {counter.name}: {errors:,} of the first {judged:,} answers ended in an error, and the run allows {self.share:.0%} after "
            f"{self.after:,} answers (`errors:` in the run file). Most frequent: {reasons}. All answers of the round are kept in "
            f"the journal. {REPAIR}; to allow more, `outcross resume RUN --errors.share 0.9`"
        )


@dataclass(frozen=True)
class Admit:
    """Lets tasks through to a generator, and stops the run at a held-out one that a selector brought in."""

    index: HeldOutIndex

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Task]:
        for task in tasks:
            why = self.index.match(asked_text(task.prompt))
            if why:
                raise GuardError(f"the selector chose task {task.id!r}, which {why}; held-out items never reach a generator")
            yield task


@contextmanager
def blamed(who: str) -> Iterator[None]:
    """Tell what a stage raises with the stage's name, as a `StageError`. Full disks keep their own errors."""
    try:
        yield
    except OutcrossError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise
        if isinstance(error, OSError) and error.errno is None:  # how numpy and shutil tell a full disk
            raise StoreError(
                f"{who} cannot write ({error!s:.300}). What was complete is kept; free space, then `outcross resume`"
            ) from error
        if isinstance(error, UnicodeEncodeError):
            raise StageError(f"{who} cannot store {error.object[max(0, error.start - 20) : error.end]!r}: {HALF}, and resume") from error
        raise StageError(
            f"{who} raised {type(error).__name__}: {error}. What was complete is kept; repair it and resume (`--debug` shows where it was)"
        ) from error


def generated(stage: Any, ctx: Any, tasks: Iterable[Task], counter: Counter) -> Iterator[Group]:
    """Run a generator; one group per task, in order. `counter` counts samples; samples without an answer are failures."""
    with blamed(f"generate {counter.name}"):
        yield from _generated(stage, ctx, tasks, counter)


def _generated(stage: Any, ctx: Any, tasks: Iterable[Task], counter: Counter) -> Iterator[Group]:
    asked: deque[str] = deque()
    total = 0

    def noted() -> Iterator[Task]:
        nonlocal total
        for task in tasks:
            asked.append(task.id)
            total += 1
            yield task

    for group in stage(ctx, noted()):
        expected = asked.popleft() if asked else "nothing more"
        if expected != group.task.id:
            raise StageError(
                f"generate {counter.name}: expected the group of task {expected!r}, got {group.task.id!r}; keep the order of tasks"
            )
        if len({sample.id for sample in group.samples}) < len(group.samples):
            raise StageError(f"generate {counter.name}: two samples of task {group.task.id!r} have one identifier; number them")
        failures = sum(1 for sample in group.samples if sample.error)
        counter.into += len(group.samples)
        counter.failed += failures
        counter.kept += len(group.samples) - failures
        for sample in group.samples:
            if sample.error:
                counter.detail[sample.error[:80]] += 1
            elif isinstance(sample.content, str) and not sample.content.strip():
                counter.detail[EMPTY] += 1
        yield group
    if asked:
        done = total - len(asked)
        raise StageError(f"generate {counter.name}: {total} tasks went in and {done} groups came out; task {asked[0]!r} was lost")


def verified(stage: Verifier, ctx: Any, groups: Iterable[Group], counter: Counter, rule: ErrorRule | None = None) -> Iterator[Group]:
    """Run a verifier; the same groups and samples in the same order, each with one more score (failed requests excepted). `rule` says
    how many errors are too many; None: any number is allowed."""
    with blamed(f"verify {counter.name}"):
        yield from _verified(stage, ctx, groups, counter, rule)


def _verified(stage: Verifier, ctx: Any, groups: Iterable[Group], counter: Counter, rule: ErrorRule | None) -> Iterator[Group]:
    waiting: deque[Group] = deque()
    total = 0

    def noted() -> Iterator[Group]:
        nonlocal total
        for group in counter.watch.into(groups):
            waiting.append(group)
            total += 1
            yield group

    for group in counter.watch.out(stage(ctx, noted())):
        if not waiting or not _only_scored(waiting.popleft(), group):
            raise StageError(
                f"verify {counter.name}: the group of task {group.task.id!r} came back changed or out of order; only add scores"
            )
        for sample in group.samples:
            _count_verdict(sample, counter)
        if rule is not None:
            rule.check(counter)
        yield group
    if waiting:
        done = total - len(waiting)
        raise StageError(f"verify {counter.name}: {total} groups went in and {done} came out; task {waiting[0].task.id!r} was lost")


def _only_scored(before: Group, after: Group) -> bool:
    """Whether nothing but scores was added. In tuples, what is the same object needs no comparison."""
    if len(before.samples) != len(after.samples) or (before.task,) != (after.task,):
        return False
    for old, new in zip(before.samples, after.samples, strict=True):
        kept = new.scores if old.error else new.scores[: len(old.scores)]
        if (old.id, old.turns, old.origin, old.seat, old.error, old.scores) != (new.id, new.turns, new.origin, new.seat, new.error, kept):
            return False
    return True


def _count_verdict(sample: Sample, counter: Counter) -> None:
    counter.into += 1
    if sample.error:
        counter.failed += 1
        counter.detail["not judged: no answer"] += 1
        return
    score = next((score for score in reversed(sample.scores) if score.verifier == counter.name), None)
    if score is None:
        raise StageError(f"verify {counter.name}: sample {sample.id} of an answered request came back without a score of {counter.name!r}")
    if not score.version:
        raise StageError(f"verify {counter.name}: the score of sample {sample.id} has no version; a recall could not find it")
    counter.detail[score.verdict] += 1
    if score.verdict == "error":
        counter.failed += 1
        counter.errors[score.reason[:120]] += 1
    else:
        counter.kept += 1


def curated(
    stage: Callable[[Any, Iterable[Group]], Iterator[Group | Drop]], ctx: Any, groups: Iterable[Group], counter: Counter
) -> Iterator[Group | Drop]:
    """Run a curator; each sample leaves once and as it came, kept or set aside with a reason. Reasons are counted by what stands
    before their first colon. Memory: the samples inside the curator."""
    with blamed(f"curate {counter.name}"):
        yield from _curated(stage, ctx, groups, counter)


def _curated(
    stage: Callable[[Any, Iterable[Group]], Iterator[Group | Drop]], ctx: Any, groups: Iterable[Group], counter: Counter
) -> Iterator[Group | Drop]:
    inside: dict[str, tuple[Task, Sample]] = {}

    def noted() -> Iterator[Group]:
        for group in groups:
            counter.into += len(group.samples)
            for sample in group.samples:
                inside[sample.id] = (group.task, sample)
            yield group

    for item in stage(ctx, noted()):
        group = item.group if isinstance(item, Drop) else item
        samples = group.samples
        for sample in samples:
            came = inside.pop(sample.id, None)
            if came is None:
                raise StageError(f"curate {counter.name}: sample {sample.id} left twice or never came in")
            if came != (group.task, sample):
                raise StageError(f"curate {counter.name}: sample {sample.id} came back changed; keep samples as they are, or drop them")
        if isinstance(item, Drop):
            counter.dropped += len(samples)
            counter.detail[item.reason.partition(":")[0]] += len(samples)
        else:
            counter.kept += len(samples)
        if samples:
            yield item
    if inside:
        raise StageError(
            f"curate {counter.name}: {len(inside)} samples never came out, the first is {next(iter(inside))}; keep or drop each one"
        )


@dataclass(frozen=True)
class Decontaminate:
    """Sets aside samples whose prompt or answer stands in the held-out set: by equality up to layout, or by a shared 13-gram."""

    index: HeldOutIndex
    name: str = "decontaminate"

    def __call__(self, ctx: object, groups: Iterable[Group], /) -> Iterator[Group | Drop]:
        for group in groups:
            asked = self.index.match(asked_text(group.task.prompt))
            reasons = [asked or self._said(group.task, sample) for sample in group.samples]
            if not any(reasons):
                yield group
                continue
            kept = tuple(sample for sample, reason in zip(group.samples, reasons, strict=True) if reason is None)
            if kept:
                yield Group(group.task, kept)
            for sample, reason in zip(group.samples, reasons, strict=True):
                if reason is not None:
                    yield Drop(Group(group.task, (sample,)), self.name, f"held out: {reason}")

    def _said(self, task: Task, sample: Sample) -> str | None:
        for turn in sample.turns:
            asked = "" if turn.prompt == task.prompt else asked_text(turn.prompt)
            for text in (asked, asked_text(turn.completion.content)):
                if text and (why := self.index.match(text)):
                    return why
        return None
