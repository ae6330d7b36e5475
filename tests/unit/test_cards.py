"""The card of a model: what the Hub reads of it, that it holds what the record holds, and what it must not say or show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toys
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult
from records import FOUR, Builder, Level, Turnout
from test_cli import call, out_of

from outcross.engine.store import RunDir, write_json
from outcross.errors import ConfigError
from outcross.report.model_card import model_card
from outcross.report.numbers import short
from outcross.report.read import read_run
from outcross.types import content_hash


def card(run: RunDir) -> str:
    return model_card(read_run(run)).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return Builder(tmp_path_factory.mktemp("cards") / "run", FOUR, headings=("no real anchor: a test",)).write()


def test_the_hub_reads_the_front_matter_and_its_results(four: RunDir) -> None:
    found = ModelCard(card(four)).data
    measured = read_run(four).summary.tracks
    assert found.model_name == "guarded" and found.eval_results is not None
    results: dict[str, EvalResult] = {item.metric_type: item for item in found.eval_results}
    assert set(results) == {track.probe for track in measured}
    for track in measured:
        assert results[track.probe].metric_value == pytest.approx(track.now.mean, abs=1e-6)
        assert results[track.probe].dataset_name == "held-out items of the run"
    assert found.license is None and found.base_model is None  # the user's to state
    assert "# license: for you to state" in card(four) and found.pipeline_tag is None


def test_what_the_user_states_goes_into_the_front_matter(tmp_path: Path) -> None:
    config = {
        "recipe": "expert_iteration",
        "card": {"license": "apache-2.0", "language": ["en"], "title": "Adds"},
        "models": {"policy": {"model": "acme/base-1b"}},
    }
    run = Builder(tmp_path / "run", config=config).write()
    (run.start / "model" / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    found = ModelCard(card(run)).data
    assert (found.license, found.language, found.base_model) == ("apache-2.0", ["en"], "acme/base-1b")
    assert (found.library_name, found.pipeline_tag) == ("transformers", "text-generation")
    assert "# Adds\n" in card(run) and "# license" not in card(run)


def test_the_model_is_the_last_champion_and_only_its_own_rounds_are_in_it(four: RunDir) -> None:
    text = card(four)
    now = short(content_hash("model", "guarded", "train/0003"))
    assert f"| `{now}` | 1 | train/0000, train/0003 |" in text
    rows = [line for line in text.splitlines() if line.startswith("| train/") and "| policy |" in line]
    assert ["yes" in row for row in rows] == [True, False, True] and "no (refused)" in rows[1]
    mixed = read_run(four).rounds[0].mixtures["policy"]
    assert f"{100 * mixed.real_share['records']:.1f} %" in rows[0] and f"{100 * mixed.real_share['tokens']:.1f} %" in rows[0]


def test_every_check_verifier_and_heading_is_told(four: RunDir) -> None:
    text = card(four)
    assert "> **No real anchor: a test.**" in text and "| exact | 3 | exact |" in text
    reading = read_run(four)
    checks = [check for item in reading.rounds if item.decision for check in item.decision.checks]
    rows = [line.split(" | ") for line in text.splitlines() if "| first model |" in line or "| champion |" in line]
    assert len([row for row in rows if row[1] in ("first model", "champion") and row[0] != "| role"]) == len(checks) > 0
    assert "**train/0001: refused.**" in text and "| **no** |" in text and "flatter" in text
    assert "how good it is on items that no gate has seen" in text and "## Recalled" not in text


def test_a_waived_floor_a_recall_and_a_rollback_are_told(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run", (Turnout("promoted", Level(0.52)), Turnout("refused", Level(0.2))), planned=2, gated=False).write()
    last = run.rounds()[-1]
    moved = {"probe": "pass_rate", "against": "first", "change": -0.2, "low": -0.3, "high": -0.1, "alpha": 0.01, "action": "roll_back"}
    back = {"to": "start", "rounds": ["train/0000"]}
    write_json(last.record_path, {**last.record, "moved": [{**moved, "reason": "pass_rate fell"}], "rolled_back": back})
    (run.rounds()[0].folder / "rolled_back.json").write_text("{}")
    (run.root / "tombstones").mkdir()
    write_json(run.root / "tombstones" / "0.json", {"reason": {"recall": "exact", "before": "3"}, "records": ["a", "b"]})
    text = card(RunDir(run.root))
    assert "> **Ungated.**" in text and "> **Real floor waived: train/0000, policy: shown for comparison.**" in text
    assert "| train/0001 | pass rate | first | −20.0 points | roll back |" in text
    assert "- train/0001 returned to start; undone: train/0000" in text
    assert "| recall of exact before version 3 | 2 |" in text
    assert "none: it is the first model, as it was given" in text and "flatter" not in text


def test_hostile_text_breaks_no_front_matter_and_no_path_is_published(tmp_path: Path) -> None:
    config = {
        "recipe": "expert_iteration",
        "card": {"title": "a: b\n---\n# c"},
        "models": {"policy": {"path": str(tmp_path / "private" / "weights"), "use": "torch_lm"}},
    }
    config |= {"unsafe": True, "bench": {"gate": {"alpha": 0.01}}}
    run = Builder(tmp_path / "run", config=config, name='x: "y" | z').write()
    text = card(run)
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["unsafe"] is True and settings["bench"] == {"gate": {"alpha": 0.01}}  # without these the run would be another
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["model-index"][0]["name"] == 'x: "y" | z' and "the run began with weights\n" in text
    assert str(tmp_path) not in text and "\n# a: b --- # c\n" in text


# ── the command ────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_command_prints_writes_and_overwrites_nothing(four: RunDir, tmp_path: Path) -> None:
    printed = out_of("card", str(four.root))
    assert printed == model_card(read_run(four))
    out_of("card", str(four.root), "-o", str(tmp_path))
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == printed
    code, _, err = call("card", str(four.root), "-o", str(tmp_path / "README.md"))
    assert code == ConfigError.exit_code and "may hold what you wrote" in err


def test_a_run_that_only_makes_rows_gets_the_card_of_its_rows(tmp_path: Path) -> None:
    phase = toys.phase(learn={}, rounds=1)
    run = toys.play(toys.recipe(phase), tmp_path / "rows")
    text = out_of("card", str(run.root))
    assert "pretty_name:" in text and "size_categories:" in text and "## Rows" in text and "model-index" not in text
    assert "<!--" not in text and "| exact |" in text


def test_a_real_run_tells_its_verifier_and_its_depth(tmp_path: Path) -> None:
    text = out_of("card", str(toys.play(toys.recipe(), tmp_path / "run").root))
    assert "| exact | 1 | exact |" in text and "real rows" in text and "It was started from Python" in text
    assert ModelCard(text).data.eval_results
