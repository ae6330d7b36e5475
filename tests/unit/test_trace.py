"""Lineage both ways: what a row became, and what a model or an optimiser step was made of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from records import FOUR, Builder, real_row

from outcross.engine.store import RunDir
from outcross.engine.tables import rows_of
from outcross.errors import ConfigError, StoreError
from outcross.report.trace import trace
from outcross.report.trace_text import lines


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return Builder(tmp_path_factory.mktemp("traced") / "run").write()


def rows(run: RunDir, table: str, label: str = "train/0000") -> list[dict[str, object]]:
    return list(rows_of(run.root / label / f"{table}.parquet"))


def models(run: RunDir) -> list[str]:
    return [item.record["fits"]["policy"]["model"] for item in run.rounds() if item.record["fits"]]


def test_a_learnt_sample_is_followed_to_every_model_that_saw_it(run: RunDir) -> None:
    example = rows(run, "examples")[0]
    (sample_id,) = example["outcross"]["parents"]  # type: ignore[index]
    found = trace(run, str(sample_id)[:10])
    assert (found.kind, found.id) == ("sample", sample_id)
    sample = found.samples[0]
    assert sample.task.startswith("add-") and sample.model == run.manifest["models"]["policy"]["id"]
    assert sample.scores[0].verifier == "exact" and sample.scores[0].version == "3" and sample.verdict == "pass"
    assert [item.id for item in found.examples] == [example["id"]]
    # promoted in round 0, so its examples are new there and history in both later mixtures
    assert [(use.round, use.source) for use in found.uses] == [("train/0000", "new"), ("train/0001", "history"), ("train/0003", "history")]
    for use in found.uses:
        steps = [row["step"] for row in rows(run, "order", use.round) if row["id"] == example["id"]]
        assert (use.seen, use.first, use.last) == (len(steps), min(steps), max(steps))  # type: ignore[type-var]
    assert [model.id for model in found.models] == models(run)
    assert [model.outcome for model in found.models] == ["promoted", "refused", "promoted"]
    assert [model.holds for model in found.models] == [False, False, True]


def test_a_dropped_sample_and_one_that_was_not_learnt_end_where_they_ended(run: RunDir) -> None:
    dropped = trace(run, str(rows(run, "drops")[0]["id"]))
    assert dropped.samples[0].dropped == "dedup: duplicate" and not dropped.examples and not dropped.models
    failed = trace(run, str(next(row["id"] for row in rows(run, "groups") if row["error"])))
    assert failed.samples[0].error == "timed out after 30 s" and not failed.examples
    assert "no example was made from it" in "\n".join(lines(failed))


def test_an_example_leads_back_to_its_sample(run: RunDir) -> None:
    row = rows(run, "examples", "train/0003")[0]
    found = trace(run, str(row["id"]))
    assert found.kind == "example" and [sample.id for sample in found.samples] == row["outcross"]["parents"]  # type: ignore[index]
    assert [model.id for model in found.models] == models(run)[-1:] and not found.later


def test_a_real_row_is_found_by_its_id_in_the_mixtures(run: RunDir) -> None:
    found = trace(run, real_row(4)[:8])
    assert (found.kind, found.id) == ("real row", real_row(4))
    assert [(use.round, use.source, use.repeats, use.seen) for use in found.uses] == [
        (label, "real", 2, 2) for label in ("train/0000", "train/0001", "train/0003")
    ]


def test_a_task_shows_all_its_samples_capped_with_the_total(run: RunDir) -> None:
    task = str(rows(run, "groups")[0]["task_id"])
    expected = [row["id"] for table in ("groups", "drops") for row in rows(run, table) if row["task_id"] == task]
    found = trace(run, task)
    assert found.kind == "task" and sorted(sample.id for sample in found.samples) == sorted(map(str, expected))
    capped = trace(run, task, most=2)
    assert len(capped.samples) == 2 and capped.samples_total == len(expected)
    assert f"… {len(expected) - 2} more samples" in "\n".join(lines(capped))


def test_a_model_shows_what_it_was_made_of_and_what_was_built_on_it(run: RunDir) -> None:
    first, refused, last = models(run)
    found = trace(run, first[:12])
    contents = found.contents
    assert contents is not None and contents.round == "train/0000"
    new = len(rows(run, "examples"))
    assert dict(contents.sources) == {"new": (new, new), "real": (60, 120)}
    assert contents.total == new + 60 and len(contents.examples) == 20
    assert {part.proof for part in contents.parts if part.is_real} == {"proved", "attested"}
    assert dict(contents.said) == {label: len(rows(run, "groups", label)) for label in ("train/0001", "train/0002", "train/0003")}
    assert [model.id for model in found.later] == [refused, last]
    assert [model.round for model in found.earlier] == ["start"]
    start = trace(run, run.manifest["models"]["policy"]["id"])
    assert [model.id for model in start.later] == [first, refused, last] and start.contents is not None and start.contents.total == 0


def test_a_step_holds_the_examples_that_met_the_optimiser_in_it(run: RunDir) -> None:
    expected = [row["id"] for row in rows(run, "order", "train/0003") if row["step"] == 2]
    found = trace(run, "step:train/0003:2", most=100)
    assert found.contents is not None and found.contents.total == len(expected)
    assert [example.id for example in found.contents.examples] == list(dict.fromkeys(expected))
    assert sum(count for count, _ in found.contents.sources.values()) == len(set(expected))
    assert [model.id for model in found.models] == models(run)[-1:]
    back = next(example for example in found.contents.examples if example.source == "synthetic")
    assert any(use.round == "train/0003" and use.first <= 2 <= use.last for use in trace(run, back.id).uses)  # type: ignore[operator]


def test_names_that_fit_nothing_too_much_or_too_little_say_what_to_do(run: RunDir) -> None:
    with pytest.raises(ConfigError, match=r"'add-' has 4 characters.*first 6"):
        trace(run, "add-")
    with pytest.raises(ConfigError, match=r"'add-00' fits 6 ids: task add-00000, .* and 1 more; give more characters"):
        trace(run, "add-00")
    with pytest.raises(StoreError, match=r"nothing in .* starts with 'ffffffffffff'"):
        trace(run, "ffffffffffff")
    with pytest.raises(ConfigError, match="step:PHASE/ROUND:NUMBER"):
        trace(run, "step:17")
    with pytest.raises(StoreError, match=r"no complete round 'train/0009'; complete rounds: train/0000, train/0001"):
        trace(run, "step:train/0009:1")
    with pytest.raises(StoreError, match=r"train/0000 has no step 999 of policy; its steps are 0 to \d+"):
        trace(run, "step:train/0000:999")
    with pytest.raises(StoreError, match="train/0002 has no step 0 of policy; it taught policy nothing"):
        trace(run, "step:train/0002:0")


def test_a_whole_id_wins_over_longer_ones_that_begin_with_it(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run", FOUR[:1], tasks=1).write()
    table = run.root / "train/0000"
    task = str(rows_of(table / "groups.parquet").__next__()["task_id"])
    assert trace(run, task).id == task
    with pytest.raises(ConfigError, match="characters"):
        trace(run, task[:3])


def test_tombstones_are_shown(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run", FOUR[:1]).write()
    example = next(iter(rows_of(run.root / "train/0000/examples.parquet")))
    run.bury([example["id"], *example["outcross"]["parents"]], {"recall": "exact"})
    found = trace(run, example["id"])
    assert found.examples[0].tombstoned and found.samples[0].tombstoned
    assert "\n".join(lines(found)).count("TOMBSTONED") == 2


def test_text_for_the_terminal_holds_no_control_characters_and_the_chain(run: RunDir) -> None:
    hostile = next(row for row in rows(run, "groups") if "script" in str(row["completion"]))
    text = "\n".join(lines(trace(run, str(hostile["id"]))))
    assert "\x1b" not in text and "\x00" not in text and "\u202e" not in text and max(map(len, text.splitlines())) < 200
    example = rows(run, "examples")[0]
    chain = "\n".join(lines(trace(run, str(example["id"]))))
    for piece in ("judged   pass 1 by exact@3", "offered as new ×1, seen 1 time, steps", "the champion now", "said by"):
        assert piece in chain
    model = "\n".join(lines(trace(run, models(run)[0])))
    assert "later models built on it" in model and "said" in model and "real (proved) release-1" in model


def test_inner_turns_and_further_roles_have_tables_of_their_own(tmp_path: Path) -> None:
    run = Builder(tmp_path / "run", FOUR[:1]).write()
    folder = run.root / "train/0000"
    inner = folder / "inner_1"
    inner.mkdir()
    for name in ("groups", "drops", "examples", "mixture", "order"):
        (folder / f"{name}.parquet").rename(inner / f"{name}.parquet")
    for name in ("mixture", "order"):
        shutil.copy(inner / f"{name}.parquet", inner / f"{name}.judge.parquet")
    example = next(iter(rows_of(inner / "examples.parquet")))
    found = trace(run, example["id"])
    assert [(use.role, use.source, bool(use.model)) for use in found.uses] == [("judge", "new", False), ("policy", "new", True)]
    expected = [row["id"] for row in rows_of(inner / "order.parquet") if row["step"] == 1]
    for name in ("step:train/0000/inner_1:1", "step:train/0000/1:1", "step:train/0000/1:judge:1"):
        contents = trace(run, name).contents
        assert contents is not None and contents.total == len(expected)
    assert trace(run, "step:train/0000/1:judge:1").contents.role == "judge"  # type: ignore[union-attr]
