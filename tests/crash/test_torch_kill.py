"""kill -9 while a transformer generates, while it trains and in between: nothing answered is asked again, and the resumed
record equals the uninterrupted one, weights included."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from signal import SIGKILL
from typing import Any

import lm_run
import pytest
from test_kill import record

from outcross.engine.store import RunDir
from outcross.engine.tables import rows_of

KILLER = Path(__file__).parent / "lm_killer.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # a process with pools of threads cannot be forked


@pytest.fixture(scope="module")
def whole(workdir: Path) -> Path:
    """A run that nobody interrupted, in this process: the killed ones have another, with another seed of its hashes."""
    lm_run.make_first(workdir / "first")
    lm_run.start(workdir / "first", workdir / "undisturbed")
    return workdir / "undisturbed"


@pytest.fixture(scope="module")
def killed(whole: Path, workdir: Path) -> list[dict[str, Any]]:
    """What the killer tells, one entry a kill."""
    command = [sys.executable, str(KILLER), str(workdir / "first"), str(workdir)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **ONE_THREAD}).stdout
    return [json.loads(line) for line in out.splitlines()]


def keys(journal: Path) -> set[str]:
    """The requests whose answers a journal holds."""
    with sqlite3.connect(journal) as database:
        found = {str(key).lower() for (key,) in database.execute("SELECT hex(key) FROM answers")}
    database.close()
    return found


def answered(path: Path) -> list[str]:
    """The requests that a model answered in one attempt, in order."""
    return path.read_text().split()


def test_the_subject_generates_and_learns_in_both_rounds(whole: Path) -> None:
    rounds = RunDir(whole).rounds()
    assert [turn.record["outcome"] for turn in rounds] == ["promoted"] * lm_run.ROUNDS
    mixtures = [turn.record["mixtures"]["policy"] for turn in rounds]
    assert all(mixture["new"] > 0 and mixture["real"] > 0 for mixture in mixtures) and mixtures[1]["history"] > 0
    assert all(turn.record["fits"]["policy"]["steps"] > 1 for turn in rounds)
    for turn in rounds:
        met = Counter(row["id"] for row in rows_of(turn.folder / "order.parquet"))
        planned: Counter[str] = Counter()
        for row in rows_of(turn.folder / "mixture.parquet"):
            planned[row["id"]] += row["repeats"]
        assert met == planned


def test_the_same_run_in_two_processes_is_the_same_record(whole: Path, workdir: Path, killed: list[dict[str, Any]]) -> None:
    assert record(workdir / "whole") == record(whole)
    assert len(answered(workdir / "whole.answers")) == len(keys(whole / "responses.db"))


def test_each_kill_fell_where_it_was_meant_to(killed: list[dict[str, Any]]) -> None:
    assert {line["event"] for line in killed} >= {"batch begins", "token drawn", "batch answered", "committed", "optimiser step", "rename"}
    assert all(line["signal"] == SIGKILL for line in killed)
    assert all(line["resumed"] == 0 for line in killed)


def test_killed_and_resumed_the_record_is_the_same(whole: Path, workdir: Path, killed: list[dict[str, Any]]) -> None:
    expected = record(whole)
    assert any(name.endswith(".safetensors") for name in expected)
    for line in killed:
        assert record(workdir / line["run"]) == expected, line


def test_nothing_that_was_answered_is_asked_again(whole: Path, workdir: Path, killed: list[dict[str, Any]]) -> None:
    everything = keys(whole / "responses.db")
    for line in killed:
        first, second = (answered(workdir / f"{line['run']}.{attempt}") for attempt in ("first", "second"))
        kept = keys(workdir / f"{line['run']}.db")
        assert len(kept) + len(second) == len(everything), line  # what a kill leaves plus what is asked: each request once
        assert kept | set(second) == everything == keys(workdir / line["run"] / "responses.db"), line
        lost = len(first) - len(kept)
        assert 0 <= lost <= (lm_run.WINDOW if line["event"] in ("token drawn", "batch answered", "commit") else 0), line
