"""Files of answers, whoever wrote them, as groups that verifiers can judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toys import phase, play, recipe

from outcross.errors import ConfigError, DataError
from outcross.tasks.answered import answered
from outcross.types import Group, Message


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(groups: list[Group]) -> list[list[str]]:
    return [[sample.text for sample in group.samples] for group in groups]


def test_one_completion_a_row_or_several_and_neighbours_of_one_task_are_a_group(tmp_path: Path) -> None:
    rows = [{"question": "2+2=", "response": text, "answer": "4", "test": "t"} for text in ("4", "5")]
    path = written(tmp_path, *rows, {"question": "1+1=", "response": ["2", "3"], "answer": 2, "test": None})
    first, second = answered(path, {})
    assert texts([first, second]) == [["4", "5"], ["2", "3"]]
    assert (first.task.prompt, first.task.answer, first.task.columns) == ("2+2=", "4", (("test", "t"),))
    assert (second.task.answer, second.task.columns) == ("2", ())
    assert len({sample.id for group in (first, second) for sample in group.samples}) == 4
    assert all(sample.origin.kind == "unknown" for sample in first.samples)


def test_rows_of_one_prompt_with_other_references_are_other_tasks(tmp_path: Path) -> None:
    path = written(tmp_path, *({"prompt": "p", "completion": "c", "answer": item} for item in "ab"))
    assert [group.task.answer for group in answered(path, {})] == ["a", "b"]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
        {"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "hello"}]},
        {"prompt": [{"role": "user", "content": "hi"}], "completions": [[{"role": "assistant", "content": "hello"}]]},
        {"prompt": '[{"role":"user","content":"hi"}]', "completion": "hello"},
    ],
)
def test_conversations_are_read_as_trl_and_outcross_write_them(row: dict[str, Any], tmp_path: Path) -> None:
    (group,) = answered(written(tmp_path, row), {})
    assert group.task.prompt == (Message("user", "hi"),) and texts([group]) == [["hello"]]


def test_columns_are_named_where_they_are_not_known(tmp_path: Path) -> None:
    path = written(tmp_path, {"ask": "q", "said": "a", "truth": "a", "id": "x", "subgroup": "s", "finished": False})
    with pytest.raises(DataError, match=r"none is known to hold the prompt; say which, `--column prompt=NAME`"):
        list(answered(path, {}))
    (group,) = answered(path, {"prompt": "ask", "completion": "said", "answer": "truth"})
    assert (group.task.id, group.task.subgroup, group.task.answer) == ("x", "s", "a")
    assert not group.samples[0].turns[0].completion.finished
    with pytest.raises(ConfigError, match="there is no part 'promt' of a row; did you mean 'prompt'"):
        list(answered(path, {"promt": "ask"}))
    with pytest.raises(DataError, match="there is no column 'sayd'; did you mean 'said'"):
        list(answered(path, {"prompt": "ask", "completion": "sayd"}))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "p", "completion": None}, "column 'completion' holds None"),
        ({"prompt": "p", "completion": []}, r"column 'completion' holds \[\]"),
        ({"prompt": 5, "completion": "c"}, "column 'prompt' holds 5"),
        ({"prompt": "p", "completion": "c", "answer": {"a": 1}}, "column 'answer' holds"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "ends with a turn of the assistant"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    good = {**dict.fromkeys(row, "x"), "answer": "x"} if "messages" not in row else row
    with pytest.raises(DataError, match=rf"row {1 if good is row else 2}: .*{told}"):
        list(answered(written(tmp_path, *([good] if good is not row else []), row), {}))


def test_a_runs_own_table_is_read_back(tmp_path: Path) -> None:
    found = play(recipe(phase(rounds=1)), tmp_path)
    kept = list(found.rounds()[0].groups())
    again = list(answered(tmp_path / "train/0000/groups.parquet", {}))
    assert texts(again) == texts(kept)
    assert [group.task for group in again] == [group.task for group in kept]
    pq.write_table(pa.table({"prompt": ["p"], "completion": ["c"]}), tmp_path / "one.parquet")
    assert texts(list(answered(tmp_path / "one.parquet", {}))) == [["c"]]
