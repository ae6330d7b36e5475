"""The whole audit of a set: one pass over it, one over the real data, and what both show."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from outcross.audit.against_real import against_real
from outcross.audit.by_meaning import IN_EFFECT, REACHED, by_meaning
from outcross.audit.copies import copies
from outcross.audit.documents import Document, reader
from outcross.audit.faults import SHOWN
from outcross.audit.findings import Audit, Case, Composition, Finding, GroupShare, Statistic
from outcross.audit.groups import group_shares, lost, wilson
from outcross.audit.kinds import KINDS
from outcross.audit.scan import Marks, Plan, Scan, indexed, scan
from outcross.audit.verdict import verdict
from outcross.curate.language import language_of
from outcross.provenance import NO_RULE
from outcross.stages import Embeds
from outcross.tasks.rows import read

SHOWN_CASES = 3
LISTED = 1000  # row numbers kept per finding
FORMAT = 0.5  # template marks in more rows than this are the set's format
_LANGUAGE_ROWS, _LANGUAGE_WORDS, _SURE = 2000, 8, 0.9
_Z = 1.96
_CUT = 0.02  # more answers that stop in the middle than in real data: fewer are nobody's concern


@dataclass(frozen=True)
class Question:
    """What to audit against what. `plan` says how the set is read; the same columns are looked for in the other files."""

    data: Path
    real: Path | None = None
    evals: tuple[Path, ...] = ()
    plan: Plan = Plan()
    embedder: Embeds | None = None


def audit(question: Question) -> Audit:
    """Read the set once and the real data once, and say what is wrong. Raises `DataError` for files that cannot be read as asked."""
    plan = question.plan
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        index, names = indexed(question.evals, plan.named) if question.evals else (None, [])
        data = scan(question.data, work / "data", plan, index, names)
        real = scan_real(question, data, work)
        marks = dict(data.marks)
        stays = np.ones(data.rows, np.bool_)
        stays[list(marks.get("unreadable", ()))] = False
        marks.update(copies(data, real, work / "unique", stays))
    return _assembled(question, data, real, marks)


def scan_real(question: Question, data: Scan, work: Path) -> Scan | None:
    """One pass over the real data, without looking for faults. Columns that it has not are found by their usual names."""
    if question.real is None:
        return None
    _, row = next(read(question.real))
    fits = all(column in row for column in question.plan.named.values())
    plan = replace(question.plan, named=question.plan.named if fits else {}, faults=False, mask=(), rules=())
    if plan.group and plan.group not in row:
        plan = replace(plan, group="")
    return scan(question.real, work / "real", plan)


def is_format(marks: Marks, rows: int) -> bool:
    """Whether template marks are how the set is written, and no fault."""
    return len(marks.get("template", ())) > FORMAT * rows


def _assembled(question: Question, data: Scan, real: Scan | None, marks: Marks) -> Audit:
    unjudged: list[str] = []
    if is_format(marks, data.rows):
        unjudged.append(f"template marks stand in {len(marks.pop('template')):,} rows: taken for the set's format, not for a fault")
    languages, language_rows = _languages(document for _, document in data.sample)
    findings = list(_row_findings(data, marks))
    statistics: tuple[Statistic, ...] = ()
    tokens, meant, shares = 0, 0, group_shares(data.groups, real.groups if real else {})
    if real is None:
        unjudged.append("copies of real rows, diversity, tails and coverage: name real data, --real FILE")
    else:
        gone = set().union(*(rows for kind, rows in marks.items() if KINDS[kind].repair == "drop"))
        sound = [_said(one) for row, one in data.sample if row not in gone]
        statistics, tokens, why = against_real(sound, [_said(one) for _, one in real.sample], question.plan.seed)
        unjudged += [why] if why else []
        if question.embedder is not None:
            more, meant, why = by_meaning(question.embedder, sound, [_said(one) for _, one in real.sample], question.plan.seed)
            statistics += more
            unjudged += [why] if why else []
        findings += _set_findings(data, statistics)
        findings += _language_findings(data, languages, language_rows, real)
        findings += _group_findings(data, shares) if real.groups else []
        if question.plan.group and not real.groups:
            unjudged.append(f"groups against real: the real data has no column {question.plan.group!r}")
    if data.others:
        unjudged.append(
            f"the columns {', '.join(data.others)}: only text to learn from is looked at; name a column of it, --column answer=NAME"
        )
    if not question.evals:
        unjudged.append("contamination: name the evaluation sets, --eval FILE")
    findings.sort(key=lambda item: (-item.harm, item.kind))
    findings = _with_cases(data, findings, marks)
    answer, headline = verdict(findings, data.rows, marks)
    composition = _composition(data, languages, language_rows)
    checks = _checks(question, data, real, (tokens, meant), language_rows)
    return Audit(
        question.data.name, question.real.name if question.real else "", tuple(path.name for path in question.evals), answer, headline,
        composition, tuple(findings), statistics, tokens, shares if question.plan.group else (), tuple(unjudged), checks,
    )  # fmt: skip


def _said(document: Document) -> str:
    return document.answer or document.prompt


# ── findings ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _row_findings(data: Scan, marks: Marks) -> Iterator[Finding]:
    """What was counted row by row."""
    for kind, rows in marks.items():
        share = len(rows) / data.rows
        says = f"{_rows(len(rows))} of {data.rows:,} ({_percent(share)})"
        if kind in ("secrets", "personal"):
            most = Counter(what.split("… of ")[0].rsplit(" ", 1)[0] for what in rows.values()).most_common(3)
            says += ": " + ", ".join(f"{name} {count:,}" for name, count in most)
        yield Finding(kind, share, None, None, len(rows), data.rows, says, first=tuple(row + 1 for row in sorted(rows)[:LISTED]))


def _set_findings(data: Scan, statistics: Sequence[Statistic]) -> Iterator[Finding]:
    """What the figures against real text show, one finding for each thing that can be wrong; the worst figure speaks."""
    by_kind: Mapping[str, tuple[str, ...]] = {
        "coverage": ("coverage of real word pairs", REACHED),
        "likeness": ("word pairs that real text has",),
        "diversity": (
            "different words",
            "different word pairs",
            "entropy of words (nats)",
            "4-grams said once",
            "bytes a word, compressed",
            IN_EFFECT,
        ),
        "tails": ("rare words",),
    }
    named = {item.name: item for item in statistics}
    for kind, names in by_kind.items():
        if worse := [named[name] for name in names if name in named and named[name].worse_by > 0]:
            yield _gap(kind, max(worse, key=lambda item: item.worse_by), data)
    cut = named.get("answers that stop in the middle")
    if cut is not None and cut.outside and cut.difference > _CUT:
        says = f"{_percent(cut.value)} of the answers stop in the middle, of the real ones {_percent(cut.real)}"
        yield Finding("cut", cut.difference, max(0.0, cut.low), cut.high, 0, len(data.sample), says)


def _gap(kind: str, item: Statistic, data: Scan) -> Finding:
    size = abs(item.real)
    ends = sorted((abs(item.low) / size, abs(item.high) / size))
    share = min(1.0, item.worse_by)
    says = f"{item.name}: {_figure(item.value)}, a second real sample would show {_figure(item.real)} ± {_figure(item.null)}"
    return Finding(kind, share, min(1.0, ends[0]), min(1.0, ends[1]), 0, len(data.sample), says)


def _language_findings(data: Scan, languages: Mapping[str, int], rows: int, real: Scan) -> Iterator[Finding]:
    """Languages that less than one real row in a hundred is in, of those whose language is sure."""
    theirs, _ = _languages(document for _, document in real.sample)
    known = theirs.total()
    if not rows or known < 50:
        return
    foreign = {name: count for name, count in languages.items() if theirs.get(name, 0) < 0.01 * known}
    hits = sum(foreign.values())
    low, high = wilson(hits, rows, _Z)
    if low > 0.01:
        most = ", ".join(f"{name} {count:,}" for name, count in Counter(foreign).most_common(4))
        says = f"about {_percent(hits / rows)} of the rows are in languages that real data lacks ({most} of {rows:,} looked at)"
        yield Finding("language", hits / rows, low, high, 0, rows, says)


def _group_findings(data: Scan, shares: tuple[GroupShare, ...]) -> Iterator[Finding]:
    share, fallen = lost(shares)
    if fallen:
        told = "; ".join(f"{one.name} {_percent(one.real_share)} of real, {_percent(one.share)} here" for one in fallen[:4])
        missing = sum(one.rows == 0 for one in fallen)
        says = f"{len(fallen)} group{'s' if len(fallen) > 1 else ''} lost share, {missing} missing: {told}"
        low, high = -sum(one.high for one in fallen), -sum(one.low for one in fallen)
        yield Finding("groups", share, max(0.0, low), min(1.0, high), 0, data.rows, says)


# ── examples ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def _with_cases(data: Scan, findings: Iterable[Finding], marks: Marks) -> list[Finding]:
    """The findings with rows to look at; the file is read again up to the last of them."""
    wanted: dict[str, list[int]] = {kind: sorted(rows)[:SHOWN_CASES] for kind, rows in marks.items()}
    last = max((row for rows in wanted.values() for row in rows), default=-1)
    needed, texts = {row for rows in wanted.values() for row in rows}, {}
    document = reader(data.parts)
    for number, row in read(data.path) if last >= 0 else ():
        if number - 1 in needed:
            texts[number - 1] = SHOWN(_said(document(row)))
        if number > last:
            break
    found = []
    for item in findings:
        cases = tuple(
            Case(row + 1, _other(marks[item.kind][row]), SHOWN(marks[item.kind][row]), _excerpt(texts[row]))
            for row in wanted.get(item.kind, ())
        )
        found.append(replace(item, cases=cases))
    return found


def _other(what: str) -> int:
    """The number of the row that a mark names."""
    _, found, number = what.partition("row ")
    return int(number.split(" ")[0]) if found and number.split(" ")[0].isdigit() else 0


def _excerpt(text: str, limit: int = 300) -> str:
    """The beginning, or what stands around the first masked passage."""
    masked = re.search(r"\[(?:[A-Za-z0-9]+[ ]?){1,6}\]", text)
    start = max(0, masked.start() - limit // 2) if masked and masked.end() > limit else 0
    return f"{'…' if start else ''}{text[start : start + limit]}{'…' if start + limit < len(text) else ''}"


# ── composition ────────────────────────────────────────────────────────────────────────────────────────────────────────
def _composition(data: Scan, languages: Mapping[str, int], language_rows: int) -> Composition:
    origins: dict[tuple[str, str, str], int] = {
        (one.kind, one.proof, one.rule): count
        for one, count in sorted(data.origins.items(), key=lambda item: (item[0] == NO_RULE, -item[1]))
    }
    return Composition(
        data.rows, int(data.words.sum(dtype=np.int64)), data.characters, dict(data.parts), dict(data.sources.most_common(12)), origins,
        dict(sorted(data.depths.items())), _lengths(data), dict(Counter(languages).most_common(8)), language_rows,
    )  # fmt: skip


def _lengths(data: Scan) -> tuple[tuple[int, int], ...]:
    places = np.ceil(np.log2(np.maximum(data.words, 0) + 1)).astype(int)
    return tuple((0 if place == 0 else 2 ** (place - 1), int(count)) for place, count in enumerate(np.bincount(places)))


def _languages(documents: Iterable[Document]) -> tuple[Counter[str], int]:
    """Languages of up to 2,000 texts that are long enough to tell, and how many there were."""
    found: Counter[str] = Counter()
    for document in documents:
        said = _said(document)
        if len(said.split()) >= _LANGUAGE_WORDS:
            code, probability = language_of(said)
            found[code if probability >= _SURE else "unsure"] += 1
            if found.total() >= _LANGUAGE_ROWS:
                break
    rows = found.total()
    found.pop("unsure", None)
    return found, rows


def _checks(question: Question, data: Scan, real: Scan | None, drawn: tuple[int, int], language_rows: int) -> tuple[tuple[str, str], ...]:
    every = f"all {data.rows:,} rows"
    found = [("exact and near duplicates, secrets, personal data, links, repetition, marks, broken characters", every)]
    if question.evals:
        found.append(("contamination", every))
    if real is not None:
        found.append(("copies of real rows", f"{every} against all {real.rows:,} real ones"))
        tokens, meant = drawn
        if tokens:
            found.append(
                (
                    "diversity, tails, coverage",
                    f"draws of {tokens:,} words from those of {len(data.sample):,} rows that cleaning keeps, and from {len(real.sample):,} real ones",
                )
            )
        if meant:
            found.append(("variety and coverage by meaning", f"draws of {meant:,} rows and as many real ones"))
    found.append(("languages", f"{language_rows:,} rows"))
    return tuple(found)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else f"{100 * share:.2g} %"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
