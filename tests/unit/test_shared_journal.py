"""One journal for several runs: found answers are free, each run's bill is its own, and answers can be judged anew for nothing."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from stub_server import Behaviour, Stub
from toys import TASKS, Says, model, outcomes, phase, play, recipe, record
from typer.testing import CliRunner

import outcross
from outcross.cli.main import app
from outcross.engine.journal import Journal
from outcross.engine.place import open_journal
from outcross.engine.store import RunDir, read_json
from outcross.errors import BudgetReached, ConfigError, RunLocked, StoreError
from outcross.generate.draw import Draw
from outcross.verify.exact import Exact

MADE = recipe(phase())


def paid(run: RunDir) -> int:
    """How many requests a run paid for, as its journal says."""
    with closing(open_journal(run, offline=True)) as journal:
        return sum(count for count, _ in journal.spent().values()) + journal.failed()


def without_note(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in record(folder).items() if name != "journal.json"}


def test_a_second_run_pays_only_for_what_the_first_did_not_ask(tmp_path: Path) -> None:
    shared = tmp_path / "answers" / "all.db"
    first = play(MADE, tmp_path / "first", journal=shared)
    second = play(MADE, tmp_path / "second", journal=shared)
    alone = play(MADE, tmp_path / "alone")
    assert without_note(first.root) == without_note(second.root) == record(alone.root)
    assert paid(first) == paid(alone) > 100 and paid(second) == 0
    third = play(recipe(phase(rounds=3)), tmp_path / "third", journal=shared)
    assert 0 < paid(third) < paid(first)
    assert not (first.root / "responses.db").exists() and first.journal == shared
    assert paid(first) == paid(alone)  # others' requests are not on its bill


def test_a_budget_counts_what_this_run_pays_alone(tmp_path: Path) -> None:
    shared = tmp_path / "all.db"
    spent = paid(play(MADE, tmp_path / "first", journal=shared))
    cap = outcross.Budget(requests=spent // 4)
    with pytest.raises(BudgetReached):
        play(MADE, tmp_path / "alone", budget=cap)
    assert outcomes(play(MADE, tmp_path / "second", journal=shared, budget=cap)) == ["promoted", "promoted"]


def test_resume_finds_the_journal_also_after_both_were_moved_together(tmp_path: Path) -> None:
    with pytest.raises(BudgetReached):
        play(MADE, tmp_path / "here" / "run", journal=tmp_path / "here" / "all.db", budget=outcross.Budget(requests=60))
    before = paid(RunDir(tmp_path / "here" / "run"))
    note = read_json(tmp_path / "here" / "run" / "journal.json")
    assert set(note) == {"path", "run"} and note["path"] == "../all.db"
    shutil.move(tmp_path / "here", tmp_path / "there")
    found = play(MADE, tmp_path / "there" / "run")
    assert before >= 60 and paid(found) == paid(play(MADE, tmp_path / "alone"))  # nothing was asked twice


def test_a_journal_that_was_moved_alone_is_asked_for_and_taken_when_it_knows_the_run(tmp_path: Path) -> None:
    first = play(MADE, tmp_path / "run", journal=tmp_path / "all.db")
    (tmp_path / "all.db").rename(tmp_path / "moved.db")
    with pytest.raises(StoreError, match=r"is not at .*all\.db any more; say where it is now with --journal PATH"):
        play(MADE, first.root)
    Journal(tmp_path / "stranger.db").close()
    with pytest.raises(ConfigError, match=r"stranger\.db, which holds none of this run's"):
        play(MADE, first.root, journal=tmp_path / "stranger.db")
    assert outcomes(play(MADE, first.root, journal=tmp_path / "moved.db")) == ["promoted", "promoted"]
    assert play(MADE, first.root).journal == tmp_path / "moved.db"


def test_a_run_does_not_change_over_to_another_journal(tmp_path: Path) -> None:
    own = play(MADE, tmp_path / "own")
    with pytest.raises(ConfigError, match=r"keeps its answers in its own responses\.db.*leave it out, or start another run"):
        play(MADE, own.root, journal=tmp_path / "all.db")
    assert outcomes(play(MADE, own.root, journal=own.journal)) == ["promoted", "promoted"]  # its own may be named
    assert paid(play(MADE, tmp_path / "guest", journal=own.journal)) == 0
    assert not (tmp_path / "all.db").exists()


def test_while_one_run_writes_the_journal_another_is_refused_and_readers_are_not(tmp_path: Path) -> None:
    shared = tmp_path / "all.db"
    first = play(MADE, tmp_path / "first", journal=shared)
    with closing(open_journal(first)):
        with pytest.raises(RunLocked, match=r"all\.db is being written by process \d+ on .* for the run in .*first; two runs cannot write"):
            play(MADE, tmp_path / "second", journal=shared)
        for words in (["show", str(first.root)], ["du", str(first.root)], ["report", str(first.root)]):
            assert CliRunner().invoke(app, words).exit_code == 0, words
        again = play(MADE, tmp_path / "offline", journal=shared, offline=True)  # reads only
        assert outcomes(again) == ["promoted", "promoted"] and paid(again) == 0


# ── judged anew for nothing, from the command line ─────────────────────────────────────────────────────────────────────
@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    with Stub(Behaviour(says=lambda prompt: str(eval(prompt.rstrip("=")) + len(prompt) % 2))) as stub:
        file = {
            "recipe": {"use": "expert_iteration", "rounds": 1, "n": 2},
            "bench": {
                "tasks": {"use": "arithmetic", "n": 40},
                "held_out": {"use": "arithmetic", "n": 40, "seed": 7},
                "real": "none",
                "verify": [{"use": "exact"}],
                "probes": [],
                "gate": "open",
            },
            "models": {"policy": {"use": "http", "url": stub.url, "model": "stub", "key_env": None}},
            "data_only": 1,
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(file))
        (tmp_path / "mine.py").write_text(
            "def even(prompts, completions, **columns):\n    return [float(int(c) % 2 == 0) for c in completions]\n"
        )
        yield tmp_path


def call(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stderr


def verdicts(root: Path) -> list[tuple[str, str]]:
    (turn,) = RunDir(root).rounds()
    return [(score.verifier, score.verdict) for group in turn.groups() for sample in group.samples for score in sample.scores]


def test_answers_that_are_there_are_judged_by_another_verifier_without_one_request(folder: Path) -> None:
    assert call("run", "run.yaml", "--out", "old", "-q")[0] == 0
    address = yaml.safe_load((folder / "run.yaml").read_text())["models"]["policy"]["url"]
    asked = total(address)
    words = ["run", "run.yaml", "--out", "new", "-q", "--journal", "old/responses.db", "--offline", "--bench.verify", "mine:even"]
    code, err = call(*words)
    assert code == 0, err
    assert total(address) == asked > 0
    old, new = verdicts(folder / "old"), verdicts(folder / "new")
    assert len(old) == len(new) and {name for name, _ in old} != {name for name, _ in new}
    assert {verdict for _, verdict in new} == {"pass", "fail"}
    code, err = call("run", "run.yaml", "--out", "more", "-q", "--journal", "old/responses.db", "--offline", "--recipe.n", "3")
    assert code == 7 and re.search(
        r"offline: at least \d+ questions in expert_iteration/0000 to 'policy' from Draw are not in the journal", err
    )
    assert "run without --offline" in err and total(address) == asked
    assert call("resume", "more", "-q")[0] == 0 and total(address) > asked  # online, it goes on with the same journal


def total(url: str) -> int:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as reply:
        return int(json.load(reply)["asked"])


def test_the_run_file_names_a_journal_from_its_own_folder_and_the_command_line_goes_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = yaml.safe_load((folder / "run.yaml").read_text())
    (folder / "run.yaml").write_text(yaml.safe_dump(file | {"journal": "kept/all.db"}))
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert call("run", "../run.yaml", "--out", "run", "-q")[0] == 0
    assert RunDir(folder / "elsewhere" / "run").journal == folder / "kept" / "all.db"
    assert call("resume", "run", "-q")[0] == 0
    assert call("run", "../run.yaml", "--out", "other", "-q", "--journal", "mine.db")[0] == 0
    assert RunDir(folder / "elsewhere" / "other").journal == folder / "elsewhere" / "mine.db"
    run = outcross.run(folder / "run.yaml", out="python", journal=folder / "kept" / "all.db", offline=True)
    assert run.rounds[0].made == 80
    assert call("preview", "../run.yaml", "-n", "3", "--out", "fresh")[0] == 0  # finds its answers there as well
    assert paid(RunDir(folder / "elsewhere" / "fresh")) == 0


def test_a_run_from_python_takes_a_journal(tmp_path: Path) -> None:
    data = recipe(phase(generate=Draw(n=2), learn={}, verify=(Exact(),), rounds=1), gate=Says())
    first = outcross.run(data, {"policy": model()}, tmp_path / "a", journal=tmp_path / "all.db")
    second = outcross.run(replace(data, name="again"), {"policy": model()}, tmp_path / "b", journal=tmp_path / "all.db", offline=True)
    assert first.rounds[0].made == second.rounds[0].made == 2 * len(TASKS)
