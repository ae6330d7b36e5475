"""A preview over real sockets, from the command line: rows to read, measurements to keep, and nothing paid twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from stub_server import Behaviour, Stub
from test_cli import call, out_of

from outcross.engine.store import RunDir, read_json

TASKS = [{"prompt": f"question {index}", "answer": f"question {index}"} for index in range(40)]
PLAN = """
from outcross.curate.dedup import Dedup
from outcross.generate.draw import Draw
from outcross.recipe import Phase, Recipe
from outcross.types import Sampling

def data(bench, *, verify=(), rounds: int = 2, n: int = 2, max_tokens: int = 50):
    phase = Phase("made", Draw(n, Sampling(max_tokens=max_tokens)), {}, verify, (Dedup(),), rounds=rounds)
    return Recipe("data", "", bench, (phase,))
"""


class Priced(Stub):
    """Answers that begin with the prompt; of some prompts both are alike, and some prompts are refused. Tokens follow the prompt's number."""

    def _said(self, body: dict[str, Any], prompt: str, path: str) -> bytes:
        said = json.loads(super()._said(body, prompt, path))
        number = int(prompt.rsplit(maxsplit=1)[-1]) if prompt[-1].isdigit() else 1  # the client asks a thing or two of its own
        for choice in said["choices"] if number % 5 == 0 else ():
            choice["message"]["content"] = prompt
        said["usage"] = {"prompt_tokens": 12, "completion_tokens": 10 + number}
        return json.dumps(said).encode()


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Priced(Behaviour()) as found:
        yield found


