"""Cleaning: in = kept + dropped, the kept rows have nothing left to repair, and the format stays."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
from audit_sets import EMAIL, SECRET, planted, rows_of, texts, write
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from outcross.audit.clean import cleaning, kinds_of
from outcross.audit.examine import Question, audit
from outcross.audit.faults import masker
from outcross.audit.kinds import ROW_KINDS
from outcross.audit.write import write as write_files
from outcross.cli.main import app
from outcross.curate.secrets import find_secrets
from outcross.errors import ConfigError

REAL, HELD_OUT = texts(400, 50), texts(30, 60)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "real.jsonl", ({"text": text} for text in REAL))
    write(tmp_path / "test.jsonl", ({"text": text} for text in HELD_OUT))
    planted(tmp_path, REAL, HELD_OUT)
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output + result.stderr
    return result.output


AGAINST = ("--real", "real.jsonl", "--eval", "test.jsonl")


def test_in_is_kept_plus_dropped_and_kept_rows_are_untouched(here: Path) -> None:
    told = run("clean", "planted.jsonl", *AGAINST, "--out", "out")
    before, kept, dropped = (
        rows_of(here / "planted.jsonl"),
        rows_of(here / "out/planted.kept.jsonl"),
        rows_of(here / "out/planted.dropped.jsonl"),
    )
    assert f"{len(before)} in = {len(kept)} kept + {len(dropped)} dropped" in told
    assert len(kept) + len(dropped) == len(before)
    assert before[:200] == kept[:200]
    for row in dropped:
        number = int(row.pop("audit").split(":")[0].removeprefix("row "))
        assert row == before[number - 1]


def test_cleaning_a_cleaned_set_drops_and_masks_nothing(here: Path) -> None:
    run("clean", "planted.jsonl", *AGAINST, "--out", "out")
    told = run("clean", "out/planted.kept.jsonl", *AGAINST, "--out", "again")
    assert "+ 0 dropped" in told and "0 of the kept rows had passages masked" in told
    assert rows_of(here / "again/planted.kept.kept.jsonl") == rows_of(here / "out/planted.kept.jsonl")
    found = audit(Question(here / "out/planted.kept.jsonl", here / "real.jsonl", (here / "test.jsonl",)))
    assert not [item for item in found.findings if item.kind in ROW_KINDS]


def test_secrets_and_personal_data_are_masked_or_dropped_as_asked(here: Path) -> None:
    run("clean", "planted.jsonl", *AGAINST, "--out", "masked")
    kept = (here / "masked/planted.kept.jsonl").read_text()
    assert "[AWS Access Key]" in kept and "[email]" in kept and SECRET not in kept and EMAIL not in kept
    told = run("clean", "planted.jsonl", "--only", "secrets,personal", "--drop", "secrets", "--out", "gone")
    kept = (here / "gone/planted.kept.jsonl").read_text()
    assert "+ 1 dropped" in told and "[email]" in kept and "[AWS" not in kept and SECRET not in kept
    assert SECRET in (here / "gone/planted.dropped.jsonl").read_text()  # as it came


def test_rows_that_differ_in_a_secret_alone_are_duplicates_once_it_is_masked(tmp_path: Path) -> None:
    text = texts(1, 1)[0]
    keys = ("AKIA3XGQ7ZPL5RTKWM2D", "AKIAQ5T2M7RWK4ZL6PXD")
    data = write(tmp_path / "set.jsonl", ({"text": f"{text} Use {key} now."} for key in keys))
    found = cleaning(Question(data), kinds_of((), ()))
    assert found.counts == {"duplicates": 1} and list(found.reasons) == [1]


def test_a_row_is_never_dropped_as_the_copy_of_a_dropped_one(tmp_path: Path) -> None:
    """The earlier of two near copies is marked with a template; the sound one stays."""
    text = texts(1, 1)[0]
    data = write(tmp_path / "set.jsonl", ({"text": one} for one in (f"{text}<|im_end|>", text, *texts(3, 2))))
    assert {row: kind for row, (kind, _) in cleaning(Question(data), kinds_of((), ())).reasons.items()} == {0: "template"}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_whatever_is_in_it_a_cleaned_set_is_clean(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng, folder = random.Random(seed), tmp_path_factory.mktemp("clean")
    base = texts(12, seed)
    faults = ("", "<|im_end|>", f" {EMAIL}", f" {SECRET}", " http://bit.ly/3xYz12", " wasnâ€™t", " extra words here")
    rows = [{"text": rng.choice(base) + rng.choice(faults)} for _ in range(40)] + [{"text": ""}] * rng.randrange(3)
    rng.shuffle(rows)
    first = cleaning(Question(write(folder / "set.jsonl", rows)), kinds_of((), ()))
    from outcross.audit.write import write as write_out

    kept, dropped, _ = write_out(folder / "set.jsonl", first, folder / "out")
    assert len(rows_of(kept)) + len(rows_of(dropped)) == len(rows)
    assert cleaning(Question(kept), kinds_of((), ())).reasons == {}


# ── which kinds ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_only_and_skip_choose_the_kinds(here: Path) -> None:
    assert "5 dropped" in run("clean", "planted.jsonl", "--only", "near", "--dry-run")
    told = run("clean", "planted.jsonl", *AGAINST, "--skip", "near,duplicates", "--dry-run")
    assert "near" not in told.split() and "contamination" in told


def test_wrong_words_are_refused_before_anything_is_read(here: Path) -> None:
    with pytest.raises(ConfigError, match="'nearly'"):
        kinds_of(("nearly",), ())
    with pytest.raises(ConfigError, match="leaves nothing"):
        kinds_of(("near",), ("near",))
    with pytest.raises(ConfigError, match="'near'"):
        cleaning(Question(here / "planted.jsonl"), ("near",), ("near",))
    assert CliRunner().invoke(app, ["clean", "planted.jsonl"]).exit_code == 2


def test_a_dry_run_writes_nothing(here: Path) -> None:
    before = sorted(here.rglob("*"))
    run("clean", "planted.jsonl", *AGAINST, "--dry-run", "--out", "out")
    assert sorted(here.rglob("*")) == before


# ── formats ────────────────────────────────────────────────────────────────────────────────────────────────────────────
ROWS: list[dict[str, Any]] = [{"id": k, "text": text} for k, text in enumerate([*texts(20, 1), *texts(3, 1), f"{texts(1, 7)[0]} {EMAIL}"])]


def test_csv_stays_csv(here: Path) -> None:
    with (here / "set.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(ROWS)
    run("clean", "set.csv", "--out", "out")
    with (here / "out/set.kept.csv").open(newline="", encoding="utf-8") as file:
        kept = list(csv.DictReader(file))
    assert [row["id"] for row in kept] == [*map(str, range(20)), "23"] and "[email]" in kept[-1]["text"]
    assert "+ 0 dropped" in run("clean", "out/set.kept.csv", "--dry-run")


def test_parquet_keeps_its_schema(here: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("id", pa.int16()), ("text", pa.large_string())])
    pq.write_table(pa.Table.from_pylist(ROWS, schema), here / "set.parquet")
    run("clean", "set.parquet", "--out", "out")
    kept, dropped = pq.read_table(here / "out/set.kept.parquet"), pq.read_table(here / "out/set.dropped.parquet")
    assert kept.schema == schema and kept.num_rows == 21 and "[email]" in kept["text"][20].as_py()
    assert dropped.column_names == ["id", "text", "audit"] and dropped.num_rows == 3


def test_a_folder_of_datasets_stays_one(here: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(str(here / "folder"))
    run("clean", "folder", "--out", "out")
    assert datasets.load_from_disk(str(here / "out/folder.kept")).num_rows == 21
    assert datasets.load_from_disk(str(here / "out/folder.dropped"))["id"][:] == [20, 21, 22]


def test_compressed_json_lines_come_out_plain(here: Path) -> None:
    import gzip

    with gzip.open(here / "set.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    run("clean", "set.jsonl.gz", "--out", "out")
    assert len(rows_of(here / "out/set.kept.jsonl")) == 21


def test_conversations_are_masked_inside(here: Path) -> None:
    said = [{"role": "user", "content": f"Write to {EMAIL}", "name": "x"}, {"role": "assistant", "content": texts(1, 1)[0]}]
    write(here / "chat.jsonl", [{"messages": said, "note": EMAIL}])
    run("clean", "chat.jsonl", "--out", "out")
    (row,) = rows_of(here / "out/chat.kept.jsonl")
    assert row["messages"][0] == {"role": "user", "content": "Write to [email]", "name": "x"} and row["note"] == EMAIL


# ── the audit's own command ────────────────────────────────────────────────────────────────────────────────────────────
def test_audit_ends_with_10_on_what_it_was_told_to_fail_on(here: Path) -> None:
    for what, code in (("secrets", 10), ("contamination,near", 10), ("warn", 10), ("bad", 10), ("tie", 0), ("", 0)):
        run("audit", "planted.jsonl", *AGAINST, "--fail-on", what, code=code)
    run("audit", "planted.jsonl", "--fail-on", "secret", code=2)


def test_audit_tells_the_answer_first_and_the_command_that_repairs_last(here: Path) -> None:
    told = run("audit", "planted.jsonl", *AGAINST, "--out", "page")
    assert told.strip().startswith("Would you train on this?")
    assert told.splitlines()[-2].endswith("outcross clean planted.jsonl --real real.jsonl --eval test.jsonl --out cleaned")
    found = json.loads((here / "page/audit.json").read_text())
    assert found["answer"] in told and found["findings"][0]["todo"] and (here / "page/audit.html").stat().st_size > 10_000
    assert json.loads(run("audit", "planted.jsonl", *AGAINST, "--json")) == found


def test_arguments_of_audit_are_checked_before_anything_is_read(here: Path) -> None:
    for words in (
        ("--real", "reel.jsonl"),
        ("--column", "answer"),
        ("--real-before", "2022"),
        ("--real-source", "x"),
        ("--column", "reply=text"),
    ):
        run("audit", "planted.jsonl", *words, code=2)


# ── what rows and files look like elsewhere ────────────────────────────────────────────────────────────────────────────
def _kept(path: Path) -> list[dict[str, Any]]:
    run("clean", str(path), "--out", "out")
    return rows_of(path.parent / "out" / f"{path.stem}.kept{path.suffix}")


def test_conversations_with_tool_calls_and_with_parts_are_kept_and_masked(here: Path) -> None:
    first, second, third, fourth = texts(4, 11)
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "look", "arguments": "{}"}}]}
    rows = [
        {"messages": [{"role": "user", "content": first}, call, {"role": "assistant", "content": second}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": f"{third} {EMAIL}"}, {"type": "image_url", "image_url": "x"}]},
                      {"role": "assistant", "content": [{"type": "text", "text": fourth}]}]},
    ]  # fmt: skip
    kept = _kept(write(here / "chats.jsonl", rows))
    assert kept[0] == rows[0]
    assert kept[1]["messages"][0]["content"][0] == {"type": "text", "text": f"{third} [email]"}
    assert kept[1]["messages"][1] == rows[1]["messages"][1]


def test_a_conversation_written_as_a_text_is_a_text(here: Path) -> None:
    rows = [{"conversation": text} for text in texts(5, 12)]
    assert _kept(write(here / "transcripts.jsonl", rows)) == rows


def test_a_json_list_stays_one(here: Path) -> None:
    rows = [{"text": text} for text in texts(5, 13)]
    (here / "list.json").write_text(json.dumps([*rows, rows[0]], indent=1), encoding="utf-8")
    run("clean", "list.json", "--out", "out")
    assert json.loads((here / "out/list.kept.json").read_text(encoding="utf-8")) == rows
    assert [row["audit"] for row in json.loads((here / "out/list.dropped.json").read_text(encoding="utf-8"))] == [
        "row 6: duplicates: equals row 1"
    ]
    run("clean", "out/list.kept.json", "--out", "again")
    assert json.loads((here / "again/list.kept.dropped.json").read_text(encoding="utf-8")) == []


def test_endings_in_capitals_keep_their_format(here: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"text": texts(3, 14), "raw": [b"\x00", None, b"z"]})
    pq.write_table(table, here / "DATA.PARQUET")
    (here / "DATA.CSV").write_text("text\n" + "\n".join(texts(3, 14)) + "\n", encoding="utf-8")
    run("clean", "DATA.PARQUET", "--out", "out")
    run("clean", "DATA.CSV", "--out", "out")
    assert pq.read_table(here / "out/DATA.kept.PARQUET").equals(table)
    assert (here / "out/DATA.kept.CSV").read_bytes() == (here / "DATA.CSV").read_bytes()


def test_a_column_named_audit_keeps_what_is_in_it(here: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = texts(1, 15)[0]
    pq.write_table(pa.table({"text": [text, text], "audit": ["mine", "yours"]}), here / "own.parquet")
    run("clean", "own.parquet", "--out", "out")
    dropped = pq.read_table(here / "out/own.dropped.parquet").to_pylist()
    assert dropped == [{"text": text, "audit": "yours", "audit_": "row 2: duplicates: equals row 1"}]


def test_what_cannot_be_written_to_the_end_takes_no_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": texts(3, 16)}), here / "set.parquet")
    run("clean", "set.parquet", "--out", "out")
    before = (here / "out/set.kept.parquet").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", full)
    question = Question(here / "set.parquet")
    with pytest.raises(OSError, match="No space"):
        write_files(question.data, cleaning(question, kinds_of((), ())), here / "out")
    assert (here / "out/set.kept.parquet").read_bytes() == before
    assert not [item for item in (here / "out").iterdir() if item.suffix == ".tmp"]


def test_files_that_other_programs_write_are_read(here: Path) -> None:
    first, second = texts(2, 17)
    (here / "mark.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps({"text": first}).encode())
    assert [row["text"] for row in _kept(here / "mark.jsonl")] == [first]
    long = " ".join(texts(3000, 18))
    assert len(long) > 131_072
    (here / "long.csv").write_text(f'text\n"{long}"\n"{second}"\n', encoding="utf-8")
    assert "2 in = 2 kept" in run("clean", "long.csv", "--out", "out")
    (here / "twice.csv").write_text(f"id,text,id\n1,{first},2\n", encoding="utf-8")
    assert "'id' more than once" in CliRunner().invoke(app, ["clean", "twice.csv", "--out", "out"]).stderr


def test_a_file_cannot_be_the_folder(here: Path) -> None:
    for words in (("clean", "planted.jsonl"), ("audit", "planted.jsonl")):
        for place in ("real.jsonl", "real.jsonl/page"):
            found = CliRunner().invoke(app, [*words, "--out", place])
            assert found.exit_code == 2 and "is a file" in found.stderr


def test_a_terminal_is_not_told_what_to_do_by_a_row(here: Path) -> None:
    write(here / "escape.jsonl", [{"text": f"\x1b[2J\x9b31m {text}", "topic": "\x1b]0;x\x07"} for text in texts(3, 19)])
    told = run("audit", "escape.jsonl", "--group", "topic") + run("clean", "escape.jsonl", "--dry-run")
    assert "garbled" in told and not {"\x1b", "\x9b", "\x07"} & set(told)


def test_a_web_token_is_masked_with_its_signature_and_found_in_linear_time() -> None:
    import time

    token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
    assert masker(("secrets",))(f"token={token}. So it is.") == "token=[JSON Web Token]. So it is."
    begin = time.process_time()
    find_secrets("eyJ" * 100_000)  # 50 s when every place is tried to the end
    find_secrets("-----BEGIN PRIVATE KEY-----" * 10_000)  # 4 s
    assert time.process_time() - begin < 3


# ── what is found is what is masked ────────────────────────────────────────────────────────────────────────────────────
def test_rows_are_compared_as_they_are_written(here: Path) -> None:
    """Masked in one piece, both dialogues would be one; written, they differ in their second turn."""
    first, *seconds, answer = texts(4, 21)
    rows = [{"messages": [{"role": "system", "content": f"{first} -----BEGIN RSA PRIVATE KEY-----"},
                          {"role": "user", "content": f"{second} -----END RSA PRIVATE KEY-----"},
                          {"role": "assistant", "content": answer}]} for second in seconds]  # fmt: skip
    run("clean", str(write(here / "apart.jsonl", rows)), "--only", "secrets,duplicates", "--out", "out")
    kept = rows_of(here / "out/apart.kept.jsonl")
    assert len(kept) == 2 and kept[0]["messages"][1] == rows[0]["messages"][1]


def test_what_a_tool_is_called_with_is_looked_at_and_masked_and_names_are_not(here: Path) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": json.dumps({"to": EMAIL, "key": SECRET})}}
    chat = [{"role": "user", "content": "Send it."}, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "assistant", "content": texts(1, 22)[0]}]  # fmt: skip
    data = write(here / "calls.jsonl", [{"messages": chat}])
    assert {"secrets", "personal"} <= {item.kind for item in audit(Question(data)).findings}
    (row,) = _kept(data)
    made = row["messages"][1]["tool_calls"][0]
    assert json.loads(made["function"]["arguments"]) == {"to": "[email]", "key": "[AWS Access Key]"}
    assert (made["id"], made["type"], made["function"]["name"]) == ("call_1", "function", "mail")
    assert not {"secrets", "personal"} & {item.kind for item in audit(Question(here / "out/calls.kept.jsonl")).findings}


def test_sums_are_not_taken_for_telephone_numbers(here: Path) -> None:
    said = texts(1, 23)[0] + " 28980 - 18480 = <<28980-18480=10500>>10500, and 3 = 212-736-5000"
    data = write(here / "sums.jsonl", [{"question": "How many?", "answer": said}])
    assert _kept(data) == rows_of(data)


def test_half_a_character_is_named_as_such(here: Path) -> None:
    (here / "half.jsonl").write_text('{"text": "hello \\\\ud83d world"}\n'.replace("\\\\", "\\"))
    result = CliRunner().invoke(app, ["audit", "half.jsonl"])
    assert result.exit_code == 2 and "half of a character" in result.stderr
