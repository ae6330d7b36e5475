"""What a repaired verifier says about samples that a broken version of it judged. Old records stay as they are."""

from __future__ import annotations

import tempfile
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from outcross.engine import canaries
from outcross.engine.budget import Budget, Meter
from outcross.engine.conserve import Counter, verified
from outcross.engine.executor import Executor
from outcross.engine.past import Recorded
from outcross.engine.place import open_journal
from outcross.engine.recall import judged, named, versions
from outcross.engine.store import RoundDir, RunDir
from outcross.engine.tables import Writer, decode_groups, rows_of
from outcross.errors import ConfigError
from outcross.stages import Context, Model, Role, Verifier, name_of, version_of
from outcross.types import Group, Sample, Score, Verdict

_text = pa.string()
SCORES = pa.schema(
    [
        ("id", _text),
        ("round", _text),
        ("verifier", _text),
        ("version", _text),
        ("was", _text),  # the verdict of the broken version
        ("verdict", _text),
        ("value", pa.float64()),
        ("reason", _text),
        ("evidence", _text),
    ]
)


@dataclass(frozen=True)
class Again:
    """A sample's new score and the verdict that it had. It stands if they agree."""

    sample: str
    round: str
    was: Verdict
    score: Score

    @property
    def stands(self) -> bool:
        return self.score.verdict == self.was


@dataclass(frozen=True)
class Reverified:
    """All samples that were judged again."""

    found: tuple[Again, ...]

    @property
    def stand(self) -> frozenset[str]:
        """The samples whose verdict stands: a recall leaves them alone."""
        return frozenset(item.sample for item in self.found if item.stands)

    @property
    def changes(self) -> Tally[tuple[Verdict, Verdict]]:
        """How many samples went from one verdict to another."""
        return Tally((item.was, item.score.verdict) for item in self.found)


def reverify(
    run: RunDir, models: Mapping[Role, Model], present: Mapping[str, Verifier], verifier: str, before: str | None = None, *, seed: int = 0
) -> Reverified:
    """Let the `present` verifiers, by phase, judge what `verifier` judged in an affected version: the ones that stand for it now, or that
    contain it. Whole groups are shown to them as they were made. Their canaries are tried first.

    Answers of judges go to the run's journal. Raises `ConfigError` when a present version is itself one of those recalled, `CanaryFailed`.
    """
    affected: dict[str, dict[str, None]] = {}
    seen: set[str] = set()
    for turn, row in judged(run, verifier, before):
        affected.setdefault(turn.label, {})[row["id"]] = None
        seen.update(versions(row, verifier))
    turns = [turn for turn in run.begun() if turn.label in affected]
    for turn in turns:
        _refuse_recalled(present.get(turn.phase), verifier, turn, seen)
    found: list[Again] = []
    with closing(open_journal(run)) as journal, tempfile.TemporaryDirectory() as folder:
        runner = Executor(journal, Meter(Budget(), journal))
        for turn in turns:
            ctx = Context(models, Recorded(run, (), (), Path(folder)), turn.label, 0, seed, runner)
            canaries.check(ctx, [present[turn.phase]], "recall")
            found += _again(ctx, present[turn.phase], turn, verifier, affected[turn.label])
    return Reverified(tuple(found))


def _refuse_recalled(present: Verifier | None, verifier: str, turn: RoundDir, seen: set[str]) -> None:
    if present is None:
        raise ConfigError(
            f"nothing can verify {turn.label} again: its phase has no verifier {verifier!r} now; name one that stands for it, `--verify NAME`"
        )
    for name, version in named(name_of(present), version_of(present)):
        if name == verifier and version in seen:
            raise ConfigError(
                f"the present {verifier} is version {version}, which is one of those recalled ({', '.join(sorted(seen))}); install the repaired "
                "one, or name another verifier with `--verify NAME`"
            )


def _again(ctx: Context, present: Verifier, turn: RoundDir, verifier: str, affected: Mapping[str, None]) -> Iterator[Again]:
    groups = (_answered(group) for group in _made(turn) if any(sample.id in affected for sample in group.samples))
    for group in verified(present, ctx, groups, Counter("verify", name_of(present))):
        for sample in group.samples:
            if sample.id in affected:
                yield Again(sample.id, turn.label, _was(sample, verifier), sample.scores[-1])


def _answered(group: Group) -> Group:
    return Group(group.task, tuple(sample for sample in group.samples if not sample.error))


def _was(sample: Sample, verifier: str) -> Verdict:
    """The strictest verdict that rested on `verifier` before; one inside a generator let the sample pass."""
    resting = {item.verdict for item in sample.scores[:-1] if any(name == verifier for name, _ in named(item.verifier, item.version))}
    order: tuple[Verdict, ...] = ("fail", "error", "abstain")
    return next((verdict for verdict in order if verdict in resting), "pass")


def _made(turn: RoundDir) -> Iterator[Group]:
    """The groups of a round as they were made, whatever curators set aside. Memory: the samples that were set aside."""
    for part in turn.parts():
        aside: dict[str, tuple[Group, tuple[Sample, ...]]] = {}
        for group in decode_groups(rows_of(part / "drops.parquet")):
            _, earlier = aside.get(group.task.id, (group, ()))
            aside[group.task.id] = (group, earlier + group.samples)
        for group in decode_groups(rows_of(part / "groups.parquet")):
            _, more = aside.pop(group.task.id, (group, ()))
            yield Group(group.task, group.samples + more)
        for group, samples in aside.values():
            yield Group(group.task, samples)


def keep_scores(tombstone: Path, found: Reverified) -> Path:
    """Write the new scores beside the tombstone that they belong to; the scores in the rounds stay."""
    path = tombstone.with_suffix(".scores.parquet")
    with Writer(path, SCORES, _encode) as table:
        for item in found.found:
            table.add(item)
    return path


def _encode(rows: list[Again]) -> pa.RecordBatch:
    columns = [
        pa.array([item.sample for item in rows], _text),
        pa.array([item.round for item in rows], _text),
        pa.array([item.score.verifier for item in rows], _text),
        pa.array([item.score.version for item in rows], _text),
        pa.array([item.was for item in rows], _text),
        pa.array([item.score.verdict for item in rows], _text),
        pa.array([item.score.value for item in rows], pa.float64()),
        pa.array([item.score.reason for item in rows], _text),
        pa.array([item.score.evidence for item in rows], _text),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCORES)
