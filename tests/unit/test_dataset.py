"""Recipe dataset: what a data-only run releases, what it refuses, and that nothing of the guards of runs that train is lost."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toys import Judge, Says, outcomes, phase, play, record

import outcross
from outcross.curate.dedup import Dedup
from outcross.engine.guards import check_plan
from outcross.engine.store import RunDir
from outcross.errors import GuardError
from outcross.evaluate.rows.diversity import RowDiversity
from outcross.evaluate.rows.passing import Rechecked
from outcross.gate.rows.no_worse import NoWorse
from outcross.gate.rows.observe import Observe
from outcross.generate.draw import Draw
from outcross.models.scripted import Scripted
from outcross.recipe import Bench, Phase, Recipe
from outcross.recipes.dataset import dataset
from outcross.report.read import read_run, summary
from outcross.text import prompt_text
from outcross.types import Example, Origin, Request, Response, Task
from outcross.verify.arithmetic import Number

N = 150
VOCABULARY = [f"word{i}" for i in range(500)]
BENCHMARK = Task("b0", "Which of the seven bridges did the lame ferryman cross on the night before the great flood came?", "the third")
TASKS = tuple(Task(f"t{i}", f"Write about {i}.", str(i), "even" if i % 2 == 0 else "odd") for i in range(N))
GOOD, DULL = Draw(n=1), Draw(n=1, system="be dull")


def prose(seed: object, words: int = 24) -> str:
    return " ".join(random.Random(f"prose {seed}").choices(VOCABULARY, k=words))


REAL = tuple(Example(f"r{i}", f"Write on {i}.", prose(("real", i)), origin=Origin("real", "attested", "made up")) for i in range(200))


def answer(request: Request) -> str | Response:
    """Varied prose that ends with the task's number. Told to be dull: one of five texts. Every tenth answer is wrong."""
    asked = prompt_text(request.prompt)
    number = int(asked.rsplit(" ", 1)[1].rstrip("."))
    seed = number % 5 if "dull" in asked else (number, request.seed)
    text = BENCHMARK.prompt if "leak" in asked and number % 3 == 0 else prose(seed)
    return f"{text} {number if number % 10 else 'nothing'}"


MODELS = {"policy": Scripted(answer, name="author")}


def bench(**more: Any) -> Bench:
    return Bench(**{"tasks": TASKS, "held_out": (), "real": REAL, "probes": (), "gate": Says(), **more})


def recipe(*generators: Draw, of: Bench | None = None, **more: Any) -> Recipe:
    """A phase per generator, each as the recipe makes it."""
    fields = {"verify": (Number(),), **more}
    made = [dataset(of or bench(), generate=generator, **fields) for generator in generators or (GOOD,)]
    phases = tuple(replace(item.phases[0], name=f"part{index}") for index, item in enumerate(made))
    return replace(made[0], phases=phases)


def said(run: RunDir) -> list[str]:
    return [turn.decision.reason for turn in run.rounds() if turn.decision is not None]


# ── released and refused ───────────────────────────────────────────────────────────────────────────────────────────────
def test_rows_as_varied_as_real_ones_are_released(tmp_path: Path) -> None:
    run = play(recipe(), tmp_path, MODELS)
    (turn,) = run.rounds()
    assert outcomes(run) == ["released"] and (tmp_path / "release").readlink() == Path("part0/0000")
    rows = [sample for group in turn.rows() for sample in group.samples]
    assert len(rows) == turn.record["release"]["rows"] == N - N // 10
    assert all(sample.verdict == "pass" for sample in rows)
    held = {(check.probe, check.against) for check in turn.decision.checks}  # type: ignore[union-attr]
    assert {("answer_distinct", "real"), ("answer_dissimilarity", "real"), ("answer_length", "real")} <= held
    assert {("finished", "limit"), ("subgroups", "limit")} <= held
    assert summary(run).verdict == "Released 1 of 1 round, 135 rows, and no model was trained."
    assert not list(tmp_path.glob("**/model*")) and not (tmp_path / "champion").exists()


def test_a_planted_lack_of_variety_is_refused_and_stays_on_the_record(tmp_path: Path) -> None:
    run = play(recipe(DULL, curate=()), tmp_path, MODELS)
    assert outcomes(run) == ["refused"] and not (tmp_path / "release").exists()
    (reason,) = said(run)
    assert reason.startswith("refused: answer_distinct") and "of real data is off by" in reason
    assert run.rounds()[0].record["release"]["rows"] > 100 and summary(run).verdict.startswith("Released none of 1 round")


