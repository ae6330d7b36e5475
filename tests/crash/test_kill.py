"""kill -9 at every write the engine makes; the resumed record equals the uninterrupted one, byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from toy_run import start

from outcross.engine.journal import Journal
from outcross.engine.store import RunDir

KILLER = Path(__file__).parent / "killer.py"
WORKERS = 2
CLOCKS = ("responses.db", "responses.db-wal", "responses.db-shm", "responses.db.lock", "metrics.jsonl", "lock", "logs")


def record(folder: Path) -> dict[str, bytes]:
    """Every byte of a run but clocks, attempts and the journal's pages."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if inside.parts[0] in CLOCKS:
            continue
        if path.is_symlink():
            found[str(inside)] = str(path.readlink()).encode()
        elif path.is_file():
            found[str(inside)] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    start(folder)
    return folder


def test_the_subject_meets_promotions_and_refusals(whole: Path) -> None:
    assert [turn.record["outcome"] for turn in RunDir(whole).rounds()] == ["promoted", "refused", "promoted"]


def test_the_same_run_twice_is_the_same_record(whole: Path, tmp_path: Path) -> None:
    start(tmp_path / "run")
    assert record(tmp_path / "run") == record(whole)


def test_killed_at_every_write_and_resumed_the_record_is_the_same(whole: Path, workdir: Path) -> None:
    def worker(first: int) -> list[dict[str, object]]:
        command = [sys.executable, str(KILLER), str(workdir), str(first + 1), str(WORKERS)]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [json.loads(line) for line in out.splitlines()]

    with ThreadPoolExecutor(WORKERS) as pool:
        tried = [line for lines in pool.map(worker, range(WORKERS)) for line in lines]
    killed = [line for line in tried if line["killed"]]
    assert len(killed) > 100  # all writes of three rounds, the start and the manifest
    assert sorted(int(str(line["point"])) for line in killed) == list(range(1, len(killed) + 1))
    expected = record(whole)
    answers = Journal(whole / "responses.db").spent()
    for line in tried:
        folder = Path(str(line["folder"]))
        assert line["resumed"] == 0, line
        assert record(folder) == expected, line
        journal = Journal(folder / "responses.db")
        assert journal.spent() == answers, line  # nothing asked twice under another key, nothing lost
        journal.close()
