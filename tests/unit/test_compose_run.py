"""Composed prompts through the command line: checked, asked of a real server, and on the record with what they were made of."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from stub_server import Stub
from typer.testing import CliRunner, Result

from outcross.cli.main import app
from outcross.config.runfile import load, of_run
from outcross.engine.store import RunDir
from outcross.recipe import fingerprint
from outcross.tasks.compose import Compose
from outcross.types import Message, Task

EXAMPLE = Path(__file__).parents[2] / "examples" / "grounded_questions"


def outcross(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "questions"))


def test_the_example_asks_three_different_questions_a_section_and_keeps_what_they_were_made_of(folder: Path) -> None:
    with Stub() as stub:
        words = [folder / "run.yaml", "--models.policy.url", stub.url, "--out", folder / "run"]
        done = outcross("generate", *words)
        assert done.exit_code == 0, done.output
        asked = [body["messages"] for body in stub.bodies if "messages" in body and "section" not in str(body)]
    tasks = load(folder / "run.yaml").build_bench().tasks
    assert isinstance(tasks, Compose)
    coverage = tasks.coverage()
    assert coverage.tasks == coverage.prompts == 15
    wanted = [[{"role": turn.role, "content": turn.content} for turn in task.prompt] for task in tasks if isinstance(task.prompt, tuple)]
    assert [found for found in wanted if found in asked] == wanted, "system and user message are what the server was sent"
    (table,) = (folder / "run").rglob("dataset/*/groups.parquet")
    recorded = [json.loads(row["task"]) for row in pq.read_table(table).to_pylist()]
    columns = [dict(row["columns"]) for row in recorded]
    assert {"path", "chunk_id", "headings", "kind", "detail", "reader.name", "reader.role", "sentences", "polite"} <= columns[0].keys()
    assert {row["subgroup"] for row in recorded} <= {"fact", "calculation", "what to do"}
    assert all(row["origin"]["parents"] == [dict(row["columns"])["chunk_id"]] for row in recorded)


def test_a_run_reads_its_own_record_as_the_same_task_set(folder: Path) -> None:
    with Stub() as stub:
        done = outcross("generate", folder / "run.yaml", "--models.policy.url", stub.url, "--out", folder / "run")
        assert done.exit_code == 0, done.output
    before = load(folder / "run.yaml").build_bench().tasks
    again = of_run(RunDir(folder / "run")).build_bench().tasks
    assert fingerprint(again) == fingerprint(before) and list(again) == list(before)


def test_an_undefined_name_stops_validate_before_anything_is_asked(folder: Path) -> None:
    with Stub() as stub:
        words = ["--models.policy.url", stub.url, "--bench.tasks.prompt", "'{{ chunck }} for {{ reader.name }}'"]
        done = outcross("generate", folder / "run.yaml", *words, "--out", folder / "run")
        assert not stub.asked
    assert done.exit_code == 2
    said = re.sub(r"\s+", " ", done.output)
    assert "compose: prompt uses 'chunck', which is no attribute and no column of the rows; did you mean 'chunk'?" in said


def test_validate_prints_what_the_questions_cover(folder: Path) -> None:
    done = outcross("validate", folder / "run.yaml", "--bench.tasks.n", 120, "--bench.tasks.per_row", 1)
    assert done.exit_code == 0, done.output
    said = re.sub(r"\s+", " ", done.output)
    assert "120 tasks, " in said and "polite: 2 of 2 values, false 50.0 %, true 50.0 %; at most 0.0 points off the plan" in said


def test_a_hostile_row_is_asked_as_it_is(tmp_path: Path) -> None:
    hostile = "{{ ''.__class__ }}{% for %}"
    (tmp_path / "seeds.csv").write_text(f'topic,level\n"{hostile}",1\nsums,2\n')
    whole = {
        "recipe": {"use": "dataset", "generate": {"use": "draw", "n": 1}, "gate": "observe"},
        "bench": {"tasks": {"use": "compose", "rows": "seeds.csv", "prompt": "Level {{ level }}: {{ topic }}"}, "real": "none"},
        "models": {"policy": {"use": "http", "model": "stub"}},
    }
    with Stub() as stub:
        whole["models"]["policy"]["url"] = stub.url
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(whole))
        done = outcross("generate", tmp_path / "run.yaml", "--out", tmp_path / "run")
        assert done.exit_code == 0, done.output
        assert {f"Level 1: {hostile}", "Level 2: sums"} <= set(stub.asked)


def test_draw_puts_its_own_system_message_and_template_round_a_composed_conversation(tmp_path: Path) -> None:
    from helpers import context

    from outcross.generate.draw import Draw
    from outcross.models.tabular import Tabular

    made = Compose("Write about {{ x }}.", {}, rows=(Task("s", "p", columns=(("x", "sums"),)),), system="Be short.")
    (group,) = Draw(n=1, template="{prompt} Now.", learn_template=True)(context(tmp_path, {"policy": Tabular(["a"])}), made)
    assert group.samples[0].turns[0].prompt == (Message("system", "Be short."), Message("user", "Write about sums. Now."))
