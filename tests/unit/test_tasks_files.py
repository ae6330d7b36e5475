"""Tasks and real examples from files of every format; each thing wrong with a file is one clear error."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outcross.errors import ConfigError, DataError
from outcross.recipe import fingerprint
from outcross.tasks.files import Files, RealFiles
from outcross.types import Message

QA = {"prompt": "question", "answer": "answer"}
ROWS = [{"question": f"What is {i} + {i}?", "answer": f"It is\n#### {2 * i}", "level": str(i % 3)} for i in range(40)]
GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "test.jsonl"


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def written(folder: Path, kind: str) -> Path:
    """ROWS in one of the formats."""
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text(text)
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif kind == "jsonl.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(text.encode())
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        import datasets

        datasets.Dataset.from_list(ROWS).save_to_disk(path, num_shards=2)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz", "jsonl.zst", "csv", "parquet", "folder"])
def test_every_format_gives_the_same_tasks(kind: str, tmp_path: Path) -> None:
    columns = {**QA, "subgroup": "level", "source": "level"}
    tasks = list(Files(written(tmp_path, kind), columns, answer_pattern="#### (.*)"))
    assert [task.answer for task in tasks] == [str(2 * i) for i in range(40)]
    assert tasks[7].prompt == "What is 7 + 7?" and tasks[7].subgroup == "1" and tasks[7].columns == (("source", "1"),)
    assert len({task.id for task in tasks}) == 40
    assert tasks[0].origin.source.startswith(f"rows.{kind}@blake2b:") and str(tmp_path) not in tasks[0].origin.source


@pytest.mark.parametrize(
    ("row", "prompt", "completion", "rejected"),
    [
        ({"prompt": "p", "completion": "c"}, "p", "c", None),
        ({"prompt": "p", "chosen": "c", "rejected": "r"}, "p", "c", "r"),
        ({"text": "all of it"}, "", "all of it", None),
        (
            {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]},
            (Message("user", "p"),),
            "c",
            None,
        ),
        (
            {"prompt": [{"role": "user", "content": "p"}], "completion": [{"role": "assistant", "content": "c"}]},
            (Message("user", "p"),),
            "c",
            None,
        ),
    ],
)
def test_formats_of_trl_are_recognised(row: dict[str, Any], prompt: Any, completion: str, rejected: str | None, tmp_path: Path) -> None:
    (example,) = RealFiles(lines(tmp_path / "rows.jsonl", [row]), attested="me, 2024")
    assert (example.prompt, example.completion, example.rejected) == (prompt, completion, rejected)
    assert example.loss.name == ("nll" if rejected is None else "dpo")


def test_splits_are_disjoint_stable_and_follow_the_prompt_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {i % 300}", "answer": str(i)} for i in range(600)]
    path = lines(tmp_path / "rows.jsonl", rows)
    train, held_out = (list(Files(path, split=split, share=0.2)) for split in ("train", "held_out"))  # type: ignore[arg-type]
    assert len(train) + len(held_out) == 600 and 60 <= len(held_out) <= 180
    assert not {task.prompt for task in train} & {task.prompt for task in held_out}
    shuffled = lines(tmp_path / "other.jsonl", [{**row, "prompt": f"  {row['prompt'].upper()} "} for row in rows[::-1]])
    again = {str(task.prompt).lower().strip() for task in Files(shuffled, split="held_out", share=0.2)}
    assert again == {task.prompt for task in held_out}


def test_offset_and_limit_cut_the_split(tmp_path: Path) -> None:
    path = written(tmp_path, "jsonl")
    train = list(Files(path, QA, split="train"))
    assert list(Files(path, QA, split="train", offset=3, limit=5)) == train[3:8]


def test_a_template_shapes_the_prompt(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"prompt": "1 {+} 1", "answer": 2}])
    (task,) = Files(path, template="Q: {prompt}\nA:")
    assert (task.prompt, task.answer) == ("Q: 1 {+} 1\nA:", "2")


def test_the_identity_is_the_content_and_not_the_place(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one, two = lines(tmp_path / "x.jsonl", ROWS), lines(tmp_path / "a" / "y.jsonl", ROWS)
    three = lines(tmp_path / "z.jsonl", ROWS[:-1])
    prints = [fingerprint(Files(path, QA)) for path in (one, two, three)]
    assert prints[0] == prints[1] != prints[2]
    assert fingerprint(Files(one, QA, limit=3)) != prints[0]


def test_real_rows_are_real_by_proof_or_by_somebody_who_vouches(tmp_path: Path) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"prompt": "p", "completion": "c"}])
    data = path.read_bytes()

    def origin(**settings: str) -> tuple[str, str, bool]:
        (example,) = RealFiles(path, **settings)  # type: ignore[arg-type]
        return example.origin.kind, example.origin.proof, example.origin.is_real

    assert origin() == ("unknown", "none", False)
    assert origin(attested="the author, 2021, MIT") == ("real", "attested", True)
    for digest in (hashlib.sha256(data).hexdigest(), hashlib.blake2b(data).hexdigest()):
        assert origin(registered=digest) == ("real", "proved", True)
    with pytest.raises(DataError, match="not that release"):
        origin(registered="0" * 64)
    with pytest.raises(ConfigError, match="has 3 digits"):
        origin(registered="abc")


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (
            '{"question": "p", "answer": "a"}\n',
            {"columns": {"prompt": "qestion"}},
            "row 1: there is no column 'qestion'; did you mean 'question'",
        ),
        ('{"prompt": "p"}\n{"prompt": 7}\n', {}, "row 2: column 'prompt' holds 7 of type int; it must be text or a list of messages"),
        ('{"prompt": "p", "answer": 1.5}\n', {}, "row 1: column 'answer' holds 1.5 of type float; it must be text or a whole number"),
        ('{"prompt": "p"}\n{"prompt": \n', {}, "reading stopped after row 1"),
        ('{"prompt": "p"}\n[1]\n', {}, "not an object with named columns"),
        ("", {}, "holds no rows"),
        ('{"x": 1}\n', {}, "columns x are none of TRL's formats"),
        ('{"text": "t"}\n', {}, "row 1: the prompt is empty"),
        ('{"prompt": "p", "answer": "none"}\n', {"answer_pattern": "#### (.*)"}, "row 1: answer_pattern '#### .*' finds nothing"),
        ('{"prompt": "p"}\n', {"offset": 5}, "no row is left"),
        ('{"messages": [{"role": "user", "content": "p"}]}\n', {}, "ends with a turn of the assistant"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_row(content: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(DataError) as refused:
        list(Files(path, **settings))
    assert message.replace("#### .*", "#### (.*)") in str(refused.value)


def test_missing_damaged_and_unknown_files_are_refused(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", ROWS)
    with pytest.raises(DataError, match=r"did you mean 'train.jsonl'"):
        list(Files(tmp_path / "trian.jsonl", QA))
    (tmp_path / "rows.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match="known are"):
        list(Files(tmp_path / "rows.xlsx"))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "p"}\n' * 9999)[:-20])
    with pytest.raises(DataError, match="damaged"):
        list(Files(tmp_path / "rows.jsonl.gz"))
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(DataError, match="damaged"):
        list(Files(tmp_path / "rows.parquet"))
    (tmp_path / "short.csv").write_text("prompt,answer\np\n")
    with pytest.raises(DataError, match="cells"):
        list(Files(tmp_path / "short.csv"))


def test_a_folder_of_several_splits_asks_for_one(tmp_path: Path) -> None:
    import datasets

    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="it holds the splits train"):
        list(Files(tmp_path / "set", QA))
    assert len(list(Files(tmp_path / "set" / "train", QA))) == 40


@pytest.mark.skipif(not GSM8K.exists(), reason="the shared folder with GSM8K is absent")
def test_gsm8k_reads_with_its_answers_after_four_hashes() -> None:
    tasks = list(Files(GSM8K, QA, answer_pattern=r"#### (.*)"))
    assert len(tasks) == 1319 and tasks[0].answer == "18"


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    for settings in ({"template": "no slot"}, {"share": 1.0}, {"offset": -1}, {"limit": 0}, {"answer_pattern": "("}):
        with pytest.raises(ConfigError):
            Files(tmp_path, **settings)  # type: ignore[arg-type]