def test_near_duplicates_are_set_aside_before_the_gate_counts(tmp_path: Path) -> None:
    run = play(recipe(DULL), tmp_path, MODELS)
    assert run.rounds()[0].record["release"]["rows"] == 5
    assert "rests on too few tasks (5 tasks, and at least 100 are asked for in each set)" in said(run)[0]


def test_a_bad_round_is_not_hidden_by_a_good_release_before_it(tmp_path: Path) -> None:
    """Without real data only the release before stands against it, and the pointer stays where it was."""
    run = play(recipe(GOOD, DULL, GOOD, of=bench(real=None), curate=(Dedup(),)), tmp_path, MODELS)
    assert outcomes(run) == ["released", "refused", "released"]
    assert "of earlier releases is off by" in said(run)[1]
    assert (tmp_path / "release").readlink() == Path("part2/0000")
    kept = [sorted(path.name for path in (turn.folder / "state" / "dedup").iterdir()) for turn in run.rounds()]
    assert kept[2] == ["part0-0000.u64", "part2-0000.u64"], "what was refused does not count as said before"
    last = run.rounds()[2].record["release"]["probes"]["answer_distinct"]
    assert last["release"] is not None and last["real"] is None
    assert sum(turn.decision.alpha_spent for turn in run.rounds() if turn.decision) <= 0.05 + 1e-12


def test_rows_of_an_earlier_run_count_as_released_before(tmp_path: Path) -> None:
    earlier = tuple(Example(f"e{i}", f"Write on {i}.", prose(("earlier", i))) for i in range(200))
    run = play(recipe(DULL, of=bench(real=None), against=earlier), tmp_path, MODELS)
    assert outcomes(run) == ["refused"] and "of earlier releases" in said(run)[0]
    assert outcomes(play(recipe(of=bench(real=None), against=earlier), tmp_path / "good", MODELS)) == ["released"]


def test_a_subgroup_that_is_lost_refuses(tmp_path: Path) -> None:
    even = tuple(replace_answer(task) if task.subgroup == "odd" else task for task in TASKS)
    run = play(recipe(of=bench(tasks=even)), tmp_path, MODELS)
    assert outcomes(run) == ["refused"] and "subgroups 0, below the limit of 0.5 (odd)" in said(run)[0]


def replace_answer(task: Task) -> Task:
    return Task(task.id, task.prompt, "999", task.subgroup)


def test_what_stands_in_a_benchmark_is_set_aside_and_counted(tmp_path: Path) -> None:
    run = play(recipe(Draw(n=1, system="leak"), of=bench(held_out=(BENCHMARK,))), tmp_path, MODELS)
    (turn,) = run.rounds()
    texts = [sample.text for group in turn.rows() for sample in group.samples]
    assert texts and not any("bridges" in text for text in texts)
    dropped = {count["name"]: count["dropped"] for count in turn.record["counts"] if count["stage"] == "curate"}
    assert dropped["decontaminate"] == N // 3 and "decontaminate_overlap" in dropped
    assert not any("not decontaminated" in line for line in run.manifest["headings"])


def test_too_few_rows_are_refused_and_observe_releases_them_ungated(tmp_path: Path) -> None:
    few = bench(tasks=TASKS[:20])
    run = play(recipe(of=few), tmp_path / "gated", MODELS)
    assert outcomes(run) == ["refused"] and "at least 100 are asked for in each set" in said(run)[0]
    watched = play(recipe(of=few, gate=Observe()), tmp_path / "watched", MODELS)
    assert outcomes(watched) == ["released"] and "ungated: phase part0 releases rows without a test" in summary(watched).headings
    assert "the gate would have refused" in said(watched)[0]
    assert outcomes(play(recipe(of=bench(tasks=TASKS[:1]), gate=Observe()), tmp_path / "one", MODELS)) == ["no rows"]


def test_a_round_without_rows_is_recorded_as_such(tmp_path: Path) -> None:
    run = play(recipe(of=bench(tasks=tuple(map(replace_answer, TASKS)))), tmp_path, MODELS)
    assert outcomes(run) == ["no rows"] and run.rounds()[0].decision is None
    assert not (tmp_path / "release").exists()


