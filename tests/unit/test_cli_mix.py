"""`mix`: stored mixtures are made again exactly, other settings are tried on the same rows, and every batch is what the trainer saw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_cli import SMALL, call, out_of
from tiny_lm import tiny
from toys import FREE, LEARN, MIX, PROBES, REAL, TASKS, model, phase, play, recipe

from outcross.cli.mix import mixture_of
from outcross.engine import mixing
from outcross.engine.store import RunDir
from outcross.engine.what_if import Stored, batch, composition, stored
from outcross.errors import ConfigError, StoreError
from outcross.generate.draw import Draw
from outcross.recipe import Cap, Curriculum, Decay, Factors, Learn, Mixture, Threshold, Tilt, Waived
from outcross.stages import FitPlan
from outcross.train.encode import encode
from outcross.train.objectives import Imitate
from outcross.train.trainer import OutcrossTrainer
from outcross.types import Example, Origin, Sampling

PRINTED = ("--recipe.mix.real_floor", "0.6")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    assert call("init", str(folder))[0] == 0
    code, _, err = call("run", str(folder / "run.yaml"), *SMALL, *PRINTED, "--out", str(folder / "run"), "-q")
    assert code == 0, err
    return folder / "run"


# ── a stored mixture is made again ─────────────────────────────────────────────────────────────────────────────────────
def made_again(run: RunDir) -> list[Stored]:
    """Check every mixture of a run against its tables and its markers."""
    found = list(stored(run))
    for item in found:
        offered, dealt = item.deal(mixture_of(item))
        item.check(dealt)
        made, marker = composition(offered, dealt), item.marker
        assert [made.records, made.tokens, *made.real] == pytest.approx(
            [marker["records"], marker["tokens"], marker["real_share"]["records"], marker["real_share"]["tokens"]], rel=1e-12
        )
        assert (made.waiting, made.left_out) == (marker["waiting"], marker["left_out"])
        assert made.used + made.waiting + made.left_out == made.offered
        assert sum(share.seen for share in made.shares if share.by == "origin") == marker["new"] + marker["history"] + marker["real"]
    return found


MIXTURES = {
    "plain": MIX,
    "tight": replace(MIX, real_epochs=1),
    "budget": replace(MIX, budget=40, synthetic_epochs=3),
    "subsample": replace(MIX, history="subsample"),
    "replace": replace(MIX, history="replace"),
    "anchor": replace(MIX, floor="anchor"),
    "waived": FREE,
    "weights": replace(MIX, weights=(Decay(0.5), Tilt(2.0), Threshold(0.0), Factors("source", {"toy": 2.0}))),
    "caps": replace(MIX, caps=(Cap("task", rows=1), Cap("depth", share=0.2))),
    "order": replace(MIX, order=Curriculum("difficulty")),
    "everything": replace(FREE, weights=(Decay(0.7),), caps=(Cap("source", rows=9),), order=Curriculum("length", "high"), budget=60),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_what_a_run_mixed_is_made_again_from_its_record_alone(name: str, tmp_path: Path) -> None:
    run = play(recipe(phase(mix=MIXTURES[name])), tmp_path / "run", unsafe=True)
    before = contents(tmp_path / "run")
    assert [item.label for item in made_again(run)] == ["train/0000", "train/0001"]
    assert contents(tmp_path / "run") == before


def test_inner_turns_tombstones_and_rows_of_unknown_origin_are_made_again(tmp_path: Path) -> None:
    unknown = tuple(replace_origin(row) if place % 2 else row for place, row in enumerate(REAL))
    plan = recipe(phase(rounds=1, inner=2), phase("later", rounds=1), real=unknown)
    run = play(plan, tmp_path / "first")
    lost = [row["id"] for row in pq.read_table(run.rounds()[0].parts()[0] / "examples.parquet").to_pylist()[:2]]
    assert [item.label for item in made_again(run)] == ["train/0000/0", "train/0000/1", "later/0000"]
    run.bury(lost, {"recall": "exact"})  # after the run: the mixtures on the record did not know of it
    made_again(RunDir(run.root))


def replace_origin(row: Example) -> Example:
    return Example(row.id, row.prompt, row.completion, origin=Origin("unknown", "none", "somewhere"))


def test_tables_that_were_changed_after_the_run_are_noticed(tmp_path: Path) -> None:
    run = play(recipe(phase(rounds=1)), tmp_path / "run")
    path = run.rounds()[0].folder / "mixture.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(3, "repeats", pa.array([2, *table["repeats"].to_pylist()[1:]], pa.int32())), path)
    (item,) = stored(run)
    with pytest.raises(StoreError, match="another mixture than its rows"):
        item.check(item.deal(MIX)[1])
    (item.folder / "real.parquet").unlink()
    (item.folder / "steps" / "mix.json").write_text('{"real": 5}')
    (older,) = stored(run)
    with pytest.raises(StoreError, match="was run by an earlier version"):
        mixture_of(older)
    with pytest.raises(StoreError, match=r"has no real.parquet"):
        older.deal(MIX)


# ── the command ────────────────────────────────────────────────────────────────────────────────────────────────────────
def replayed(run: Path, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out_of("mix", str(run), *words, "--json"))
    return found


def test_without_changes_it_tells_what_was_and_writes_nothing(ran: Path) -> None:
    before = contents(ran)
    found = replayed(ran)["rounds"]
    recorded = [item.record["mixtures"]["policy"] for item in RunDir(ran).rounds()]
    assert contents(ran) == before
    assert [turn["now"] for turn in found] == [None] * len(recorded)
    assert [turn["was"]["records"] for turn in found] == [old["records"] for old in recorded]
    printed = out_of("mix", str(ran))
    assert "by origin" in printed and "by depth" in printed and "by subgroup" in printed and "would be" not in printed


def test_other_settings_are_tried_on_the_same_rows(ran: Path) -> None:
    (first, last) = replayed(ran, "--real_floor", "0.2")["rounds"]
    for turn in (first, last):
        assert turn["was"]["real"][0] >= 0.6 and 0.2 <= turn["now"]["real"][0] < 0.6
        assert turn["was"]["offered"] == turn["now"]["offered"] and turn["now"]["tokens"] < turn["was"]["tokens"]
    forgetful = replayed(ran, "--history", "replace", "--round", "1")["rounds"]
    assert len(forgetful) == 1 and forgetful[0]["now"]["offered"] < forgetful[0]["was"]["offered"]
    depths = [share["value"] for share in forgetful[0]["now"]["shares"] if share["by"] == "depth"]
    assert depths == ["0", "2"] and [s["value"] for s in last["was"]["shares"] if s["by"] == "depth"] == ["0", "1", "2"]
    printed = out_of("mix", str(ran), "--budget", "40", "--caps", "[{by: task, rows: 1}]")
    assert "would be" in printed and "was" in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--real_flor", "0.2"], "did you mean 'real_floor'?"),
        (["--history", "replce"], "one of accumulate, subsample, replace"),
        (["--real_floor", "2"], "real_floor is 2.0; it is a share between 0 and 1"),
        (["--weights", "[{decay: 3}]"], "decay is 3"),
        (["--weights", "[{dcay: 0.5}]"], "did you mean 'decay'?"),
        (["--phase", "tain"], "no phase 'tain'"),
        (["--role", "judge"], "taught no role 'judge'"),
        (["--round", "7"], "there are: expert_iteration/0000, expert_iteration/0001"),
        (["--batch", "100000"], "has no batch 100000; its batches are 0 to"),
        (["--batch", "0", "--budget", "5"], "leave out --budget"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(ran: Path, words: list[str], told: str) -> None:
    code, _, err = call("mix", str(ran), *words)
    assert code in (2, 5) and told in err


def test_a_floor_that_cannot_be_kept_is_a_broken_guarantee(ran: Path) -> None:
    code, _, err = call("mix", str(ran), "--real_epochs", "0")
    assert code == 3 and "floor is 0.6 real data" in err


# ── batches ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_batch_is_shown_with_its_real_rows(ran: Path) -> None:
    rows = json.loads(out_of("mix", str(ran), "--round", "1", "--batch", "2", "--json"))["rows"]
    order = pq.read_table(RunDir(ran).rounds()[1].folder / "order.parquet").to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in order if row["step"] == 2]
    assert {row["source"] for row in rows} >= {"real"} and all(row["example"]["completion"] for row in rows)
    assert "batch 2" in out_of("mix", str(ran), "--round", "1", "--batch", "2")


def language_model_run(folder: Path, mixture: Mixture, monkeypatch: pytest.MonkeyPatch) -> tuple[RunDir, list[Any], Any]:
    """Two rounds of a real tiny language model; the tokens and weights of every optimiser step as its trainer had them."""
    steps: list[Any] = []
    was = OutcrossTrainer.training_step

    def noted(self: Any, *args: Any) -> Any:
        steps.append([(self.rows.ids[row], list(self.rows.text(row).ids), self.rows.weights[row]) for row in args[1]])
        return was(self, *args)

    monkeypatch.setattr(OutcrossTrainer, "training_step", noted)
    learner = tiny()
    learn = Learn(Imitate(require_verified=False), FitPlan(lr=1e-3, epochs=1.5, batch=8))
    made = phase(generate=Draw(n=1, sampling=Sampling(max_tokens=4)), verify=(), curate=(), learn={"policy": learn}, mix=mixture)
    return play(recipe(made, tasks=TASKS[:12], probes=(PROBES[2],)), folder, {"policy": learner}), steps, learner


@pytest.mark.parametrize(
    "mixture",
    [MIX, replace(MIX, weights=(Decay(0.5), Factors("origin", {"real": 3})), order=Curriculum("length"))],
    ids=["plain", "weighted"],
)
def test_every_batch_that_the_trainer_saw_is_reconstructed(mixture: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, steps, learner = language_model_run(tmp_path / "run", mixture, monkeypatch)
    again = []
    for item in made_again(run):
        for step in range(item.turn.record["fits"]["policy"]["steps"]):
            rows = batch(item, step, REAL)
            examples = [row.example for row in rows]
            assert all(examples) and [row.weight for row in rows] == [example.weight for example in examples if example]
            coded = encode([example for example in examples if example], learner._tokens, 64)
            again.append([(row.id, list(coded.text(place).ids), row.weight) for place, row in enumerate(rows)])
    assert again == steps and len(steps) > 5
    assert {weight for step in steps for _, _, weight in step} == ({1.0} if mixture is MIX else {3.0, 0.5, 0.25})
    if mixture.order is not None:
        first = pq.read_table(run.rounds()[0].folder / "order.parquet").to_pylist()
        lengths = [len(tokens) for step in steps for name, tokens, _ in step if not name.startswith("real-")][:12]  # the first epoch
        assert lengths == sorted(lengths) and lengths[0] < lengths[-1] and len(first) == sum(map(len, steps[: first[-1]["step"] + 1]))


# ── a curriculum in training ───────────────────────────────────────────────────────────────────────────────────────────
def test_the_toy_model_follows_the_order_and_starts_every_epoch_anew(tmp_path: Path) -> None:
    learn = Learn(LEARN.objective, FitPlan(lr=0.5, epochs=2, batch=16))
    run = play(
        recipe(phase(rounds=1, learn={"policy": learn}, mix=replace(MIX, order=Curriculum("difficulty")))),
        tmp_path / "run",
        {"policy": model()},
    )
    ids = pq.read_table(run.rounds()[0].folder / "order.parquet")["id"].to_pylist()
    assert ids[: len(ids) // 2] == ids[len(ids) // 2 :]
    shuffled = play(recipe(phase(rounds=1, learn={"policy": learn})), tmp_path / "other", {"policy": model()})
    mixed = pq.read_table(shuffled.rounds()[0].folder / "order.parquet")["id"].to_pylist()
    assert mixed[: len(mixed) // 2] != mixed[len(mixed) // 2 :] and sorted(mixed) == sorted(ids)
    tasks = {row["id"]: row for row in pq.read_table(run.rounds()[0].folder / "groups.parquet").to_pylist()}
    samples = {
        row["id"]: tasks[row["outcross"]["parents"][0]]["task_id"]
        for row in pq.read_table(run.rounds()[0].folder / "examples.parquet").to_pylist()
    }
    failed = failures(run)
    met = [failed[samples[name]] for name in ids[: len(ids) // 2] if name in samples]
    assert met == sorted(met) and met[0] < met[-1]


def test_a_curriculum_that_is_read_in_pieces_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixture = replace(MIX, order=Curriculum("length"))
    orders = []
    for rows in (mixing.CHUNK, 7):
        monkeypatch.setattr(mixing, "CHUNK", rows)
        run = play(recipe(phase(mix=mixture)), tmp_path / str(rows))
        orders.append([(item.folder / "order.parquet").read_bytes() for item in stored(run)])
    assert orders[0] == orders[1]


def failures(run: RunDir) -> dict[str, float]:
    """By task: the share of its answers that failed, over kept and dropped ones."""
    said: dict[str, list[bool]] = {}
    for name in ("groups", "drops"):
        for row in pq.read_table(run.rounds()[0].folder / f"{name}.parquet").to_pylist():
            said.setdefault(row["task_id"], []).append(row["verdict"] == "fail")
    return {task: sum(found) / len(found) for task, found in said.items()}


def test_weights_caps_and_orders_are_settings(ran: Path) -> None:
    item = next(stored(RunDir(ran)))
    weights = [{"by": "depth", "factors": {1: 0.5}}, {"temperature": 2}]
    found = mixture_of(item, {"weights": weights, "order": {"by": "score"}, "floor": {"waived": "a study"}})
    assert found.weights == (Factors("depth", {"1": 0.5}), Tilt(2.0)) and found.order == Curriculum("score") and found.real_floor == 0.6
    assert found.floor == Waived("a study")
    with pytest.raises(ConfigError, match="by is 'author'"):
        mixture_of(item, {"caps": [{"by": "author", "rows": 1}]})


def test_a_run_file_states_them(tmp_path: Path) -> None:
    assert call("init", str(tmp_path))[0] == 0
    words = ["--mix.weights", "[{decay: 0.5}]", "--mix.caps", "[{by: task, rows: 1}]", "--mix.order", "{by: length}"]
    code, _, err = call("run", str(tmp_path / "run.yaml"), *SMALL, *words, "--out", str(tmp_path / "run"), "-q")
    assert code == 0, err
    item = made_again(RunDir(tmp_path / "run"))[-1]
    assert mixture_of(item).weights == (Decay(0.5),) and mixture_of(item).caps == (Cap("task", rows=1),)
