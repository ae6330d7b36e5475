"""`verify`, `selftest` and `recall` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_cli import SMALL, call, out_of

from outcross.engine.store import RunDir

KNOWN = '{task: {id: sum, prompt: "2+2=", answer: "4"}, answers: ["4", "5"], expected: [pass, fail]}'
BROKEN = "def reward(prompts, completions, answer):\n    return [1.0 for _ in completions]\n"
ROWS = [
    {"prompt": "2+2=", "completions": ["4", "four", "5"], "answer": "4"},
    {"prompt": "3+4=", "completions": ["It is 7."], "answer": "7"},
    {"prompt": "what?", "completions": ["who knows"], "answer": None},
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    assert call("init", str(folder))[0] == 0
    assert call("run", str(folder / "run.yaml"), *SMALL, "--out", str(folder / "run"), "-q")[0] == 0
    return folder / "run"


# ── verify ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_verify_counts_every_answer_once_and_says_why(here: Path) -> None:
    out = out_of("verify", "rows.jsonl", "--verify", "exact", "-v", "{use: number, tolerance: 0.5}")
    assert "in = pass + fail + error + abstain" in out and "differs from the reference answer" in out and "all together" in out
    found = json.loads(out_of("verify", "rows.jsonl", "-v", "exact", "-v", "number", "--json"))
    numbers = {name: [item[key] for key in ("in", "pass", "fail", "error", "abstain")] for name, item in found["verifiers"].items()}
    assert numbers == {"exact": [5, 1, 3, 0, 1], "number": [5, 2, 2, 0, 1]}
    assert found["all"] == {"in": 5, "pass": 1, "fail": 3, "error": 0, "abstain": 1}
    assert sum(item["answers"] for item in found["reasons"] if item["verifier"] == "number") == 3


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_verify_writes_the_scores(name: str, here: Path) -> None:
    out_of("verify", "rows.jsonl", "-v", "number", "--out", name)
    rows = (
        pq.read_table(name).to_pylist() if name.endswith("parquet") else [json.loads(line) for line in Path(name).read_text().splitlines()]
    )
    assert [row["verdict"] for row in rows] == ["pass", "fail", "fail", "pass", "abstain"]
    assert rows[1]["scores"][0]["reason"] == "the answer holds no number" and rows[1]["completion"] == "four"
    assert json.loads(out_of("verify", name, "-v", "number", "--json"))["all"]["pass"] == 2


def test_verify_can_fail_a_check(here: Path) -> None:
    assert call("verify", "rows.jsonl", "-v", "number", "--fail-under", "0.4")[0] == 0
    code, out, _ = call("verify", "rows.jsonl", "-v", "number", "--fail-under", "0.5")
    assert code == 10 and "40.0% of the answers passed, fewer than 50.0%" in out


def test_verify_says_what_is_missing(here: Path) -> None:
    for words, told in (
        ((), "no verifier is named"),
        (("-v", "exakt"), "did you mean 'exact'"),
        (("-v", "pairwise_judge"), "asks a model in the role 'judge'"),
        (("-v", "exact", "-c", "completion"), "write PART=NAME"),
        (("-v", "exact", "-o", "out.txt"), "must end in .parquet or .jsonl"),
        (("-v", "{use: exact"), "cannot be read"),
    ):
        code, _, err = call("verify", "rows.jsonl", *words)
        assert code == 2 and told in err


def test_verify_takes_the_verifiers_of_a_run(ran: Path) -> None:
    table = ran / "expert_iteration/0000/groups.parquet"
    rows = pq.read_table(table)["verdict"].to_pylist()
    for source in (ran, ran.parent / "run.yaml"):
        found = json.loads(out_of("verify", str(table), "--run", str(source), "--json"))
        assert found["all"]["pass"] == rows.count("pass") and found["all"]["fail"] == rows.count("fail")


# ── canaries ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_selftest_tries_all_that_ship_or_those_that_are_named(here: Path) -> None:
    code, out, err = call("selftest")
    assert code == 0 and "✗" not in out
    for name in ("exact", "number", "math", "code", "vote", "regenerated"):
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [name]]
        assert line.rstrip().endswith("✓"), line
    assert "namespaces" in out or "process" in out
    assert "they need settings: all_of" in err and "pairwise_judge" in err
    out = out_of("selftest", "{use: all_of, verifiers: [number, {use: retried, verifier: exact}]}")
    assert [line.split()[0] for line in out.splitlines() if "✓" in line] == ["number", "exact"]


def test_a_broken_verifier_is_caught_by_selftest_verify_and_run(here: Path) -> None:
    (here / "broken_reward.py").write_text(BROKEN)
    use = f'{{use: "broken_reward:reward", canaries: [{KNOWN}]}}'
    for words in (("selftest", use), ("verify", "rows.jsonl", "-v", use)):
        code, _, err = call(*words)
        assert code == 4 and "failed its canary 'sum': the answer '5' must be judged fail (known bad)" in err
    code, out, _ = call("selftest", "broken_reward:reward")
    assert code == 0 and "no canaries" in out
    call("init")
    text = (here / "run.yaml").read_text()
    (here / "run.yaml").write_text(text.replace("- use: exact ", f"- {use} #"))
    assert "✗ 1 wrong" in call("selftest", "run.yaml")[1]
    code, _, err = call("run", "run.yaml", *SMALL, "--out", "there", "-q")
    assert code == 4 and "failed its canary 'sum'" in err and "outcross resume there" in err
    assert RunDir(here / "there").rounds() == []


def test_validate_and_show_tell_of_canaries(here: Path, ran: Path) -> None:
    call("init")
    assert "canaries of exact: 1 gold, 1 known bad, before every batch" in out_of("validate", "run.yaml", *SMALL)
    (here / "plain_reward.py").write_text(BROKEN)
    text = (here / "run.yaml").read_text()
    (here / "run.yaml").write_text(text.replace("- use: exact ", "- use: plain_reward:reward #"))
    assert "! no canaries: nothing would tell if reward were broken" in out_of("validate", "run.yaml", *SMALL)
    assert "Canaries, all judged as they must be: exact 1 gold and 1 bad before verify" in out_of("show", str(ran), "0")
    assert "exact 1 gold and 1 bad before probe" in out_of("report", str(ran), "-o", "r.html") + (here / "r.html").read_text()


def test_the_stop_rule_is_set_in_the_run_file(here: Path) -> None:
    (here / "sour.py").write_text("def sour(prompts, completions):\n    raise ValueError('cannot read this')\n")
    call("init")
    text = (here / "run.yaml").read_text()
    text = text.replace("- use: exact ", "- use: sour:sour #").replace("{use: pass_rate,", "{use: pass_rate, verifier: exact,")
    (here / "run.yaml").write_text(text)
    code, _, err = call("run", "run.yaml", *SMALL, "--out", "there", "-q", "--errors.after", "150")
    assert code == 4 and "150 answers" in err and "× ValueError: cannot read this" in err and "outcross resume there --errors.share" in err
    code, _, err = call("run", "run.yaml", *SMALL, "--out", "there", "-q", "--errors.share", "1.5")
    assert code == 2 and "errors.share" in err
    out = out_of("resume", "there", "-q", "--errors.share", "1.0")
    assert [turn.record["outcome"] for turn in RunDir(here / "there").rounds()] == ["nothing learnt"] * 2 and out


# ── recall ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_recall_says_what_would_be_lost_spares_what_stands_and_is_told_by_every_command(ran: Path, here: Path) -> None:
    run = str(ran)
    code, out, err = call("recall", "exact", "--run", run)
    assert code == 0 and "What mixtures without these records would lose" in out and "nothing was changed" in err
    assert "THE CHAMPION of policy, expert_iteration/0001/model, LEARNT FROM THESE ROWS" in out and "start/model" in out
    assert call("recall", "exact", "--run", run, "--reverify")[0] == 2, "the present exact is the one that is recalled"
    found = json.loads(out_of("recall", "exact", "--run", run, "--json"))
    assert len(found["samples"]) == 2400 and found["rounds"] == {f"expert_iteration/000{i}": 1200 for i in range(2)}
    assert [item["round"] for item in found["losses"]] == list(found["rounds"]) and found["untouched"] == {"policy": "start/model"}
    assert not (ran / "tombstones").exists()

    code, out, err = call("recall", "exact", "--run", run, "--reverify", "--verify", "{use: exact, casefold: true}", "--yes")
    assert code == 2 and "one of those recalled" in err
    code, out, err = call("recall", "exact", "--run", run, "--reverify", "--verify", "number", "--yes")
    assert code == 0 and "pass → pass: kept" in out and "0 records are tombstoned" in out
    assert pq.read_table(ran / "tombstones/0000.scores.parquet").num_rows == 2400
    assert "records are tombstoned" in out_of("recall", "exact", "--run", run, "--before", "2", "--yes")
    assert "records are tombstoned: recall of exact before version 2" in out_of("show", run)
    out_of("report", run, "-o", "r.html")
    assert "recall of exact before version 2" in (here / "r.html").read_text()
    assert "tombstoned already" in out_of("recall", "exact", "--run", run)