def test_a_stopped_run_goes_on_to_the_same_record(tmp_path: Path) -> None:
    made = recipe(GOOD, DULL, GOOD, of=bench(real=None))
    play(made, tmp_path / "whole", MODELS)
    play(made, tmp_path / "cut", MODELS)
    (tmp_path / "cut" / "part2" / "0000" / "round.json").unlink()
    (tmp_path / "cut" / "part1" / "0000" / "round.json").unlink()
    (tmp_path / "cut" / "part1" / "0000" / "measurements.release.parquet").unlink()
    play(made, tmp_path / "cut", MODELS)
    whole, cut = record(tmp_path / "whole"), record(tmp_path / "cut")
    assert whole.keys() == cut.keys() and [name for name in whole if whole[name] != cut[name]] == []


def test_tombstoned_rows_are_no_rows(tmp_path: Path) -> None:
    run = play(recipe(), tmp_path, MODELS)
    first = next(sample.id for group in run.rounds()[0].rows() for sample in group.samples)
    run.bury([first], {"why": "a test"})
    assert first not in [sample.id for group in run.rounds()[0].rows(run.tombstones()) for sample in group.samples]


# ── headings and guards ────────────────────────────────────────────────────────────────────────────────────────────────
def test_what_was_not_checked_heads_the_record(tmp_path: Path) -> None:
    run = play(recipe(of=bench(real=None), verify=()), tmp_path, MODELS)
    assert summary(run).headings == (
        "no real anchor: the bench holds no real data",
        "unverified: no verifier checked the rows of phase part0",
        "not decontaminated: the bench names no held-out items and no benchmarks that the rows must not hold",
    )
    assert outcomes(run) == ["released"] and run.rounds()[0].record["release"]["rows"] == N
    assert check_plan(recipe(verify=(Judge(),)), MODELS)[0] == "checked by opinion alone: the rows of phase part0 rest on judge (judged)"
    assert not any("opinion" in line for line in check_plan(recipe(verify=(Judge(), Number())), MODELS))


def refused(made: Recipe) -> str:
    with pytest.raises(GuardError) as error:
        check_plan(made, MODELS)
    return str(error.value)


def test_a_plan_of_a_release_that_guards_too_little_is_refused() -> None:
    told = refused(recipe(probes=(RowDiversity(), RowDiversity())))
    assert "2 probes of its rows are called 'answer_distinct'" in told and "lacks a probe of quality and of fit" in told
    assert "asks the role 'judge'" in refused(recipe(probes=(Rechecked(Judge(("judge",))),)))
    both = replace(phase(), release=recipe().phases[0].release)
    assert "such a phase generates and teaches nothing" in refused(Recipe("both", "", bench(), (both,)))
    assert "none of start, logs, tombstones, champion, release" in refused(replace_name(recipe(), "release"))


def replace_name(made: Recipe, name: str) -> Recipe:
    return replace(made, phases=(replace(made.phases[0], name=name),))


def test_a_recipe_that_trains_is_held_to_its_bench_as_before() -> None:
    trains = Recipe("trains", "", bench(gate=Says(alpha=0.05)), (phase(),))
    assert "lacks a probe of quality and of diversity and of fit" in refused(trains)


def test_only_the_loop_moves_the_release() -> None:
    source = Path(outcross.__file__).parent
    movers = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if ".point_release(" in path.read_text()}
    assert movers == {"engine/loop.py"}


def test_both_kinds_of_phases_in_one_recipe_keep_their_own_alpha(tmp_path: Path) -> None:
    """A released round is no promotion: history, champion and the model's gate do not see it."""
    made = recipe(GOOD, gate=NoWorse(alpha=0.04))
    only_data = Phase("plain", GOOD, verify=(Number(),))
    run = play(replace(made, phases=(*made.phases, only_data)), tmp_path, MODELS)
    assert outcomes(run) == ["released", "data only"]
    assert [turn.decision.alpha_spent if turn.decision else 0 for turn in run.rounds()] == [0.04, 0]
    assert [turn.promoted for turn in run.rounds()] == [False, False] and [turn.accepted for turn in run.rounds()] == [True, True]


# ── the report ─────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_show_and_report_tell_of_a_release(tmp_path: Path) -> None:
    from outcross.report.html import write_report

    run = play(recipe(GOOD, DULL), tmp_path, MODELS)
    reading = read_run(run)
    assert (reading.summary.tally.released, reading.summary.tally.releases, reading.summary.taught) == (1, 2, ())
    assert reading.summary.verdict.startswith("Released 1 of 2 rounds (1 refused), 135 rows")
    write_report([run], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "earlier releases" in page and "answer distinct" in page and "rows released" in page
