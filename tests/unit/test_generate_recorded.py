"""Completions that exist already: read in the forms people have them in, matched, adopted as they are, counted."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import context

from outcross.engine.conserve import Counter, generated
from outcross.errors import DataError
from outcross.generate.recorded import Recorded
from outcross.recipe import fingerprint
from outcross.tasks.completions import Completions, PromptsOf
from outcross.types import Example, Message, Origin, Task

ROWS: list[dict[str, Any]] = [
    {"prompt": "1+1=", "completion": "2", "model": "big-teacher", "license": "CC0", "date": "2025-03-01"},
    {"prompt": "2+2=", "completion": "4"},
    {"prompt": "1+1=", "completion": "two", "model": "other"},
]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_teacher_licence_and_date_are_on_the_record_and_unknown_stays_unknown(tmp_path: Path) -> None:
    first, second, third = Completions(jsonl(tmp_path / "a.jsonl", ROWS), depth=2)
    assert (first.prompt, first.completion) == ("1+1=", "2")
    assert (first.origin.kind, first.origin.source, first.origin.depth) == ("synthetic", "big-teacher", 2)
    assert first.origin.note.startswith("licence CC0; collected 2025-03-01; from a.jsonl@blake2b:")
    assert (second.origin.kind, second.origin.depth) == ("unknown", 2) and second.origin.source.startswith("a.jsonl@")
    assert third.origin.source == "other" and not third.origin.note.startswith("licence")
    named = list(Completions(tmp_path / "a.jsonl", teacher="mine", licence="MIT", collected="2024"))
    assert [example.origin.source for example in named] == ["big-teacher", "mine", "other"]
    assert named[1].origin.note.startswith("licence MIT; collected 2024; ")
    assert len({example.id for example in named}) == 3


def test_the_same_completions_from_every_kind_of_file(tmp_path: Path) -> None:
    one = jsonl(tmp_path / "one.jsonl", ROWS)
    many = jsonl(
        tmp_path / "many.jsonl",
        [{"prompt": "1+1=", "completions": ["2", "two"]}, {"prompt": "2+2=", "completions": ["4"]}, {"prompt": "3+3=", "completions": []}],
    )
    talk = jsonl(
        tmp_path / "talk.jsonl",
        [{"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]} for row in ROWS],
    )
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"q": ["1+1=", "2+2="], "a": [["2", "two"], ["4"]], "who": ["t", "t"]}), table)
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "response"], *[[row["prompt"], row["completion"]] for row in ROWS]])

    def said(found: Completions) -> set[tuple[str, str]]:
        return {(str(item.prompt if isinstance(item.prompt, str) else item.prompt[-1].content), str(item.completion)) for item in found}  # type: ignore[union-attr]

    wanted = {("1+1=", "2"), ("1+1=", "two"), ("2+2=", "4")}
    mapped = Completions(table, {"prompt": "q", "answer": "a", "teacher": "who"})
    for found in (Completions(one), Completions(many), Completions(talk), mapped, Completions(tmp_path / "a.csv")):
        assert said(found) == wanted
    assert {item.origin.source for item in mapped} == {"t"}
    assert next(iter(Completions(talk))).prompt == (Message("user", "1+1="),)


def test_they_are_adopted_by_prompt_with_the_missing_ones_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    completions = Completions(jsonl(tmp_path / "a.jsonl", [*ROWS, {"prompt": "9+9=", "completion": "18"}]))
    tasks = [Task("b", "2+2=", "4"), Task("none", "5+5=", "10"), Task("a", "1+1=", "2"), Task("a2", "1+1=", "2")]
    counter = Counter("generate", "recorded")
    groups = list(generated(Recorded(completions), context(tmp_path), tasks, counter))
    assert [[sample.text for sample in group.samples] for group in groups] == [["4"], [""], ["2", "two"], ["2", "two"]]
    (missing,) = groups[1].samples
    assert missing.error == "no completion is on record for this task, by its identifier or its prompt"
    assert (counter.into, counter.kept, counter.failed) == (6, 5, 1)
    first = groups[2].samples[0]
    assert (first.origin.kind, first.origin.source, first.origin.round, first.origin.parents) == (
        "synthetic",
        "big-teacher",
        "phase/0000",
        ("a",),
    )
    assert groups[0].samples[0].origin.kind == "unknown"
    assert "1 completions answer none of this round's tasks" in caplog.text
    assert [len(group.samples) for group in Recorded(completions, n=1)(context(tmp_path), tasks)] == [1, 1, 1, 1]


def test_an_identifier_goes_before_the_prompt(tmp_path: Path) -> None:
    rows = [{"id": "x", "prompt": "as it was asked", "completion": "for x"}, {"id": "y", "prompt": "the same", "completion": "for y"}]
    rows.append({"id": None, "prompt": "the same", "completion": "for anybody"})  # type: ignore[dict-item]
    completions = Completions(jsonl(tmp_path / "a.jsonl", rows))
    tasks = [Task("y", "the same"), Task("x", "now asked otherwise"), Task("z", "the same")]
    groups = list(Recorded(completions)(context(tmp_path), tasks))
    assert [group.samples[0].text for group in groups] == ["for y", "for x", "for anybody"]
    assert groups[1].samples[0].turns[0].prompt == "now asked otherwise"


def test_completions_can_define_the_tasks_and_then_all_are_adopted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    completions = Completions(
        jsonl(tmp_path / "a.jsonl", [*ROWS, {"prompt": "7", "completion": "8", "id": "seven"}]),
        {"prompt": "prompt", "answer": "completion"},
    )
    tasks = list(PromptsOf(completions))
    assert [task.prompt for task in tasks] == ["1+1=", "2+2=", "7"] and len({task.id for task in tasks}) == 3
    groups = list(Recorded(completions)(context(tmp_path), PromptsOf(completions)))
    assert sum(len(group.samples) for group in groups) == 4 and not any(item.error for group in groups for item in group.samples)
    assert not caplog.text
    named = PromptsOf(Completions(jsonl(tmp_path / "b.jsonl", [{"id": "s", "prompt": "7", "completion": "8"}])))
    assert [task.id for task in named] == ["s"]


def test_an_index_on_disk_holds_many_and_asks_no_model(tmp_path: Path) -> None:
    made = (
        Example(f"e{i}", f"prompt {i % 5000}", f"completion {i}", origin=Origin("synthetic", source="t", depth=1)) for i in range(20_000)
    )
    stage = Recorded(tuple(made))
    assert stage.roles == () and stage.calls(100) == {}
    groups = stage(context(tmp_path), (Task(f"t{i}", f"prompt {i}") for i in reversed(range(5000))))
    assert [sample.text for sample in next(groups).samples] == [f"completion {4999 + 5000 * k}" for k in range(4)]
    assert sum(len(group.samples) for group in groups) == 4 * 4999


def test_identity_is_the_content_and_what_is_said_of_it(tmp_path: Path) -> None:
    here, there = jsonl(tmp_path / "a.jsonl", ROWS), jsonl(tmp_path / "b.jsonl", ROWS)
    assert fingerprint(Recorded(Completions(here))) == fingerprint(Recorded(Completions(there)))
    assert fingerprint(Recorded(Completions(here))) != fingerprint(Recorded(Completions(here, teacher="x")))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"a": "x", "b": "y"}, "none is known to hold completions"),
        ({"prompt": "x"}, "none is known to hold completions"),
        ({"prompt": "x", "completion": None}, "there is no completion"),
        ({"prompt": "x", "completion": "y", "depth": "deep"}, "depth is 'deep'"),
    ],
)
def test_rows_that_hold_no_completion_are_refused(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        list(Completions(jsonl(tmp_path / "a.jsonl", [row])))
    with pytest.raises(DataError, match="empty prompt"):
        list(PromptsOf([Example("e", "", "x")]))
