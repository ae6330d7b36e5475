"""The same from Python: run a recipe or a run file, open the record, read its tables."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

import outcross
from outcross.engine.watch import Silent
from outcross.errors import ConfigError, DataError, MissingExtra, StoreError
from outcross.evaluate.pass_rate import PassRate
from outcross.gate.open import Open
from outcross.generate.draw import Draw
from outcross.models.tabular import Tabular
from outcross.models.taught import taught
from outcross.recipe import Bench, Mixture, Waived
from outcross.recipes.expert_iteration import expert_iteration
from outcross.tasks.answers import Answers
from outcross.tasks.arithmetic import Arithmetic, ArithmeticReal
from outcross.types import Sampling
from outcross.verify.exact import Exact
from outcross.verify.function import Function

SHORT = Sampling(max_tokens=4)


def bench(n: int = 40) -> Bench:
    held_out = Arithmetic(1, n=10, split="held_out")
    probes = (PassRate(held_out, Draw(1, SHORT), Exact()),)
    return Bench(Arithmetic(1, n=n), held_out, ArithmeticReal(1, n=10), probes, Open())


def recipe(**more: Any) -> outcross.Recipe:
    plan = outcross.FitPlan(lr=0.5, epochs=2, batch=8, schedule="constant")
    return expert_iteration(bench(), verify=(Exact(),), rounds=2, plan=plan, mix=Mixture(floor=Waived("a test")), **more)


def model() -> Tabular:
    return Tabular([str(number) for number in range(19)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> outcross.Run:
    return outcross.run(recipe(), {"policy": model()}, tmp_path_factory.mktemp("run") / "first", seed=3)


def test_a_run_has_its_verdict_rounds_and_champion(finished: outcross.Run) -> None:
    assert "2 of 2 rounds" in finished.summary.verdict
    assert [row.label for row in finished.rounds] == ["expert_iteration/0000", "expert_iteration/0001"]
    assert finished.champion is not None and (finished.champion / "tabular.json").exists()
    assert finished.summary.seed == 3
    assert "floor of real data waived in phase expert_iteration: a test" in finished.summary.headings


def test_running_again_returns_the_finished_run(finished: outcross.Run) -> None:
    told: list[str] = []

    class Tells(Silent):
        def decided(self, round: str, outcome: str, decision: outcross.Decision | None, /) -> None:
            told.append(round)

    again = outcross.run(recipe(), {"policy": model()}, finished.folder, seed=3, watch=Tells())
    assert again == finished and told == []
    with pytest.raises(ConfigError, match="holds another run"):
        outcross.run(recipe(n=2), {"policy": model()}, finished.folder, seed=3)


def test_open_reads_a_run_and_refuses_another_folder(finished: outcross.Run, tmp_path: Path) -> None:
    assert outcross.open(str(finished.folder)) == finished
    with pytest.raises(StoreError, match="is not the folder of a run"):
        outcross.open(tmp_path)


def test_a_run_needs_models_and_a_folder() -> None:
    with pytest.raises(ConfigError, match="needs `models` by role"):
        outcross.run(recipe(), out="somewhere")
    with pytest.raises(ConfigError, match="brings its own models"):
        outcross.run("run.yaml", {"policy": model()})


# ── tables ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["groups", "drops", "examples", "mixture", "order", "measurements"])
def test_tables_come_for_one_round_or_all(finished: outcross.Run, name: str) -> None:
    every = finished.table(name, engine="arrow")
    parts = [finished.table(name, round=number, engine="arrow") for number in range(2)]
    assert len(every) == sum(map(len, parts)) > 0
    assert every.column_names[0] == "round"
    assert set(every["round"].to_pylist()) <= {"expert_iteration/0000", "expert_iteration/0001"}
    assert finished.table(name, round="expert_iteration/0001", engine="arrow").equals(parts[1])


def test_tables_for_polars_and_pandas_hold_the_same(finished: outcross.Run) -> None:
    frame = finished.table("groups", round=0)
    assert type(frame).__module__.startswith("polars")
    other = finished.table("groups", round=0, engine="pandas")
    assert frame["id"].to_list() == other["id"].tolist()
    kept = sum(row.kept for row in finished.rounds[:1])
    assert frame.height == kept


def test_a_table_or_round_that_is_not_there(finished: outcross.Run) -> None:
    with pytest.raises(ConfigError, match="there is no table 'group'; did you mean 'groups'"):
        finished.table("group")
    with pytest.raises(ConfigError, match="no complete round 7; there are: expert_iteration/0000, expert_iteration/0001"):
        finished.table("groups", round=7)
    with pytest.raises(ConfigError, match=r"has no table 'examples\.judge'"):
        finished.table("examples.judge")
    with pytest.raises(ConfigError, match="engine 'spark' is unknown"):
        finished.table("groups", engine="spark")  # type: ignore[arg-type]


def test_an_engine_that_is_not_installed(finished: outcross.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_polars(name: str, *more: Any, **named: Any) -> Any:
        if name == "polars":
            raise ImportError("No module named 'polars'", name="polars")
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", without_polars)
    with pytest.raises(MissingExtra, match=r"pip install 'outcross\[tables\]'"):
        finished.table("groups")


# ── lineage, report, notebooks ─────────────────────────────────────────────────────────────────────────────────────────
def test_trace_follows_an_example_to_its_models(finished: outcross.Run) -> None:
    name = finished.table("examples", round=0, engine="arrow")["id"][0].as_py()
    found = finished.trace(name)
    assert found.kind == "example" and len(found.models) == 2


def test_report_is_written_where_asked(finished: outcross.Run, tmp_path: Path) -> None:
    assert finished.report(tmp_path / "r.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert finished.report() == finished.folder / "report.html"


def test_a_notebook_shows_verdict_headings_and_rounds(finished: outcross.Run) -> None:
    text, page = repr(finished), finished._repr_html_()
    for told in ("2 of 2 rounds", "waived", "expert_iteration/0001"):
        assert told in text and told in page
    assert page.count("<tr>") == 3
    assert "<script" not in page


def test_a_notebook_page_escapes_what_it_shows(tmp_path: Path) -> None:
    folder = tmp_path / "a<b>"
    shown = outcross.run(recipe(), {"policy": model()}, folder)._repr_html_()
    assert "a&lt;b&gt;" in shown and "a<b>" not in shown


# ── run files and functions ────────────────────────────────────────────────────────────────────────────────────────────
def test_a_run_file_runs_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers = [str(number) for number in range(19)]
    (tmp_path / "run.yaml").write_text(
        f"""
