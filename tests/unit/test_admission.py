"""Experts before admission: rows wait until a signed sample of their batch passes, in training and in data-only runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toys import REAL, TASKS, bench, outcomes, phase, play, recipe, record
from typer.testing import CliRunner

from outcross.cli.main import app
from outcross.engine.admission import Batch
from outcross.engine.past import Recorded
from outcross.engine.store import RunDir, read_json, write_json
from outcross.engine.tables import rows_of
from outcross.errors import ConfigError, GuardError, ReviewNeeded
from outcross.evaluate.rows.passing import PassShare
from outcross.gate.rows.observe import Observe
from outcross.recipe import Expert, Recipe
from outcross.recipes.dataset import dataset
from outcross.report.card_parts import people
from outcross.report.read import read_run
from outcross.types import Review
from outcross.verify.exact import Exact

LIMIT = Expert(limit=0.2)
ONE = recipe(phase(admit=LIMIT))
Judge = Callable[[dict[str, Any]], str]


def right(row: dict[str, Any]) -> str:
    return "pass"


def waits(made: Recipe, root: Path) -> str:
    with pytest.raises(ReviewNeeded) as caught:
        play(made, root)
    return str(caught.value)


def fill(root: Path, stem: str = "", judge: Judge = right, reviewer: str = "Ada") -> None:
    """Write a verdict into every row of the files that begin with `stem` and are not filled in."""
    for path in sorted((root / "reviews").glob(f"{stem}*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text(
            "".join(json.dumps(row if row["verdict"] else {**row, "reviewer": reviewer, "verdict": judge(row)}) + "\n" for row in rows)
        )


def batch(root: Path, number: int = 0, name: str = "train") -> Batch:
    return Batch(RunDir(root), RunDir(root).round(name, number), 3)


def admitted(root: Path, number: int = 0, judge: Judge = right) -> None:
    """Fill in what was drawn, and sign."""
    fill(root, f"train-{number:04d}", judge)
    batch(root, number).sign("Ada", LIMIT)


# ── the way of a batch ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_nothing_is_learnt_before_an_expert_signed_and_then_all_of_it_is(tmp_path: Path) -> None:
    told = waits(ONE, tmp_path)
    assert "train/0000 waits for an expert" in told and "train-0000.0.jsonl" in told and "--sign NAME" in told
    assert not list(tmp_path.glob("train/0000/mixture*")) and not list(tmp_path.glob("train/0000/model*"))
    with pytest.raises(ConfigError, match=r"not decided: 0 of \d+ samples are judged in order"):
        batch(tmp_path).sign("Ada", LIMIT)
    fill(tmp_path)
    assert "nobody has signed it" in waits(ONE, tmp_path)
    batch(tmp_path).sign("Ada", LIMIT)
    assert "train/0001 waits" in waits(ONE, tmp_path)
    first = RunDir(tmp_path).rounds()[0]
    assert first.promoted and first.record["mixtures"]["policy"]["new"] > 0
    entry = first.record["admission"]
    assert (entry["decision"], entry["reviewer"], entry["errors"]) == ("accept", "Ada", 0) and entry["high"] <= 0.2
    assert len(entry["verdicts"]) == entry["seen"] < entry["size"] == len(list(rows_of(first.folder / "examples.parquet")))
    admitted(tmp_path, 1)
    assert outcomes(play(ONE, tmp_path)) == ["promoted", "promoted"]


def test_the_record_is_that_of_a_run_without_experts_but_for_their_part(tmp_path: Path) -> None:
    plain = play(recipe(phase(rounds=1)), tmp_path / "plain")
    made = recipe(phase(rounds=1, admit=LIMIT))
    waits(made, tmp_path / "asked")
    admitted(tmp_path / "asked")
    asked = play(made, tmp_path / "asked")
    assert plain.champion() is not None and asked.champion() is not None
    for name in ("groups", "examples", "mixture", "order", "measurements"):
        assert (plain.root / f"train/0000/{name}.parquet").read_bytes() == (asked.root / f"train/0000/{name}.parquet").read_bytes()
    again = tmp_path / "again"
    waits(made, again)
    admitted(again)
    assert {k: v for k, v in record(play(made, again).root).items() if "manifest" not in k} == {
        k: v for k, v in record(asked.root).items() if "manifest" not in k
    }


def test_a_rejected_batch_stays_on_the_record_and_enters_no_later_mixture(tmp_path: Path) -> None:
    waits(ONE, tmp_path)
    admitted(tmp_path, 0, lambda row: "fail")
    waits(ONE, tmp_path)
    admitted(tmp_path, 1)
    run = play(ONE, tmp_path)
    assert outcomes(run) == ["nothing learnt", "promoted"]
    entry = run.rounds()[0].record["admission"]
    assert entry["decision"] == "reject" and "Ada signed" in entry["reason"] and "the limit is 20.0%" in entry["reason"]
    mixed = run.rounds()[1].record["mixtures"]["policy"]
    assert mixed["history"] == 0 and {part["round"] for part in mixed["parts"] if part["kind"] == "synthetic"} == {"train/0001"}
    assert list(rows_of(run.rounds()[0].folder / "examples.parquet"))  # nothing is deleted


def test_what_people_failed_is_a_tombstone_even_in_a_batch_that_they_admit(tmp_path: Path) -> None:
    made = recipe(phase(rounds=1, admit=Expert(limit=0.5)))
    waits(made, tmp_path)
    doomed = batch(tmp_path).order[0]
    fill(tmp_path, judge=lambda row: "fail" if row["sample_id"] == doomed else "pass")
    found = batch(tmp_path)
    while found.look(found.verdicts(), Expert(limit=0.5)).decision == "go on":
        found.draw(5)
        fill(tmp_path)
    found.sign("Ada", Expert(limit=0.5))
    run = play(made, tmp_path)
    assert run.tombstones() == {doomed} and outcomes(run) == ["promoted"]
    parents = {row["id"]: row["outcross"]["parents"] for row in rows_of(run.root / "train/0000/examples.parquet")}
    assert all(doomed not in parents.get(row["id"], ()) for row in rows_of(run.root / "train/0000/mixture.parquet"))


def test_without_waiting_the_run_goes_on_and_a_batch_that_is_accepted_later_enters_the_next_mixture(tmp_path: Path) -> None:
    made = recipe(phase(rounds=3, admit=replace(LIMIT, wait=False)))
    stopped = recipe(phase(rounds=3, admit=replace(LIMIT, wait=False)))
    first_round = RunDir(tmp_path)
    with pytest.MonkeyPatch.context() as patch:  # the process ends when the first round is complete
        patch.setattr("outcross.engine.loop._Loop._settle", _ends_after(1))
        with pytest.raises(KeyboardInterrupt):
            play(stopped, tmp_path)
    assert outcomes(first_round) == ["nothing learnt"]
    assert first_round.rounds()[0].record["admission"]["decision"] == "go on"
    admitted(tmp_path, 0)
    run = play(made, tmp_path)
    assert outcomes(run) == ["nothing learnt", "promoted", "nothing learnt"]  # each batch waits; the first one came in late
    mixed = run.rounds()[1].record["mixtures"]["policy"]
    assert mixed["new"] == 0 and mixed["history"] > 0
    assert {part["round"] for part in mixed["parts"] if part["kind"] == "synthetic"} == {"train/0000"}
    late = read_json(run.rounds()[1].folder / "admitted.json")
    assert late["train/0000"]["decision"] == "accept" and late["train/0000"]["reviewer"] == "Ada"


def _ends_after(rounds: int) -> Callable[[Any], None]:
    def settle(loop: Any) -> None:
        if len(loop.done) >= rounds:
            raise KeyboardInterrupt

    return settle


def test_a_data_set_is_not_released_before_it_was_admitted(tmp_path: Path) -> None:
    made = dataset(bench(), verify=(Exact(),), curate=(), probes=(PassShare(),), gate=Observe(), admit=LIMIT)
    assert "dataset/0000 waits for an expert" in waits(made, tmp_path)
    assert not (tmp_path / "release").is_symlink()
    fill(tmp_path, judge=lambda row: "fail")
    batch(tmp_path, name="dataset").sign("Ada", LIMIT)
    run = play(made, tmp_path)
    assert outcomes(run) == ["refused"]
    decision = run.rounds()[0].decision
    assert decision is not None and decision.reason.startswith("not admitted: Ada signed: ")

    other = tmp_path / "other"
    waits(made, other)
    fill(other)
    batch(other, name="dataset").sign("Ada", LIMIT)
    assert outcomes(play(made, other)) == ["released"] and (other / "release").is_symlink()
    told = "\n".join(people(read_run(RunDir(other)).rounds))
    assert "## Admitted by people" in told and "| dataset/0000 | accept | Ada signed: 0 of" in told


# ── drawing ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_samples_are_drawn_in_the_seeds_order_and_never_twice(tmp_path: Path) -> None:
    waits(ONE, tmp_path)
    found = batch(tmp_path)
    drawn = [json.loads(line)["sample_id"] for line in (tmp_path / "reviews/train-0000.0.jsonl").read_text().splitlines()]
    assert drawn == list(found.order[: len(drawn)]) and sorted(found.order) != list(found.order)
    path, count = found.draw(3)
    more = [json.loads(line)["sample_id"] for line in path.read_text().splitlines()]
    assert count == 3 and more == list(found.order[len(drawn) : len(drawn) + 3])
    assert found.draw(10_000)[1] == len(found.order) - len(drawn) - 3
    with pytest.raises(ConfigError, match=r"all \d+ samples of train/0000 were drawn"):
        found.draw(1)
    assert replace(found, seed=4).order != found.order


def test_a_row_to_fill_in_holds_what_a_person_needs(tmp_path: Path) -> None:
    waits(ONE, tmp_path)
    row = json.loads((tmp_path / "reviews/train-0000.0.jsonl").read_text().splitlines()[0])
    assert row["prompt"].endswith("=") and row["answer"] == row["reference"] and row["verdicts"] == {"exact": "pass"}
    assert (row["reviewer"], row["verdict"], row["reason"]) == ("", "", "")


def test_strata_are_drawn_in_turn_and_count_only_where_the_order_has_no_gap(tmp_path: Path) -> None:
    halves = tuple(replace_task(task, "most" if number % 3 else "third") for number, task in enumerate(TASKS))
    waits(recipe(phase(admit=LIMIT), tasks=halves), tmp_path)
    found = batch(tmp_path)
    (tmp_path / "reviews/train-0000.0.jsonl").unlink()
    path, _ = found.draw(6, "subgroup")
    drawn = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["subgroup"] for row in drawn].count("third") == 3
    fill(tmp_path)
    gapless = next(place for place, sample in enumerate(found.order) if sample not in {row["sample_id"] for row in drawn})
    assert list(found.verdicts()) == list(found.order[:gapless])


def replace_task(task: Any, subgroup: str) -> Any:
    return msgspec.structs.replace(task, subgroup=subgroup)


def test_a_sample_that_is_skipped_stops_the_count_and_one_that_nobody_vouches_for_is_an_error(tmp_path: Path) -> None:
    waits(ONE, tmp_path)
    order = batch(tmp_path).order
    fill(tmp_path, judge=lambda row: "" if row["sample_id"] == order[4] else "abstain" if row["sample_id"] == order[1] else "pass")
    verdicts = batch(tmp_path).verdicts()
    assert list(verdicts) == list(order[:4])
    assert batch(tmp_path).look(verdicts, LIMIT).errors == 1


# ── signatures ─────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("how", ["verdict", "reviewer", "signature"])
def test_what_was_changed_after_signing_is_refused(how: str, tmp_path: Path) -> None:
    waits(ONE, tmp_path)
    admitted(tmp_path)
    signed = tmp_path / "reviews/train-0000.signed.json"
    if how == "verdict":
        path = tmp_path / "reviews/train-0000.0.jsonl"
        path.write_text(path.read_text().replace('"verdict": "pass"', '"verdict": "fail"', 1))
    else:
        write_json(signed, {**read_json(signed), how: "somebody else"})
    with pytest.raises(GuardError, match=r"does not fit the reviews of train/0000.*sign anew"):
        play(ONE, tmp_path)
    assert RunDir(tmp_path).rounds() == []


# ── late reviews ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_late_reviews_apply_at_the_start_of_the_next_round_and_are_copied_into_its_record(tmp_path: Path) -> None:
    made = recipe(phase(rounds=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("outcross.engine.loop._Loop._settle", _ends_after(1))
        with pytest.raises(KeyboardInterrupt):
            play(made, tmp_path)
    found = batch(tmp_path)
    found.draw(2)
    fill(tmp_path, judge=lambda row: "fail" if row["sample_id"] == found.order[0] else "pass")
    run = play(made, tmp_path)
    assert run.tombstones() == {found.order[0]}
    assert not (run.root / "train/0000/reviews.json").exists()
    assert read_json(run.root / "train/0001/reviews.json") == [
        {"sample_id": sample, "reviewer": "Ada", "verdict": verdict}
        for sample, verdict in zip(found.order[:2], ("fail", "pass"), strict=True)
    ]
    learnt = {row["id"]: row["outcross"]["parents"] for row in rows_of(run.root / "train/0000/examples.parquet")}
    seen = {parent for row in rows_of(run.root / "train/0001/mixture.parquet") for parent in learnt.get(row["id"], ())}
    assert found.order[1] in seen and found.order[0] not in seen


def test_stages_are_told_the_reviews_that_the_round_began_with(tmp_path: Path) -> None:
    folder = tmp_path / "train/0001"
    (folder / "inner_0").mkdir(parents=True)
    write_json(folder / "reviews.json", [Review("a", "Ada", "fail", "no")])
    for place in (folder, folder / "inner_0"):
        assert Recorded(RunDir(tmp_path), (), REAL, place).reviews() == [Review("a", "Ada", "fail", "no")]


# ── plans ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"admit": Expert(limit=0.0)}, "limit=0.0"),
        ({"admit": Expert(alpha=1.0)}, "alpha=1.0"),
        ({"admit": "expert", "inner": 2}, "turns 2 times a round and its rows wait for people"),
    ],
)
def test_a_plan_in_which_nobody_could_admit_anything_is_refused(more: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(GuardError, match=told):
        play(recipe(phase(**more)), tmp_path)


def test_expert_alone_stands_for_its_defaults() -> None:
    assert phase(admit="expert").expert == Expert() == Expert(0.05, 0.05, True)
    assert phase().expert is None


# ── as a user meets it ─────────────────────────────────────────────────────────────────────────────────────────────────
RUN = """
recipe: {use: expert_iteration, n: 4, rounds: 1, max_tokens: 4, plan: {lr: 1.0, epochs: 2, batch: 32}, mix: {real_floor: 0.5}, admit: {limit: 0.2}}
bench:
  tasks: {use: arithmetic, digits: 2, n: 200, split: train}
  held_out: {use: arithmetic, digits: 2, n: 40, split: held_out}
  real: {use: arithmetic_real, digits: 2, n: 100}
  verify: {use: exact}
  probes: [{use: pass_rate, generator: {use: draw, n: 1}}]
  gate: open
