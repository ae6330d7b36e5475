"""Recipes that learn from feedback as a user meets them: a run file, `validate`, `run`, and what the commands say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from feedback import COMPARISONS, HELD_OUT, HELD_OUT_PAIRS, REAL, TASKS
from test_cli import call, out_of

from outcross.config.runfile import load
from outcross.engine.store import RunDir
from outcross.recipe import Mixture
from outcross.recipes.d_rlaif import GUARDED


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def written(folder: Path, recipe: dict[str, Any], **more: Any) -> Path:
    """A run file with its data beside it."""
    for name, tasks in (("tasks", TASKS), ("held_out", HELD_OUT)):
        lines(folder / f"{name}.jsonl", [{"prompt": task.prompt, "answer": task.answer} for task in tasks])
    lines(folder / "real.jsonl", [{"prompt": row.prompt, "answer": row.completion} for row in REAL])
    for name, pairs in (("people", COMPARISONS), ("test", HELD_OUT_PAIRS)):
        lines(folder / f"{name}.jsonl", [{"prompt": p.prompt, "chosen": p.completion, "rejected": p.rejected} for p in pairs])
    bench = {
        "tasks": {"use": "files", "path": "tasks.jsonl"},
        "held_out": {"use": "files", "path": "held_out.jsonl"},
        "real": {"use": "real_files", "path": "real.jsonl", "attested": "the test's author, 2026"},
        "verify": ["exact"],
        "probes": [
            {"use": "pass_rate", "generator": {"use": "draw", "n": 2}},
            {"use": "diversity", "generator": {"use": "draw", "n": 2}, "replicates": 20},
            {"use": "real_loss", "real": {"use": "answers"}},
        ],
        "gate": "observe",
    }
    models = {"policy": {"use": "feedback:learnt"}, "judge": {"use": "feedback:knowing"}}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "recipe": recipe, "bench": bench, "models": models, "unsafe": True} | more))
    return path


def pairs(name: str) -> dict[str, Any]:
    columns = {"prompt": "prompt", "answer": "chosen", "rejected": "rejected"}
    return {"use": "real_files", "path": f"{name}.jsonl", "columns": columns, "attested": "the test's author, 2026"}


PLAN = {"lr": 0.05, "epochs": 4, "batch": 8, "schedule": "constant"}


def test_sppo_with_a_judge_that_is_the_policy(tmp_path: Path) -> None:
    both = {"policy": {"use": "test_recipes_closed_forms:checker"}, "judge": "policy"}
    path = written(tmp_path, {"use": "sppo", "rounds": 2, "n": 4, "beta": 0.2, "plan": PLAN}, models=both)
    assert "✓ guarantees" in out_of("validate", str(path))
    assert "2 of 2 rounds" in out_of("run", str(path), "--out", str(tmp_path / "run"), "-q")
    found = RunDir(tmp_path / "run")
    assert [turn.promoted for turn in found.rounds()] == [True, True]
    judges = {
        score.evidence.split('"judge":"')[1].split('"')[0]
        for turn in found.rounds()
        for g in turn.groups()
        for s in g.samples
        for score in s.scores
    }
    first, second = (turn.record["champion"]["policy"]["id"] for turn in found.rounds())
    assert first in judges and second not in judges and len(judges) == 2  # it is judged by who it has become
    assert "rows" in out_of("export", str(found.root), "-o", str(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize(
    ("given", "mix"),
    [("guarded", GUARDED), ({"floor": "anchor", "anchor": 0.3}, Mixture(floor="anchor", anchor=0.3))],
)
def test_a_mixture_is_a_name_or_settings(given: Any, mix: Mixture, tmp_path: Path) -> None:
    path = written(tmp_path, {"use": "d_rlaif", "mix": given})
    assert load(path).build_recipe().phases[0].mix == mix
    assert load(path, [("recipe.mix", "paper")]).build_recipe().phases[0].mix.history == "replace"


def test_paper_needs_unsafe_and_a_wrong_name_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, {"use": "sppo", "mix": "paper"}, unsafe=False)
    assert "replaces its history" in call("validate", str(path))[2]
    wrong = call("validate", str(written(tmp_path, {"use": "sppo", "mix": "papers"})))[2]
    assert "papers" in wrong and "guarded" in wrong


def test_rlaif_reads_people_s_comparisons_and_tells_their_batches(tmp_path: Path) -> None:
    recipe = {
        "use": "rlaif",
        "comparisons": pairs("people"),
        "held_out_pairs": pairs("test"),
        "draw": {"temperature": 1.0, "max_tokens": 4},
        "n": 4,
        "rounds": 1,
        "reward_plan": {"lr": 5.0, "epochs": 5, "batch": 16, "schedule": "constant"},
        "plan": {"lr": 2.0, "epochs": 2, "batch": 32, "schedule": "constant"},
    }
    models = {"policy": {"use": "feedback:learnt"}, "judge": {"use": "feedback:knowing"}, "reward": {"use": "tabular_reward"}}
    path = written(tmp_path, recipe, models=models)
    out_of("run", str(path), "--out", str(tmp_path / "run"), "-q")
    root = str(tmp_path / "run")
    reward, policy = RunDir(tmp_path / "run").rounds()
    assert reward.promoted and policy.promoted and reward.decision is not None and reward.decision.gated
    shown = out_of("show", root)
    assert "pair accuracy" in shown and "unproven verifier" in shown
    batch = json.loads(out_of("mix", root, "--role", "reward", "--phase", "reward", "--batch", "0", "--json"))
    rows = batch if isinstance(batch, list) else batch["rows"]
    assert any(row["source"] == "real" and row["example"]["rejected"] for row in rows)
    exported = out_of("export", root, "-f", "trl-reward", "-o", str(tmp_path / "rows.jsonl"))
    assert "rows" in exported


@pytest.mark.parametrize(("template", "role"), [("sppo", "baseline"), ("rlaif", "reward")])
def test_a_template_is_a_valid_run_file(template: str, role: str, tmp_path: Path) -> None:
    out_of("init", str(tmp_path), "--template", template)
    plan = load(tmp_path / "run.yaml")
    assert plan.config["recipe"]["use"] == template and {"policy", "judge", role} == set(plan.config["models"])
