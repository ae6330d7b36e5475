"""The journal: raw answers by request, committed before anybody sees them, for one run at a time."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from outcross.engine import journal as module
from outcross.engine import mounts
from outcross.engine.journal import FORMAT, Journal, request_key
from outcross.errors import RunLocked, StoreError
from outcross.models.http import Endpoint, pool
from outcross.types import Array, Completion, Message, Request, Response, Sampling, Usage

REQUEST = Request("2+2=", n=2, sampling=Sampling(temperature=0.7, max_tokens=4, stop=("\n",)), seed=3)
ANSWER = Response((Completion("4", (7, 1), (-0.1, -0.2)), Completion("5", finished=False)), Usage(4, 3, 0.001))
FAILED = Response(usage=Usage(4, 0, 0.0005), error="timed out")


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.db")
    key = request_key("model", REQUEST)
    journal.put([(key, "model", ANSWER)])
    journal.close()
    with closing(Journal(tmp_path / "a.db")) as again:
        assert again.get([key, b"unknown"]) == {key: ANSWER}
        assert again.spent() == {"model": (1, Usage(4, 3, 0.001))}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "a.db.lock"]  # one file, and the lock


# ── keys ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
def changed(value: Any) -> Iterator[Any]:
    """Other values of the same kind; of a record, one for each way to change each of its fields."""
    if isinstance(value, msgspec.Struct):
        for field in msgspec.structs.fields(value):
            for other in changed(getattr(value, field.name)):
                yield msgspec.structs.replace(value, **{field.name: other})
    elif isinstance(value, tuple):
        yield from ((*value, 1), value[:-1], ("x",)) if value else ((1,), ("x",))
    elif value is None:
        yield from ("{}", "[]")
    elif isinstance(value, bytes):
        yield value + b"x"
    elif isinstance(value, str):
        yield from (f"{value}x", f" {value}", value.upper() + "Y")
    else:
        yield from (value + 1, value + 2)


@pytest.mark.parametrize("prompt", ["2+2=", (Message("user", "2+2="),), Array("uint8", (4,), b"2+2=")], ids=["text", "messages", "array"])
def test_the_key_covers_every_field_that_a_request_has_or_will_have(prompt: Any) -> None:
    request = Request(prompt)
    others = list(changed(request))
    for name in msgspec.structs.fields(Request):
        assert any(getattr(other, name.name) != getattr(request, name.name) for other in others), name
    for name in msgspec.structs.fields(Sampling):
        assert any(getattr(other.sampling, name.name) != getattr(request.sampling, name.name) for other in others), name
    if isinstance(prompt, tuple):
        others += [Request((other,)) for other in changed(prompt[0])]
    keys = [request_key("model", other) for other in (request, *others)]
    assert len(set(keys)) == len(keys) > 20


def test_the_key_covers_the_client_and_all_of_the_models_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(url: str = "http://one/v1", secret: str = "a" * 20, model: str = "m", api: Any = "chat", version: str = "1") -> bytes:
        monkeypatch.setenv("SOME_KEY", secret)
        with closing(pool([Endpoint(url, key_env="SOME_KEY")], model, api=api)) as made:
            return request_key(made.id, REQUEST, version)

    assert key() == key()
    keys = [
        key(),
        key(url="http://two/v1"),
        key(secret="b" * 20),
        key(model="n"),
        key(api="completions"),
        key(version="2"),
        key(version=""),
    ]
    assert len(set(keys)) == len(keys)


def test_a_key_is_the_same_in_every_process_and_release() -> None:
    assert request_key("model", Request("2+2=")).hex() == "2336f0b248169ce017a44aa85c788384"


# ── committing ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_many_keys_are_found_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.db")
    keys = [request_key("m", Request(str(i))) for i in range(2500)]
    journal.put([(key, "m", Response((Completion(str(i)),))) for i, key in enumerate(keys)])
    found = journal.get(keys)
    assert [found[key].completions[0].content for key in keys] == [str(i) for i in range(2500)]


class Faulty(sqlite3.Connection):
    """Stops half way through a group that holds the model "interrupt"."""

    def executemany(self, *args: Any) -> Any:
        found = super().executemany(*args)
        if "answers" in args[0] and any(b"interrupt" in row[0] for row in args[1]):
            raise KeyboardInterrupt
        return found


def test_a_group_is_committed_whole_or_not_at_all_and_an_interrupted_one_leaves_a_journal_that_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Faulty))
    journal = Journal(tmp_path / "a.db")
    with pytest.raises(KeyboardInterrupt):
        journal.put([(b"0", "m", ANSWER), (b"interrupt", "m", ANSWER)])
    assert journal.get([b"0", b"interrupt"]) == {} and journal.spent() == {}
    journal.put([(b"2", "m", ANSWER)])
    assert journal.get([b"0", b"2"]) == {b"2": ANSWER}


def test_failed_answers_are_counted_and_not_kept(tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "a.db")) as journal:
        journal.put([(b"1", "m", ANSWER), (b"2", "m", FAILED)])
        assert journal.get([b"1", b"2"]) == {b"1": ANSWER}
    with closing(Journal(tmp_path / "a.db")) as journal:
        assert journal.failed() == 1
        assert journal.spent() == {"m": (1, Usage(8, 3, pytest.approx(0.0015)))}


def test_what_each_run_paid_for_is_counted_apart_and_never_by_reading_the_answers(tmp_path: Path) -> None:
    for run, count in (("first", 3), ("second", 5), ("first", 4)):
        with closing(Journal(tmp_path / "a.db", run)) as journal:
            before = sum(answered for answered, _ in journal.spent().values())
            journal.put([(f"{run}{before + i}".encode(), "m", ANSWER) for i in range(count)])
            plan = " ".join(str(row) for row in journal._reader.execute("EXPLAIN QUERY PLAN SELECT model FROM askers WHERE run = 'x'"))
            assert "SEARCH" in plan and "answers" not in plan
    with closing(Journal(tmp_path / "a.db", "first")) as journal:
        assert journal.spent()["m"][0] == 7 and journal.runs() == ["first", "second"]
        assert len(journal.get([b"second4", b"first6"])) == 2  # an answer is everybody's


# ── other formats, damage ──────────────────────────────────────────────────────────────────────────────────────────────
def format_1(path: Path, count: int = 300) -> dict[bytes, Response]:
    """A journal as the first format wrote it."""
    held = {request_key("m", Request(str(i))): Response((Completion(str(i)),), Usage(i, 1, 0.5)) for i in range(count)}
    db = sqlite3.connect(path)
    db.execute(
        "CREATE TABLE answers (key BLOB PRIMARY KEY, model TEXT NOT NULL, answer BLOB NOT NULL, "
        "prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, money REAL NOT NULL) WITHOUT ROWID"
    )
    rows = [
        (key, "m" if index % 3 else "n", msgspec.msgpack.encode(answer), index, 1, 0.5) for index, (key, answer) in enumerate(held.items())
    ]
    db.executemany("INSERT INTO answers VALUES (?,?,?,?,?,?)", rows)
    db.execute("PRAGMA user_version=1")
    db.commit()
    db.close()
    return held


def test_a_journal_of_the_first_format_is_read_as_it_is_and_brought_to_this_one(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    held = format_1(path)
    spent = {"m": (200, Usage(sum(i for i in range(300) if i % 3), 200, 100.0)), "n": (100, Usage(sum(range(0, 300, 3)), 100, 50.0))}
    stood = path.read_bytes()
    with closing(Journal(path, writes=False)) as journal:
        assert journal.get(list(held)) == held and journal.spent() == spent and journal.failed() == 0
    assert path.read_bytes() == stood
    for _ in range(2):
        with closing(Journal(path)) as journal:
            assert journal.get(list(held)) == held and journal.spent() == spent
            assert journal._db.execute("PRAGMA user_version").fetchone() == (FORMAT,)


def test_a_migration_that_is_stopped_leaves_the_old_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    held = format_1(path)
    monkeypatch.setattr(module, "_FROM_1", (*module._FROM_1, "SELECT no_such_function()"))
    with pytest.raises(StoreError):
        Journal(path)
    monkeypatch.undo()
    with closing(Journal(path)) as journal:
        assert journal.get(list(held)) == held


def filled(path: Path, count: int = 2000) -> list[bytes]:
    keys = [request_key("m", Request(str(i))) for i in range(count)]
    with closing(Journal(path)) as journal:
        journal.put([(key, "m", Response((Completion(f"{i} " * 60),))) for i, key in enumerate(keys)])
    return keys


def test_a_file_that_is_no_journal_or_of_a_later_format_is_explained(tmp_path: Path) -> None:
    (tmp_path / "garbage.db").write_bytes(b"not a database at all" * 100)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE photos (name)").connection.close()
    sqlite3.connect(tmp_path / "later.db").execute("PRAGMA user_version=99").connection.close()
    for name, words in (("garbage", "not a database"), ("other", "something else"), ("later", "format 99.*use the version that wrote it")):
        with pytest.raises(StoreError, match=words) as told:
            Journal(tmp_path / f"{name}.db")
        assert name == "later" or "move it away" in str(told.value)
    with pytest.raises(StoreError, match=r"there is no journal at .*none\.db"):
        Journal(tmp_path / "none.db", writes=False)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_a_journal_that_was_cut_off_is_explained_when_it_is_opened(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.db"
    filled(path)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(StoreError, match=r"a\.db cannot be used .*damaged.* Restore it from a copy, or move it away"):
        Journal(path)
    Journal(tmp_path / "b.db").close()  # and nothing is left locked


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_page_is_explained_and_never_taken_for_an_answer(tmp_path: Path, seed: int) -> None:
    path, rng = tmp_path / "a.db", random.Random(seed)
    keys = filled(path)
    content = bytearray(path.read_bytes())
    place = rng.randrange(4096, len(content) - 4096)
    content[place : place + (64 if seed % 2 else 4096)] = rng.randbytes(64 if seed % 2 else 4096)
    path.write_bytes(content)
    told, found = "", {}
    try:
        with closing(Journal(path)) as journal:
            found = journal.get(keys)
    except StoreError as error:
        told = str(error)
    if told:
        assert "damaged" in told and "Restore it from a copy" in told
    else:  # a key was hit: that question is asked again
        assert all(found[key].completions[0].content == f"{i} " * 60 for i, key in enumerate(keys) if key in found)


# ── one writer ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_two_runs_cannot_write_one_journal_and_readers_may(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("a.db")
    writer = Journal(tmp_path / "a.db", "one", holder=tmp_path / "runs" / "one")
    writer.put([(b"1", "m", ANSWER)])
    program = "import sys; from pathlib import Path; from outcross.engine.journal import Journal; Journal(Path(sys.argv[1]), 'two')"
    for name in ("a.db", "link.db"):
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], capture_output=True, text=True, check=False)
        told = done.stderr.strip().splitlines()[-1]
        assert "RunLocked" in told and f"process {os.getpid()} on " in told and f"run in {tmp_path / 'runs' / 'one'}" in told, told
    with closing(Journal(tmp_path / "a.db", "one", writes=False)) as reader:
        assert reader.get([b"1"]) == {b"1": ANSWER} and reader.spent()["m"][0] == 1
        writer.put([(b"2", "m", ANSWER)])
        assert reader.get([b"2"]) == {b"2": ANSWER}
        with pytest.raises(StoreError, match="readonly"):
            reader.put([(b"3", "m", ANSWER)])
    writer.close()
    Journal(tmp_path / "a.db", "two").close()


def test_a_process_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    program = "import os, sys; from pathlib import Path; from outcross.engine.journal import Journal; j = Journal(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.db")], check=False).returncode == -9
    Journal(tmp_path / "a.db").close()
    with pytest.raises(RunLocked, match="being written by process"), closing(Journal(tmp_path / "a.db")):
        Journal(tmp_path / "a.db")


def test_a_journal_in_a_folder_that_nobody_may_change_can_be_read(tmp_path: Path) -> None:
    keys = filled(tmp_path / "there" / "a.db") if (tmp_path / "there").mkdir() is None else []
    program = (
        "import sys; from pathlib import Path; from outcross.engine.journal import Journal; "
        "print(len(Journal(Path(sys.argv[1]), writes=False).get([bytes.fromhex(sys.argv[2])])))"
    )
    (tmp_path / "there").chmod(0o555)
    humble = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    command = [*humble, sys.executable, "-c", program, str(tmp_path / "there" / "a.db"), keys[0].hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "there").chmod(0o755)
    assert done.stdout == "1\n", done.stderr


def test_a_journal_on_a_network_file_system_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(mounts, "TABLE", table)
    with pytest.raises(StoreError, match=r"network file system \(nfs4, server:/export.*for example --journal .*a\.db"):
        Journal(tmp_path / "a.db")
    assert not (tmp_path / "a.db").exists() and not (tmp_path / "a.db.lock").exists()
