"""The command line as a new user meets it: the toy run file from `init` to `export`, and what the commands print on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from outcross.cli.main import app
from outcross.engine.store import RunDir
from outcross.types import Origin

SMALL = ["--bench.tasks.n", "300", "--bench.held_out.n", "300", "--bench.real.n", "300", "--examples.n", "300", "--rounds", "2"]
SMALL += ["--recipe.plan.epochs", "3", "--models.policy.plan.epochs", "5", "--bench.gate", "open"]


def call(*words: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line."""
    result = CliRunner().invoke(app, list(words), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def out_of(*words: str, stdin: str | None = None) -> str:
    code, out, err = call(*words, stdin=stdin)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished toy run, made by the commands a newcomer would type."""
    folder = tmp_path_factory.mktemp("toy")
    assert call("init", str(folder))[0] == 0
    code, _, err = call("run", str(folder / "run.yaml"), *SMALL, "--out", str(folder / "run"))
    assert code == 0, err
    return folder / "run"


@pytest.fixture
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    call("init")
    return tmp_path / "run.yaml"


# ── init, validate, run ────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("template", ["toy", "model", "sppo", "rlaif"])
def test_init_writes_a_commented_run_file_that_is_yaml(template: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.yaml"
    assert call("init", str(path), "--template", template)[0] == 0
    text = path.read_text()
    assert text.count("#") > 10
    assert {"recipe", "bench", "models"} <= yaml.safe_load(text).keys()


def test_the_model_template_is_a_valid_run_file(tmp_path: Path) -> None:
    from outcross.config.runfile import load

    call("init", str(tmp_path), "--template", "model")
    plan = load(tmp_path / "run.yaml")
    assert plan.config["models"]["policy"]["lora"]["r"] == 16
    assert plan.config["recipe"]["mix"]["real_floor"] == 0.7


def test_validate_checks_everything_and_says_the_price(run_file: Path) -> None:
    out = out_of("validate", str(run_file), *SMALL)
    for told in (
        "✓ run file",
        "✓ recipe: expert_iteration",
        "✓ data: 300 tasks, 300 held-out items, 300 real rows",
        "✓ models",
        "✓ guarantees",
    ):
        assert told in out
    assert "ungated" in out  # SMALL opens the gate
    assert "calls to policy" in out and "tokens written" in out and " free" in out
    assert not (run_file.parent / "runs").exists()


def test_validate_tells_the_power_of_the_gate_and_that_a_bench_is_too_small_for_it(run_file: Path) -> None:
    """With 1,000 items, 2 points and α = 0.05 over 4 rounds an unchanged candidate passes a fifth of the time."""
    found = out_of("validate", str(run_file), "--bench.probes.0.margin", "0.02", "--recipe.rounds", "4")
    assert "passes the 2-point margin of pass_rate 20% of the time (α 0.0125 a round" in found
    assert "80 % take 4,7" in found and "items, and with 1,000 a drop under 4.4 points cannot be seen" in found  # 3.083 √(0.2 / 1,000)
    assert "not known before a model is measured" in found  # of every guarded probe that is no share of answers
    assert all(f"{name} (margin " in found for name in ("real_loss", "diversity_entropy"))
    small = out_of("validate", str(run_file), "--bench.held_out.n", "150")
    assert "refuses every round: 150 held-out items, and it asks for at least 200" in small


def test_the_resolved_configuration_is_a_run_file(run_file: Path) -> None:
    text = out_of("validate", str(run_file), *SMALL, "--config", "--mix.real_floor", "0.25")
    resolved = yaml.safe_load(text)
    assert resolved["recipe"]["mix"] == {
        "history": "accumulate",
        "floor": "rows",
        "real_floor": 0.25,
        "anchor": 0.1,
        "real_epochs": 4.0,
        "synthetic_epochs": 1.0,
        "budget": None,
        "weights": [],
        "caps": [],
        "order": None,
    }
    again = run_file.with_name("again.yaml")
    again.write_text(text)
    first, second = (out_of("validate", str(run_file), *SMALL, *more) for more in (["--mix.real_floor", "0.25"], []))
    assert out_of("validate", str(again)).splitlines()[1] == first.splitlines()[1] != second.splitlines()[1]  # the fingerprint


def test_validate_refuses_a_disk_that_is_too_small(run_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from outcross.cli import costs

    monkeypatch.setattr(costs.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    code, _, err = call("validate", str(run_file), *SMALL)
    assert code == 5
    assert "1 kB free; choose another --out, or bound the disk with `keep_models: champion`" in err


def test_a_run_prints_verdict_headings_champion_and_what_to_do_next(run_file: Path) -> None:
    code, out, err = call("run", str(run_file), *SMALL, "--out", "there")
    assert code == 0
    assert "2 of 2 rounds" in out and "pass rate" in out
    assert "! ungated" in out
    assert "champion: there/champion -> expert_iteration/0001/model" in out
    assert "outcross show there" in err
    assert "generate draw  300/300" in err and "✗" in err and "PROMOTED" in err
    manifest = json.loads((run_file.parent / "there" / "manifest.json").read_text())
    assert manifest["config"]["bench"]["tasks"]["n"] == 300
    assert manifest["config"]["base"] == ".."  # relative: the run and its run file can be moved together


def test_a_dry_run_writes_nothing(run_file: Path) -> None:
    code, out, err = call("run", str(run_file), *SMALL, "--dry-run")
    assert code == 0 and "calls to policy" in out and "nothing was asked, trained or written" in err
    assert sorted(path.name for path in run_file.parent.iterdir()) == ["run.yaml"]


def test_running_again_goes_on_and_another_seed_is_another_run(finished: Path) -> None:
    run_file = finished.parent / "run.yaml"
    before = (finished / "manifest.json").read_bytes()
    assert "2 of 2 rounds" in out_of("run", str(run_file), *SMALL, "--out", str(finished), "-q")
    code, _, err = call("run", str(run_file), *SMALL, "--out", str(finished), "--seed", "9")
    assert code == 2
    assert "holds another run" in err and "seed: 0 → 9" in err
    assert (finished / "manifest.json").read_bytes() == before


def test_fail_on_refusal_ends_with_ten(run_file: Path) -> None:
    words = ["run", str(run_file), *SMALL[:-2], "--out", "there", "-q"]  # gated, and 300 items cannot show so small a margin
    margins = ["--bench.probes.pass_rate.margin", "0.0001"]
    assert call(*words, *margins, "--fail-on-refusal")[0] == 10
    assert call(*words, *margins)[0] == 0  # a refused promotion is a result


def test_a_budget_stops_the_run_and_resume_raises_it(run_file: Path) -> None:
    code, _, err = call("run", str(run_file), *SMALL, "--out", "there", "-q", "--budget.tokens", "100")
    assert code == 6
    assert "outcross resume there --budget.tokens" in err
    assert call("resume", "there", "-q")[0] == 6
    assert "2 of 2 rounds" in out_of("resume", "there", "-q", "--budget.tokens", "1000000")


def test_ctrl_c_stops_cleanly_and_resume_goes_on(run_file: Path, finished: Path) -> None:
    """The record of a run that was interrupted and resumed equals that of one that was not."""
    words = [sys.executable, "-c", "from outcross.cli.main import main; main()", "run", str(run_file), *SMALL, "--out", "there"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=run_file.parent) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "PROMOTED" in line:
                process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Go on with: outcross resume there" in err and "Traceback" not in err
    assert "2 of 2 rounds" in out_of("resume", str(run_file.parent / "there"), "-q")
    ours, theirs = (RunDir(root).rounds()[-1].record for root in (run_file.parent / "there", finished))
    assert ours == theirs


def test_a_moved_run_can_be_resumed(run_file: Path) -> None:
    call("run", str(run_file), *SMALL, "--out", "there", "-q", "--budget.tokens", "100")
    (run_file.parent / "there").rename(run_file.parent / "moved")
    assert "2 of 2 rounds" in out_of("resume", "moved", "-q", "--budget.tokens", "1000000")


# ── bad data ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def with_files(run_file: Path, rows: list[dict[str, Any]], **more: Any) -> list[str]:
    """Overrides that take the tasks from a file of these rows."""
    (run_file.parent / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--bench.tasks", json.dumps({"use": "files", "path": "tasks.jsonl", **more}), *SMALL[2:]]


@pytest.mark.parametrize(
    ("rows", "more", "told"),
    [
        ([], {}, "tasks.jsonl"),
        ([{"question": "1+1=", "completion": "2"}], {"columns": {"prompt": "quest"}}, "quest"),
        ([{"prompt": "1+1=", "completion": "2"}], {"path": "absent.jsonl"}, "absent.jsonl"),
        ([{"prompt": 7, "completion": "2"}], {}, "row"),
    ],
    ids=["empty file", "missing column", "missing file", "wrong type"],
)
@pytest.mark.parametrize("name", ["validate", "run"])
def test_data_that_cannot_be_used_is_told_before_anything_is_spent(
    run_file: Path, name: str, rows: list[dict[str, Any]], more: dict[str, Any], told: str
) -> None:
    code, _, err = call(name, str(run_file), *with_files(run_file, rows, **more))
    assert code == 2, err
    assert err.count("error:") == 1 and told in err and "Traceback" not in err
    assert not (run_file.parent / "runs").exists()


def test_a_held_out_item_among_the_tasks_is_refused(run_file: Path) -> None:
    held_out = json.dumps({"use": "arithmetic", "digits": 2, "n": 300, "split": "train"})
    code, _, err = call("run", str(run_file), *SMALL[:2], "--bench.held_out", held_out, *SMALL[4:])
    assert code == 3
    assert "has a held-out identifier" in err
    assert not (run_file.parent / "runs").exists()


def test_wrong_settings_are_told_in_place(run_file: Path) -> None:
    assert (
        "--mix.real_flor is no setting of this run file; did you mean --mix.real_floor"
        in call("run", str(run_file), "--mix.real_flor", "1")[2]
    )
    assert "recipe.n is 'many'; it must be a whole number" in call("run", str(run_file), "--recipe.n", "many")[2]
    ambiguous = call("run", str(run_file), "--plan.lr", "1")[2]
    assert "could mean 2 settings; write one of --models.policy.plan.lr, --recipe.plan.lr" in ambiguous


def test_replacing_history_needs_unsafe(run_file: Path) -> None:
    words = ["run", str(run_file), *SMALL, "--mix.history", "replace", "--out", "there", "-q"]
    code, _, err = call(*words)
    assert code == 3 and "`unsafe: true`" in err
    code, out, _ = call(*words, "--unsafe")
    assert code == 0 and "! history replaced" in out


# ── looking at a run ───────────────────────────────────────────────────────────────────────────────────────────────────
def test_show_prints_the_run_and_one_round(finished: Path) -> None:
    out = out_of("show", str(finished))
    for told in ("pass rate", "real loss", "diversity", "expert_iteration/0001", "promoted, ungated", "real share"):
        assert told in out
    for name in ("expert_iteration/0001", "expert_iteration/1", "1"):
        one = out_of("show", str(finished), name)
        for told in ("in = kept + dropped + failed", "verify exact", "duplicate in this group", "real (proved)", "95 % of candidate", "✗"):
            assert told in one
    assert "there are: expert_iteration/0000, expert_iteration/0001" in call("show", str(finished), "7")[2]


def test_list_finds_runs_below_a_folder(finished: Path) -> None:
    out = out_of("list", str(finished.parent))
    assert "expert_iteration" in out and "2/2" in out


def test_trace_walks_from_a_row_to_the_models_and_back(finished: Path) -> None:
    example = next(RunDir(finished).rounds()[0].examples())
    out = out_of("trace", str(finished), example.id)
    assert f"example {example.id}" in out and example.origin.parents[0] in out and "tabular:" in out
    assert "offered as new" in out
    assert call("trace", str(finished), "ffffffffffff")[0] != 0


def test_report_writes_one_file(finished: Path, tmp_path: Path) -> None:
    out_of("report", str(finished), str(finished), "-o", str(tmp_path / "both.html"))
    text = (tmp_path / "both.html").read_text()
    assert text.lstrip().lower().startswith("<!doctype html>") and len(text) < 2_000_000


def test_du_adds_up(finished: Path) -> None:
    out = out_of("du", str(finished))
    assert "models" in out and "tables" in out and "all" in out


def test_recall_lists_and_buries(run_file: Path) -> None:
    call("run", str(run_file), *SMALL, "--out", "there", "-q")
    out = out_of("recall", "exact", "--run", "there")
    assert "judged 2,400 samples" in out and "expert_iteration/0000/model" in out
    assert not (run_file.parent / "there" / "tombstones").exists()
    assert "records are tombstoned" in out_of("recall", "exact", "--run", "there", "--bury")
    assert RunDir(run_file.parent / "there").tombstones()
    code, _, err = call("export", "there")
    assert code == 2 and "no rows" in err
    assert "did you mean 'exact'" in call("recall", "exakt", "--run", "there")[2]


# ── using what it made ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_sample_asks_the_champion_or_any_model_of_the_run(finished: Path) -> None:
    champion = out_of("sample", str(finished), "12+34=", "--temperature", "0")
    assert champion.strip().isdigit()
    assert out_of("sample", str(finished / "expert_iteration" / "0001" / "model"), "12+34=", "--temperature", "0") == champion
    several = out_of("sample", str(finished), "-n", "2", stdin="12+34=\n5+6=\n").splitlines()
    assert [line.split("=")[0] for line in several] == ["12+34", "12+34", "5+6", "5+6"]
    assert out_of("sample", str(finished), "-n", "5", "--seed", "1", "1+1=") == out_of(
        "sample", str(finished), "-n", "5", "--seed", "1", "1+1="
    )
    assert "roles that learn in it: policy" in call("sample", str(finished), "x", "--role", "judge")[2]


def test_eval_measures_what_the_run_measured(finished: Path) -> None:
    rows = json.loads(out_of("eval", str(finished), str(finished), "--json"))["probes"]
    recorded = RunDir(finished).rounds()[-1].record["measurements"]
    candidate = {name: found["candidate"] for name, found in recorded.items()}
    assert {row["probe"]: row["value"] for row in rows} == pytest.approx(candidate)
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    table = out_of("eval", str(finished / "start" / "model"), str(finished.parent / "run.yaml"))
    assert "95 % interval" in table and "real loss" in table


def test_generate_makes_data_and_trains_nothing(run_file: Path) -> None:
    code, out, _ = call("generate", str(run_file), *SMALL[:-2], "--out", "data", "-q")
    assert code == 0 and "no model was trained" in out
    assert not list(run_file.parent.glob("data/**/model"))
    assert out_of("resume", "data", "-q") == out
    out_of("export", "data", "-o", "rows.jsonl")
    rows = [json.loads(line) for line in (run_file.parent / "rows.jsonl").read_text().splitlines()]
    assert rows and all(eval(row["prompt"].rstrip("=")) == int(row["completion"]) for row in rows)
    assert all(row["outcross"]["kind"] == "synthetic" for row in rows)


FORMATS = {
    "trl-prompt-completion": {"prompt", "completion"},
    "trl-sft": {"text"},
    "messages": {"messages"},
    "trl-preference": {"prompt", "chosen", "rejected"},
    "kto": {"prompt", "completion", "label"},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_export_writes_each_format_with_its_lineage(finished: Path, tmp_path: Path, form: str, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    out_of("export", str(finished), "--format", form, "-o", str(path))
    rows = pq.read_table(path).to_pylist() if suffix == "parquet" else [json.loads(line) for line in path.read_text().splitlines()]
    assert rows
    known = {sample.id for item in RunDir(finished).rounds() for group in item.groups() for sample in group.samples}
    for row in rows:
        assert row.keys() == FORMATS[form] | {"outcross"}
        assert row["outcross"].keys() == {"id", *Origin.__struct_fields__}
        assert row["outcross"]["id"] in known or set(row["outcross"]["parents"]) <= known


def test_exported_answers_are_right_and_labels_agree_with_them(finished: Path, tmp_path: Path) -> None:
    def right(prompt: str, answer: str) -> bool:
        return eval(prompt.rstrip("=")) == int(answer)

    def rows(form: str) -> list[dict[str, Any]]:
        out_of("export", str(finished), "-f", form, "-o", str(tmp_path / "rows.jsonl"))
        return [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]

    assert all(right(row["prompt"], row["completion"]) for row in rows("trl-prompt-completion"))
    assert all(right(row["prompt"], row["chosen"]) and not right(row["prompt"], row["rejected"]) for row in rows("trl-preference"))
    labelled = rows("kto")
    assert all(right(row["prompt"], row["completion"]) == row["label"] for row in labelled)
    assert {row["label"] for row in labelled} == {True, False}
    messages = rows("messages")[0]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]


def test_export_refuses_another_kind_of_file(finished: Path) -> None:
    assert "must end in .jsonl or .parquet" in call("export", str(finished), "-o", "rows.csv")[2]


# ── a verifier of one's own ────────────────────────────────────────────────────────────────────────────────────────────
def test_a_plain_reward_function_verifies(run_file: Path) -> None:
    (run_file.parent / "own_reward.py").write_text(
        "def even(prompts, completions, **columns):\n    return [float(text[-1:] in '02468') if text else None for text in completions]\n"
    )
    words = ["run", str(run_file), *SMALL, "--bench.verify", "own_reward:even", "--out", "there", "-q"]
    assert call(*words)[0] == 0
    assert RunDir(run_file.parent / "there").rounds()[0].record["verifiers"]["even"]["ground"] == "exact"
    examples = list(RunDir(run_file.parent / "there").rounds()[0].examples())
    assert examples and all(int(str(example.completion)) % 2 == 0 for example in examples)
