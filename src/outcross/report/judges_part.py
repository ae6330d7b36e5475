"""The judges as a section of the report, and the lines that `outcross show` prints about them."""

from __future__ import annotations

from collections.abc import Iterator

from outcross.estimates import Estimate
from outcross.report import numbers as n
from outcross.report.element import Child, clip, el
from outcross.report.judges import MOST, JudgeFound
from outcross.report.parts import table
from outcross.report.read import Reading

Line = tuple[str, str, str, str]
COLUMNS = ("", "estimate", "95 % interval", "n")


def title(found: JudgeFound) -> str:
    """Who judged, and how."""
    models = ", ".join(n.short(model) for model in found.models)
    asked = f" asked {found.role!r}" if found.role else ""
    by = f" by {', '.join(found.by)}" if found.by else ""
    errors = f", {n.plural(found.errors, 'error')}" if found.errors else ""
    return f"{found.verifier}{asked}{f' ({models})' if models else ''}{by}: {n.plural(found.samples, 'sample')}{errors}"


def lines(found: JudgeFound) -> list[Line]:
    """What is known of a judge: name, estimate, interval and n."""
    length = None if found.length is None else found.length
    rows = [
        _line("pairs whose verdict changes with the order", found.turned, "share", "pairs"),
        _line("preference for the answer shown first (none: 50 %)", found.first, "share", "pairs"),
        _line("log-odds for an answer twice as long (no preference: 0)", length, "", "pairs"),
        _line("win rate at equal length", found.at_equal_length, "share", "pairs"),
        _line("preference for its own answer over another model's (none: 50 %)", found.own, "share", "pairs"),
        _line("prefers the answer that is right", found.accuracy, "share", "pairs"),
        _line("distance of confidence from truth", found.calibration.error if found.calibration else None, "share", "judgements"),
        _line("agreement of the panel's verdicts (Krippendorff's alpha, nominal)", found.verdicts, "", "samples"),
        _line("agreement of the panel's values (Krippendorff's alpha, interval)", found.values, "", "samples"),
    ]
    return [row for row in rows if row is not None]


def _line(name: str, estimate: Estimate | None, unit: str, counted: str) -> Line | None:
    if estimate is None:
        return None
    known = estimate.low is not None and estimate.high is not None
    interval = f"{n.quantity(estimate.low or 0.0, unit)} to {n.quantity(estimate.high or 0.0, unit)}" if known else "n/a"
    return name, n.quantity(estimate.mean, unit), interval, f"{n.count(estimate.items)} {counted}"


def judges_part(reading: Reading) -> Iterator[Child]:
    """Each judge of the run: its biases and its calibration, as far as the record tells."""
    if not reading.judges:
        return
    yield el("h2", "Judges")
    yield el(
        "p",
        f"From the pairs and scores on the record, of the newest {MOST:,} samples at most. The answers to one task count as one in the intervals.",
        class_="soft",
    )
    for found in reading.judges:
        yield el("h3", clip(title(found), 300))
        yield table(["", "#estimate", "#95 % interval", "#n"], lines(found))
        if found.calibration is not None:
            of = "pairs" if found.pairs else "scores"
            yield el("p", f"Confidence of {of} held against firm verdicts on the same samples.", class_="soft")
            rows = [
                (f"{item.low:.1f} to {item.high:.1f}", n.count(item.items), n.percent(item.said), n.percent(item.right))
                for item in found.calibration.bins
            ]
            yield table(["confidence", "#n", "#said on average", "#right"], rows)
