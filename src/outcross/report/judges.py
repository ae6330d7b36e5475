"""What the record tells about its judges: preference for a place, for length, for one's own texts, and calibration.

Read from the scores' evidence alone (`outcross.judgement`). A pair is counted once, on the side of the smaller identifier.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

from outcross import estimates
from outcross.engine.store import RunDir
from outcross.engine.tables import rows_of
from outcross.estimates import Estimate
from outcross.judgement import KEY, Compared, Judgement, judgement_of
from outcross.report import judge_numbers as numbers
from outcross.report.judge_numbers import Calibration
from outcross.report.record import RoundRecord
from outcross.types import Ground, Score

FIRM: tuple[Ground, ...] = ("kernel", "executed", "exact", "human")  # whose verdicts are labels to hold a judge against
MOST = 200_000  # samples that are read: enough for narrow intervals, and a report stays a matter of seconds
_COLUMNS = ["id", "task_id", "completion", "scores", "outcross"]
_SCORES = tuple(step / 10 for step in range(11))
_CONFIDENCE = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class JudgeFound:
    """One judge over a whole run: a verifier and the role that it asks.

    models: the judging models and how many samples each judged. by: the estimators. samples, errors: scores, and those without a number.
    turned: the share of pairs whose preferred side changes with the order. first: the mean probability that the answer shown first is
    preferred; without a preference for a place both are 0 and ½ in the long run. length: the change of the log-odds when an answer is
    twice as long as the other; at_equal_length: the win rate against answers from outside, length taken out. own: the mean probability
    that the judge's own answer is preferred to another model's. accuracy: how often the judge prefers the answer that a firm verifier
    passed to one that it failed. calibration: against firm verdicts, of scores or of pairs. verdicts, values: of a panel, the agreement
    of its members (Krippendorff's alpha). None: nothing on the record tells.
    """

    verifier: str
    role: str
    models: Mapping[str, int]
    by: Mapping[str, int]
    samples: int
    errors: int
    pairs: int
    turned: Estimate | None = None
    first: Estimate | None = None
    length: Estimate | None = None
    at_equal_length: Estimate | None = None
    own: Estimate | None = None
    accuracy: Estimate | None = None
    calibration: Calibration | None = None
    verdicts: Estimate | None = None
    values: Estimate | None = None


@dataclass
class _Pairs:
    """What is known of each pair, side by side; `ratio`, `own` and `known` are about the pairs for which they are known."""

    task: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)
    ratio: list[tuple[float, float, str, bool]] = field(default_factory=list)  # log2 of lengths, p, task, opponent from outside
    own: list[tuple[float, str]] = field(default_factory=list)
    known: list[tuple[float, str]] = field(default_factory=list)  # the probability of the right one, task


@dataclass
class _Seen:
    models: Counter[str] = field(default_factory=Counter)
    by: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    errors: int = 0
    pairs: _Pairs = field(default_factory=_Pairs)
    scores: list[tuple[float, float, str]] = field(default_factory=list)  # value, label, task
    verdicts: list[tuple[list[float], str]] = field(default_factory=list)
    values: list[tuple[list[float], str]] = field(default_factory=list)


def read_judges(run: RunDir, rounds: Sequence[RoundRecord], most: int = MOST) -> tuple[JudgeFound, ...]:
    """Every judge of the run, in the order of their names; none where no judge has scored. Only rounds with one are read, the newest
    first, until `most` samples were."""
    seen: defaultdict[tuple[str, str], _Seen] = defaultdict(_Seen)
    judged = [
        (item, record)
        for item, record in zip(run.rounds(), rounds, strict=True)
        if any(verifier.ground == "judged" for verifier in record.verifiers.values())
    ]
    for item, record in reversed(judged):
        firm = {name for name, verifier in record.verifiers.items() if verifier.ground in FIRM}
        tables = [part / f"{name}.parquet" for part in item.parts() for name in ("groups", "drops")]
        for _, rows in groupby(chain.from_iterable(rows_of(table, _COLUMNS) for table in tables), key=lambda row: row["task_id"]):
            if most <= 0:
                break
            found = list(rows)
            most -= len(found)
            _read_task(seen, f"{record.label}/", found, firm)
    return tuple(_found(*key, item) for key, item in sorted(seen.items()))


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def _read_task(seen: Mapping[tuple[str, str], _Seen], label: str, rows: list[dict[str, Any]], firm: set[str]) -> None:
    by_key = {row["id"]: row for row in rows} | {row["id"][:KEY]: row for row in rows}
    for row in rows:
        known = _known(row, firm)
        for score in (Score(**item) for item in row["scores"]):
            for name, verdict, value, judgement in _judgements(score):
                found = seen[name, judgement.role]
                found.samples += 1
                found.errors += verdict == "error"
                found.models[judgement.judge] += bool(judgement.judge)
                found.by[judgement.by] += bool(judgement.by)
                task = label + row["task_id"]
                if value is not None and known is not None and _rates(judgement):
                    found.scores.append((value, float(known), task))
                if judgement.panel:
                    _read_panel(found, judgement, task)
                for pair in judgement.pairs:
                    _read_pair(found, row, pair, by_key, judgement, firm, task)


def _judgements(score: Score) -> Iterator[tuple[str, str, float | None, Judgement]]:
    """The judgement of a score, and those of a panel's members."""
    judgement = judgement_of(score)
    if judgement is None:
        return
    yield score.verifier, score.verdict, score.value, judgement
    for member in judgement.panel:
        if member.judgement is not None:
            yield f"{score.verifier}: {member.verifier}", member.verdict, member.value, member.judgement


def _rates(judgement: Judgement) -> bool:
    """Whether a value is the judge's opinion of the answer alone; a win rate depends on whom it met."""
    members = [member.judgement for member in judgement.panel]
    return judgement.mean is not None or (bool(members) and all(item is not None and item.mean is not None for item in members))


def _known(row: Mapping[str, Any], firm: set[str]) -> bool | None:
    """What firm verifiers say of a sample; None where there is none, or one gave no verdict."""
    verdicts = {score["verdict"] for score in row["scores"] if score["verifier"] in firm}
    return None if not verdicts or verdicts - {"pass", "fail"} else verdicts == {"pass"}


def _read_panel(found: _Seen, judgement: Judgement, task: str) -> None:
    voters = [member for member in judgement.panel if member.verdict in ("pass", "fail")]
    found.verdicts.append(([float(member.verdict == "pass") for member in voters], task))
    found.values.append(([member.value for member in voters if member.value is not None], task))


def _read_pair(
    found: _Seen, row: Mapping[str, Any], pair: Compared, by_key: Mapping[str, Any], judgement: Judgement, firm: set[str], task: str
) -> None:
    outside = judgement.opponent is not None
    if not outside and row["id"] > pair.other:
        return
    other = by_key.get(pair.other)
    if other is not None and other["completion"] == row["completion"]:
        return  # nobody was asked
    seen = found.pairs
    seen.task.append(task)
    seen.first.append(pair.first)
    seen.second.append(pair.second)
    source, length = judgement.opponent or ((other["outcross"]["source"], len(other["completion"] or "")) if other else ("", 0))
    chars = len(row["completion"] or "")
    if chars and length:
        seen.ratio.append((math.log2(chars / length), pair.p, task, outside))
    own = row["outcross"]["source"] == judgement.judge
    if source and own != (source == judgement.judge):
        seen.own.append((pair.p if own else 1 - pair.p, task))
    one, two = _known(row, firm), None if other is None else _known(other, firm)
    if one is not None and two is not None and one != two:
        seen.known.append((pair.p if one else 1 - pair.p, task))


# ── estimates ──────────────────────────────────────────────────────────────────────────────────────────────────────────
def _found(verifier: str, role: str, seen: _Seen) -> JudgeFound:
    pairs = seen.pairs
    at_length = estimates.logistic(*_columns(pairs.ratio)) if pairs.ratio else None
    outside = [item for item in pairs.ratio if item[3]]
    at_equal = estimates.logistic(*_columns(outside)) if outside else None
    right = [(p, task) for p, task in pairs.known]
    return JudgeFound(
        verifier,
        role,
        {name: count for name, count in seen.models.items() if count},
        {name: count for name, count in seen.by.items() if count},
        seen.samples,
        seen.errors,
        len(pairs.task),
        estimates.share([float((a > 0.5) != (b > 0.5)) for a, b in zip(pairs.first, pairs.second, strict=True)], pairs.task),
        estimates.share([(a + 1 - b) / 2 for a, b in zip(pairs.first, pairs.second, strict=True)], pairs.task),
        at_length.slope if at_length else None,
        at_equal.at_zero if at_equal else None,
        estimates.share([p for p, _ in pairs.own], [task for _, task in pairs.own]),
        estimates.share([1.0 if p > 0.5 else 0.5 if p == 0.5 else 0.0 for p, _ in right], [task for _, task in right]),
        _calibration(seen.scores, right),
        numbers.agreement(*_units(seen.verdicts)),
        numbers.agreement(*_units(seen.values)),
    )


def _columns(items: Iterable[tuple[float, float, str, bool]]) -> tuple[list[float], list[float], list[str]]:
    x, p, tasks, _ = zip(*items, strict=True)
    return list(x), list(p), list(tasks)


def _units(items: Sequence[tuple[list[float], str]]) -> tuple[list[list[float]], list[str]]:
    return [unit for unit, _ in items], [task for _, task in items]


def _calibration(scores: Sequence[tuple[float, float, str]], right: Sequence[tuple[float, str]]) -> Calibration | None:
    """Of scores where there are any, else of pairs: how sure the judge was of the side that it preferred, and whether that was right."""
    if scores:
        return numbers.calibration([v for v, _, _ in scores], [k for _, k, _ in scores], [task for *_, task in scores], _SCORES)
    sure = [(max(p, 1 - p), 1.0 if p > 0.5 else 0.5 if p == 0.5 else 0.0, task) for p, task in right]
    return numbers.calibration([s for s, _, _ in sure], [r for _, r, _ in sure], [task for *_, task in sure], _CONFIDENCE)
