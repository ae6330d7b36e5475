"""A data set for somebody with only an endpoint: init → validate → run → export, the folder that comes out, and what its card says."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import toys
import yaml
from stub_server import Behaviour, Stub
from test_cli import call, out_of

from outcross.config.runfile import load
from outcross.engine.store import RunDir
from outcross.errors import ConfigError
from outcross.report.numbers import short

KEY = "sk-nobody-may-see-this"


class Reckons(Stub):
    """An endpoint that answers the template's questions in words of its own, four times in five rightly."""

    def _said(self, body: dict[str, Any], prompt: str, path: str) -> bytes:
        have, more, gone = map(int, re.findall(r"\d+", prompt)[:3])
        who, goods = prompt.split(maxsplit=1)[0], re.search(r"How many (\w+)", prompt).group(1)  # type: ignore[union-attr]
        rng = random.Random(f"{prompt}{body.get('seed')}")
        texts = []
        for _ in range(body.get("n", 1)):
            said = have + more - gone + (0 if rng.random() < 0.8 else rng.randint(1, 9))
            begin = rng.choice(["To begin with", "At the start", "First of all", "As we know"])
            then = rng.choice(["Buying more makes", "After the purchase there are", "Adding gives", "Together that is"])
            texts.append(f"{begin} {who} has {have} {goods}. {then} {have + more}, and giving {gone} of them away leaves {said}")
        choices = [{"index": index, "finish_reason": "stop", "message": {"content": text}} for index, text in enumerate(texts)]
        return json.dumps({"choices": choices, "usage": {"prompt_tokens": 40, "completion_tokens": 30 * len(texts)}}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A released run, from an empty folder: what is changed in the run file is the endpoint."""
    home = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch, Reckons(Behaviour(key=KEY)) as stub:
        patch.chdir(home)
        patch.setenv("OPENAI_API_KEY", KEY)
        assert "wrote data.yaml" in out_of("init", "--template", "dataset")
        text = Path("data.yaml").read_text()
        Path("data.yaml").write_text(text.replace("http://127.0.0.1:8000/v1", stub.url))
        assert "! no real anchor" in out_of("validate", "data.yaml")
        out = out_of("run", "data.yaml", "-q")
        assert "Released 1 of 1 round" in out and "release: runs/my-data/release -> dataset/0000" in out
        out_of("export", "runs/my-data")
        yield home


@pytest.fixture
def run(folder: Path) -> Path:
    return folder / "runs" / "my-data"


def table(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def front(path: Path) -> tuple[dict[str, Any], str]:
    """The card's front matter, and the rest of it."""
    _, matter, text = (path / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(matter), text.replace("\N{NARROW NO-BREAK SPACE}", " ").replace("\N{NO-BREAK SPACE}", " ")


# ── the walk ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_template_asks_for_the_endpoint_alone(tmp_path: Path) -> None:
    out_of("init", str(tmp_path / "d.yaml"), "--template", "dataset")
    plan = load(tmp_path / "d.yaml")
    assert plan.config["recipe"]["use"] == "dataset" and plan.config["bench"]["real"] is None
    assert len(list(plan.build_bench().tasks)) == 300
    assert load(tmp_path / "d.yaml", [("name", "x")]).build_recipe() == plan.build_recipe()


def test_the_exported_folder_loads_with_datasets(run: Path, tmp_path: Path) -> None:
    import datasets

    found = datasets.load_dataset(str(run / "export" / "trl-prompt-completion"), cache_dir=str(tmp_path))
    rows = found["train"]
    assert set(rows.column_names) == {"prompt", "completion", "outcross"} and len(rows) > 400
    right = [re.findall(r"\d+", row["prompt"])[:3] for row in rows]
    assert all(int(h) + int(m) - int(g) == int(row["completion"].rsplit(" ", 1)[1]) for (h, m, g), row in zip(right, rows, strict=True))
    assert {(row["outcross"]["kind"], row["outcross"]["depth"]) for row in rows} == {("synthetic", 1)}


def test_the_key_is_nowhere(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


# ── the card ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_card_says_what_was_measured_and_what_was_not(run: Path) -> None:
    matter, text = front(run / "export" / "trl-prompt-completion")
    rows = len(table(run / "export" / "trl-prompt-completion" / "data" / "train-00000-of-00001.parquet"))
    assert matter["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}]
    assert (matter["pretty_name"], matter["size_categories"], "license" in matter) == ("My data", ["n<1K"], False)
    record = RunDir(run).rounds()[0].record
    counts = {item["name"]: item for item in record["counts"]}
    for told in (
        "> **No real anchor: the bench holds no real data.**",
        "> **Not decontaminated: ",
        f"{rows} rows ({rows} train)",
        f"| synthetic | none | 1 | `{short(RunDir(run).manifest['models']['policy']['id'])}` | {rows} | 100.0 % |",
        "| policy | my-model | ",
        "No licence of the data set is stated.",
        f"| dataset/0000 | generate draw | 600 | 600 | 0 | 0 |  |\n| dataset/0000 | verify number | 600 | 600 | 0 | 0 | pass {counts['number']['detail']['pass']}",
        "| number | 1 | exact | ",
        "**dataset/0000: released.** Finished 100.0%",
        "there is neither real data nor an earlier release to compare with",
        "Not checked: the run named no held-out items and no benchmarks.",
        "| policy | `my-model` | 300 | 12,000 | 18,000 | ",
        "- whether rows resemble data written by people",
        RunDir(run).manifest["recipe"]["fingerprint"],
    ):
        assert told in text, told
    assert "127.0.0.1" not in text and "OPENAI_API_KEY" not in text and str(run) not in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["recipe"]["generate"]["n"] == 2 and settings["models"]["policy"]["model"] == "my-model"


def test_what_the_user_states_is_in_the_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with Reckons(Behaviour(key=KEY)) as stub:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        words = [
            "--models.policy.url",
            stub.url,
            "--card.license",
            "cc-by-4.0",
            "--card.model_licenses.policy",
            "open | weights",
        ]
        out_of("run", "data.yaml", *words, "--bench.tasks.n", "20", "--card.title", '"Sums: a set"', "--out", "stated", "-q")
    out_of("export", "stated", "-o", "cards/one")
    matter, text = front(folder / "cards" / "one")
    assert (matter["license"], matter["pretty_name"]) == ("cc-by-4.0", "Sums: a set")
    assert "| open \\| weights |" in text and "No licence" not in text


# ── splits and formats ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_no_task_is_in_both_splits_and_splits_stay(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        out_of("export", str(run), "--held-out", "0.2", "-o", str(tmp_path / name))
    splits = [{path.name: path.read_bytes() for path in sorted((tmp_path / name / "data").iterdir())} for name in ("a", "b")]
    assert splits[0] == splits[1]
    held, train = (table(tmp_path / "a" / "data" / f"{name}-00000-of-00001.parquet") for name in ("validation", "train"))
    prompts = [{row["prompt"] for row in rows} for rows in (held, train)]
    assert not prompts[0] & prompts[1] and 0.1 < len(held) / (len(held) + len(train)) < 0.3
    assert {item["split"] for item in front(tmp_path / "a")[0]["configs"][0]["data_files"]} == {"train", "validation"}


def test_raw_rows_hold_all_that_is_known(run: Path, tmp_path: Path) -> None:
    out_of("export", str(run), "-f", "raw", "-o", str(tmp_path / "rows.parquet"))
    row = table(tmp_path / "rows.parquet")[0]
    assert {item["name"] for item in row["columns"]} == {"goods", "person", "have", "more", "gone"}
    assert (row["verdict"], row["scores"][0]["verifier"], row["finished"]) == ("pass", "number", True)
    assert row["messages"][-1] == {"role": "assistant", "content": row["completion"]} and row["answer"] and row["subgroup"]


def test_answers_that_failed_come_along_only_when_asked_for(run: Path, tmp_path: Path) -> None:
    out_of("export", str(run), "--all", "-o", str(tmp_path / "all"))
    rows = table(tmp_path / "all" / "data" / "train-00000-of-00001.parquet")
    assert {row["verdict"] for row in rows} == {"pass", "fail"}
    assert "> **Unfiltered: " in front(tmp_path / "all")[1]


def test_pairs_are_of_one_task(run: Path, tmp_path: Path) -> None:
    out_of("export", str(run), "-f", "trl-preference", "-o", str(tmp_path / "pairs"))
    rows = table(tmp_path / "pairs" / "data" / "train-00000-of-00001.parquet")
    assert rows and all(row["chosen"] != row["rejected"] and len(row["outcross"]["parents"]) == 2 for row in rows)


def test_what_a_model_learnt_can_be_a_folder_too(tmp_path: Path) -> None:
    """A run that trains, started from Python: its card tells of the gate of models and has no settings to show."""
    found = toys.play(toys.recipe(), tmp_path / "trained")
    out_of("export", str(found.root), "-o", str(tmp_path / "learnt"))
    rows = table(tmp_path / "learnt" / "data" / "train-00000-of-00001.parquet")
    examples = {example.id for turn in found.rounds() if turn.promoted for example in turn.examples()}
    assert {row["outcross"]["id"] for row in rows} == examples
    text = front(tmp_path / "learnt")[1]
    assert "**train/0000: promoted (ungated).**" in text and "> **Ungated" in text and "<details>" not in text
    assert "Every sample was held against the run's held-out items: decontaminate set aside 0 samples" in text


# ── refusals ───────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_refused_release_is_exported_only_on_request_and_headed_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with Reckons(Behaviour(key=KEY)) as stub:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        words = ["--models.policy.url", stub.url, "--bench.tasks.n", "20", "--recipe.probes.subgroups.limit", "1.5"]
        _, out, err = call("run", "data.yaml", *words, "--out", "refused", "-q")
    assert "Released none of 1 round" in out and "export refused --refused" in err
    code, _, err = call("export", "refused")
    assert code == ConfigError.exit_code and "has released nothing: the gate refused: subgroups" in err and "--refused" in err
    assert not (folder / "refused" / "export").exists()
    out_of("export", "refused", "--refused")
    text = front(folder / "refused" / "export" / "trl-prompt-completion")[1]
    assert "> **Refused: the gate did not release the rows of dataset/0000; they were exported on request.**" in text
    assert "| subgroups | its limit |" in text and "| **no** |" in text


def test_an_export_replaces_an_earlier_one_and_nothing_else(run: Path, tmp_path: Path) -> None:
    for _ in range(2):
        out_of("export", str(run), "-o", str(tmp_path / "set"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert "no export of Outcross" in call("export", str(run), "-o", str(tmp_path / "mine"))[2]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert "two splits" in call("export", str(run), "--held-out", "0.1", "-o", str(tmp_path / "rows.jsonl"))[2]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_recipe_that_trains_still_needs_its_whole_bench(tmp_path: Path) -> None:
    out_of("init", str(tmp_path), "--template", "toy")
    whole = yaml.safe_load((tmp_path / "run.yaml").read_text())
    for key in ("held_out", "real", "probes"):
        bench = {name: value for name, value in whole["bench"].items() if name != key}
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({**whole, "bench": bench}))
        assert f"bench.{key} is missing" in call("validate", str(tmp_path / "run.yaml"))[2]
        (tmp_path / "run.yaml").write_text(yaml.safe_dump({**whole, "bench": bench, "data_only": 1}))
        assert load(tmp_path / "run.yaml").config["bench"]["tasks"]["use"] == "arithmetic"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**whole, "bench": {**whole["bench"], "held_out": "none"}}))
    assert "bench.held_out is missing" in call("validate", str(tmp_path / "run.yaml"))[2]
