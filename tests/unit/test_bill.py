"""The bill is the journal's, to the last token; caps stop a run where they say, and it can go on."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from stub_server import Stub
from test_cli import call, out_of
from test_preview import file, stub  # noqa: F401  the same plan and the same server

import outcross
from outcross.engine.journal import Journal
from outcross.engine.store import RunDir, read_json, write_json
from outcross.report.read import read_run


def lines_of(text: str, title: str) -> list[list[str]]:
    """The rows of a printed table."""
    lines = text.splitlines()
    first = next(index for index, line in enumerate(lines) if line.strip() == title)
    rule = next(index for index in range(first, len(lines)) if "───" in lines[index])
    return [line.split() for line in takewhile(str.strip, lines[rule + 1 :])]


def journal_of(root: Path) -> Any:
    with closing(Journal(root / "responses.db", writes=False)) as journal:
        return journal.spent()


# ── the sums ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_bill_is_what_the_server_sent_and_what_the_journal_holds(file: Path, stub: Stub) -> None:  # noqa: F811
    out_of("preview", "run.yaml", "-n", "7")
    out_of("run", "run.yaml", "-q")
    bill = outcross.open("runs/asked").bill
    assert bill is not None
    written = 2 * sum(10 + number for number in range(40))
    assert (
        (bill.requests, bill.prompt_tokens, bill.completion_tokens) == (80, 80 * 12, written) == (sum(stub.answered.values()), 960, written)
    )
    assert bill.money == pytest.approx((960 * 2 + written * 10) / 1e6)
    ((count, usage),) = journal_of(Path("runs/asked")).values()
    assert (bill.requests, bill.prompt_tokens, bill.completion_tokens, bill.money) == (
        count,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.money,
    )
    (line,) = bill.lines
    assert (line.roles, line.model, line.money) == (("policy",), "m", bill.money)
    assert bill.previewed[0] == 7 and bill.complete and bill.failed == 0


def test_running_again_costs_nothing_more(file: Path) -> None:  # noqa: F811
    out_of("run", "run.yaml", "-q")
    before = outcross.open("runs/asked").bill
    out_of("run", "run.yaml", "-q")
    assert outcross.open("runs/asked").bill == before


def test_a_run_pays_for_its_own_questions_alone_in_a_journal_that_it_shares(file: Path, stub: Stub) -> None:  # noqa: F811
    shared = ["--journal", "answers.db"]
    out_of("preview", "run.yaml", "-n", "5", "--out", "one", *shared)
    out_of("run", "run.yaml", "-q", "--out", "one", *shared)
    out_of("run", "run.yaml", "-q", "--out", "two", *shared, "--recipe.rounds", "3")
    one, two = (outcross.open(root).bill for root in ("one", "two"))
    assert one is not None and two is not None
    assert (one.requests, two.requests) == (80, 40)  # the first two rounds were found
    assert one.requests + two.requests == sum(stub.answered.values())
    out_of("run", "run.yaml", "-q", "--out", "three", *shared)
    three = outcross.open("three").bill
    assert three is not None and (three.requests, three.money, three.lines) == (0, 0, ())


def test_failed_requests_are_on_the_bill(file: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"prompt": text, "answer": "x"}) + "\n" for text in ("[refuse] 1", "fine 2")))
    out_of("run", "run.yaml", "-q")
    bill = outcross.open("runs/asked").bill
    assert bill is not None and (bill.requests, bill.failed) == (2, 2)
    assert "2 further requests got no answer" in " ".join(bill.notes)


def test_roles_that_share_a_model_share_a_line_and_models_without_a_price_are_named(file: Path, stub: Stub) -> None:  # noqa: F811
    plan = yaml.safe_load(file.read_text())
    plan["models"] |= {"judge": "policy", "critic": {"use": "http", "url": stub.url, "model": "c", "key_env": None}}
    plan["recipe"] = {"use": "trio:both"}
    file.write_text(yaml.safe_dump(plan))
    (file.parent / "trio.py").write_text(BOTH)
    out_of("run", "run.yaml", "-q")
    bill = outcross.open("runs/asked").bill
    assert bill is not None
    assert [(line.roles, line.model, line.requests) for line in bill.lines] == [(("critic",), "c", 40), (("judge", "policy"), "m", 80)]
    assert bill.lines[0].money is None and bill.money == bill.lines[1].money
    shown = out_of("show", "runs/asked")
    assert "no price given" in shown and "judge, policy" in shown


BOTH = """
from outcross.generate.draw import Draw
from outcross.recipe import Phase, Recipe

def both(bench, *, verify=()):
    return Recipe("both", "", bench, tuple(Phase(role, Draw(1, role=role), {}) for role in ("policy", "judge", "critic")))