recipe: {{use: expert_iteration, rounds: 1, plan: {{epochs: 1}}, mix: {{floor: {{waived: a test}}}}}}
bench:
  tasks: {{use: arithmetic, digits: 1, n: 40}}
  held_out: {{use: arithmetic, digits: 1, n: 10, split: held_out}}
  real: none
  verify: exact
  probes: [{{use: pass_rate, generator: {{use: draw, n: 1}}}}]
  gate: open
models: {{policy: {{use: tabular, answers: {answers}}}}}
"""
    )
    made = outcross.run("run.yaml", seed=4, keep_models="champion", budget=outcross.Budget(tokens=10_000))
    assert made.folder == Path("runs/run")
    assert made.summary.seed == 4
    manifest = made._dir.manifest
    assert manifest["keep_models"] == "champion"
    assert manifest["config"]["budget"] == {"tokens": 10_000, "requests": None, "seconds": None, "money": None}
    assert outcross.run(tmp_path / "run.yaml", out="runs/run", seed=4, keep_models="champion") == made


def even(prompts: list[str], completions: list[str], **columns: Any) -> list[float | None]:
    return [float(int(text) % 2 == 0) for text in completions]


def test_a_plain_function_is_a_verifier(tmp_path: Path) -> None:
    made = expert_iteration(bench(), verify=(Function(even),), rounds=1, mix=Mixture(floor=Waived("a test")))
    found = outcross.run(made, {"policy": model()}, tmp_path / "run").table("examples", engine="arrow")
    assert len(found) and all(int(text) % 2 == 0 for text in found["completion"].to_pylist())


def test_a_run_started_from_python_is_resumed_from_python(finished: outcross.Run) -> None:
    from outcross.config.runfile import of_run

    with pytest.raises(ConfigError, match="was started from Python and holds no run file"):
        of_run(finished._dir)


# ── what run files start from ──────────────────────────────────────────────────────────────────────────────────────────
def test_answers_are_the_tasks_as_examples_with_their_origin() -> None:
    tasks = list(Arithmetic(1, n=5, split="held_out"))
    rows = list(Answers(tasks))
    assert [(row.prompt, row.completion, row.origin, row.subgroup) for row in rows] == [
        (task.prompt, task.answer, task.origin, task.subgroup) for task in tasks
    ]
    assert len({row.id for row in rows}) == 5
    with pytest.raises(DataError, match="task 'open' has no reference answer"):
        list(Answers([outcross.Task("open", "why?")]))


def test_a_taught_model_has_learnt_the_examples_and_its_source_has_not() -> None:
    examples = ArithmeticReal(1, n=10)
    turns = [outcross.Turn(row.prompt, outcross.Completion(row.completion)) for row in examples]
    plan = outcross.FitPlan(lr=1.0, epochs=20, batch=4, schedule="constant")
    first, after = model(), taught(model(), examples, plan=plan, seed=1)
    assert isinstance(after, Tabular)
    assert sum(found[0] for found in after.log_probs(turns)) > sum(found[0] for found in first.log_probs(turns)) / 4
    assert after.id == taught(model(), examples, plan=plan, seed=1).id  # made again alike, so that a run can be resumed
