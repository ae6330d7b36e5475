"""`outcross export` of every objective's examples, read by `datasets` and prepared by TRL's own trainers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from feedback import bench, played
from test_cli import call, out_of
from test_recipes_feedback import MADE
from toys import AnyLoss, phase, play, recipe

from outcross.cli.exported import Format, forms_of
from outcross.engine.store import RunDir
from outcross.recipe import Learn
from outcross.stages import FitPlan
from outcross.train.objectives import Approve


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    home = tmp_path_factory.mktemp("runs")
    made = {name: played(MADE[name](bench(), "guarded"), home / name) for name in ("sppo", "iterative_dpo", "rlaif")}
    learn = {"policy": Learn(Approve(), FitPlan(lr=0.1, epochs=1, batch=16), reference="champion")}
    made["kto"] = play(recipe(phase(learn=learn, rounds=1)), home / "kto", {"policy": AnyLoss([str(i) for i in range(13)])})
    return made


def exported(run: RunDir, path: Path, *words: str) -> list[dict[str, Any]]:
    out_of("export", str(run.root), *words, "-o", str(path))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_format_follows_what_the_models_learnt(runs: dict[str, RunDir], tmp_path: Path) -> None:
    assert {name: forms_of(run) for name, run in runs.items()} == {
        "sppo": (Format.weighted,),
        "iterative_dpo": (Format.preference,),
        "rlaif": (Format.weighted, Format.reward),
        "kto": (Format.kto,),
    }
    assert "also taught rows of the format trl-reward" in call("export", str(runs["rlaif"].root), "-o", str(tmp_path / "rows.jsonl"))[2]


@pytest.mark.parametrize("name", ["sppo", "rlaif"])
def test_targets_and_weights_are_those_of_the_record(name: str, runs: dict[str, RunDir], tmp_path: Path) -> None:
    rows = exported(runs[name], tmp_path / "rows.jsonl")
    learnt = [example for turn in runs[name].rounds() for example in turn.examples()]
    assert [(row["prompt"], row["completion"], row["loss"], row["target"], row["weight"]) for row in rows] == [
        (e.prompt, e.completion, e.loss.name, e.target, e.weight) for e in learnt
    ]
    assert all(row["outcross"]["parents"] and row["outcross"]["depth"] > 0 for row in rows)


def test_no_answer_that_lost_is_written_as_one_to_imitate(runs: dict[str, RunDir], tmp_path: Path) -> None:
    code, _, err = call("export", str(runs["sppo"].root), "-f", "messages", "-o", str(tmp_path / "none.jsonl"))
    assert code and "no rows for messages" in err


def test_a_reward_model_s_pairs_carry_their_soft_labels(runs: dict[str, RunDir], tmp_path: Path) -> None:
    rows = exported(runs["rlaif"], tmp_path / "rows.jsonl", "-f", "trl-reward")
    labels = [example.target for example in runs["rlaif"].rounds()[0].examples("reward")]
    assert [row["probability"] for row in rows] == labels and all(0.5 <= label <= 1.0 for label in labels) and min(labels) < 0.999  # type: ignore


@pytest.mark.filterwarnings("ignore")  # trl's own
@pytest.mark.parametrize(
    ("form", "name", "kind"),
    [("trl-preference", "iterative_dpo", "DPO"), ("trl-reward", "rlaif", "Reward"), ("kto", "kto", "KTO"), ("trl-weighted", "sppo", "SFT")],
)
def test_trl_s_trainers_take_what_is_exported(form: str, name: str, kind: str, runs: dict[str, RunDir], tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="the reference: install trl to run this")
    from datasets import load_dataset
    from tiny_lm import tiny
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    rows = exported(runs[name], tmp_path / "rows.jsonl", "-f", form)
    found = load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(found) == len(rows) and {"kind", "parents", "depth"} <= set(found[0]["outcross"])
    found = found.map(lambda row: {"prompt": row["prompt"].replace(".", "+")})  # a character that the tiny tokenizer knows
    tiny().save(tmp_path / "lm")
    kinds = {"Reward": lambda path: AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)}
    model = kinds.get(kind, AutoModelForCausalLM.from_pretrained)(str(tmp_path / "lm"))
    settings = {"output_dir": str(tmp_path / "out"), "use_cpu": True, "report_to": "none", "max_length": 64, "bf16": False}
    args = getattr(trl, f"{kind}Config")(**settings, gradient_checkpointing=False, disable_tqdm=True)
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "lm"))
    made = getattr(trl, f"{kind}Trainer")(model, args=args, train_dataset=found, processing_class=tokenizer)
    assert len(made.train_dataset) == len(rows)
    next(iter(made.get_train_dataloader()))  # collated