models:
  policy: {use: taught, model: {use: tabular, memory: 0}, examples: {use: arithmetic_real, digits: 2, n: 200}, plan: {lr: 1.0, epochs: 9, batch: 32}}
"""


def call(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_from_the_stop_over_the_review_to_the_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(RUN)
    code, _, err = call("run", "run.yaml", "--out", "out", "-q")
    assert code == ReviewNeeded.exit_code == 8
    assert (
        "Fill in `verdict` (pass or fail) and `reviewer` in out/reviews/expert_iteration-0000.0.jsonl" in err
        and "outcross resume out" in err
    )
    code, out, _ = call("review", "out")
    assert code == 0 and "0 of" in out and "the limit is 20.0%" in out and "not enough: go on looking" in out
    code, _, err = call("review", "out", "--sign", "Ada")
    assert code == 2 and "is not decided" in err
    for words, told in (
        (("--by", "colour"), "--by is 'colour'"),
        (("--all",), "add --draw N"),
        (("--round", "train/0009"), "no round 'train/0009'"),
    ):
        code, _, err = call("review", "out", *words)
        assert code == 2 and told in err
    fill(Path("out"))
    code, out, _ = call("review", "out", "--sign", "Ada")
    assert code == 0 and "enough: accept the batch" in out and "Ada signed: the batch is accepted" in out
    code, out, err = call("review", "out", "--draw", "5", "--all")
    assert code == 0 and "out/reviews/expert_iteration-0000.all.0.jsonl: 5 samples" in out and "verifier-check" in err
    assert call("resume", "out", "-q")[0] == 0
    assert outcomes(RunDir(Path("out"))) == ["promoted"]


def test_a_database_of_reviews_counts_like_a_file(tmp_path: Path) -> None:
    waits(ONE, tmp_path)
    order = batch(tmp_path).order
    with sqlite3.connect(tmp_path / "reviews/web.db") as base:
        base.execute("CREATE TABLE reviews (sample_id, reviewer, verdict, reason)")
        base.executemany("INSERT INTO reviews VALUES (?, 'Ada', 'pass', '')", [(sample,) for sample in order])
    base.close()
    assert batch(tmp_path).sign("Ada", LIMIT).decision == "accept"
    assert "train/0001 waits" in waits(ONE, tmp_path)
