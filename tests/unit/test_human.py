"""People's verdicts: review files of every format, several reviewers of one answer, and the verifier that passes them on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from helpers import NoPast, context, failed, group, sample, verdicts

from outcross.errors import DataError
from outcross.recipe import fingerprint
from outcross.reviews import Written, agreed, read_reviews
from outcross.types import Group, Review, Verdict
from outcross.verify.human import Human

FOUR, FIVE = sample("4"), sample("5", 1)


def lines(path: Path, *rows: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(reviewer: str, verdict: Verdict, reason: str = "") -> Written:
    return Written("s", "", "", reviewer, verdict, reason)


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(params=["jsonl", "csv", "db"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same three reviews in every format; the second is not filled in yet."""
    rows = [("a", "Ada", "pass", ""), ("b", "", "", ""), ("c", "Bob", "FAIL", "off by one, twice")]
    path = tmp_path / f"reviews.{request.param}"
    if path.suffix == ".jsonl":
        return lines(path, *({"sample_id": a, "reviewer": b, "verdict": c, "reason": d, "prompt": "shown"} for a, b, c, d in rows))
    if path.suffix == ".csv":
        path.write_text("sample_id,reviewer,verdict,reason\n" + "".join(f'{a},{b},{c},"{d}"\n' for a, b, c, d in rows))
        return path
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE reviews (sample_id, reviewer, verdict, reason)")
        base.executemany("INSERT INTO reviews VALUES (?, ?, ?, ?)", rows)
    base.close()
    return path


def test_reviews_are_read_from_json_lines_csv_and_sqlite_alike(file: Path) -> None:
    assert list(read_reviews(file)) == [Written("a", "", "", "Ada", "pass"), Written("c", "", "", "Bob", "fail", "off by one, twice")]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"sample_id": "a", "reviewer": "Ada", "verdict": "good"}, "row 1: the verdict is 'good'; .*allowed: abstain, fail, pass"),
        ({"sample_id": "a", "reviewer": "Ada", "verdict": "error"}, "the verdict is 'error'"),
        ({"sample_id": "a", "verdict": "pass"}, "row 1: the verdict 'pass' has no reviewer"),
        ({"reviewer": "Ada", "verdict": "pass", "task_id": "t"}, "row 1: it names no answer"),
    ],
)
def test_a_review_that_says_too_little_is_told_with_its_row(row: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        list(read_reviews(lines(tmp_path / "r.jsonl", row)))


def test_damaged_and_absent_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"sample_id": "a"},\n')
    (tmp_path / "list.jsonl").write_text("[1]\n")
    sqlite3.connect(tmp_path / "r.db").close()
    for name, told in (
        ("r.jsonl", "line 1 is not JSON"),
        ("list.jsonl", "must be an object"),
        ("r.db", "needs a table `reviews`"),
        ("no", "no review file"),
    ):
        with pytest.raises(DataError, match=told):
            list(read_reviews(tmp_path / name))


# ── several reviewers ──────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("said_by", "together"),
    [
        ("pass", "pass"),
        ("pass fail", "abstain"),
        ("pass fail fail", "fail"),
        ("pass abstain abstain", "pass"),  # who has no opinion has no vote
        ("abstain", "abstain"),
        ("pass pass fail fail", "abstain"),
    ],
)
def test_the_majority_of_those_with_an_opinion_counts(said_by: str, together: Verdict) -> None:
    assert agreed(said(str(number), verdict) for number, verdict in enumerate(said_by.split())) == together  # type: ignore[arg-type]


def test_a_reviewer_has_one_vote_and_it_is_the_last_word() -> None:
    assert agreed([said("Ada", "fail"), said("Ada", "fail"), said("Bob", "pass"), said("Ada", "pass")]) == "pass"


# ── the verifier ───────────────────────────────────────────────────────────────────────────────────────────────────────
def judged(verifier: Human, *groups: Group, folder: Path) -> list[Group]:
    return list(verifier(context(folder), groups))


def test_answers_are_found_by_sample_or_by_task_and_text_and_the_others_wait(tmp_path: Path) -> None:
    by_id = {"sample_id": FOUR.id, "reviewer": "Ada", "verdict": "pass"}
    by_text = {"task_id": "task", "text": " 5\n", "reviewer": "Bob", "verdict": "fail", "reason": "it is 4"}
    verifier = Human(lines(tmp_path / "r.jsonl", by_id, by_text))
    found = judged(verifier, group(FOUR, FIVE, "6", failed(3)), folder=tmp_path)
    assert verdicts(found) == [["pass", "fail", "abstain", None]]
    four, five, six, _ = found[0].samples
    assert (four.scores[0].value, five.scores[0].value, six.scores[0].value) == (1.0, 0.0, None)
    assert five.scores[0].reason == "it is 4" and five.scores[0].evidence == "Bob: fail, it is 4"
    assert six.scores[0].reason == "not reviewed"
    assert Human().ground == "human" and verdicts(judged(Human(), group("4"), folder=tmp_path)) == [["abstain"]]


def test_where_reviewers_differ_both_stand_on_the_evidence(tmp_path: Path) -> None:
    rows = [{"sample_id": FOUR.id, "reviewer": who, "verdict": what} for who, what in (("Ada", "pass"), ("Bob", "fail"))]
    tie = judged(Human(lines(tmp_path / "r.jsonl", *rows)), group(FOUR), folder=tmp_path)[0].samples[0].scores[0]
    assert (tie.verdict, tie.reason, tie.evidence) == ("abstain", "reviewers differ", "Ada: pass; Bob: fail")
    rows.append({"sample_id": FOUR.id, "reviewer": "Cy", "verdict": "fail"})
    most = judged(Human(lines(tmp_path / "r.jsonl", *rows)), group(FOUR), folder=tmp_path)[0].samples[0].scores[0]
    assert (most.verdict, most.reason, most.evidence) == ("fail", "the majority of reviewers", "Ada: pass; Bob: fail; Cy: fail")


@dataclass(frozen=True)
class Reviewed(NoPast):
    """A past in which people looked at some samples."""

    made: tuple[Group, ...] = ()
    said: tuple[Review, ...] = ()

    def groups(self, phase: str | None = None, /) -> Iterator[Group]:
        return iter(self.made)

    def reviews(self) -> Sequence[Review]:
        return self.said


def test_what_people_said_of_an_earlier_round_is_known_when_the_same_answer_comes_again(tmp_path: Path) -> None:
    past = Reviewed(tmp_path, made=(group(FOUR, FIVE),), said=(Review(FIVE.id, "Ada", "fail", "no"),))
    again = group("4", "5 ", "5")  # other samples of the same task
    found = list(Human()(replace(context(tmp_path), past=past), [again]))
    assert verdicts(found) == [["abstain", "fail", "fail"]]
    assert found[0].samples[1].scores[0].evidence == "Ada: fail, no"


def test_a_review_file_is_its_content_and_not_its_place(tmp_path: Path) -> None:
    row = {"sample_id": "a", "reviewer": "Ada", "verdict": "pass"}
    here, there = lines(tmp_path / "here.jsonl", row), lines(tmp_path / "there.jsonl", row)
    assert fingerprint(Human(here)) == fingerprint(Human(there)) != fingerprint(Human())
    lines(there, row, row)
    assert fingerprint(Human(here)) != fingerprint(Human(there))
    with pytest.raises(DataError, match="no review file"):
        fingerprint(Human(tmp_path / "gone.jsonl"))