@pytest.fixture
def file(tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plans.py").write_text(PLAN)
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TASKS))
    files = {"use": "files", "path": "tasks.jsonl"}
    held_out = {"use": "arithmetic", "digits": 2, "n": 20, "split": "held_out"}
    plan = {
        "name": "asked",
        "recipe": {"use": "plans:data"},
        "bench": {"tasks": files, "held_out": held_out, "real": "none", "verify": ["exact"], "gate": "open"}
        | {"probes": [{"use": "pass_rate", "generator": {"use": "draw", "n": 1}}]},
        "models": {"policy": {"use": "http", "url": stub.url, "model": "m", "key_env": None, "price": {"prompt": 2, "completion": 10}}},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def asked(stub: Stub) -> int:
    return sum(stub.answered.values())


def test_what_a_preview_paid_for_the_run_finds_and_its_record_is_that_of_a_run_without_one(file: Path, stub: Stub) -> None:
    out_of("preview", "run.yaml", "-n", "6")
    assert asked(stub) == 6
    out_of("run", "run.yaml", "-q")
    assert asked(stub) == 2 * len(TASKS)  # both rounds, nothing twice
    out_of("run", "run.yaml", "-q", "--out", "without")
    with_preview, without = (
        {str(path.relative_to(root)): path.read_bytes() for path in (Path(root) / "made").rglob("*.parquet")}
        for root in ("runs/asked", "without")
    )
    assert with_preview == without and len(with_preview) >= 4


def test_a_larger_preview_holds_the_smaller_one_and_a_repeated_one_asks_nothing(file: Path, stub: Stub) -> None:
    def tasks(n: int) -> set[str]:
        found = json.loads(out_of("preview", "run.yaml", "-n", str(n), "--json"))
        assert len(found["rows"]) == n
        return {row["task"]["id"] for row in found["rows"]}

    few = tasks(4)
    assert asked(stub) == 4
    assert few < tasks(9)
    assert asked(stub) == 9
    before = read_json(Path("runs/asked/preview.json"))
    assert few < tasks(9)
    again = read_json(Path("runs/asked/preview.json"))
    assert asked(stub) == 9
    assert (before["asked"], before["in_all"][0], again["asked"], again["in_all"][0]) == (5, 9, 0, 9)
    assert again["pace"] == before["pace"]  # nothing new was measured
    assert again["spent"] == 0 and again["in_all"][1] == before["in_all"][1] > 0


def test_the_rows_are_readable_and_cut_or_in_full(file: Path) -> None:
    shown = out_of("preview", "run.yaml", "-n", "40")
    assert "── 1 of 40 · " in shown and "prompt    question 0" in shown and "reference question 0" in shown
    assert "✓ 1       question 0\n          exact pass 1" in shown
    assert "dropped by dedup: " in shown
    assert "✗ 0       question 1 -> " in shown and "exact fail 0: differs from the reference answer" in shown
    assert max(map(len, shown.split("What 40 tasks took")[0].splitlines())) <= 120
    for told in (
        "What 40 tasks took",
        "What became of the samples",
        "What the run costs, from a preview of 40 tasks",
        "written per answer",
    ):
        assert told in shown


def test_long_and_hostile_texts_are_cut_and_cannot_command_the_terminal(file: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text(json.dumps({"prompt": "\x1b[31mred\nsecond line " + "long " * 60 + "7", "answer": "1"}) + "\n")
    cut, full = out_of("preview", "run.yaml"), out_of("preview", "run.yaml", "--full")
    assert "\x1b" not in cut + full
    assert "prompt    �[31mred second line" in cut and "…" in cut
    assert "prompt    �[31mred\n          second line" in full and "long " * 59 in full


def test_conversations_are_shown_speaker_by_speaker(file: Path, tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "question 3"}]
    (tmp_path / "tasks.jsonl").write_text(json.dumps({"prompt": messages, "answer": "question 3"}) + "\n")
    shown = out_of("preview", "run.yaml")
    assert "system    Be brief.\nuser      question 3\n" in shown


def test_failed_requests_are_shown_with_their_reason(file: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text(json.dumps({"prompt": "[refuse] question 3", "answer": "x"}) + "\n")
    assert "! failed  " in out_of("preview", "run.yaml") and "this prompt is not allowed" in out_of("preview", "run.yaml")


def test_json_is_one_object_that_holds_rows_usage_and_both_forecasts(file: Path) -> None:
    found = json.loads(out_of("preview", "run.yaml", "-n", "5", "--json"))
    samples = [item for row in found["rows"] for item in row["samples"]]
    assert len(samples) == 10 and {item["verdict"] for item in samples} <= {"pass", "fail"}
    used = found["preview"]["used"]
    assert sum(item["prompt_tokens"] for item in used) == 5 * 12
    told = found["forecast"]
    assert told["expected"]["requests"] == {"expected": 80, "low": 80, "high": 80}
    assert told["expected"]["money"]["expected"] == pytest.approx(sum(item["money"] for item in used) / 5 * 80)
    assert told["at_most"]["money"] > told["expected"]["money"]["expected"]


# ── validate and --dry-run ─────────────────────────────────────────────────────────────────────────────────────────────
def test_without_a_preview_validate_bounds_the_money_and_says_how_to_expect(file: Path, stub: Stub) -> None:
    code, out, err = call("validate", "run.yaml")
    assert code == 0 and "At most" in out and "tokens read" in out and "outcross preview run.yaml" in err
    money = next(line for line in out.splitlines() if line.strip().startswith("money")).split()[-1]
    assert 0.01 < float(money) < 1
    assert not Path("runs").exists() and asked(stub) == 0


def test_with_a_preview_validate_and_a_dry_run_print_what_is_expected_and_write_nothing(file: Path, stub: Stub) -> None:
    out_of("preview", "run.yaml", "-n", "40")
    before = sorted((str(path), path.stat().st_mtime_ns) for path in Path().rglob("*"))
    shown = [out_of("validate", "run.yaml"), out_of("run", "run.yaml", "--dry-run")]
    assert sorted((str(path), path.stat().st_mtime_ns) for path in Path().rglob("*")) == before
    assert asked(stub) == 40
    for out in shown:
        line = next(line for line in out.splitlines() if "money" in line)
        assert line.split()[1] == "0.0255"  # 80 × (12 × 2 + 29.5 × 10) / 10⁶
        assert "likely between" in out and "at most" in out
        assert next(line for line in out.splitlines() if "calls to policy" in line).split()[-2:] == ["80", "80"]  # the server takes n


def test_a_server_that_ignores_n_is_noticed_and_the_bound_holds_for_it(file: Path, stub: Stub) -> None:
    stub.does.n = False
    before = out_of("validate", "run.yaml")
    out_of("preview", "run.yaml", "-n", "10")
    shown = out_of("validate", "run.yaml")
    row = next(line for line in shown.splitlines() if "calls to policy" in line)
    assert row.split()[-2:] == ["160", "160"] and "160" in next(line for line in before.splitlines() if "calls to policy" in line)
    out_of("run", "run.yaml", "-q")
    bill = json.loads(out_of("show", "runs/asked", "--json"))["bill"]
    held = {item["what"]: item for item in bill["forecast"]}
    assert held["prompt_tokens"]["actual"] == pytest.approx(held["prompt_tokens"]["expected"], rel=0.1)


def test_measurements_hold_when_rounds_change_and_are_void_when_the_question_does(file: Path) -> None:
    out_of("preview", "run.yaml", "-n", "8")
    more = out_of("validate", "run.yaml", "--recipe.rounds", "5")
    assert "from a preview of 8 tasks" in more and "200" in next(line for line in more.splitlines() if "calls to policy" in line)
    code, other, hinted = call("validate", "run.yaml", "--recipe.max_tokens", "60")
    assert code == 0 and "expected" not in other and "outcross preview" in hinted
    Path("runs/asked/preview.json").write_text("{")
    assert "At most" in out_of("validate", "run.yaml")


def test_a_missing_price_is_said_and_not_shown_as_nothing(file: Path) -> None:
    words = ["--models.policy.price", "{}"]
    assert "no price given" in out_of("validate", "run.yaml", *words)
    shown = out_of("preview", "run.yaml", "-n", "3", *words)
    assert next(line for line in shown.splitlines() if line.strip().startswith("money")).split() == [
        "money",
        "no",
        "price",
        "given",
    ] * 2 or (shown.count("no price given") == 2)
    assert "budget.money cannot stop the run" in out_of("validate", "run.yaml", *words, "--budget.money", "1")
    free = out_of("validate", "run.yaml", "--models.policy.price", "{prompt: 0, completion: 0}")
    assert "no price given" not in free


def test_caps_that_the_run_will_meet_are_told_beforehand(file: Path) -> None:
    assert "the run may take" in out_of("validate", "run.yaml", "--budget.requests", "100")
    out_of("preview", "run.yaml", "-n", "8")
    told = out_of("validate", "run.yaml", "--budget.requests", "60", "--budget.money", "0.001", "--budget.tokens", "10000000")
    assert "expected to take 80 requests, and budget.requests stops it at 60" in told
    assert "budget.money stops it at 0.00100" in told and "budget.tokens" not in told


# ── where it lives ─────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_preview_of_a_run_is_refused_where_another_run_is(file: Path) -> None:
    out_of("run", "run.yaml", "-q", "--recipe.rounds", "1")
    code, _, err = call("preview", "run.yaml", "-n", "3")
    assert code == 2 and "holds another run" in err
    assert not Path("runs/asked/preview.json").exists()
    again = out_of("preview", "run.yaml", "-n", "3", "--recipe.rounds", "1")  # its answers are there already
    assert "What 3 tasks took" in again


def test_a_cap_stops_a_preview_too_and_what_it_paid_for_is_kept(file: Path, stub: Stub) -> None:
    code, _, err = call("preview", "run.yaml", "-n", "20", "--budget.requests", "7")
    assert code == 6 and "budget of 7 requests is spent" in err
    assert asked(stub) == 7
    out_of("preview", "run.yaml", "-n", "20")
    assert asked(stub) == 20


def test_a_recipe_that_generates_nothing_has_no_preview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call("init")
    code, _, err = call("preview", "run.yaml", "--recipe", "{use: real_only, budget: 10}")
    assert code == 2 and "generates nothing, so there is nothing to preview" in err


def test_a_toy_model_is_previewed_and_then_trained_as_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_cli import SMALL

    monkeypatch.chdir(tmp_path)
    call("init")
    shown = out_of("preview", "run.yaml", *SMALL, "-n", "5", "--out", "there")
    assert "What 5 tasks took" in shown and "the time to train" in shown and "no price given" in shown
    for root in ("there", "without"):
        assert call("run", "run.yaml", *SMALL, "--out", root, "-q")[0] == 0
    ours, theirs = (RunDir(Path(root)).rounds()[-1].record for root in ("there", "without"))
    assert ours == theirs
    told = out_of("validate", "run.yaml", *SMALL, "--out", "there")
    assert "the time to train" not in told and "time" in told  # two finished rounds tell it
