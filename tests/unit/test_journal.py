"""The journal: raw answers by request, committed before anybody sees them."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from outcross.engine.journal import Journal, request_key
from outcross.errors import StoreError
from outcross.types import Array, Completion, Message, Request, Response, Sampling, Usage

REQUEST = Request("2+2=", n=2, sampling=Sampling(temperature=0.7, max_tokens=4, stop=("\n",)), seed=3)
ANSWER = Response((Completion("4", (7, 1), (-0.1, -0.2)), Completion("5", finished=False)), Usage(4, 3, 0.001))


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.db")
    key = request_key("model", REQUEST)
    journal.put([(key, "model", ANSWER)])
    journal.close()
    again = Journal(tmp_path / "a.db")
    assert again.get([key, b"unknown"]) == {key: ANSWER}
    assert again.spent() == {"model": (1, Usage(4, 3, 0.001))}


@pytest.mark.parametrize(
    "other",
    [
        Request("2+2= "),
        Request((Message("user", "2+2="),)),
        Request(Array("uint8", (4,), b"2+2=")),
        Request("2+2=", n=2),
        Request("2+2=", sampling=Sampling(temperature=0.9)),
        Request("2+2=", sampling=Sampling(top_p=0.9)),
        Request("2+2=", sampling=Sampling(top_k=5)),
        Request("2+2=", sampling=Sampling(max_tokens=5)),
        Request("2+2=", sampling=Sampling(stop=("x",))),
        Request("2+2=", prefix=(1,)),
        Request("2+2=", choices=("1", "2")),
        Request("2+2=", schema="{}"),
        Request("2+2=", tools="[]"),
        Request("2+2=", seed=1),
    ],
)
def test_the_key_covers_everything_that_shapes_an_answer(other: Request) -> None:
    assert request_key("model", other) != request_key("model", Request("2+2="))


def test_the_key_covers_the_model_and_is_the_same_in_every_process() -> None:
    assert request_key("a", REQUEST) != request_key("b", REQUEST)
    assert request_key("model", Request("2+2=")).hex() == "2336f0b248169ce017a44aa85c788384"


def test_many_keys_are_found_at_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.db")
    keys = [request_key("m", Request(str(i))) for i in range(2500)]
    journal.put([(key, "m", Response((Completion(str(i)),))) for i, key in enumerate(keys)])
    found = journal.get(keys)
    assert [found[key].completions[0].content for key in keys] == [str(i) for i in range(2500)]


def test_a_group_is_committed_whole_or_not_at_all(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.db")
    with pytest.raises(StoreError, match="cannot be written"):
        journal.put([(b"1", "m", ANSWER), (b"2", None, ANSWER)])  # type: ignore[list-item]
    assert journal.get([b"1", b"2"]) == {}


def test_a_commit_that_is_interrupted_leaves_a_journal_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(sqlite3.Connection):
        def executemany(self, *args: Any) -> Any:
            super().executemany(*args)
            if "interrupt" in str(args):
                raise KeyboardInterrupt
            return None

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Interrupted))
    journal = Journal(tmp_path / "a.db")
    with pytest.raises(KeyboardInterrupt):
        journal.put([(b"1", "interrupt", ANSWER)])
    journal.put([(b"2", "m", ANSWER)])
    assert journal.get([b"1", b"2"]) == {b"2": ANSWER}


def test_a_damaged_or_foreign_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "damaged.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"damaged\.db cannot be used .*move it away"):
        Journal(tmp_path / "damaged.db")
    database = sqlite3.connect(tmp_path / "later.db")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(StoreError, match="format 99"):
        Journal(tmp_path / "later.db")