"""


def test_all_models_that_a_taught_role_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_cli import SMALL

    monkeypatch.chdir(tmp_path)
    call("init")
    assert call("run", "run.yaml", *SMALL, "--out", "run", "-q")[0] == 0
    bill, spent = outcross.open("run").bill, journal_of(Path("run"))
    assert bill is not None and len(spent) == 3  # the first model and two candidates
    (line,) = bill.lines
    assert (line.roles, line.model, line.requests) == (("policy",), "taught", sum(count for count, _ in spent.values()))
    assert line.money is None and bill.money is None and bill.forecast == ()


# ── where it is shown ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_show_the_report_and_json_tell_the_same(file: Path) -> None:  # noqa: F811
    out_of("preview", "run.yaml", "-n", "40")
    out_of("run", "run.yaml", "-q")
    shown = out_of("show", "runs/asked")
    assert lines_of(shown, "Bill") == [["policy", "m", "80", "960", "2,360", "0.0255"], ["total", "80", "960", "2,360", "0.0255"]]
    held = {row[0]: row for row in lines_of(shown, "The bill and the forecast")}
    assert held["requests"] == ["requests", "80", "80"] and held["money"][1] == held["money"][-1] == "0.0255"
    out_of("report", "runs/asked")
    page = Path("runs/asked/report.html").read_text()
    for told in (">Bill</h2>", "<b>2,360</b>", "Held against the forecast", "Of these, previews asked 40 requests, for 0.0128."):
        assert told in page
    told = json.loads(out_of("show", "runs/asked", "--json"))["bill"]
    assert told["completion_tokens"] == 2360 and told["lines"][0]["model"] == "m"
    assert {item["what"] for item in told["forecast"]} == {"requests", "prompt_tokens", "completion_tokens", "money", "seconds"}


def test_a_run_that_is_not_over_is_held_against_the_forecast_so_far(file: Path) -> None:  # noqa: F811
    out_of("preview", "run.yaml", "-n", "10")
    assert call("run", "run.yaml", "-q", "--budget.requests", "60")[0] == 6
    shown = out_of("show", "runs/asked")
    assert "so far" in shown and lines_of(shown, "Bill")[-1][1] == "60"


def test_a_forecast_of_another_plan_is_not_compared(file: Path) -> None:  # noqa: F811
    out_of("preview", "run.yaml", "-n", "10")
    out_of("run", "run.yaml", "-q", "--recipe.rounds", "1")
    bill = outcross.open("runs/asked").bill
    assert bill is not None and bill.forecast == () and bill.previewed[0] == 10


def test_a_journal_that_cannot_be_read_leaves_the_record_readable(file: Path) -> None:  # noqa: F811
    out_of("run", "run.yaml", "-q")
    for path in Path("runs/asked").glob("responses.db*"):
        path.unlink()
    Path("runs/asked/responses.db").write_bytes(b"no journal" * 1000)
    code, out, err = call("show", "runs/asked")
    assert code == 0 and "made/0001" in out and "the bill cannot be read" in err
    out_of("report", "runs/asked")
    assert "The bill cannot be read" in Path("runs/asked/report.html").read_text()
    Path("runs/asked/responses.db").unlink()
    assert read_run(RunDir(Path("runs/asked"))).bill is None


def test_reading_the_bill_changes_no_answer(file: Path) -> None:  # noqa: F811
    out_of("run", "run.yaml", "-q")
    with closing(sqlite3.connect("runs/asked/responses.db")) as db:
        before = list(db.execute("SELECT * FROM answers ORDER BY key"))
        out_of("show", "runs/asked")
        assert list(db.execute("SELECT * FROM answers ORDER BY key")) == before


def test_a_preview_file_that_is_damaged_takes_nothing_from_the_bill(file: Path) -> None:  # noqa: F811
    out_of("run", "run.yaml", "-q")
    Path("runs/asked/preview.json").write_text("{")
    assert "960" in out_of("show", "runs/asked")
    write_json(Path("runs/asked/preview.json"), [1])
    assert "960" in out_of("show", "runs/asked")


# ── caps ───────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("cap", "low", "high"), [("requests", 30, 30), ("tokens", 1000, 1000 + 62), ("money", 0.01, 0.01 + 64 * 0.00054)])
def test_each_cap_stops_the_run_where_it_says_and_a_higher_one_lets_it_end(
    cap: str,
    low: float,
    high: float,
    file: Path,  # noqa: F811
    stub: Stub,  # noqa: F811
) -> None:
    code, _, err = call("run", "run.yaml", "-q", f"--budget.{cap}", str(low))
    assert code == 6 and f"{cap} is spent" in err and f"outcross resume runs/asked --budget.{cap}" in err
    bill = outcross.open("runs/asked").bill
    assert bill is not None
    spent = {"requests": bill.requests, "tokens": bill.prompt_tokens + bill.completion_tokens, "money": bill.money}[cap]
    assert spent is not None and low <= spent <= high
    assert call("resume", "runs/asked", "-q")[0] == 6  # the cap holds over attempts
    assert sum(stub.answered.values()) == bill.requests
    out_of("resume", "runs/asked", "-q", f"--budget.{cap}", "1000000")
    assert sum(stub.answered.values()) == 80  # nothing twice
    out_of("run", "run.yaml", "-q", "--out", "free")
    ours, theirs = (read_json(Path(root) / "made" / "0001" / "round.json")["files"] for root in ("runs/asked", "free"))
    assert {name: item for name, item in ours.items() if name.endswith(".parquet")} == {
        name: item for name, item in theirs.items() if name.endswith(".parquet")
    }


def test_a_cap_on_seconds_stops_a_slow_server_and_counts_over_attempts(file: Path, stub: Stub) -> None:  # noqa: F811
    stub.does.median_ms, stub.does.sigma = 100, 0.0
    words = ["--models.policy.in_flight", "1"]  # 8 s in all
    code, _, err = call("run", "run.yaml", "-q", *words, "--budget.seconds", "1")
    assert code == 6 and "budget of 1.0 seconds is spent" in err
    asked = sum(stub.answered.values())
    assert 3 <= asked <= 14
    assert call("resume", "runs/asked", "-q")[0] == 6
    assert sum(stub.answered.values()) <= asked + 1
    stub.does.median_ms = 0
    out_of("resume", "runs/asked", "-q", "--budget.seconds", "100")
    assert sum(stub.answered.values()) == 80
