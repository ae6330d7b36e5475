"""Planted faults are found in the right rows, a sound set gives no alarm, and the answer follows from what was found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from audit_sets import EMAIL, SECRET, VOCABULARY, planted, texts, write

from outcross.audit import scan as scanning
from outcross.audit.documents import parts_of, reader
from outcross.audit.examine import Question, audit
from outcross.audit.findings import Audit, Finding
from outcross.audit.groups import group_shares, lost, wilson
from outcross.audit.kinds import KINDS, level_of
from outcross.audit.scan import Plan
from outcross.audit.verdict import verdict
from outcross.errors import ConfigError, DataError
from outcross.models.hashed_embedder import HashedEmbedder
from outcross.provenance import FromSource
from outcross.report.audit import render

REAL, HELD_OUT = texts(400, 50), texts(30, 60)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    real = write(tmp_path / "real.jsonl", ({"text": text} for text in REAL))
    return real, write(tmp_path / "test.jsonl", ({"text": text} for text in HELD_OUT))


def by_kind(found: Audit) -> dict[str, Finding]:
    return {item.kind: item for item in found.findings}


def test_every_planted_fault_is_found_in_its_rows_and_no_other(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data, where = planted(tmp_path, REAL, HELD_OUT)
    found = audit(Question(data, files[0], (files[1],)))
    assert {item.kind: set(item.first) for item in found.findings if item.first} == where
    assert {item.kind: item.rows for item in found.findings if item.rows} == {kind: len(rows) for kind, rows in where.items()}


def test_findings_come_in_order_of_harm_which_is_share_times_weight(tmp_path: Path, files: tuple[Path, Path]) -> None:
    found = audit(Question(planted(tmp_path, REAL, HELD_OUT)[0], files[0], (files[1],)))
    points = [item.harm for item in found.findings]
    assert points == sorted(points, reverse=True)
    assert all(item.harm == pytest.approx(100 * item.share * KINDS[item.kind].weight) for item in found.findings)
    assert by_kind(found)["contamination"].share == pytest.approx(6 / found.composition.rows)


def test_examples_name_the_row_it_resembles_and_never_show_a_secret(tmp_path: Path, files: tuple[Path, Path]) -> None:
    found = audit(Question(planted(tmp_path, REAL, HELD_OUT)[0], files[0], (files[1],)))
    kinds = by_kind(found)
    assert kinds["duplicates"].cases[0].other == 1 and kinds["memorised"].cases[0].other == 1
    assert "test.jsonl, row 1" in kinds["contamination"].cases[0].what
    shown = json.dumps(found.as_json()) + render(found)
    assert SECRET not in shown and EMAIL not in shown and "[AWS Access Key]" in shown


def test_a_sound_set_is_fit_to_train_on(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data = write(tmp_path / "sound.jsonl", ({"text": text} for text in texts(300, 3)))
    found = audit(Question(data, files[0], (files[1],)))
    assert (found.answer, found.findings, found.unjudged) == ("yes", (), ())
    assert len(found.statistics) == 12


def test_a_collapsed_set_is_refused_because_cleaning_does_not_help(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data = write(tmp_path / "narrow.jsonl", ({"text": text} for text in texts(300, 4, VOCABULARY[:80])))
    found = audit(Question(data, files[0]))
    kinds = by_kind(found)
    assert found.answer == "no" and "Cleaning does not repair that" in found.headline
    assert {"tails", "diversity"} <= kinds.keys() and kinds["tails"].level == kinds["diversity"].level == "bad"
    for kind in ("tails", "diversity"):
        low, high = kinds[kind].low, kinds[kind].high
        assert low is not None and high is not None and 0 < low <= kinds[kind].share <= high


def test_text_of_other_words_is_unlike_the_real_one_and_does_not_cover_it(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data = write(tmp_path / "other.jsonl", ({"text": text} for text in [*texts(150, 3), *texts(150, 4, VOCABULARY[::-1])]))
    kinds = by_kind(audit(Question(data, files[0])))
    assert kinds["coverage"].level == kinds["likeness"].level == "bad"
    assert "a second real sample would show" in kinds["coverage"].says


def test_what_is_measured_is_what_cleaning_leaves(tmp_path: Path, files: tuple[Path, Path]) -> None:
    """Half of the rows are copies: that is one finding and no loss of variety, since cleaning repairs it."""
    sound = texts(300, 3)
    found = audit(Question(write(tmp_path / "twice.jsonl", ({"text": text} for text in [*sound, *sound])), files[0]))
    assert [item.kind for item in found.findings] == ["duplicates"] and found.answer == "yes, after cleaning"


def test_without_real_data_and_evaluation_sets_it_says_what_it_did_not_judge(tmp_path: Path) -> None:
    found = audit(Question(write(tmp_path / "set.jsonl", ({"text": text} for text in texts(40, 3)))))
    assert len(found.unjudged) == 2 and "--real" in found.unjudged[0] and "--eval" in found.unjudged[1]
    assert not found.statistics


def test_too_little_real_data_is_told_and_not_judged(tmp_path: Path) -> None:
    data = write(tmp_path / "set.jsonl", ({"text": text} for text in texts(40, 3)))
    real = write(tmp_path / "real.jsonl", ({"text": text} for text in texts(10, 4)))
    assert "are needed" in audit(Question(data, real)).unjudged[0]


def test_marks_in_most_rows_are_the_format_of_the_set(tmp_path: Path) -> None:
    marked = [f"<|im_start|>{text}<|im_end|>" for text in texts(30, 3)]
    found = audit(Question(write(tmp_path / "set.jsonl", ({"text": text} for text in [*marked, *texts(10, 5)]))))
    assert "template" not in by_kind(found) and "the set's format" in found.unjudged[0]


def test_a_model_adds_figures_by_meaning_and_says_on_how_many_rows(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data = write(tmp_path / "sound.jsonl", ({"text": text} for text in texts(150, 3)))
    found = audit(Question(data, files[0], embedder=HashedEmbedder(128)))
    assert len(found.statistics) == 14 and found.answer == "yes"
    assert ("variety and coverage by meaning", "draws of 133 rows and as many real ones") in found.coverage_of_checks


# ── groups ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_missing_group_is_found_and_chance_is_not(tmp_path: Path) -> None:
    real = write(tmp_path / "real.jsonl", ({"text": text, "kind": "abcd"[k % 4]} for k, text in enumerate(texts(400, 1))))
    data = write(tmp_path / "set.jsonl", ({"text": text, "kind": "abc"[k % 3]} for k, text in enumerate(texts(300, 2))))
    finding = by_kind(audit(Question(data, real, plan=Plan(group="kind"))))["groups"]
    assert finding.share == pytest.approx(0.25) and "1 missing: d 25.0 % of real, 0.0 % here" in finding.says
    assert "groups" not in by_kind(audit(Question(real, real, plan=Plan(group="kind"))))


def test_intervals_of_shares_are_the_published_ones() -> None:
    """Newcombe (1998), Statistics in Medicine 17, 873–890, table II: 56/70 against 48/80, method 10: 0.0524 to 0.3339."""
    assert wilson(81, 263, 1.959964) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe (1998), 17, 857–872, table I
    (one, two) = group_shares({"a": 56, "b": 14}, {"a": 48, "b": 32})
    assert lost((one, two))[1] == [two]
    single = group_shares({"a": 56}, {"a": 56})
    assert (single[0].low < 0 < single[0].high) and lost(single) == (0, [])


# ── composition ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_composition_counts_words_sources_origins_and_depths(tmp_path: Path) -> None:
    lineage = {"kind": "synthetic", "proof": "none", "depth": 2}
    rows: list[dict[str, Any]] = [{"text": "one two three", "source": "wikipedia"}] * 3 + [
        {"text": "four five", "source": "web", "outcross": lineage}
    ] * 2
    made = audit(Question(write(tmp_path / "set.jsonl", rows), plan=Plan(rules=(FromSource(("wikipedia",)),)))).composition
    assert (made.rows, made.words, made.characters) == (5, 13, 57)
    assert made.sources == {"wikipedia": 3, "web": 2} and made.depths == {2: 2}
    assert {(kind, proof): rows for (kind, proof, _), rows in made.origins.items()} == {("real", "attested"): 3, ("synthetic", "none"): 2}
    assert made.lengths == ((0, 0), (1, 0), (2, 5))


# ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "completion": "c"}, ("p", "c", "")),
        ({"instruction": "i", "input": "x", "output": "o"}, ("i\nx", "o", "")),
        ({"question": "q", "answer": "a"}, ("q", "a", "")),
        ({"chosen": "c", "rejected": "r"}, ("", "c", "r")),
        ({"text": "t", "id": 3}, ("", "t", "")),
        ({"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}, ("u", "a", "")),
        ({"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]}, ("u", "a", "")),
        ({"prompt": [{"role": "user", "content": "u"}], "completion": [{"role": "assistant", "content": "a"}]}, ("u", "a", "")),
        ({"text": 12}, ("", "12", "")),
    ],
)
def test_the_usual_names_are_understood(row: Mapping[str, Any], expected: tuple[str, str, str]) -> None:
    found = reader(parts_of("set", row, {}))(row)
    assert (found.prompt, found.answer, found.rejected, found.readable) == (*expected, True)


def test_cells_of_other_types_are_counted_as_unreadable(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": text} for text in texts(5, 1)]
    mixed = [*rows, {"text": {"a": 1}}, {"text": [1, 2]}, {"text": True}, {"other": "x"}]
    found = audit(Question(write(tmp_path / "set.jsonl", mixed)))
    assert by_kind(found)["unreadable"].first == (6, 7, 8, 9)


def test_bad_files_are_refused_with_the_next_step(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.jsonl", [{"text": "a b c"}] * 4)
    broken.write_text(broken.read_text() + '{"text": "cut of\n')
    with pytest.raises(DataError, match="after row 4"):
        audit(Question(broken))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="no rows"):
        audit(Question(tmp_path / "empty.jsonl"))
    numbers = write(tmp_path / "numbers.jsonl", [{"a": 1}])
    with pytest.raises(DataError, match="--column"):
        audit(Question(numbers))
    with pytest.raises(DataError, match="no column 'b'"):
        audit(Question(numbers, plan=Plan({"answer": "b"})))
    with pytest.raises(ConfigError, match="'reply'"):
        audit(Question(numbers, plan=Plan({"reply": "a"})))
    with pytest.raises(DataError, match="topic"):
        audit(Question(write(tmp_path / "set.jsonl", [{"text": "a"}]), plan=Plan(group="topic")))


def test_the_formats_give_the_same_answer(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    rows = [{"text": text} for text in [*texts(60, 1), *texts(6, 1)]]
    write(tmp_path / "set.jsonl", rows)
    table = pa.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, tmp_path / "set.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "set.csv")
    answers = [audit(Question(tmp_path / f"set.{ending}")) for ending in ("jsonl", "parquet", "csv")]
    assert [by_kind(item)["duplicates"].first for item in answers] == [tuple(range(61, 67))] * 3
    assert len({item.headline for item in answers}) == 1


def test_a_long_file_is_looked_at_by_other_processes_with_the_same_findings(
    tmp_path: Path, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, where = planted(tmp_path, REAL, HELD_OUT)
    monkeypatch.setattr(scanning, "_ALONE", 60)
    monkeypatch.setattr(scanning, "_BATCH", 30)
    found = audit(Question(data, files[0], (files[1],), Plan(workers=2)))
    assert {item.kind: set(item.first) for item in found.findings if item.first} == where


# ── the answer ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def finding(kind: str, share: float, rows: int = 0) -> Finding:
    return Finding(kind, share, None, None, rows, 1000, "")


def test_the_answer_is_no_only_for_what_cleaning_cannot_repair() -> None:
    marks = {"duplicates": dict.fromkeys(range(300), "")}
    assert verdict([], 1000, {})[0] == "yes"
    assert verdict([finding("boilerplate", 0.001, 1)], 1000, {"boilerplate": {1: ""}})[0] == "yes"
    assert verdict([finding("duplicates", 0.3, 300)], 1000, marks)[0] == "yes, after cleaning"
    assert verdict([finding("duplicates", 0.3, 300)], 500, marks)[0] == "no"
    both = [finding("duplicates", 0.3, 300), finding("boilerplate", 0.001, 1)]
    assert "drops about 301 of 1,000 rows" in verdict(both, 1000, {**marks, "boilerplate": {400: ""}})[1]  # notes are repaired too
    assert verdict([finding("coverage", 0.05)], 1000, {})[0] == "yes"
    answer, told = verdict([finding("coverage", 0.3), finding("duplicates", 0.3, 300)], 1000, marks)
    assert answer == "no" and KINDS["coverage"].title in told


def test_levels_follow_from_the_points_and_a_secret_is_never_a_note() -> None:
    assert [level_of("duplicates", points) for points in (0.99, 1.0, 9.99, 10.0)] == ["note", "warn", "warn", "bad"]
    assert level_of("secrets", 0.001) == "warn"


# ── the page ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_page_is_well_formed_says_the_answer_first_and_loads_nothing(tmp_path: Path, files: tuple[Path, Path]) -> None:
    found = audit(Question(planted(tmp_path, REAL, HELD_OUT)[0], files[0], (files[1],)))
    page = render(found)
    ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))
    assert "<script" not in page and "src=" not in page and "http-equiv" in page
    assert page.index(found.answer) < page.index("Reasons, the most harmful first") < page.index(KINDS[found.findings[0].kind].why)
    assert all(name in page for name in ("coverage of real word pairs", "Words a row", "unknown"))


def test_a_page_without_findings_and_real_data_is_well_formed_too(tmp_path: Path) -> None:
    page = render(audit(Question(write(tmp_path / "set.jsonl", [{"text": "One row, and </script> in it.\x00"}]))))
    ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>"))


def test_rows_without_a_group_are_not_those_of_a_group_called_none(tmp_path: Path) -> None:
    rows = [{"text": text, "group": group} for text, group in zip(texts(30, 5), [None, "None", "a"] * 10, strict=True)]
    data = write(tmp_path / "set.jsonl", rows)
    found = audit(Question(data, plan=Plan(group="group")))
    assert {one.name: one.rows for one in found.groups} == {"(no value)": 10, "None": 10, "a": 10}


def test_columns_that_were_not_looked_at_are_named(tmp_path: Path) -> None:
    rows = [{"question": "what is it", "answer": text, "note": EMAIL, "group": "a"} for text in texts(5, 6)]
    found = audit(Question(write(tmp_path / "set.jsonl", rows), plan=Plan(group="group")))
    assert "personal" not in by_kind(found)
    assert any(line.startswith("the columns note: only text to learn from is looked at") for line in found.unjudged)
