"""The model card: what the record says, no more, in a form that the Hub reads."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results
from test_cli import call, out_of
from toys import Says, model, phase, play, recipe

from outcross.engine.store import RunDir
from outcross.evaluate.pass_rate import PassRate
from outcross.generate.draw import Draw
from outcross.report.model_card import model_card
from outcross.report.read import read_run
from outcross.tasks.arithmetic import Arithmetic
from outcross.verify.exact import Exact


def carded(root: Path, decisions: str = "pp", **bench: object) -> tuple[RunDir, str]:
    run = play(recipe(phase(verify=(Exact(),), rounds=len(decisions)), gate=Says(decisions), **bench), root, {"policy": model()})
    return run, model_card(read_run(run))


def test_the_card_holds_shares_depths_decisions_and_what_the_hub_reads(tmp_path: Path) -> None:
    run, text = carded(tmp_path)
    _, front, body = text.split("---\n", 2)
    said = yaml.safe_load(front)
    _, results = model_index_to_eval_results(said["model-index"])
    last = run.rounds()[-1].record
    assert {item.metric_type: item.metric_value for item in results} == {
        name: found["candidate"] for name, found in last["measurements"].items()
    }
    share = last["mixtures"]["policy"]["real_share"]["records"]
    assert f"| {100 * share:.1f}" in body and f"| {last['fits']['policy']['depth']} |" in body
    assert "| exact | 1 | exact |" in body and body.count(": promoted") == 2
    assert "This model was chosen by these measurements, so that they flatter it." in body


def test_a_run_that_promoted_nothing_is_headed_so(tmp_path: Path) -> None:
    _, text = carded(tmp_path, "rr")
    assert "No round was promoted" in text and "model-index" not in text and ": refused" in text


def test_the_claim_on_fresh_items_replaces_the_warning(tmp_path: Path) -> None:
    fresh = PassRate(Arithmetic(3, n=40), Draw(n=1), Exact(), label="fresh")
    _, text = carded(tmp_path, final=(fresh,))
    assert "On fresh items, which no gate saw" in text and "that no gate has seen" not in text


def test_the_command_prints_it_or_writes_it(tmp_path: Path) -> None:
    run, text = carded(tmp_path / "run")
    assert out_of("card", str(run.root)).strip() == text.strip()
    assert call("card", str(run.root), "--out", str(tmp_path / "README.md"))[0] == 0
    assert (tmp_path / "README.md").read_text() == text
